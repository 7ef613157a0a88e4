"""The reference is right in both precisions."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from warpsmith.task import draw, eager, evaluate, families_for, task_from_module


class Alive(TorchDispatchMode):
    """Counts the results of operators that are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.tensors.add(result)
        self.most = max(self.most, len(self.tensors))
        return result


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.linear = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.linear(self.norm(x)), approximate="tanh").softmax(-1)


def test_float64_is_what_the_module_gives_in_float64() -> None:
    module = Chain()
    x = torch.randn(5, 32)
    task = task_from_module(module, x)
    got = evaluate(task.graph, {**task.state, "x": x}, "float64")["out"]
    with torch.no_grad():
        due = module.double()(x.double())
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, due, rtol=1e-13, atol=1e-15)


def test_task_precision_is_what_the_module_gives() -> None:
    module = Chain()
    x = torch.randn(5, 32)
    task = task_from_module(module, x)
    with torch.no_grad():
        assert torch.equal(eager(task, {**task.state, "x": x})["out"], module(x))


def test_casts_to_half_do_not_round_the_reference() -> None:
    class Narrow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.half() * 3).float()

    x = torch.tensor([1.0001])
    task = task_from_module(Narrow(), x)
    assert evaluate(task.graph, {"x": x}, "float64")["out"].item() == 3 * x.double().item()
    assert evaluate(task.graph, {"x": x}, "task")["out"].item() == 3.0


def test_floats_made_of_integers_are_exact_in_float64() -> None:
    class Ratio(nn.Module):
        def forward(self, n: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"third": n / 3, "root": n.sqrt(), "mean": n.float().mean(), "rest": n % 5}

    n = torch.tensor([1, 2, 7, 16_777_217])
    task = task_from_module(Ratio(), n)
    got = evaluate(task.graph, {"n": n}, "float64")
    assert torch.equal(got["third"], n.double() / 3)
    assert torch.equal(got["root"], n.double().sqrt())
    assert torch.equal(got["mean"], n.double().mean())
    assert got["rest"].dtype == torch.int64


def test_factories_follow_the_precision() -> None:
    class Made(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = torch.linspace(0, 1, 3) + torch.full((3,), 0.1) + torch.zeros(3) + torch.arange(3)
            return torch.where(x > 0, x, torch.zeros_like(x)) @ torch.ones(3, 2) + weights.sum() + torch.eye(2)

    x = torch.randn(2, 3)
    task = task_from_module(Made(), x)
    got = evaluate(task.graph, {"x": x}, "float64")["out"]
    with torch.no_grad():
        due = Made()(x)
    torch.testing.assert_close(got.float(), due)
    assert got.dtype == torch.float64


def test_integers_and_masks_keep_their_dtype() -> None:
    class Kinds(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return x.argmax(1), x > 0, (x * 10).to(torch.int32)

    x = torch.randn(3, 4)
    task = task_from_module(Kinds(), x)
    for precision in ("task", "float64"):
        got = evaluate(task.graph, {"x": x}, precision)
        assert [value.dtype for value in got.values()] == [torch.int64, torch.bool, torch.int32]


def test_arguments_are_not_changed() -> None:
    task = task_from_module(nn.BatchNorm1d(4), torch.randn(6, 4))
    arguments = draw(task, "normal", 1)
    before = {name: value.clone() for name, value in arguments.items()}
    evaluate(task.graph, arguments, "task")
    evaluate(task.graph, arguments, "float64")
    assert all(torch.equal(before[name], value) for name, value in arguments.items())


def test_intermediates_are_freed() -> None:
    """A deep chain must not hold every activation, or large models cannot be judged."""

    class Deep(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(50):
                x = torch.relu(x) + 1
            return x

    x = torch.randn(4)
    task = task_from_module(Deep(), x)
    with Alive() as alive:
        evaluate(task.graph, {"x": x}, "float64")
    assert len(task.graph.nodes) == 100
    assert alive.most <= 4


@pytest.mark.parametrize("seed", [1, 2])
def test_both_precisions_agree_on_every_family(seed: int) -> None:
    task = task_from_module(Chain(), torch.randn(5, 32))
    for family in families_for(task):
        arguments = draw(task, family, seed)
        narrow = evaluate(task.graph, arguments, "task")["out"]
        wide = evaluate(task.graph, arguments, "float64")["out"]
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-4)
