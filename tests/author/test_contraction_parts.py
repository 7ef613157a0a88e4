"""Products of 16-bit parts are float32 products, whatever the numbers: the rest of a sum may not hide what was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.program import bind
from warpsmith.records import GpuSpec, Graph, Node, Ref, Task, TensorSpec

_generator = torch.Generator().manual_seed(11)
UNIT = 2.0**-24


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


def _wide(octaves: int, *shape: int) -> torch.Tensor:
    """Numbers of all sizes, so many powers of two to either side of 1."""
    return _normal(*shape) * torch.exp2((2 * torch.rand(*shape, generator=_generator) - 1) * octaves)


def _parted(checker: Checker, task: Task, **genes: str | int) -> Compiled:
    (region,) = (name for name, found in checker.compile(task).genes.items() if found)
    recipe = Recipe().choosing(region, "algorithm", "parts")
    for gene, choice in genes.items():
        recipe = recipe.choosing(region, gene, choice)
    compiled = checker.compile(task, recipe)
    assert compiled.recipe.genes[region]["algorithm"] == "parts"
    return compiled


CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "no extent is that of a tile": (lambda a, b: a @ b, (_normal(70, 263), _normal(263, 67))),
    "both transposed": (lambda a, b: a.T @ b.T, (_normal(260, 132), _normal(72, 260))),
    "batches, functions in front and behind": (
        lambda a, b: torch.tanh(a.relu() @ (b + 1)), (_normal(2, 70, 260), _normal(2, 260, 64)),
    ),
    "one right operand for all batches": (lambda a, b: torch.einsum("bmk,kn->bmn", a, b), (_normal(2, 66, 256), _normal(256, 64))),
    "rows that are looked up": (
        lambda table, w, index: table[index] @ w, (_normal(90, 256), _normal(256, 64), torch.randint(0, 90, (67,), generator=_generator)),
    ),
    "one operand of 16 bits": (lambda a, b: a @ b.float(), (_normal(66, 256), _normal(256, 64).half())),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_parts_compute_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    assert checker.largest_error(task, _parted(checker, task), sanitize=True) <= 1e-6


def _of_all_kinds(rows: int, depth: int) -> torch.Tensor:
    """Rows whose elements are of one size each, of very different sizes, denormal, huge, zero, or one of them large."""
    x = _normal(rows, depth)
    x[1::8] = _wide(20, len(x[1::8]), depth)
    x[2::8] = _wide(45, len(x[2::8]), depth)
    x[3::8] *= 1e-39
    x[4::8] *= 1e37
    x[5::8] = 0
    x[6::8, 3] = 1e12
    x[7::8, ::2] = 0
    return x


def _outputs(checker: Checker, task: Task, compiled: Compiled) -> torch.Tensor:
    build = checker.builder.build(compiled.program, dict(compiled.tunables), checker.simulator.architecture)
    specs = {spec.name: spec for spec in (*task.graph.arguments, *task.graph.results)}
    plan = bind(compiled.program.plan, specs, dict(compiled.tunables), GPU)
    run = checker.simulator.run(build, plan, task.examples, task.graph.results, fill=7, sanitize=True, count=False)
    assert not run.findings, run.findings[:2]
    (out,) = run.outputs.values()
    return out.double()


@pytest.mark.parametrize("depth", ["whole", "split"])
def test_every_sum_is_as_good_as_one_of_float32_products(checker: Checker, depth: str) -> None:
    """An error counts against the sum of absolute products, so that no large row or column can cover for another."""
    a, b = _of_all_kinds(72, 272), _of_all_kinds(64, 272).T.contiguous()
    b[3] = b[3].clamp(-1e-12, 1e-12)  # where rows have their large element
    task = checker.task(Wrapped(lambda a, b: a @ b), a, b)
    got = _outputs(checker, task, _parted(checker, task, depth=depth))
    due, scale = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    finite = scale < torch.finfo(torch.float32).max
    error = ((got - due).abs() / (UNIT * scale + 2.0**-149))[finite]
    assert error.max() < 16, "16 units: a sum of 272 float32 products one after the other may miss by many more"
    assert not got[finite].isnan().any()


def test_infinities_and_nans_stay_in_their_rows_and_columns(checker: Checker) -> None:
    a, b = _normal(70, 260), _normal(260, 66)
    a[3, 5], a[4, 7], b[9, 2] = float("inf"), float("nan"), -float("inf")
    a[6] = 0
    task = checker.task(Wrapped(lambda a, b: a @ b), a, b)
    assert checker.largest_error(task, _parted(checker, task)) <= 1e-6


def _product(m: int, depth: int, n: int, dtype: str = "float32") -> Graph:
    a, b, out = TensorSpec("a", (m, depth), dtype), TensorSpec("b", (depth, n), dtype), TensorSpec("out", (m, n), dtype)
    return Graph(
        (a, b), (), (), (), (Node("mm", "aten.mm.default", (Ref("a"), Ref("b")), (), (out,)),), ((out, Ref("mm")),)
    )


def test_tiles_build_without_spills_and_without_pauses(checker: Checker) -> None:
    graph = _product(4096, 4096, 4096)
    default = compile_graph(graph, Recipe(), GPU)
    (region,) = default.genes
    (tiles,) = (gene.choices for gene in default.genes[region] if gene.name == "panels")
    for tile in tiles:
        compiled = compile_graph(graph, Recipe().choosing(region, "panels", tile), GPU)
        build = checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90a")
        assert build.ok, build.diagnostics
        assert not any("Performance Loss" in each.message for each in build.diagnostics), build.diagnostics
        assert all(each.spill_loads == 0 for each in build.resources), (tile, build.resources)


@pytest.mark.parametrize(
    ("graph", "on"),
    [
        (_product(4096, 4096, 4096), gpu("A100")),  # no warpgroups
        (_product(4096, 4096, 4096, "float16"), GPU),  # nothing to part
        (_product(4096, 128, 4096), GPU),  # too short
        (_product(32, 4096, 4096), GPU),  # too few rows
    ],
)
def test_parts_are_offered_only_where_they_are_of_use(graph: Graph, on: GpuSpec) -> None:
    (genes,) = (genes for genes in compile_graph(graph, Recipe(), on).genes.values() if genes)
    assert "parts" not in genes[0].choices


def _bulk(checker: Checker) -> tuple[Task, Compiled]:
    task = checker.task(Wrapped(lambda a, b: a @ b), _normal(70, 640), _normal(640, 66))
    return task, _parted(checker, task, feed="bulk", panels="128x64", depth="whole")


def test_the_copy_engine_brings_the_same_tiles_as_threads_do(checker: Checker) -> None:
    task, compiled = _bulk(checker)
    assert "cp.async.bulk" in compiled.program.source
    assert checker.largest_error(task, compiled, sanitize=True) <= 1e-6
    assert torch.equal(
        _outputs(checker, task, compiled),
        _outputs(checker, task, _parted(checker, task, panels="128x64", depth="whole")),
    )


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("barrier_await(&arrived[slot], turn);", ";", "a bulk copy"),
        ("wgmma_await_last_but_one();", ";", "while the wgmma in line"),
        ("barrier_await(&read[before], slot == 0 ? turn ^ 1 : turn);", ";", "with nothing to order the two"),
    ],
)
def test_a_tile_that_is_read_too_early_or_replaced_too_early_is_found(
    checker: Checker, old: str, new: str, found: str
) -> None:
    task, compiled = _bulk(checker)
    assert old in compiled.program.source
    program = replace(compiled.program, source=compiled.program.source.replace(old, new))
    build = checker.builder.build(program, dict(compiled.tunables), checker.simulator.architecture)
    specs = {spec.name: spec for spec in (*task.graph.arguments, *task.graph.results)}
    plan = bind(program.plan, specs, dict(compiled.tunables), GPU)
    run = checker.simulator.run(build, plan, task.examples, task.graph.results, fill=7, sanitize=True, count=False)
    assert any(found in finding.message for finding in run.findings), run.findings
