"""The queries of an attention: RMS norm of every head, then rotary position embedding."""

import torch
from torch import nn

BATCH, STEPS, HEADS, WIDTH = 4, 2048, 16, 128
# Small: BATCH, STEPS, HEADS, WIDTH = 2, 7, 16, 128


class Model(nn.Module):
    """Normalise each head, and turn pairs of its elements by an angle that depends on the step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Take x of [batch, steps, heads, width], cos and sin of [steps, width]; return the shape of x."""
        y = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) * self.gain
        low, high = y.chunk(2, dim=-1)
        turned = torch.cat((-high, low), dim=-1)
        return y * cos[:, None, :] + turned * sin[:, None, :]


def get_inputs() -> list[torch.Tensor]:
    angles = torch.rand(STEPS, WIDTH) * 6.28
    return [torch.randn(BATCH, STEPS, HEADS, WIDTH), angles.cos(), angles.sin()]


def get_init_inputs() -> list[object]:
    return [WIDTH]
