"""Sums that several blocks share: right results, and by default wherever whole sums would leave the GPU idle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.program import bind
from warpsmith.records import GpuSpec, Graph, Node, Ref, TensorSpec
from warpsmith.task import task_from_module

Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], float]
_generator = torch.Generator().manual_seed(11)
# So few multiprocessors that small products already have enough blocks for them.
FEW = replace(GPU, sm_count=6)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator) / shape[-1] ** 0.5


CASES: dict[str, Case] = {
    "float32": (lambda a, b, c: F.silu(a @ b) + c, (_normal(72, 1088), _normal(1088, 40), _normal(72, 40)), 2e-6),
    "right operand transposed": (lambda x, w, b: F.gelu(F.linear(x, w, b)), (_normal(68, 1030), _normal(36, 1030), _normal(36)), 2e-6),
    "float16": (lambda a, b: (a @ b).relu(), (_normal(72, 1088).half(), _normal(1088, 64).half()), 1e-3),
    "bfloat16, left transposed": (lambda a, b: a.T @ b, (_normal(1088, 72).bfloat16(), _normal(1088, 64).bfloat16()), 8e-3),
    "batches": (lambda a, b: a @ b, (_normal(2, 66, 516), _normal(2, 516, 34)), 2e-6),
}  # fmt: skip


def _genes(compiled: Compiled) -> dict[str, int | str]:
    (genes,) = (dict(chosen) for chosen in compiled.recipe.genes.values() if "algorithm" in chosen)
    return genes


@pytest.mark.parametrize("algorithm", ["mma", "wgmma"])
@pytest.mark.parametrize("name", CASES)
def test_tensor_cores_share_long_sums(checker: Checker, name: str, algorithm: str) -> None:
    """With as many parts as the GPU wants, whatever is done with the sum comes after all of it has been added up."""
    function, inputs, limit = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    (region,) = compile_graph(task.graph, Recipe(), FEW).genes
    recipe = Recipe().choosing(region, "algorithm", algorithm).choosing(region, "depth", "split")
    compiled = compile_graph(task.graph, recipe.choosing(region, "blocks", 2 * FEW.sm_count), FEW)
    assert _genes(compiled)["algorithm"] == algorithm
    assert dict(compiled.tunables)["SPLITS"] > 1
    assert "atomic" not in compiled.program.source, "the order of additions must be fixed"
    assert checker.largest_error(task, compiled, sanitize=True) <= limit


def test_more_blocks_are_more_parts(checker: Checker) -> None:
    function, inputs, _ = CASES["float32"]
    task = checker.task(Wrapped(function), *inputs)
    (region,) = compile_graph(task.graph, Recipe(), FEW).genes
    splits = []
    for blocks in (FEW.sm_count, 2 * FEW.sm_count):
        recipe = Recipe().choosing(region, "depth", "split").choosing(region, "blocks", blocks)
        splits.append(dict(compile_graph(task.graph, recipe, FEW).tunables)["SPLITS"])
    assert splits[0] < splits[1]


LONE: dict[str, tuple[int, int, int, str]] = {
    "a single sum": (1, 40_000, 1, "dot"),
    "a row times a matrix": (1, 3000, 70, "direct"),
    "a few rows": (5, 2000, 48, "direct"),
}


@pytest.mark.parametrize("name", LONE)
def test_threads_that_read_for_themselves_share_long_sums(checker: Checker, name: str) -> None:
    m, depth, n, algorithm = LONE[name]
    task = checker.task(Wrapped(lambda a, b: a @ b), _normal(m, depth), _normal(n, depth).T.contiguous())
    default = checker.compile(task)
    assert {"algorithm": algorithm, "depth": "split"}.items() <= _genes(default).items()
    tunables = dict(default.program.plan.tunables)
    assert dict(default.tunables)["SUM_ROWS"] > 1, "few sums of many parts want several threads each"
    for name, value in (("SUM_ROWS", v) for v in tunables["SUM_ROWS"]):
        compiled = checker.compile(task, Recipe(tunables={name: value}))
        assert dict(compiled.tunables)[name] == value
        assert checker.largest_error(task, compiled, sanitize=True) <= 2e-6


def _product(m: int, depth: int, n: int, dtype: str, turned: bool = False) -> Graph:
    a, b = TensorSpec("a", (m, depth), dtype), TensorSpec("b", (n, depth) if turned else (depth, n), dtype)
    out = TensorSpec("out", (m, n), dtype)
    op = "aten.linear.default" if turned else "aten.mm.default"
    return Graph((a, b), (), (), (), (Node("mm", op, (Ref("a"), Ref("b")), (), (out,)),), ((out, Ref("mm")),))


def _blocks(graph: Graph, compiled: Compiled) -> int:
    """Blocks of the first launch."""
    specs = {spec.name: spec for spec in (*graph.arguments, *graph.results)}
    return math.prod(bind(compiled.program.plan, specs, dict(compiled.tunables), GPU).launches[0].grid)


LONG = [
    (256, 131_072, 256, "float32"),
    (256, 131_072, 256, "float16"),
    (128, 8192, 1024, "float32"),
    (128, 8192, 1024, "bfloat16"),
    (16, 16_384, 512, "float32"),
    (64, 65_536, 64, "float64"),
]


@pytest.mark.parametrize(("m", "depth", "n", "dtype"), LONG)
def test_long_sums_of_few_outputs_fill_the_gpu(m: int, depth: int, n: int, dtype: str) -> None:
    graph = _product(m, depth, n, dtype)
    compiled = compile_graph(graph, Recipe(), GPU)
    assert _genes(compiled)["depth"] == "split"
    assert 0.9 * GPU.sm_count < _blocks(graph, compiled) <= 2 * GPU.sm_count


@pytest.mark.parametrize(("dtype", "least"), [("float32", 128 * 128), ("float16", 128 * 256)])
def test_tiles_of_shared_sums_are_large(dtype: str, least: int) -> None:
    """Where parts give blocks enough, small tiles would only read operands more often."""
    tile = str(_genes(compile_graph(_product(256, 131_072, 256, dtype), Recipe(), GPU))["groups"])
    assert math.prod(map(int, tile.split("x"))) >= least


@pytest.mark.parametrize(("m", "depth", "n"), [(4096, 4096, 4096), (1024, 64, 1024), (64, 200, 64)])
def test_sums_stay_whole_where_sharing_gains_nothing(m: int, depth: int, n: int) -> None:
    assert _genes(compile_graph(_product(m, depth, n, "float32"), Recipe(), GPU)).get("depth", "whole") == "whole"


@pytest.mark.parametrize(
    ("m", "depth", "n", "dtype", "on", "first"),
    [
        (4096, 4096, 4096, "float32", GPU, "parts"),
        (4096, 4096, 4095, "float32", GPU, "parts"),
        (4096, 4096, 128, "float32", GPU, "wgmma"),  # there is not enough to multiply to pay for parts
        (4096, 4096, 4096, "float16", GPU, "wgmma"),
        (512, 1024, 1023, "float32", GPU, "mma"),  # but not for small products
        (64, 64, 64, "float32", GPU, "mma"),  # tiles of warpgroups would leave the GPU idle
        (4096, 4096, 4096, "float32", gpu("A100"), "mma"),
    ],
)
def test_warpgroups_come_first_for_large_products_on_hopper(
    m: int, depth: int, n: int, dtype: str, on: GpuSpec, first: str
) -> None:
    for turned in (False, True) if n % 2 == 0 else (False,):
        assert _genes(compile_graph(_product(m, depth, n, dtype, turned), Recipe(), on))["algorithm"] == first


def test_warps_come_first_for_convolutions(checker: Checker) -> None:
    task = checker.task(Wrapped(lambda x, w: F.conv2d(x, w)), _normal(4, 64, 64, 64), _normal(128, 64, 1, 1))
    assert _genes(compile_graph(task.graph, Recipe(), GPU))["algorithm"] == "mma"


def test_products_that_no_tile_of_warpgroups_fits_are_left_to_warps() -> None:
    """Operands of 16 bits want 64 columns: with 32 there is no tile to choose."""
    compiled = compile_graph(_product(64, 512, 32, "float16"), Recipe(), GPU)
    (genes,) = (genes for genes in compiled.genes.values() if genes)
    assert "wgmma" not in genes[0].choices


@pytest.mark.parametrize(("m", "depth", "n", "dtype"), LONG[:3])
def test_shared_sums_compile_without_spills(checker: Checker, m: int, depth: int, n: int, dtype: str) -> None:
    compiled = compile_graph(_product(m, depth, n, dtype), Recipe(), GPU)
    build = checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90a")
    assert build.ok, build.diagnostics
    assert all(one.spill_loads == 0 for one in build.resources), build.resources


def test_layers_that_share_their_sums_share_their_kernels() -> None:
    """A tunable in a comment must stand alone, or two layers that are alike look different."""

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8192, 64), nn.Linear(4096, 64)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.first(x), self.second(y)

    task = task_from_module(Layers(), (torch.randn(64, 8192), torch.randn(64, 4096)))
    compiled = compile_graph(task.graph, Recipe(), GPU)
    assert {genes.get("depth") for genes in compiled.recipe.genes.values()} == {"split"}
    assert "template <int Splits, int SumRows" in compiled.program.source
