"""Root-mean-square normalisation with a learned gain, as in most language models."""

import torch
from torch import nn


class Model(nn.Module):
    """Root-mean-square normalisation with a learned gain, as in most language models."""

    def __init__(self, features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [rows, features]; return it with every row scaled to unit mean square, times the gain."""
        scale = torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return x * scale * self.weight


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(128, 768)]


def get_init_inputs() -> list[object]:
    return [768]
