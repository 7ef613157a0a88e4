"""Max-pooling with overlapping windows and padding."""

import torch
from torch import nn


class Model(nn.Module):
    """Max-pooling with overlapping windows and padding."""

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, channels, height, width]; return it at half the height and width."""
        return self.pool(x)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(4, 16, 56, 56)]


def get_init_inputs() -> list[object]:
    return [3, 2, 1]
