"""Layer normalisation over the last dimension."""

import torch
from torch import nn


class Model(nn.Module):
    """Layer normalisation over the last dimension."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, positions, features]; return the same shape."""
        return self.norm(x)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(4, 32, 768)]


def get_init_inputs() -> list[object]:
    return [768]
