"""Tensors that a module keeps as plain attributes: constants stay constants, what forward carries on is state."""

from __future__ import annotations

import torch
from torch import nn

from warpsmith.records import Task
from warpsmith.task import draw, evaluate, task_from_module


class Carried(nn.Module):
    """A recurrent network of one step a call, as people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.randn(2, 5)
        self.layer = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = self.hidden.to(x.device)
        self.hidden = torch.tanh(self.layer(torch.cat((x, self.hidden), dim=1)))
        return self.hidden * 2


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.calls = torch.zeros(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner.calls.add_(1)
        return x * self.inner.calls


class Copied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.randn(3), torch.randn(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.second = self.first.to(x.device)
        return x + self.first * self.second


def computed(task: Task) -> dict[str, torch.Tensor]:
    return evaluate(task.graph, {**task.state, **task.examples}, "task")


def test_a_state_that_is_carried_on_is_a_buffer_whose_update_is_an_output() -> None:
    module, x = Carried(), torch.randn(2, 3)
    task = task_from_module(module, x)
    assert [spec.name for spec in task.graph.buffers] == ["hidden"]
    assert task.graph.updates == (("hidden", "new_hidden"),)
    out = module(x)
    assert torch.allclose(computed(task)["out"], out)
    assert torch.allclose(computed(task)["new_hidden"], module.hidden)
    # A program that ignored the state would be right on the module's own values only.
    assert not torch.equal(draw(task, "normal", 1)["hidden"], draw(task, "normal", 2)["hidden"])


def test_the_module_is_as_it_was() -> None:
    module = Carried()
    hidden, values = module.hidden, module.hidden.clone()
    task_from_module(module, torch.randn(2, 3))
    assert module.hidden is hidden
    assert torch.equal(hidden, values)
    assert dict(module.named_buffers()) == {}


def test_a_state_that_changes_in_place() -> None:
    module = Counted()
    task = task_from_module(module, torch.ones(3))
    assert task.graph.updates == (("inner_calls", "new_inner_calls"),)
    assert module.inner.calls.tolist() == [0.0] * 3
    assert computed(task)["new_inner_calls"].tolist() == [1.0] * 3


def test_an_attribute_that_is_only_written_is_no_state() -> None:
    module = Copied()
    second = module.second.clone()
    task = task_from_module(module, torch.ones(3))
    assert [spec.name for spec in task.graph.constants] == ["first"]
    assert task.graph.buffers == task.graph.updates == ()
    assert torch.equal(module.second, second)
