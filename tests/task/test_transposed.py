"""What a transposed convolution must do at least: products that reach an output, and no others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from warpsmith.device.catalog import gpu
from warpsmith.records import Task
from warpsmith.task import task_from_module
from warpsmith.task.bounds import bound
from warpsmith.task.exact import exact_roles

# Stride, padding, output padding, groups, dilation; taps and input extent.
LINES = [
    (1, 0, 0, 1, 1, 3, 5),
    (2, 1, 1, 1, 1, 3, 4),
    (2, 3, 0, 2, 1, 3, 6),
    (3, 1, 0, 1, 2, 4, 5),
    (4, 3, 1, 2, 6, 2, 3),
]


class _Transposed(torch.nn.Module):
    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose1d(x, w, None, *self.numbers)


def _task(line: tuple[int, ...]) -> tuple[Task, list[tuple[int, int]]]:
    """A task with 2 images, 4 channels in and 3 of each group out, and which input meets which tap at an output."""
    stride, padding, _, _, dilation, taps, extent = line
    task = task_from_module(_Transposed(*line[:5]), (torch.rand(2, 4, extent), torch.rand(4, 3, taps)))
    out = task.graph.results[0].shape[-1]
    met = [
        (i, k) for i in range(extent) for k in range(taps) if 0 <= i * stride + k * dilation - padding < out
    ]  # fmt: skip
    return task, met


@pytest.mark.parametrize("line", LINES)
def test_the_bound_counts_what_reaches_an_output(line: tuple[int, ...]) -> None:
    task, met = _task(line)
    result = bound(task, gpu("H200"))
    assert result.operations == 2 * 2 * 4 * 3 * len(met)
    assert result.bytes_read == 4 * (8 * len({i for i, _ in met}) + 12 * line[5])


@pytest.mark.parametrize("line", LINES)
def test_the_exactness_probe_knows_how_long_sums_are(line: tuple[int, ...]) -> None:
    """An inner output of a long line of ones is the number of products that it adds up."""
    task, _ = _task(line)
    stride, _, _, groups, dilation, taps, _ = line
    ones = F.conv_transpose1d(torch.ones(1, 4, 99), torch.ones(4, 3, taps), None, stride, 0, 0, groups, dilation)
    roles = exact_roles(task.graph, 0)
    assert {operand.role for operand in roles.values()} == {"integers", "ones"}
    assert {operand.terms for operand in roles.values()} == {int(ones.max())}
