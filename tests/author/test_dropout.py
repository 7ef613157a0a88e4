"""Dropout from a module to a judged program: the mask must be read, and it is enough to read it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.author.conftest import Checker
from warpsmith.author.builtin import Compiled, compile_graph
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.device.simulator import Simulator
from warpsmith.judge import Judge
from warpsmith.program import Builder
from warpsmith.records import Candidate, Graph, Lineage, Stage, Task
from warpsmith.task import task_from_module


class Dropped(nn.Module):
    """A linear layer, dropout and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(24, 20), nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.dropout(self.linear(x)), dim=1)


class Zeros(nn.Module):
    """Clamps between 0 and 1 what is at most 0, and drops some of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(8, 6), nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(torch.min(self.linear(x), torch.tensor(0.0)).clamp(0.0, 1.0))


@pytest.fixture(scope="module")
def task() -> Task:
    return task_from_module(Dropped(), torch.randn(10, 24))


def judge_of(task: Task, builder: Builder, checker: Checker) -> Judge:
    return Judge(task, Simulator(checker.simulator.spec), builder)


def candidate(task: Task, compiled: Compiled) -> Candidate:
    return Candidate(task.key, compiled.program, compiled.tunables, Lineage("test", "create"))


def without_mask(graph: Graph) -> Graph:
    """The same with the mean of its mask in place of the mask."""
    nodes = tuple(
        replace(node, args=(node.args[0], graph.masks[0][1])) if node.name == "masked" else node for node in graph.nodes
    )
    return replace(graph, nodes=nodes)


def test_a_program_that_reads_the_mask_passes(task: Task, builder: Builder, checker: Checker) -> None:
    judge = judge_of(task, builder, checker)
    verdict = judge.judge(candidate(task, checker.compile(task)))
    assert verdict.passed, verdict.failure
    assert judge.admission.admitted


def test_a_program_that_ignores_the_mask_fails(task: Task, builder: Builder, checker: Checker) -> None:
    compiled = compile_graph(without_mask(task.graph), Recipe(), checker.simulator.spec)
    verdict = judge_of(task, builder, checker).judge(candidate(task, compiled))
    assert verdict.failure is not None
    assert (verdict.failure.stage, verdict.failure.reason) == (Stage.NUMERICS, "wrong_value")


def test_a_task_whose_mask_changes_nothing_is_judged_and_marked(builder: Builder, checker: Checker) -> None:
    task = task_from_module(Zeros(), torch.randn(5, 8))
    judge = judge_of(task, builder, checker)
    assert judge.judge(candidate(task, checker.compile(task))).passed
    assert not judge.admission.admitted and "mask" in judge.admission.degenerate
    assert judge.admission.constant == ("out",)


@pytest.mark.parametrize(
    "module",
    [
        nn.Dropout2d(0.4),
        nn.Sequential(nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.Dropout(0.25, inplace=True)),
        nn.Sequential(nn.Flatten(), nn.Dropout1d(0.5)),
    ],
)
def test_masks_of_channels_and_several_masks(checker: Checker, module: nn.Module) -> None:
    task = checker.task(module, torch.randn(2, 3, 5, 6))
    assert checker.largest_error(task, checker.compile(task), sanitize=True) < 1e-6
