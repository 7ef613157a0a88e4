"""Two layers with GELU between, and a softmax over classes."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.up = nn.Linear(features, hidden)
        self.down = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return probabilities of [rows, classes]."""
        return torch.softmax(self.down(F.gelu(self.up(x))), dim=-1)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(64, 96)]


def get_init_inputs() -> list[object]:
    return [96, 128, 48]
