"""Running sums and products: every algorithm, gene and tunable computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.author.builtin.index import lift
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.regions import Region
from warpsmith.author.builtin.values import Scan, Stored
from warpsmith.device.simulator import launch
from warpsmith.device.simulator.machine import Chunk
from warpsmith.program import bind
from warpsmith.records import Graph, Node, Ref, Task, TensorSpec

Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...], float]
_generator = torch.Generator().manual_seed(6)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


CASES: dict[str, Case] = {
    "rows of odd length": (lambda x: x.cumsum(1), (_normal(5, 77),), 1e-6),
    "rows that vectors divide": (lambda x: x.cumsum(1), (_normal(3, 1024),), 1e-6),
    "longer than a round": (lambda x: x.cumsum(0), (_normal(9001),), 2e-6),
    "short rows": (lambda x: x.cumsum(1), (_normal(70, 5),), 1e-6),
    "rows of one": (lambda x: x.cumsum(1), (_normal(70, 1),), 1e-6),
    "outer dimension": (lambda x: x.cumsum(0), (_normal(100, 40),), 1e-6),
    "middle dimension": (lambda x: x.cumsum(1), (_normal(3, 70, 5),), 1e-6),
    "few long rows": (lambda x: x.cumsum(1), (_normal(2, 5000),), 2e-6),
    "products": (lambda x: x.cumprod(-1), (1 + _normal(4, 130) / 50,), 1e-6),
    "functions around": (lambda x, y: torch.relu((x * 2).cumsum(1)) * y, (_normal(4, 100), _normal(100)), 1e-6),
    "flipped": (lambda x: x.flip(1).cumsum(1).flip(1), (_normal(4, 100),), 1e-6),
    "int64": (lambda x: x.cumsum(1), (torch.randint(-99, 99, (3, 150), generator=_generator),), 0.0),
    "float16": (lambda x: x.cumsum(1), (_normal(3, 96).half(),), 1e-3),
    "float64": (lambda x: x.cumsum(1), (_normal(3, 150).double(),), 1e-14),
    "infinities spoil only what follows": (
        lambda x: x.cumsum(1), (torch.cat([_normal(2, 60), torch.full((2, 1), torch.inf), _normal(2, 60)], 1),), 1e-6,
    ),
}  # fmt: skip
# Rows long enough to be scanned in pieces.
LONG_CASES: dict[str, Case] = {
    "one row of odd length": (lambda x: x.cumsum(0), (_normal(20_011),), 1e-6),
    "several rows that vectors divide": (lambda x: x.cumsum(1), (_normal(5, 4224),), 1e-6),
    "functions around": (lambda x, y: torch.relu((x * 2).cumsum(1)) * y, (_normal(3, 4100), _normal(4100)), 1e-6),
    "flipped": (lambda x: x.flip(1).cumsum(1).flip(1), (_normal(2, 4103),), 1e-6),
    "without the element itself": (lambda x: x.cumsum(1) - x, (_normal(2, 4100),), 1e-6),
    "products": (lambda x: x.cumprod(-1), (1 + _normal(2, 4100) / 500,), 1e-5),
    "int64 beyond 32 bits": (
        lambda x: x.cumsum(1), (torch.randint(-(2**40), 2**40, (2, 4105), generator=_generator),), 0.0,
    ),
    "float64": (lambda x: x.cumsum(1), (torch.rand(2, 4105, generator=_generator, dtype=torch.float64),), 1e-14),
    "float16": (lambda x: (x / 64).cumsum(1), (_normal(2, 4104).half(),), 1e-3),
    "two rows side by side": (lambda x: x.cumsum(0), (_normal(4100, 2),), 1e-6),
    "nine rows side by side": (lambda x: x.cumsum(0), (_normal(1100, 9),), 1e-6),
    "bands of rows side by side": (lambda x: torch.tanh(x.cumsum(0) / 50), (_normal(1030, 64),), 1e-6),
    "middle dimension": (lambda x: x.cumsum(1), (_normal(3, 1030, 12),), 1e-6),
    "infinities spoil only what follows": (
        lambda x: x.cumsum(0), (torch.cat([_normal(3000), torch.full((1,), torch.inf), _normal(3000)]),), 1e-6,
    ),
}  # fmt: skip
LONG: Case = (lambda x: torch.tanh(x.cumsum(1) / 50), (_normal(3, 4204),), 2e-6)
TALL: Case = (lambda x: x.cumsum(0), (_normal(90, 40),), 1e-6)
TALLER: Case = (lambda x: x.cumsum(0), (_normal(1100, 9),), 1e-6)


def anchor(compiled: Compiled) -> str:
    """The name of the region with the scan."""
    return next(name for name in compiled.genes if name.endswith(".scan"))


def gene(compiled: Compiled, name: str) -> tuple[int | str, ...]:
    (choices,) = (g.choices for g in compiled.genes[anchor(compiled)] if g.name == name)
    return choices


@pytest.mark.parametrize("name", CASES)
def test_algorithms_compute_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs, limit = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    default = checker.compile(task)
    for algorithm in gene(default, "algorithm"):
        compiled = checker.compile(task, Recipe().choosing(anchor(default), "algorithm", algorithm))
        assert checker.largest_error(task, compiled, sanitize=True) <= limit, algorithm


@pytest.mark.parametrize("name", LONG_CASES)
def test_looking_back_computes_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs, limit = LONG_CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    region = anchor(checker.compile(task))
    compiled = checker.compile(task, Recipe().choosing(region, "algorithm", "lookback"))
    assert compiled.recipe.genes[region]["algorithm"] == "lookback"
    assert checker.largest_error(task, compiled, sanitize=True) <= limit


def _small_tiles(checker: Checker, task: Task) -> Compiled:
    """A program that looks back, in tiles of 64 elements."""
    region = anchor(checker.compile(task))
    recipe = Recipe().choosing(region, "algorithm", "lookback").choosing(region, "vec", 1)
    default = checker.compile(task, recipe)
    tunables = {name: min(values) for name, values in default.program.plan.tunables}
    return checker.compile(task, Recipe(genes=recipe.genes, tunables=tunables))


def test_looking_back_over_more_tiles_than_two_levels_hold(checker: Checker) -> None:
    task = checker.task(Wrapped(lambda x: x.cumsum(0)), _normal(64 * 32 * 32 + 64 * 40 + 5))
    assert checker.largest_error(task, _small_tiles(checker, task), sanitize=True) <= 1e-6


def test_looking_back_gives_the_same_bits_whichever_block_is_faster(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks that run one after the other find other sums posted than blocks that run together, or that are overtaken.
    task = checker.task(Wrapped(lambda x: x.cumsum(1)), _normal(2, 6000))
    compiled = _small_tiles(checker, task)
    build = checker.builder.build(compiled.program, dict(compiled.tunables), checker.simulator.architecture)
    (x,), (out,) = task.graph.arguments, task.graph.results
    plan = bind(compiled.program.plan, {x.name: x, out.name: out}, dict(compiled.tunables), GPU)
    run_for = Chunk.run

    def bits(threads: int, speed: Callable[[int], int], fill: int) -> torch.Tensor:
        monkeypatch.setattr(launch, "CHUNK_THREADS", threads)
        monkeypatch.setattr(Chunk, "run", lambda chunk, _: run_for(chunk, speed(chunk.first_block)))
        run = checker.simulator.run(build, plan, dict(task.examples), (out,), fill=fill, count=False)
        assert not run.findings
        return run.outputs[out.name].view(torch.int32)

    together = bits(16384, lambda _: 5000, 1)
    assert torch.equal(bits(64, lambda _: 5000, 2), together)
    assert torch.equal(bits(64, lambda block: 1 + block * 7 % 23, 3), together)
    assert torch.equal(bits(640, lambda block: 40 if block % 3 else 2, 4), together)


def test_scans_that_share_a_kernel_do_not_share_what_they_post(checker: Checker) -> None:
    task = checker.task(Wrapped(lambda x, y: (x.cumsum(1), y.cumsum(1))), _normal(2, 16400), _normal(2, 16400))
    compiled = checker.compile(task)
    launches = compiled.program.plan.launches
    assert len(launches) == 4
    assert len({one.kernel for one in launches}) == 2
    assert len(compiled.program.plan.buffers) == 4
    assert checker.largest_error(task, compiled, sanitize=True) <= 1e-6


def _tunings(checker: Checker, task: Task, recipe: Recipe) -> list[Compiled]:
    """The defaults, and one program for every other value of every tunable."""
    default = checker.compile(task, recipe)
    tunables = default.program.plan.tunables
    assert all(len(values) > 1 for _, values in tunables)
    others = [{name: value} for name, values in tunables for value in values[1:]]
    return [default, *(checker.compile(task, Recipe(genes=recipe.genes, tunables=one)) for one in others)]


@pytest.mark.parametrize(
    ("case", "algorithm", "reads"),
    [
        (LONG, "split", "direct"),
        (LONG, "split", "exchanged"),
        (LONG, "lookback", "striped"),
        (LONG, "lookback", "exchanged"),
        (TALLER, "lookback", "direct"),
        (LONG, "block", "direct"),
        (LONG, "block", "striped"),
        (LONG, "block", "exchanged"),
        (LONG, "warp", "direct"),
        (TALL, "columns", "direct"),
        (TALL, "thread", "direct"),
        (TALL, "block", "exchanged"),
    ],
)
def test_every_value_of_a_tunable_is_right(checker: Checker, case: Case, algorithm: str, reads: str) -> None:
    task = checker.task(Wrapped(case[0]), *case[1])
    region = anchor(checker.compile(task))
    recipe = Recipe().choosing(region, "algorithm", algorithm).choosing(region, "reads", reads)
    for compiled in _tunings(checker, task, recipe):
        assert compiled.recipe.genes[region]["algorithm"] == algorithm
        assert checker.largest_error(task, compiled) <= case[2], compiled.tunables


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("", "algorithm"), ("block", "vec"), ("block", "reads"), ("lookback", "vec"), ("lookback", "reads")],
)
def test_every_choice_of_a_gene_is_another_program_and_right(checker: Checker, algorithm: str, name: str) -> None:
    task = checker.task(Wrapped(LONG[0]), *LONG[1])
    default = checker.compile(task)
    region = anchor(default)
    recipe = Recipe().choosing(region, "algorithm", algorithm) if algorithm else Recipe()
    choices = gene(default, name)
    assert len(choices) > 1
    sources = set()
    for choice in choices:
        compiled = checker.compile(task, recipe.choosing(region, name, choice))
        sources.add(compiled.program.source)
        assert checker.largest_error(task, compiled, sanitize=True) <= LONG[2], choice
    assert len(sources) == len(choices)


def test_few_long_rows_are_cut_and_others_are_not() -> None:
    def first(shape: tuple[int, int], dim: int) -> int | str:
        x, out = TensorSpec("x", shape, "float32"), TensorSpec("out", shape, "float32")
        node = Node("cumsum", "aten.cumsum.default", (Ref("x"), dim), (), (out,))
        graph = Graph((x,), (), (), (), (node,), ((out, Ref("cumsum")),))
        return gene(compile_graph(graph, Recipe(), GPU), "algorithm")[0]

    assert first((4, 65536), 1) == "lookback"
    assert first((4, 4096), 1) == "block"
    assert first((4096, 65536), 1) == "block"
    assert first((65536, 64), 0) == "lookback"
    assert first((65536, 65536), 0) == "thread"


def test_a_reversed_scan_reads_from_the_end() -> None:
    x = Stored("x", (3, 8), "float32")
    scan = Scan("scan", x.shape, "float32", ("float32",), "sum", 1, True, x.at)
    layout = ScanLayout.of(Region("scan", "scan", x.shape, (1,), [scan]), 1)
    row, place = next(iter(layout.source.indices)).terms
    assert layout.source.indices[0].constant == 7
    assert {row[1], place[1]} == {8, -1}
    assert not ScanLayout.of(Region("scan", "scan", x.shape, (1,), [scan]), 4).any_vector
    assert lift(3).constant == 3
