"""What is put into one kernel: siblings that share what they read, or are next to nothing, and what a recipe forbids."""

from __future__ import annotations

import torch
from torch import nn

from tests.author.conftest import Checker
from warpsmith.author.builtin import Recipe


class Norms(nn.Module):
    """Three batch norms in training mode: each counts its calls in a buffer of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm in self.norms:
            x = torch.relu(norm(x))
        return x


class Siblings(nn.Module):
    """Two outputs that read the same, one that reads something else, and one of another shape."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.exp(), x.sigmoid() * 2, y.tanh(), x[:16].sin()


def _launches(checker: Checker, module: nn.Module, *inputs: torch.Tensor, recipe: Recipe | None = None) -> list[str]:
    task = checker.task(module, *inputs)
    compiled = checker.compile(task, recipe)
    assert checker.largest_error(task, compiled, sanitize=True) < 2e-6
    return [launch.kernel for launch in compiled.program.plan.launches]


def test_counters_of_many_norms_take_one_launch(checker: Checker) -> None:
    launches = _launches(checker, Norms(), torch.randn(12, 6))
    assert sum(name.startswith("add") for name in launches) == 1


def test_siblings_that_read_the_same_share_a_kernel(checker: Checker) -> None:
    torch.manual_seed(2)
    inputs = torch.randn(48, 32), torch.randn(48, 32)
    assert len(_launches(checker, Siblings(), *inputs)) == 3
    task = checker.task(Siblings(), *inputs)
    together = next(name for name in checker.compile(task).hosts)
    apart = Recipe(unfused=frozenset({together}))
    assert len(_launches(checker, Siblings(), *inputs, recipe=apart)) == 4
