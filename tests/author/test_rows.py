"""Every algorithm and every gene of the families `rows` and `pointwise` gives a right, race-free kernel."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import Checker
from warpsmith.author.builtin import Recipe
from warpsmith.records import Task


class Normalize(torch.nn.Module):
    """Moments and a softmax over the same rows, with outputs of both shapes."""

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.layer_norm(x, (x.shape[-1],)) * gain
        return y.softmax(-1), x.amax(-1), x.argmin(-1)


class Channels(torch.nn.Module):
    """Moments over batch and space, as in BatchNorm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, training=True).relu()


class Leading(torch.nn.Module):
    """A reduction over the first dimension."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.softmax(0), x.std(0)


class Pointwise(torch.nn.Module):
    """A transposed operand, a broadcast one, and two outputs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.gelu(x.t() + y), x * 2


class Turned(torch.nn.Module):
    """Read along the second dimension of three, written along the last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 1).contiguous().relu()


torch.manual_seed(1)
TASKS: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {
    "short rows": (Normalize(), (torch.randn(9, 48), torch.rand(48))),
    "odd rows": (Normalize(), (torch.randn(5, 131), torch.rand(131))),
    "long rows": (Normalize(), (torch.randn(3, 1536), torch.rand(1536))),
    "channels": (Channels(), (torch.randn(3, 5, 8, 8) + 3,)),
    "leading": (Leading(), (torch.randn(70, 45),)),
    "pointwise": (Pointwise(), (torch.randn(36, 24), torch.randn(36))),
    "turned": (Turned(), (torch.randn(3, 40, 33),)),
    "turned, float16": (Turned(), (torch.randn(2, 33, 70).half(),)),
}


def _choices(checker: Checker, task: Task) -> list[tuple[str, str, int | str]]:
    return [
        (region, gene.name, choice)
        for region, genes in checker.compile(task).genes.items()
        for gene in genes
        for choice in gene.choices
    ]


@pytest.mark.parametrize("name", TASKS)
def test_every_gene_of_every_algorithm_is_right(checker: Checker, name: str) -> None:
    module, inputs = TASKS[name]
    task = checker.task(module, *inputs)
    choices = _choices(checker, task)
    seen: set[str] = set()
    for region, _, algorithm in [c for c in choices if c[1] == "algorithm"]:
        base = checker.compile(task, Recipe().choosing(region, "algorithm", algorithm)).recipe
        for other, gene, choice in choices:
            compiled = checker.compile(task, base.choosing(other, gene, choice))
            if compiled.recipe.genes[region]["algorithm"] == algorithm and compiled.program.key not in seen:
                seen.add(compiled.program.key)
                assert checker.largest_error(task, compiled, sanitize=True) < 4e-6, compiled.program.source
    assert len(seen) > 4


@pytest.mark.parametrize("name", TASKS)
def test_every_value_of_every_tunable_is_right(checker: Checker, name: str) -> None:
    module, inputs = TASKS[name]
    task = checker.task(module, *inputs)
    compiled = checker.compile(task)
    values = [[(macro, value) for value in choices[1:]] for macro, choices in compiled.program.plan.tunables]
    for macro, value in itertools.chain(*values):
        tuned = checker.compile(task, Recipe(tunables={macro: value}))
        assert dict(tuned.tunables)[macro] == value
        assert checker.largest_error(task, tuned) < 4e-6


def test_what_is_stored_and_what_is_unfused_changes_the_launches_and_not_the_result(checker: Checker) -> None:
    class Chain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(F.gelu(x) + 1).softmax(-1).exp()

    task = checker.task(Chain(), torch.randn(8, 96))
    plain = checker.compile(task)
    assert len(plain.program.plan.launches) == 1
    assert plain.cuttable
    assert plain.hosts
    for node in plain.cuttable:
        cut = checker.compile(task, Recipe(cuts=frozenset({node})))
        assert len(cut.program.plan.launches) > 1
        assert checker.largest_error(task, cut, sanitize=True) < 4e-6
    unfused = checker.compile(task, Recipe(unfused=frozenset(plain.hosts)))
    assert len(unfused.program.plan.launches) == 2
    assert checker.largest_error(task, unfused, sanitize=True) < 4e-6


def test_a_chain_of_norm_residual_and_activation_is_one_kernel(checker: Checker) -> None:
    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.silu(F.layer_norm(x + y, (64,))) + x

    compiled = checker.compile(checker.task(Block(), torch.randn(16, 64), torch.randn(16, 64)))
    assert len(compiled.program.plan.launches) == 1


def test_group_norm_with_an_activation_behind_its_reshape_is_one_kernel(checker: Checker) -> None:
    class Block(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.group_norm(x, 4).relu()

    compiled = checker.compile(checker.task(Block(), torch.randn(2, 8, 6, 6)))
    assert len(compiled.program.plan.launches) == 1


def test_inputs_may_be_called_what_kernels_call_their_own_variables(checker: Checker) -> None:
    class Block(torch.nn.Module):
        def forward(self, total: torch.Tensor, row: torch.Tensor, largest: torch.Tensor, x_v: torch.Tensor) -> object:
            y = F.layer_norm(total * row, (48,)) + largest
            return y.softmax(-1) * x_v, y.argmax(-1)

    task = checker.task(Block(), *(torch.randn(6, 48) for _ in range(4)))
    for algorithm in ("warp", "block", "thread"):
        recipe = checker.compile(task).recipe
        for region in recipe.genes:
            recipe = recipe.choosing(region, "algorithm", algorithm)
        assert checker.largest_error(task, checker.compile(task, recipe)) < 4e-6
