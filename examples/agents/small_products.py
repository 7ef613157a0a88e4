"""Very many products of very small matrices, with a residual and ReLU."""

import torch
from torch import nn

BATCH, SIDE = 65536, 16
# Small: BATCH, SIDE = 22, 16


class Model(nn.Module):
    """Blocks of a block-diagonal layer."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Take a and b of [batch, side, side]; return relu(a @ b + a), matrix by matrix."""
        return torch.relu(torch.bmm(a, b) + a)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, SIDE, SIDE), torch.randn(BATCH, SIDE, SIDE)]


def get_init_inputs() -> list[object]:
    return []
