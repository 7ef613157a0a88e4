"""Tasks are cut along their batch only where no operator mixes rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from warpsmith.records import Task
from warpsmith.task import draw, evaluate, task_from_module
from warpsmith.task.blocks import block_of, cut_of


class Of(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.parts)


ROWS = 6
CUT = {
    "pointwise": (Of(lambda x: torch.relu(x) * 2 + 1), (ROWS, 5)),
    "softmax": (Of(lambda x: torch.softmax(x, dim=1)), (ROWS, 5)),
    "row sum": (Of(lambda x: x.sum(dim=1, keepdim=True)), (ROWS, 5)),
    "linear": (nn.Sequential(nn.Linear(5, 3), nn.GELU(), nn.Linear(3, 4)), (ROWS, 5)),
    "convolution": (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2)), (ROWS, 2, 8, 8)),
    "views": (Of(lambda x: x.view(ROWS, 2, 4).transpose(1, 2).flatten(1)), (ROWS, 8)),
    "layer norm": (nn.LayerNorm(5), (ROWS, 5)),
    "group norm": (nn.GroupNorm(2, 4), (ROWS, 4, 3)),
}
WHOLE = {
    "softmax over the batch": (Of(lambda x: torch.softmax(x, dim=0)), (ROWS, 5)),
    "sum over the batch": (Of(lambda x: x - x.sum(dim=0)), (ROWS, 5)),
    "batch norm": (nn.BatchNorm1d(5), (ROWS, 5)),
    "scan over the batch": (Of(lambda x: torch.cumsum(x, dim=0)), (ROWS, 5)),
    "transposed": (Of(lambda x: x.t().contiguous()), (ROWS, ROWS)),
    "flipped": (Of(lambda x: x.flip(0)), (ROWS, 5)),
    "a table with a row for each row": (Of(lambda x: x + torch.arange(ROWS)[:, None]), (ROWS, 5)),
    "rows regrouped": (Of(lambda x: x.view(2 * ROWS, 2) * 2), (ROWS, 4)),
    "convolution without a batch": (nn.Conv1d(ROWS, ROWS, 3, padding=1), (ROWS, 9)),
    "total": (Of(lambda x: x.mean()), (ROWS, 5)),
    "product with itself": (Of(lambda x: x @ x), (ROWS, ROWS)),
}


def task_of(case: tuple[nn.Module, tuple[int, ...]]) -> Task:
    return task_from_module(case[0], torch.randn(case[1]))


@pytest.mark.parametrize("name", CUT)
def test_a_block_of_the_task_is_the_block_of_its_results(name: str) -> None:
    task = task_of(CUT[name])
    cut = cut_of(task.graph)
    assert cut is not None and cut.rows == ROWS
    arguments = draw(task, "normal", 3)
    whole = evaluate(task.graph, arguments, "float64")
    for start, rows in ((0, 4), (4, 2)):
        part = {n: v[start : start + rows] if n in cut.batched else v for n, v in arguments.items()}
        for output, value in evaluate(block_of(task, cut, rows).graph, part, "float64").items():
            torch.testing.assert_close(value, whole[output][start : start + rows], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WHOLE)
def test_what_mixes_rows_is_not_cut(name: str) -> None:
    assert cut_of(task_of(WHOLE[name]).graph) is None
