"""A task that is judged block by block gets the verdict that it would get whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from warpsmith.judge import blockwise
from warpsmith.judge.blockwise import BlockPool, Blocks, blocks_for, compare_blocks
from warpsmith.judge.numerics import compare
from warpsmith.judge.references import Reference, refer
from warpsmith.records import Task
from warpsmith.task import draw, evaluate, task_from_module


class Row(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(40, 30)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(x), dim=1)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    return task_from_module(Row(), torch.randn(23, 40))


@pytest.fixture
def blocks(task: Task, monkeypatch: pytest.MonkeyPatch) -> Blocks:
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", 4096)
    found = blocks_for(task, 1)
    assert found is not None and len(found.starts()) == 3
    return found


def test_only_what_does_not_fit_is_cut(task: Task) -> None:
    assert blocks_for(task, 1 << 40) is None


def test_blocks_are_tried_before_they_are_relied_on(task: Task, blocks: Blocks) -> None:
    assert blocks.holds(draw(task, "normal", 1))


def test_right_outputs_are_right_in_blocks(task: Task, blocks: Blocks) -> None:
    arguments = draw(task, "normal", 5)
    out = evaluate(task.graph, arguments, "task")
    found = compare_blocks(blocks, "normal", 5, arguments, out)
    assert found.mismatch is None and found.reason is None
    assert compare(refer(task, "normal", 5, arguments), out, task.tolerance).mismatch is None


@pytest.mark.parametrize("row", [0, 11, 22])
def test_one_wrong_element_is_found_where_it_stands(task: Task, blocks: Blocks, row: int) -> None:
    arguments = draw(task, "normal", 5)
    out = evaluate(task.graph, arguments, "task")
    out["out"][row, 7] *= 1.001
    found = compare_blocks(blocks, "normal", 5, arguments, out)
    assert found.mismatch is not None and found.mismatch.index == (row, 7)
    assert found.mismatch.total == 23 * 30 and found.result.error > found.result.limit


def test_timed_calls_are_checked_in_blocks(task: Task, blocks: Blocks) -> None:
    arguments = draw(task, "nominal", 1)
    pool = BlockPool(blocks, 1, arguments)
    right = evaluate(task.graph, arguments, "task")["out"]
    stale = torch.full_like(right, float("nan"))
    members = pool.members(2, 0)
    assert pool.wrong({"out": torch.stack([right, right])}, [0, 1], members) is None
    assert pool.wrong({"out": torch.stack([right, stale])}, [0], members) is None
    found = pool.wrong({"out": torch.stack([right, stale])}, [0, 1], members)
    assert found is not None and found.reason == "unexpected_nan"
    off = right.clone()
    off[22, 29] += 1e-3
    found = pool.wrong({"out": torch.stack([right, off])}, [1], members)
    assert found is not None and found.mismatch.index == (22, 29)


def test_a_reference_without_answers_lets_nothing_pass(task: Task) -> None:
    arguments = draw(task, "normal", 5)
    with pytest.raises(ValueError, match="without answers"):
        compare(Reference("normal", 5, arguments, {}), evaluate(task.graph, arguments, "task"), task.tolerance)
