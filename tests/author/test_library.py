"""Contractions left to a library: where that is offered, that it computes the same, and that pure programs know nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as f

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin.compile import Compiled, compile_graph, usual_cuts
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.records import Call, Launch, Task

_generator = torch.Generator().manual_seed(5)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


def offering(compiled: Compiled) -> list[str]:
    """Regions that may be left to a library."""
    return [name for name, genes in compiled.genes.items() if any(gene.name == "engine" for gene in genes)]


def left_to_library(task: Task, start: Recipe | None = None) -> Compiled:
    """Compile with every contraction left to the library that may be."""
    recipe = start or Recipe()
    for region in offering(compile_graph(task.graph, recipe, GPU, hybrid=True)):
        recipe = recipe.choosing(region, "engine", "library")
    return compile_graph(task.graph, recipe, GPU, hybrid=True)


def steps(compiled: Compiled) -> list[str]:
    return [step.op if isinstance(step, Call) else "launch" for step in compiled.program.plan.steps]


Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], list[str]]
CASES: dict[str, Case] = {
    "product": (lambda a, b: a @ b, (_normal(9, 17), _normal(17, 12)), ["aten.mm"]),
    "transposed operands": (lambda a, b: a.T @ b.T, (_normal(17, 9), _normal(12, 17)), ["aten.mm"]),
    "transposed result": (lambda a, b: (a @ b).T, (_normal(9, 17), _normal(17, 12)), ["aten.mm", "launch"]),
    "slices": (lambda a, b: a[2:8, ::2] @ b[:, 3:], (_normal(9, 18), _normal(9, 12)), ["aten.mm"]),
    "batches": (lambda a, b: a @ b, (_normal(3, 9, 17), _normal(3, 17, 12)), ["aten.bmm"]),
    "two batch dimensions": (lambda a, b: a @ b, (_normal(2, 3, 9, 7), _normal(2, 3, 7, 5)), ["aten.bmm"]),
    "one weight for all batches": (f.linear, (_normal(2, 3, 7), _normal(5, 7)), ["aten.mm"]),
    "shared matrix on the left": (lambda a, b: a @ b, (_normal(9, 7), _normal(3, 7, 5)), ["launch"]),
    "bias and activation": (
        lambda x, w, b: torch.relu(f.linear(x, w, b)), (_normal(9, 17), _normal(12, 17), _normal(12)), ["aten.mm", "launch"],
    ),
    "two layers": (
        lambda x, w, v: torch.relu(x @ w) @ v, (_normal(9, 17), _normal(17, 12), _normal(12, 6)),
        ["aten.mm", "launch", "aten.mm"],
    ),
    "a softmax behind": (
        lambda a, b: torch.softmax(a @ b, -1), (_normal(9, 17), _normal(17, 12)), ["aten.mm", "launch"],
    ),
    "an operand that is computed": (lambda a, b: torch.sin(a) @ b, (_normal(9, 17), _normal(17, 12)), ["launch"]),
    "convolution": (
        lambda x, w: f.conv2d(x, w, stride=2, padding=1), (_normal(2, 3, 9, 8), _normal(4, 3, 3, 3)), ["aten.convolution"],
    ),
    "convolution with bias": (
        lambda x, w, b: f.conv1d(x, w, b, dilation=2), (_normal(2, 3, 12), _normal(4, 3, 3), _normal(4)),
        ["aten.convolution", "launch"],
    ),
    "groups and three dimensions": (
        lambda x, w: f.conv3d(x, w, groups=2, padding=(1, 0, 1)), (_normal(2, 4, 4, 5, 6), _normal(6, 2, 2, 3, 2)),
        ["aten.convolution"],
    ),
    "a single image": (lambda x, w: f.conv2d(x, w), (_normal(3, 6, 7), _normal(4, 3, 3, 2)), ["aten.convolution"]),
    "padding by name": (
        lambda x, w: f.conv2d(x, w, padding="same"), (_normal(1, 3, 6, 7), _normal(4, 3, 3, 5)), ["aten.convolution"],
    ),
    "uneven padding": (lambda x, w: f.conv2d(x, w, padding="same"), (_normal(1, 3, 6, 7), _normal(4, 3, 3, 4)), ["launch"]),
    "convolution of a convolution": (
        lambda x, w, v: f.conv2d(torch.relu(f.conv2d(x, w)), v, padding=1),
        (_normal(1, 3, 6, 7), _normal(4, 3, 3, 3), _normal(2, 4, 3, 3)),
        ["aten.convolution", "launch", "aten.convolution"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_calls_compute_what_kernels_compute(checker: Checker, name: str) -> None:
    """Also where a call reads what a kernel wrote: the sanitizer sees whether steps run in the right order."""
    function, inputs, due = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    compiled = left_to_library(task, Recipe(usual_cuts(task.graph)))
    assert steps(compiled) == due
    assert checker.largest_error(task, compiled, sanitize=True) <= 2e-6


def test_half_precision_is_left_to_the_library_only_where_it_is_stored_so(checker: Checker) -> None:
    """Sums with an epilogue are kept in float32, which no half precision call writes."""
    a, b = _normal(9, 17).half(), _normal(17, 12).half()
    plain = checker.task(Wrapped(lambda x, y: x @ y), a, b)
    compiled = left_to_library(plain)
    assert steps(compiled) == ["aten.mm"] and checker.largest_error(plain, compiled) <= 1e-3
    behind = checker.task(Wrapped(lambda x, y: torch.relu(x @ y)), a, b)
    assert offering(compile_graph(behind.graph, Recipe(), GPU, hybrid=True)) == []
    stored = left_to_library(behind, Recipe(frozenset(("matmul", "mm"))))
    assert steps(stored) == ["aten.mm", "launch"] and checker.largest_error(behind, stored) <= 1e-3


class Layers(nn.Module):
    """Four layers that are alike, whose kernels are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def test_calls_keep_their_places_among_launches_of_shared_kernels(checker: Checker) -> None:
    task = checker.task(Layers(), _normal(8, 16))
    compiled = left_to_library(task, Recipe(usual_cuts(task.graph)))
    assert steps(compiled) == ["aten.mm", "launch"] * 4
    kernels = {step.kernel for step in compiled.program.plan.steps if isinstance(step, Launch)}
    assert len(kernels) < 4 and checker.largest_error(task, compiled, sanitize=True) <= 2e-6


def test_a_region_goes_back_to_its_own_kernel_with_its_epilogue(checker: Checker) -> None:
    """What the library takes away is not lost for the descendants."""
    task = checker.task(Wrapped(lambda a, b: torch.relu(a @ b)), _normal(9, 17), _normal(17, 12))
    default = compile_graph(task.graph, Recipe(), GPU, hybrid=True)
    (region,) = offering(default)
    away = left_to_library(task)
    assert [gene.name for gene in away.genes[region]] == ["engine"] and away.recipe.unfused == frozenset()
    back = compile_graph(task.graph, away.recipe.choosing(region, "engine", "own"), GPU, hybrid=True)
    assert back.program == default.program


def test_a_pure_program_takes_no_notice_of_a_recipe_that_asks_for_the_library(checker: Checker) -> None:
    task = checker.task(Wrapped(lambda a, b: a @ b), _normal(9, 17), _normal(17, 12))
    asking = left_to_library(task).recipe
    pure = compile_graph(task.graph, asking, GPU)
    assert pure.program == compile_graph(task.graph, Recipe(), GPU).program
    assert offering(pure) == [] and pure.program.plan.pure
