"""Recurrent layers: every way to share them out computes what PyTorch computes, in every one of their outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import Task
from warpsmith.task import task_from_module

torch.manual_seed(5)
LIMIT = 2e-6

# Modules with the shapes of their inputs: the sequences, and where they are given the initial states.
CASES: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "lstm": (nn.LSTM(5, 8), ((4, 3, 5),)),
    "lstm, two layers from both ends": (nn.LSTM(6, 12, 2, batch_first=True, bidirectional=True), ((3, 5, 6),)),
    "lstm without biases": (nn.LSTM(4, 9, bias=False, batch_first=True), ((2, 3, 4),)),
    "lstm of one step": (nn.LSTM(4, 8), ((1, 2, 4),)),
    "gru": (nn.GRU(5, 8, batch_first=True), ((3, 4, 5),)),
    "gru, two layers from both ends": (nn.GRU(6, 10, 2, bidirectional=True), ((4, 2, 6), (4, 2, 10))),
    "gru without biases": (nn.GRU(4, 20, bias=False), ((3, 2, 4), (1, 2, 20))),
    "one sequence without a batch": (nn.GRU(4, 8), ((3, 4),)),
    "tanh": (nn.RNN(4, 9, 2), ((4, 2, 4),)),
    "rectified": (nn.RNN(4, 8, nonlinearity="relu", batch_first=True), ((3, 3, 4), (1, 3, 8))),
    "float64": (nn.LSTM(4, 8, bidirectional=True).double(), ((3, 2, 4),)),
}


def task_of(name: str) -> Task:
    module, shapes = CASES[name]
    dtype = next(module.parameters()).dtype
    return task_from_module(module.eval(), [torch.randn(*shape, dtype=dtype) for shape in shapes])


def anchors(compiled: Compiled) -> list[str]:
    """Names of the regions with a recurrence."""
    return [name for name in compiled.genes if ".layer" in name]


def everywhere(compiled: Compiled, **genes: int | str) -> Recipe:
    recipe = Recipe()
    for region in anchors(compiled):
        for gene, choice in genes.items():
            recipe = recipe.choosing(region, gene, choice)
    return recipe


_SHARED_OUT = ("lstm, two layers from both ends", "lstm of one step", "gru without biases", "float64")


@pytest.mark.parametrize(
    ("name", "algorithm"), [*((name, "rows") for name in CASES), *((name, "grid") for name in _SHARED_OUT)]
)
def test_both_algorithms_compute_what_pytorch_computes(checker: Checker, name: str, algorithm: str) -> None:
    task = task_of(name)
    compiled = checker.compile(task, everywhere(checker.compile(task), algorithm=algorithm))
    assert all(compiled.recipe.genes[region]["algorithm"] == algorithm for region in anchors(compiled))
    assert checker.largest_error(task, compiled, sanitize=True) <= (1e-14 if name == "float64" else LIMIT)


def test_the_number_of_kernels_does_not_depend_on_the_number_of_steps() -> None:
    def launches(steps: int) -> int:
        task = task_from_module(nn.LSTM(4, 8, 2, bidirectional=True), torch.randn(steps, 2, 4))
        return len(compile_graph(task.graph, Recipe(), GPU).program.plan.launches)

    assert launches(3) == launches(40)


def test_what_nobody_reads_is_not_written(checker: Checker) -> None:
    gru = nn.GRU(4, 8, batch_first=True)
    task = task_from_module(Wrapped(lambda x: gru(x)[1]), torch.randn(2, 3, 4))
    compiled = checker.compile(task)
    assert checker.largest_error(task, compiled) <= LIMIT
    # The sums of the inputs are all that lies between the two kernels: no state but the last is in memory.
    assert [buffer.shape for buffer in compiled.program.plan.buffers] == [("2", "3", "24")]


def test_work_on_each_state_joins_the_kernel(checker: Checker) -> None:
    lstm = nn.LSTM(4, 8, batch_first=True)
    task = task_from_module(Wrapped(lambda x, y: torch.relu(lstm(x)[0] * 2) + y), (torch.randn(2, 3, 4), torch.ones(8)))
    compiled = checker.compile(task)
    assert len(compiled.program.plan.launches) == 2
    assert checker.largest_error(task, compiled, sanitize=True) <= LIMIT


def _odd() -> Task:
    """Numbers that no tile divides."""
    return task_from_module(nn.LSTM(3, 12), torch.randn(3, 3, 3))


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("rows", "rows"), ("rows", "weights"), ("rows", "vec"), ("grid", "tile"), ("grid", "weights")],
)
def test_every_choice_of_a_gene_is_another_program_and_right(checker: Checker, algorithm: str, name: str) -> None:
    task = _odd()
    default = checker.compile(task)
    (region,) = anchors(default)
    (choices,) = (gene.choices for gene in default.genes[region] if gene.name == name)
    assert len(choices) > 1
    sources = set()
    for choice in choices:
        compiled = checker.compile(task, everywhere(default, algorithm=algorithm, **{name: choice}))
        sources.add(compiled.program.source)
        assert checker.largest_error(task, compiled, sanitize=True) <= LIMIT, choice
    assert len(sources) == len(choices)


@pytest.mark.parametrize(
    ("algorithm", "tile", "rows", "weights"), [("rows", "1x1", 2, "registers"), ("grid", "2x4", 1, "shared")]
)
def test_every_value_of_a_tunable_is_right(
    checker: Checker, algorithm: str, tile: str, rows: int, weights: str
) -> None:
    task = _odd()
    recipe = everywhere(checker.compile(task), algorithm=algorithm, tile=tile, rows=rows, weights=weights)
    tunables = [t for t in checker.compile(task, recipe).program.plan.tunables if "LAYER0" in t[0]]
    assert len(tunables) == 3
    for name, values in tunables:
        for value in values:
            compiled = checker.compile(task, Recipe(genes=recipe.genes, tunables={name: value}))
            assert checker.largest_error(task, compiled, sanitize=True) <= LIMIT, (name, value)


def test_wide_layers_are_shared_out_over_blocks_that_are_all_resident() -> None:
    task = task_from_module(nn.LSTM(8, 256, bidirectional=True), torch.randn(2, 10, 8))
    compiled = compile_graph(task.graph, Recipe(), GPU)
    (region,) = anchors(compiled)
    (launch,) = (one for one in compiled.program.plan.launches if one.cooperative)
    assert compiled.recipe.genes[region]["weights"] == "registers"
    blocks = [int(extent) for extent in launch.grid]
    assert GPU.sm_count / 2 < blocks[0] * blocks[1] * blocks[2] <= GPU.sm_count


def test_half_precision_is_computed_in_float32(checker: Checker) -> None:
    task = task_from_module(nn.GRU(4, 8, batch_first=True).half(), torch.randn(2, 3, 4).half())
    assert checker.largest_error(task, checker.compile(task)) < 1e-3


def test_projections_are_refused() -> None:
    task = task_from_module(nn.LSTM(4, 8, proj_size=3), torch.randn(3, 2, 4))
    with pytest.raises(UnsupportedOperator, match="projections"):
        compile_graph(task.graph, Recipe(), GPU)
