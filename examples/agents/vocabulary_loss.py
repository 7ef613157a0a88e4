"""Cross entropy over a large vocabulary, with a penalty on the logarithm of its denominator (z-loss)."""

import torch
import torch.nn.functional as F
from torch import nn

ROWS, VOCABULARY = 4096, 32000
# Small: ROWS, VOCABULARY = 24, 1000

PENALTY = 1e-4


class Model(nn.Module):
    """What a language model is trained on."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Take logits of [rows, vocabulary] and the right entry of every row; return one number."""
        denominators = torch.logsumexp(logits, dim=1)
        return F.cross_entropy(logits, targets) + PENALTY * (denominators * denominators).mean()


def get_inputs() -> list[torch.Tensor]:
    return [torch.randn(ROWS, VOCABULARY), torch.randint(0, VOCABULARY, (ROWS,))]


def get_init_inputs() -> list[object]:
    return []
