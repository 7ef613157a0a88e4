"""Two layers side by side, one of which opens the other, a third behind them, and a layer norm."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features, hidden, bias=False)
        self.up = nn.Linear(features, hidden, bias=False)
        self.down = nn.Linear(hidden, features, bias=False)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return the same shape."""
        return self.norm(x + self.down(F.silu(self.gate(x)) * self.up(x)))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(64, 96)]


def get_init_inputs() -> list[object]:
    return [96, 160]
