"""A convolution with bias, then ReLU."""

import torch
from torch import nn


class Model(nn.Module):
    """A convolution with bias, then ReLU."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, channels, height, width]; return [batch, filters, height, width]."""
        return torch.relu(self.conv(x))


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(2, 8, 30, 30)]


def get_init_inputs() -> list[object]:
    return [8, 16]
