"""Mean cross-entropy of logits against class numbers."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    """Mean cross-entropy of logits against class numbers."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Take logits of [rows, classes] and int64 target of [rows]; return the mean loss, a scalar."""
        return F.cross_entropy(logits, target)


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(128, 1000), torch.randint(0, 1000, (128,))]


def get_init_inputs() -> list[object]:
    return []
