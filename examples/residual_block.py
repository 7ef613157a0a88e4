"""A residual block: convolution, group norm, SiLU, convolution, skip connection, global average, linear head."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    """A residual block."""

    def __init__(self, channels: int, groups: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, channels, height, width]; return class scores of [batch, classes]."""
        inner = F.silu(self.norm1(self.conv1(x)))
        joined = F.silu(x + self.norm2(self.conv2(inner)))
        return self.head(joined.mean(dim=(2, 3)))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(2, 16, 15, 15)]


def get_init_inputs() -> list[object]:
    return [16, 4, 10]
