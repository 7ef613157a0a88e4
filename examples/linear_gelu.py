"""The MLP block of a transformer: linear, GELU, linear."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    """The MLP block of a transformer."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(features, hidden)
        self.down = nn.Linear(hidden, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return the same shape."""
        return self.down(F.gelu(self.up(x)))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(64, 96)]


def get_init_inputs() -> list[object]:
    return [96, 192]
