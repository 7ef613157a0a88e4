"""Weighted sums of rows of a table, gathered by index: the sparse half of a recommender."""

import torch
from torch import nn

BAGS, ENTRIES = 16384, 32
ROWS, WIDTH = 100000, 128
# Small: BAGS, ENTRIES = 22, 32
# Small: ROWS, WIDTH = 50, 128


class Model(nn.Module):
    """A table, of which every bag adds up some rows."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, width))

    def forward(self, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Take indices and weights of [bags, entries]; return [bags, width]."""
        return (self.table[indices] * weights.unsqueeze(-1)).sum(dim=1)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randint(0, ROWS, (BAGS, ENTRIES)), torch.rand(BAGS, ENTRIES)]


def get_init_inputs() -> list[object]:
    return [ROWS, WIDTH]
