"""Products whose rows start anywhere in memory: operands are copied into rows that start at a multiple of 16 bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.author.builtin.lowering import contractions

Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], float]
_generator = torch.Generator().manual_seed(3)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


CASES: dict[str, Case] = {
    "odd": (lambda a, b: a @ b, (_normal(67, 37), _normal(37, 35)), 1e-6),
    "both transposed": (lambda a, b: a.T @ b.T, (_normal(37, 67), _normal(35, 37)), 1e-6),
    "only the right one": (lambda a, b: a @ b, (_normal(67, 36), _normal(36, 35)), 1e-6),
    "a linear layer": (lambda x, w, b: F.gelu(F.linear(x, w, b)), (_normal(67, 37), _normal(35, 37), _normal(35)), 1e-6),
    "batches": (lambda a, b: a @ b, (_normal(3, 65, 18), _normal(3, 18, 35)), 1e-6),
    "broadcast batches": (lambda a, b: a @ b, (_normal(2, 1, 65, 18), _normal(3, 18, 35)), 1e-6),
    "float16": (lambda a, b: a @ b, (_normal(65, 36).half(), _normal(36, 66).half()), 1e-3),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contractions, "_WORTH_COPYING", 1)
    monkeypatch.setattr(contractions, "_LEAST_EXTENT", 8)


def _start(checker: Checker, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Compiled:
    return compile_graph(checker.task(Wrapped(function), *inputs).graph, Recipe(), GPU)


@pytest.mark.parametrize("name", CASES)
def test_padded_operands_give_the_same_product(checker: Checker, name: str) -> None:
    function, inputs, limit = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    start = compile_graph(task.graph, Recipe(), GPU)
    (region,) = [r for r, genes in start.genes.items() if any(g.name == "operands" for g in genes)]
    (algorithms,) = [g.choices for g in start.genes[region] if g.name == "algorithm"]
    for algorithm in {"mma", "wgmma", "tiled"} & set(algorithms):
        recipe = start.recipe.choosing(region, "algorithm", algorithm).choosing(region, "operands", "packed")
        compiled = compile_graph(task.graph, recipe, GPU)
        assert len(compiled.program.plan.launches) == 3
        assert checker.largest_error(task, compiled) <= limit, algorithm


def test_padded_rows_are_copied_by_sixteen_bytes(checker: Checker) -> None:
    function, inputs, _ = CASES["odd"]
    start = _start(checker, function, *inputs)
    (region,) = start.genes
    recipe = start.recipe.choosing(region, "algorithm", "mma")
    task = checker.task(Wrapped(function), *inputs)
    packed, stored = (
        compile_graph(task.graph, recipe.choosing(region, "operands", how), GPU).program.source
        for how in ("packed", "as stored")
    )
    assert "copy_async<16>" in packed and "copy_async<4>" not in packed
    assert "copy_async<4>" in stored


@pytest.mark.parametrize(
    "inputs",
    [
        (_normal(67, 36), _normal(36, 36)),
        (_normal(36, 68).T, _normal(36, 36)),
        (_normal(67, 36).half(), _normal(36, 64).half()),
    ],
)
def test_nothing_is_copied_where_both_can_be_read_in_vectors(
    checker: Checker, inputs: tuple[torch.Tensor, ...]
) -> None:
    start = _start(checker, lambda a, b: a @ b, *(x.contiguous() for x in inputs))
    offers = any(gene.name == "operands" for genes in start.genes.values() for gene in genes)
    # 36 halves are no multiple of 16 bytes, and the rows of the other one are.
    assert offers == (inputs[0].dtype == torch.float16)


def test_small_products_are_left_alone(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    start = _start(checker, CASES["odd"][0], _normal(69, 39), _normal(39, 35))
    assert not any(gene.name == "operands" for genes in start.genes.values() for gene in genes)
