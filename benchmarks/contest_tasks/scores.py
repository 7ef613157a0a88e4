"""Queries against keys: two layers, their products, a softmax over keys."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, width)
        self.key = nn.Linear(features, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return weights of [rows, rows]."""
        return torch.softmax(self.query(x) @ self.key(x).T, dim=-1)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(80, 96)]


def get_init_inputs() -> list[object]:
    return [96, 64]
