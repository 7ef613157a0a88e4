"""GELU, elementwise: the simplest thing worth fusing."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    """Apply GELU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of any shape; return x times the normal distribution function of x."""
        return F.gelu(x)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(256, 1024)]


def get_init_inputs() -> list[object]:
    return []
