"""The same behind a layer norm, with a way round it."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.up = nn.Linear(features, hidden)
        self.down = nn.Linear(hidden, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return the same shape."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(48, 128)]


def get_init_inputs() -> list[object]:
    return [128, 192]
