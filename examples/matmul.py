"""A matrix product of two inputs, with extents that no tile divides."""

import torch
from torch import nn


class Model(nn.Module):
    """A matrix product of two inputs, with extents that no tile divides."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Take a of [M, K] and b of [K, N]; return their product of [M, N]."""
        return torch.matmul(a, b)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(120, 136), torch.randn(136, 150)]


def get_init_inputs() -> list[object]:
    return []
