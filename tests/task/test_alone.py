"""A GPU that loading a task uses is held meanwhile, and only then; comparing large results takes little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from warpsmith.errors import TaskError
from warpsmith.task import functional, load, task_from_module

held: list[str] = []


@contextmanager
def alone() -> Iterator[None]:
    held.append("held")
    yield
    held.append("given back")


def test_a_gpu_is_held_only_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    held.clear()
    task_from_module(nn.Tanh(), torch.randn(4), alone=alone)
    assert held == []
    # The other device stands for a GPU: what is held is not the device's affair.
    monkeypatch.setattr(load, "_place", lambda module, call: torch.device("cpu"))
    task_from_module(nn.Tanh(), torch.randn(4), alone=alone)
    assert held == ["held", "given back", "held", "given back"]


@pytest.mark.parametrize("changed", [0, 5, 11])
def test_results_are_compared_piece_by_piece_to_the_end(monkeypatch: pytest.MonkeyPatch, changed: int) -> None:
    monkeypatch.setattr(functional, "_PIECE", 4)

    class Drifting(nn.Module):
        """Gives one element another value when its functional form is run."""

        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_exporting():
                bump = torch.zeros(12)
                bump[changed] = 1.0
                return x + bump
            return x + torch.zeros(12)

    with pytest.raises(TaskError, match="it differs by 1"):
        task_from_module(Drifting(), torch.ones(12))
    assert task_from_module(nn.Tanh(), torch.tensor([-torch.inf, torch.nan, torch.inf])).name == "Tanh"
