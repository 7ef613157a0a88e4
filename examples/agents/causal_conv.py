"""The short convolution of a state space model: depthwise, causal, then SiLU."""

import torch
import torch.nn.functional as F
from torch import nn

BATCH, CHANNELS, STEPS = 4, 2048, 4096
# Small: BATCH, CHANNELS, STEPS = 2, 6, 520

TAPS = 4


class Model(nn.Module):
    """Every channel has a filter of its own, which sees a step and the three before it."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, taps, padding=taps - 1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, channels, steps]; return the same shape."""
        return F.silu(self.conv(x)[..., : x.shape[-1]])


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(BATCH, CHANNELS, STEPS)]


def get_init_inputs() -> list[object]:
    return [CHANNELS, TAPS]
