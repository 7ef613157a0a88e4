"""Softmax over the rows of a matrix."""

import torch
from torch import nn


class Model(nn.Module):
    """Normalise every row to a distribution."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, columns]; return the same shape, every row summing to 1."""
        return torch.softmax(x, dim=1)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(128, 1000)]


def get_init_inputs() -> list[object]:
    return []
