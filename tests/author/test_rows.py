"""Every algorithm and every gene of the families `rows` and `pointwise` gives a right, race-free kernel."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.program import bind
from warpsmith.records import GpuSpec, Task


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


# ------------------------------------------------------------------------------------- rows shared by clusters of blocks


class Blend(torch.nn.Module):
    """Two rows kept between passes, parameters along the row, and outputs of both shapes."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, ...]:
        z = F.layer_norm(x * y, (x.shape[-1],)) * gain
        return z.softmax(-1), z.argmax(-1), (x + z).abs().sum(-1)


ROWS: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {
    "two inputs": (Blend(), (torch.randn(3, 4096), torch.randn(3, 4096).half(), torch.rand(4096))),
    "odd": (Normalize(), (torch.randn(2, 5003), torch.rand(5003))),
    "planes": (torch.nn.InstanceNorm2d(2, affine=True), (torch.randn(1, 2, 64, 68),)),
    "not finite": (
        torch.nn.Softmax(-1),
        (
            torch.randn(3, 4100)
            .index_fill(1, torch.tensor([7, 4000]), float("-inf"))
            .index_fill(1, torch.tensor([9]), 3e38),
        ),
    ),
}
# What a block holds of the rows above: an eighth fits, a half does not.
SMALL = replace(GPU, shared_per_block=20 * 1024)


def _clustered(task: Task, gpu: GpuSpec = GPU, **genes: int | str) -> Compiled:
    recipe = compile_graph(task.graph, Recipe(), gpu).recipe
    for region in recipe.genes:
        for gene, choice in {"algorithm": "cluster", "stage": "shared", **genes}.items():
            recipe = recipe.choosing(region, gene, choice)
    return compile_graph(task.graph, recipe, gpu)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("passes", "clusters"), [("one", (4,)), ("two", (2, 8))])
def test_a_row_shared_by_a_cluster_is_right_for_every_size_of_cluster(
    checker: Checker, name: str, passes: str, clusters: tuple[int, ...]
) -> None:
    module, inputs = ROWS[name]
    task = checker.task(module, *inputs)
    compiled = _clustered(task, passes=passes)
    (launch,) = compiled.program.plan.launches
    assert launch.cluster == ("CLUSTER",)
    assert launch.shared != "0"
    assert set(dict(compiled.program.plan.tunables)["CLUSTER"]) == {2, 4, 8}
    for size in clusters:
        tuned = compile_graph(task.graph, replace(compiled.recipe, tunables={"CLUSTER": size, "BLOCK": 256}), GPU)
        assert checker.largest_error(task, tuned, sanitize=True) < 4e-6, tuned.program.source


@pytest.mark.parametrize(("stage", "shared"), [("registers", False), ("reload", False), ("shared", True)])
def test_what_blocks_of_a_cluster_keep(checker: Checker, stage: str, shared: bool) -> None:
    task = checker.task(torch.nn.Softmax(-1), torch.randn(2, 4096))
    compiled = _clustered(task, stage=stage)
    (launch,) = compiled.program.plan.launches
    assert launch.cluster and (launch.shared != "0") == shared
    assert checker.largest_error(task, compiled, sanitize=True) < 4e-6


def _sectors_read(checker: Checker, task: Task, compiled: Compiled) -> int:
    build = checker.builder.build(compiled.program, dict(compiled.tunables), checker.simulator.architecture)
    specs = {s.name: s for s in (*task.graph.arguments, *task.graph.results)}
    plan = bind(compiled.program.plan, specs, dict(compiled.tunables), GPU)
    run = checker.simulator.run(build, plan, dict(task.examples), task.graph.results, fill=7)
    return sum(each.global_load_sectors for each in run.counters)


def test_a_row_is_read_once_by_a_cluster_and_again_for_every_pass_by_a_block_that_cannot_hold_it(
    checker: Checker,
) -> None:
    task = checker.task(torch.nn.Softmax(-1), torch.randn(2, 8192))
    block = checker.compile(task).recipe.choosing("softmax.softmax", "algorithm", "block")
    block = block.choosing("softmax.softmax", "stage", "reload").choosing("softmax.softmax", "passes", "two")
    again = checker.compile(task, block)
    read = {
        name: _sectors_read(checker, task, each) for name, each in {"cluster": _clustered(task), "block": again}.items()
    }
    assert read == {"cluster": 2 * 8192 * 4 // 32, "block": 3 * 2 * 8192 * 4 // 32}


def test_clusters_come_first_where_a_row_is_longer_than_a_block_holds(checker: Checker) -> None:
    def first(columns: int, spec: GpuSpec, rows: int = 10) -> str:
        compiled = compile_graph(checker.task(torch.nn.Softmax(-1), torch.randn(rows, columns)).graph, Recipe(), spec)
        return str(compiled.recipe.genes["softmax.softmax"]["algorithm"])

    assert first(8192, SMALL) == "cluster"
    assert first(8192, SMALL, rows=2) != "cluster", "most of the GPU would idle"
    assert first(8192, GPU) != "cluster", "a block can hold it"
    assert first(8192, replace(SMALL, compute_capability=(8, 9))) != "cluster"
    long = checker.task(torch.nn.Softmax(-1), torch.randn(10, 65536))
    offered = compile_graph(long.graph, Recipe(), SMALL).genes["softmax.softmax"][0].choices
    assert "cluster" not in offered, "no cluster can hold it"


@pytest.mark.parametrize("name", ["H100", "B200"])
def test_every_pair_of_sizes_of_a_long_row_fits(checker: Checker, name: str) -> None:
    spec = gpu(name)
    for columns in (393_216, 262_144, 65_535, 400_000):
        graph = checker.task(torch.nn.Softmax(-1), torch.zeros(12, columns)).graph
        plan = compile_graph(graph, Recipe(), spec).program.plan
        specs = {each.name: each for each in (*graph.arguments, *graph.results)}
        values = dict(plan.tunables)
        for block, cluster in itertools.product(values["BLOCK"], values["CLUSTER"]):
            bound = bind(
                plan,
                specs,
                {name: each[0] for name, each in plan.tunables} | {"BLOCK": block, "CLUSTER": cluster},
                spec,
            )
            assert columns * 4 / cluster <= bound.launches[0].shared <= spec.shared_per_block - 2048
