"""Matrix products and convolutions: every algorithm, gene and tunable computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.program import bind
from warpsmith.records import Graph, Node, Ref, Task, TensorSpec, Tolerance

Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], float]
_generator = torch.Generator().manual_seed(5)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


def _integers(*shape: int) -> torch.Tensor:
    return torch.randint(-9, 9, shape, generator=_generator)


def _depthwise(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, w, padding=1, groups=x.shape[1])


CASES: dict[str, Case] = {
    "extents that no tile divides": (lambda a, b: a @ b, (_normal(33, 21), _normal(21, 19)), 1e-6),
    "extents that vectors divide": (lambda a, b: a @ b, (_normal(32, 64), _normal(64, 48)), 1e-6),
    "right operand transposed": (lambda a, b: a @ b.T, (_normal(20, 36), _normal(40, 36)), 1e-6),
    "left operand transposed": (lambda a, b: a.T @ b, (_normal(36, 20), _normal(36, 24)), 1e-6),
    "both transposed": (lambda a, b: a.T @ b.T, (_normal(18, 20), _normal(23, 18)), 1e-6),
    "a depth of one": (lambda a, b: a @ b, (_normal(20, 1), _normal(1, 17)), 1e-6),
    "one row": (lambda a, b: a @ b, (_normal(1, 70), _normal(70, 37)), 1e-6),
    "one column": (lambda a, b: a @ b, (_normal(37, 70), _normal(70, 1)), 1e-6),
    "matrix and vector": (lambda a, v: a @ v, (_normal(37, 132), _normal(132)), 1e-6),
    "two vectors": (lambda a, b: a.abs() @ b.abs(), (_normal(531), _normal(531)), 1e-6),
    "batches": (lambda a, b: a @ b, (_normal(3, 17, 9), _normal(3, 9, 22)), 1e-6),
    "broadcast batches": (lambda a, b: a @ b, (_normal(2, 1, 7, 10), _normal(3, 10, 6)), 1e-6),
    "a sliced operand": (lambda a, b: a[1:-1, 3:] @ b[::2], (_normal(18, 23), _normal(40, 12)), 1e-6),
    "functions in front": (lambda a, b: torch.relu(a + 1) @ b.exp(), (_normal(18, 35), _normal(35, 20)), 1e-6),
    "bias, activation, residual": (
        lambda x, w, b, r: F.silu(F.linear(x, w, b)) + r,
        (_normal(2, 9, 40), _normal(32, 40), _normal(32), _normal(2, 9, 32)),
        1e-6,
    ),
    "scaled sums": (lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), (_normal(12), _normal(9, 33), _normal(33, 12)), 1e-6),
    "float16": (lambda a, b: a @ b, (_normal(20, 40).half(), _normal(40, 24).half()), 1e-3),
    "bfloat16, transposed": (lambda a, b: a @ b.T, (_normal(20, 40).bfloat16(), _normal(24, 40).bfloat16()), 8e-3),
    "float64": (lambda a, b: a @ b, (_normal(20, 33).double(), _normal(33, 18).double()), 1e-14),
    "int64": (lambda a, b: a @ b, (_integers(12, 33), _integers(33, 18)), 0.0),
    "convolution, padded and strided": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (_normal(2, 3, 13, 11), _normal(8, 3, 3, 3), _normal(8)), 1e-6,
    ),
    "convolution in groups, dilated": (
        lambda x, w: F.conv2d(x, w, padding=2, dilation=2, groups=2), (_normal(1, 8, 9, 9), _normal(10, 4, 3, 3)), 1e-6,
    ),
    "depthwise convolution": (_depthwise, (_normal(2, 6, 8, 8), _normal(6, 1, 3, 3)), 1e-6),
    "pointwise convolution": (lambda x, w: F.conv2d(x, w), (_normal(2, 16, 6, 6), _normal(20, 16, 1, 1)), 1e-6),
    "tiles of tensor cores": (lambda a, b: a @ b, (_normal(70, 48), _normal(48, 72)), 1e-6),
    "both operands transposed, on tensor cores": (lambda a, b: a.T @ b.T, (_normal(52, 40), _normal(36, 52)), 1e-6),
    "float16, no vectors": (lambda a, b: a @ b, (_normal(33, 37).half(), _normal(37, 41).half()), 1e-3),
    "bfloat16, left transposed": (lambda a, b: a.T @ b, (_normal(72, 48).bfloat16(), _normal(72, 40).bfloat16()), 8e-3),
    "float16 and a function in front": (lambda a, b: a.relu() @ b, (_normal(24, 40).half(), _normal(40, 24).half()), 1e-3),
    "convolution of many channels": (lambda x, w: F.conv2d(x, w, padding=1), (_normal(2, 5, 9, 9), _normal(24, 5, 3, 3)), 1e-6),
    "one-dimensional convolution": (lambda x, w: F.conv1d(x, w, padding=2), (_normal(2, 4, 21), _normal(6, 4, 5)), 1e-6),
}  # fmt: skip

# Deep and wide enough that every gene has a choice; no extent is a multiple of a tile.
DEEP: Case = (
    lambda a, b, c: torch.tanh(a @ b) + c,
    (_normal(68, 268) / 9, _normal(268, 44) / 9, _normal(68, 44)),
    2e-6,
)


def anchor(compiled: Compiled) -> str:
    """The name of the region with the product."""
    return next(name for name, genes in compiled.genes.items() if "direct" in genes[0].choices)


def algorithms(compiled: Compiled) -> tuple[str, ...]:
    genes = compiled.genes[anchor(compiled)]
    return tuple(str(choice) for choice in genes[0].choices)


@pytest.fixture(scope="module")
def deep(checker: Checker) -> Task:
    return checker.task(Wrapped(DEEP[0]), *DEEP[1])


@pytest.mark.parametrize("name", CASES)
def test_algorithms_compute_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs, limit = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    default = checker.compile(task)
    for algorithm in algorithms(default):
        recipe = Recipe().choosing(anchor(default), "algorithm", algorithm)
        compiled = checker.compile(task, recipe.choosing(anchor(default), "precision", "exact"))
        assert checker.largest_error(task, compiled) <= limit, algorithm


PACKED: dict[str, Case] = {
    "padded": (lambda x, w: F.conv2d(x, w, padding=1), (_normal(2, 8, 9, 9), _normal(64, 8, 3, 3)), 1e-6),
    "strided, dilated, a function on both sides": (
        lambda x, w: F.conv2d(x.sigmoid(), w, padding=2, stride=2, dilation=2).relu(), (_normal(2, 12, 13, 10), _normal(24, 12, 3, 3)), 1e-6,
    ),
    "three channels": (lambda x, w: F.conv2d(x, w, padding=1), (_normal(2, 3, 9, 9), _normal(64, 3, 3, 3)), 1e-6),
    "in groups": (lambda x, w: F.conv2d(x, w, groups=2), (_normal(2, 16, 9, 9), _normal(40, 8, 3, 3)), 1e-6),
    "one-dimensional, a single image": (lambda x, w: F.conv1d(x, w), (_normal(8, 40), _normal(16, 8, 5)), 1e-6),
    "three-dimensional": (lambda x, w: F.conv3d(x, w), (_normal(1, 8, 5, 6, 7), _normal(16, 8, 2, 2, 2)), 1e-6),
    "float16": (lambda x, w: F.conv2d(x, w, padding=1), (_normal(2, 8, 9, 9).half(), _normal(24, 8, 3, 3).half()), 1e-3),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, groups=2), (_normal(2, 16, 6, 7), _normal(16, 16, 3, 3)), 1e-6,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [*((name, "mma") for name in PACKED), ("padded", "wgmma"), ("padded", "tiled"), ("in groups", "tiled")],
)
def test_channels_can_be_brought_side_by_side(checker: Checker, name: str, algorithm: str) -> None:
    function, inputs, limit = PACKED[name]
    task = checker.task(Wrapped(function), *inputs)
    region = anchor(checker.compile(task))
    exact = Recipe().choosing(region, "algorithm", algorithm).choosing(region, "precision", "exact")
    kernels = {}
    for operands in ("packed", "as stored"):
        compiled = checker.compile(task, exact.choosing(region, "operands", operands))
        assert checker.largest_error(task, compiled, sanitize=True) <= limit, operands
        assert compiled.recipe.genes[region]["algorithm"] == algorithm
        kernels[operands] = [launch.kernel for launch in compiled.program.plan.launches]
    # Arguments are turned by one launch; what is computed or arranged on the way takes another.
    more = 2 if "function" in name or name in ("transposed", "three channels") else 1
    assert len(kernels["packed"]) - len(kernels["as stored"]) == more


def test_packed_convolutions_copy_sixteen_bytes_at_a_time(checker: Checker) -> None:
    task = checker.task(Wrapped(PACKED["padded"][0]), *PACKED["padded"][1])
    source = checker.compile(task).program.source
    assert source.count("copy_async<16>(&tile") == 2
    assert "copy_async<4>(&tile" not in source


def test_convolutions_may_use_tf32_and_products_may_not(checker: Checker) -> None:
    x, w = _normal(2, 5, 9, 9), _normal(24, 5, 3, 3)
    task = checker.task(Wrapped(lambda x, w: F.conv2d(x, w, padding=1)), x, w)
    compiled = checker.compile(task)
    assert compiled.recipe.genes[anchor(compiled)]["precision"] == "tf32"
    assert 1e-5 < checker.largest_error(task, compiled) < 1e-3
    strict = compile_graph(task.graph, Recipe(), GPU, Tolerance(conv_tf32=False))
    assert checker.largest_error(task, strict) < 1e-6
    assert "precision" not in strict.recipe.genes[anchor(strict)]


# Which genes an algorithm heeds.
HEEDED = {
    "mma": ("warps", "depth", "vec"),
    "wgmma": ("groups", "depth", "vec"),
    "parts": ("panels", "depth"),
    "tiled": ("tile", "stages", "depth", "vec"),
    "direct": ("per_thread", "vec", "depth"),
    "dot": ("per_thread", "team", "depth", "vec"),
}


@pytest.mark.parametrize(("algorithm", "gene"), [(a, g) for a, genes in HEEDED.items() for g in genes])
def test_every_choice_of_a_gene_is_another_program_and_right(
    checker: Checker, deep: Task, algorithm: str, gene: str
) -> None:
    default = checker.compile(deep)
    region = anchor(default)
    (choices,) = (g.choices for g in default.genes[region] if g.name == gene)
    assert len(choices) > 1
    sources = set()
    for choice in choices:
        recipe = Recipe().choosing(region, "algorithm", algorithm).choosing(region, gene, choice)
        compiled = checker.compile(deep, recipe)
        sources.add(compiled.program.source)
        assert checker.largest_error(deep, compiled, sanitize=True) <= DEEP[2], (gene, choice)
    assert len(sources) == len(choices)


@pytest.mark.parametrize(
    ("algorithm", "genes"),
    [
        ("mma", {"depth": "split", "warps": "32x32/16x16"}),
        ("wgmma", {"depth": "split", "groups": "64x32"}),
        ("parts", {"depth": "split", "panels": "64x64"}),
        ("tiled", {"depth": "split", "stages": 2, "tile": "32x32/2x4"}),
        ("direct", {}),
        ("direct", {"depth": "split", "vec": 4}),
        ("dot", {"depth": "split", "team": "block", "per_thread": 4}),
    ],
)
def test_every_value_of_a_tunable_is_right(
    checker: Checker, deep: Task, algorithm: str, genes: dict[str, str | int]
) -> None:
    region = anchor(checker.compile(deep))
    recipe = Recipe().choosing(region, "algorithm", algorithm)
    for gene, choice in genes.items():
        recipe = recipe.choosing(region, gene, choice)
    tunables = checker.compile(deep, recipe).program.plan.tunables
    assert tunables
    for name, values in tunables:
        assert len(values) > 1, name
        for value in values[1:]:
            tuned = Recipe(recipe.cuts, recipe.unfused, recipe.genes, {name: value})
            compiled = checker.compile(deep, tuned)
            assert dict(compiled.tunables)[name] == value
            assert checker.largest_error(deep, compiled) <= DEEP[2], (name, value)


WIDE: dict[str, Case] = {
    "both by rows": (lambda a, b: a @ b.T, (_normal(72, 136).half(), _normal(72, 136).half()), 1e-3),
    "right by columns": (lambda a, b: (a @ b).relu(), (_normal(128, 200).half(), _normal(200, 64).half()), 1e-3),
    "left by columns": (lambda a, b: a.T @ b.T, (_normal(136, 136).bfloat16(), _normal(72, 136).bfloat16()), 8e-3),
    "both by columns": (lambda a, b: a.T @ b, (_normal(200, 136).bfloat16(), _normal(200, 72).bfloat16()), 8e-3),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDE)
def test_warpgroups_read_operands_of_16_bits_whichever_way_they_lie(checker: Checker, name: str) -> None:
    function, inputs, limit = WIDE[name]
    task = checker.task(Wrapped(function), *inputs)
    region = anchor(checker.compile(task))
    for depth in ("whole", "split"):
        recipe = Recipe().choosing(region, "algorithm", "wgmma").choosing(region, "depth", depth)
        compiled = checker.compile(task, recipe)
        assert "wgmma.mma_async" in compiled.program.source
        assert checker.largest_error(task, compiled, sanitize=True) <= limit, depth


@pytest.mark.parametrize("algorithm", ["mma", "wgmma", "tiled"])
def test_rows_that_are_looked_up_are_not_looked_up_beyond_the_last(checker: Checker, algorithm: str) -> None:
    index = torch.randint(0, 90, (67,), generator=_generator)
    task = checker.task(Wrapped(lambda table, w, index: table[index] @ w), _normal(90, 32), _normal(32, 36), index)
    default = checker.compile(task)
    compiled = checker.compile(task, Recipe().choosing(anchor(default), "algorithm", algorithm))
    assert checker.largest_error(task, compiled, sanitize=True) <= 1e-6


def test_sums_of_integers_are_exact(checker: Checker) -> None:
    """Odd 12-bit integers against zeros and ones: half and TF32 inputs would lose their last bits."""
    a = torch.randint(1024, 2048, (20, 300), generator=_generator).float() * 2 + 1
    b = torch.randint(0, 2, (300, 20), generator=_generator).float()
    task = checker.task(Wrapped(lambda x, y: x @ y), a, b)
    default = checker.compile(task)
    for algorithm in algorithms(default):
        compiled = checker.compile(task, Recipe().choosing(anchor(default), "algorithm", algorithm))
        assert checker.largest_error(task, compiled) == 0.0, algorithm


def test_padding_does_not_spread_infinities(checker: Checker) -> None:
    """A tile that sticks out must not multiply what it made up with an infinity of the other operand."""
    a, b = _normal(18, 21), _normal(21, 18)
    a[17, 20], b[20, 17] = float("inf"), float("nan")
    task = checker.task(Wrapped(lambda x, y: x @ y), a, b)
    default = checker.compile(task)
    for algorithm in algorithms(default):
        compiled = checker.compile(task, Recipe().choosing(anchor(default), "algorithm", algorithm))
        assert checker.largest_error(task, compiled) <= 1e-6, algorithm


def test_infinities_meet_numbers_that_have_no_smaller_part(checker: Checker) -> None:
    """Three passes of TF32 split numbers in two: an infinity times a second part of zero must not become NaN."""
    a, b = _normal(40, 48), _normal(48, 33)
    a[7, 30], a[21, 3], b[5, 9] = float("inf"), -float("inf"), float("inf")
    b[30, :20], b[3, 10:] = 1.0, -0.5
    a[:, 5] = 2.0
    task = checker.task(Wrapped(lambda x, y: x @ y), a, b)
    default = checker.compile(task)
    for depth in ("whole", "split"):
        compiled = checker.compile(task, Recipe().choosing(anchor(default), "depth", depth))
        assert checker.largest_error(task, compiled) <= 1e-6, depth


def _product(m: int, depth: int, n: int, batches: int = 0) -> Graph:
    lead = (batches,) if batches else ()
    a, b = TensorSpec("a", (*lead, m, depth), "float32"), TensorSpec("b", (*lead, depth, n), "float32")
    out = TensorSpec("out", (*lead, m, n), "float32")
    op = "aten.bmm.default" if batches else "aten.mm.default"
    return Graph((a, b), (), (), (), (Node("mm", op, (Ref("a"), Ref("b")), (), (out,)),), ((out, Ref("mm")),))


def test_more_batches_than_a_grid_is_high(checker: Checker) -> None:
    graph = _product(16, 16, 16, batches=100_000)
    specs = {spec.name: spec for spec in (*graph.arguments, *graph.results)}
    default = compile_graph(graph, Recipe(), GPU)
    for algorithm in algorithms(default):
        compiled = compile_graph(graph, Recipe().choosing(anchor(default), "algorithm", algorithm), GPU)
        plan = bind(compiled.program.plan, specs, dict(compiled.tunables), GPU)
        assert all(launch.grid[0] * launch.block[0] >= 100_000 and launch.grid[1] < 65536 for launch in plan.launches)


def test_tensors_beyond_32_bit_offsets_compile_with_wide_indices(checker: Checker) -> None:
    graph = _product(70_000, 40_000, 16)
    default = compile_graph(graph, Recipe(), GPU)
    for algorithm in algorithms(default):
        compiled = compile_graph(graph, Recipe().choosing(anchor(default), "algorithm", algorithm), GPU)
        assert "ptrdiff_t" in compiled.program.source
        build = checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90")
        assert build.ok, build.diagnostics


@pytest.mark.parametrize(("m", "depth", "n"), [(4096, 4096, 4096), (128, 128, 64), (64, 300, 64), (16, 40, 16)])
def test_tiles_fit_shared_memory_and_registers(checker: Checker, m: int, depth: int, n: int) -> None:
    """Every tile on offer builds without spills, at its largest depth and with two stages."""
    graph = _product(m, depth, n)
    default = compile_graph(graph, Recipe(), GPU)
    region = anchor(default)
    (tiles,) = (g.choices for g in default.genes[region] if g.name == "tile")
    for tile in tiles[:: max(1, len(tiles) // 4)]:
        recipe = (
            Recipe().choosing(region, "algorithm", "tiled").choosing(region, "tile", tile).choosing(region, "stages", 2)
        )
        compiled = compile_graph(graph, recipe, GPU)
        depths = dict(compiled.program.plan.tunables)["TILE_K"]
        build = checker.builder.build(compiled.program, {**dict(compiled.tunables), "TILE_K": max(depths)}, "sm_90")
        assert build.ok, build.diagnostics
        assert all(r.shared <= 48 * 1024 and r.spill_loads == 0 for r in build.resources), (tile, build.resources)


def test_large_products_start_with_large_tiles_and_small_ones_with_enough_blocks() -> None:
    def first_tile(m: int, n: int) -> str:
        graph = _product(m, 256, n)
        return str(
            next(g for g in compile_graph(graph, Recipe(), GPU).genes["mm.product"] if g.name == "tile").choices[0]
        )

    assert first_tile(4096, 4096) == "128x128/8x8"
    assert first_tile(256, 256) != first_tile(4096, 4096)


def test_a_convolution_writes_vectors_that_cross_rows_of_the_image(checker: Checker) -> None:
    """Rows of 6 are no multiple of 4, images of 36 are: neighbouring elements are seen to be neighbours."""
    task = checker.task(Wrapped(lambda x, w: F.conv2d(x, w, padding=1)), _normal(2, 3, 6, 6), _normal(4, 3, 3, 3))
    region = anchor(checker.compile(task))
    compiled = checker.compile(task, Recipe().choosing(region, "algorithm", "direct").choosing(region, "vec", 4))
    assert "reinterpret_cast<Vec<float, 4>*>(out)" in compiled.program.source
    assert checker.largest_error(task, compiled) <= 1e-6


@pytest.mark.parametrize("algorithm", ["mma", "wgmma"])
@pytest.mark.parametrize("in_front", [False, True])
def test_operands_in_tf32_are_rounded_where_they_are_packed(checker: Checker, algorithm: str, in_front: bool) -> None:
    """Then tensor cores read them as they lie in memory. Integers are exact in TF32, so the sums of these are too."""
    x, w = _integers(2, 8, 9, 9).float(), _integers(64, 8, 3, 3).float()

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x.relu() if in_front else x, w, padding=1)

    for inputs, limit in (((x, w), 0.0), ((_normal(*x.shape), _normal(*w.shape)), 1e-3)):
        task = checker.task(Wrapped(function), *inputs)
        region = anchor(compile_graph(task.graph, Recipe(), GPU, Tolerance()))
        recipe = Recipe().choosing(region, "algorithm", algorithm).choosing(region, "groups", "64x64")
        compiled = compile_graph(task.graph, recipe, GPU, Tolerance())
        main = compiled.program.source.partition("conv2d_kernel(")[2]
        assert "turned_tf32" in compiled.program.source or "nearest_tf32(" in compiled.program.source
        assert "tf32(" in main and "round_tf32(" not in main and "nearest_tf32(" not in main
        if algorithm == "wgmma":
            assert "wgmma_tf32(acc[0], describe_rows(&tile_left" in main
        assert checker.largest_error(task, compiled, sanitize=True) <= limit
