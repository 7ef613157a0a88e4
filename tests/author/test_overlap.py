"""Programs of the built-in author whose launches overlap: still right, waiting where they must, and found by mutation."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.author.conftest import GPU, Checker
from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor, Compiled, Recipe, compile_graph
from warpsmith.device.catalog import gpu
from warpsmith.records import Candidate, GpuSpec, Judged, Lineage, Stage, Task, Timing, Verdict
from warpsmith.task import task_from_module


@pytest.fixture(scope="module")
def layers() -> Task:
    torch.manual_seed(0)
    return task_from_module(nn.Sequential(nn.Linear(24, 40), nn.Softmax(-1), nn.Linear(40, 24)), torch.randn(6, 24))


def recipe(task: Task, *, overlap: bool = True) -> Recipe:
    """Every value stored, so that there are several launches: else these layers would become one."""
    return Recipe(frozenset(compile_graph(task.graph, Recipe(), GPU).cuttable), overlap=overlap)


def marks(compiled: Compiled) -> list[bool]:
    return [launch.overlap for launch in compiled.program.plan.launches]


def test_an_overlapping_program_is_right_and_every_kernel_waits(checker: Checker, layers: Task) -> None:
    compiled = checker.compile(layers, recipe(layers))
    source = compiled.program.source
    assert len(marks(compiled)) >= 2 and marks(compiled) == [False] + [True] * (len(marks(compiled)) - 1)
    assert source.count("    begin_early();\n") == source.count("__global__") and compiled.recipe.overlap
    assert checker.largest_error(layers, compiled, sanitize=True) < 1e-5


def test_kernels_that_layers_share_wait_as_well(checker: Checker) -> None:
    torch.manual_seed(1)
    modules = [part for _ in range(3) for part in (nn.Linear(32, 32), nn.LayerNorm(32))]
    task = task_from_module(nn.Sequential(*modules).half(), torch.randn(4, 32).half())
    compiled = checker.compile(task, recipe(task))
    launched = [launch.kernel for launch in compiled.program.plan.launches]
    assert len(set(launched)) < len(launched), "nothing is shared: this tests nothing"
    assert compiled.program.source.startswith("#include") and sum(marks(compiled)) == len(launched) - 1
    assert checker.largest_error(task, compiled, sanitize=True) < 2e-2


def test_without_overlap_nothing_is_said_of_it(layers: Task) -> None:
    plain = compile_graph(layers.graph, recipe(layers, overlap=False), GPU)
    assert not any(marks(plain)) and "griddepcontrol" not in plain.program.source
    assert "overlap" not in plain.recipe.to_json() and not Recipe.from_json(plain.recipe.to_json()).overlap
    assert Recipe.from_json(recipe(layers).to_json()) == recipe(layers)
    assert recipe(layers).choosing("a", "b", 1).overlap


def test_overlap_is_left_out_where_the_gpu_or_the_program_has_no_use_for_it(layers: Task) -> None:
    older = compile_graph(layers.graph, recipe(layers), gpu("A100"))
    single = task_from_module(nn.Softmax(-1), torch.randn(6, 24))
    alone = compile_graph(single.graph, recipe(single), GPU)
    hybrid = recipe(layers)
    for region in compile_graph(layers.graph, hybrid, GPU, hybrid=True).genes:
        hybrid = hybrid.choosing(region, "engine", "library")
    calling = compile_graph(layers.graph, hybrid, GPU, hybrid=True)
    assert calling.program.plan.calls
    for compiled in (older, alone, calling):
        assert not any(marks(compiled)) and not compiled.recipe.overlap and "wait" not in compiled.program.source


def judged(task: Task, compiled: Compiled) -> Judged:
    lineage = Lineage("builtin", "create", recipe=compiled.recipe.to_json())
    candidate = Candidate(task.key, compiled.program, compiled.tunables, lineage)
    timing = Timing((1e-6,), 1e-6, (1e-6, 1e-6), "estimated", GPU.name)
    return Judged(candidate, Verdict(candidate.key, task.key, Stage.PROFILE, None, timing))


def test_mutation_switches_it_and_other_operators_keep_it() -> None:
    task = task_from_module(nn.Sequential(nn.Softmax(-1), nn.Softmax(0)), torch.randn(6, 24))
    parents = [judged(task, compile_graph(task.graph, recipe(task, overlap=overlap), GPU)) for overlap in (False, True)]
    older = replace(GPU, compute_capability=(8, 0))

    def children(operator: str, parent: Judged, seeds: int, on: GpuSpec = GPU) -> list[bool]:
        author = BuiltinAuthor()
        several = (parent,) * author.operators[operator]
        proposals = [asyncio.run(author.propose(Context(task, on, operator, several, seed))) for seed in range(seeds)]
        return [Recipe.from_json(p.recipe).overlap for p in proposals if p is not None and p.recipe is not None]

    switched, back = (children("mutate", parent, 60) for parent in parents)
    assert 0 < switched.count(True) < 20 and 0 < back.count(False) < 20
    assert all(children("tune", parents[1], 4))
    assert not any(children("mutate", parents[0], 60, older))
