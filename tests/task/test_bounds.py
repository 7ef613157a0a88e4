"""The bound must be a true lower bound: a judge rejects what claims to be faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warpsmith.records import GpuSpec, Tolerance
from warpsmith.task import bound, load_task, task_from_module

FOLDER = Path(__file__).parents[2] / "examples"
GPU = GpuSpec(
    name="round numbers",
    compute_capability=(9, 0),
    sm_count=100,
    clock=1e9,
    memory_bytes=2**36,
    memory_bandwidth=1e12,
    l2_bytes=2**25,
    l2_bandwidth=4e12,
    fp32_flops=1e13,
    tf32_flops=1.2e14,
    half_flops=2.4e14,
    fp64_flops=5e12,
    shared_per_sm=2**17,
    shared_per_block=2**17,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source="invented",
)


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


def bound_of(function, *inputs: torch.Tensor, tolerance: Tolerance | None = None, gpu: GpuSpec = GPU):
    task = task_from_module(Apply(function), inputs)
    return bound(replace(task, tolerance=tolerance or Tolerance()), gpu)


def test_matmul_by_hand(example) -> None:
    result = bound(example(FOLDER / "matmul.py"), GPU)
    assert result.bytes_read == 4 * (120 * 136 + 136 * 150)
    assert result.bytes_written == 4 * 120 * 150
    assert result.operations == 2 * 120 * 150 * 136
    assert result.limit == "memory"
    assert result.seconds == pytest.approx((result.bytes_read + result.bytes_written) / 1e12)


def test_softmax_reads_once_and_writes_once() -> None:
    result = bound(load_task(FOLDER / "softmax.py"), GPU)
    assert (result.bytes_read, result.bytes_written) == (512_000, 512_000)


def test_batchnorm_writes_its_statistics() -> None:
    task = load_task(FOLDER / "batchnorm.py")
    assert bound(task, GPU).bytes_written == 4 * 8 * 24 * 28 * 28 + 2 * 4 * 24 + 8


@pytest.mark.parametrize(
    ("function", "shapes", "operations"),
    [
        (lambda a, b: a @ b, [(5, 7, 3), (5, 3, 4)], 2 * 5 * 7 * 3 * 4),
        (lambda a, b, c: torch.addmm(c, a, b), [(7, 3), (3, 4), (7, 4)], 2 * 7 * 3 * 4),
        (lambda x, w: F.linear(x, w), [(2, 7, 3), (4, 3)], 2 * 14 * 3 * 4),
        (lambda x, w: F.conv2d(x, w), [(2, 3, 8, 8), (5, 3, 3, 3)], 2 * 2 * 5 * 36 * 27),
        (lambda x, w: F.conv2d(x, w, groups=3), [(2, 3, 8, 8), (6, 1, 3, 3)], 2 * 2 * 6 * 36 * 9),
        (lambda x, w: F.conv_transpose2d(x, w), [(2, 3, 8, 8), (3, 5, 2, 2)], 2 * 2 * 3 * 64 * 5 * 4),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
            [(2, 4, 8), (2, 5, 8), (2, 5, 6)],
            2 * 2 * 4 * 5 * 14,
        ),
        (lambda a, b: torch.einsum("bik,bjk->bij", a, b), [(2, 4, 8), (2, 5, 8)], 2 * 2 * 4 * 5 * 8),
        (lambda x: torch.relu(x) + 1, [(3, 4)], 24),
        (lambda x: x.sum(1), [(3, 4)], 12),
        (lambda x: F.max_pool2d(x, 3), [(1, 2, 9, 9)], 2 * 9 * 9),
        (lambda x: x.transpose(0, 1).reshape(-1)[2:], [(3, 4)], 0),
    ],
)
def test_operations_by_hand(function, shapes: list[tuple[int, ...]], operations: int) -> None:
    assert bound_of(function, *(torch.rand(shape) for shape in shapes)).operations == operations


def test_recurrent_layers_count_their_matrix_products() -> None:
    task = task_from_module(nn.GRU(6, 5, 2), torch.rand(7, 2, 6))
    products = 2 * 7 * 2 * (15 * 6 + 15 * 5 + 15 * 5 + 15 * 5)
    assert bound(task, GPU).operations == products


def test_the_last_step_alone_needs_one_step_of_the_way_back() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[0][:, -1]

    below, forth, back = 7 * (20 * 6 + 20 * 5), 7 * (20 * 10 + 20 * 5), 20 * 10 + 20 * 5
    task = task_from_module(Last(), torch.rand(2, 7, 6))
    assert bound(task, GPU).operations == 2 * 2 * (2 * below + forth + back)


def test_only_the_needed_part_of_an_input_counts() -> None:
    x, i = torch.rand(1000, 8), torch.randint(1000, (10,))
    assert bound_of(lambda x, i: F.embedding(i, x), x, i).bytes_read == 10 * 8 * 4 + 80
    assert bound_of(lambda x: x[3:5] * 2, x).bytes_read == 2 * 8 * 4
    assert bound_of(lambda x: (x[3:5] * 2, x.sum()), x).bytes_read == 8000 * 4
    assert bound_of(lambda x: torch.zeros_like(x), x).bytes_read == 0
    assert bound_of(lambda x: (x, x[:2]), x).bytes_read == 8000 * 4


def test_strides_beyond_the_window_leave_input_unread() -> None:
    x, w = torch.rand(1, 1, 64, 64), torch.rand(1, 1, 1, 1)
    assert bound_of(lambda x, w: F.conv2d(x, w, stride=2), x, w).bytes_read == 4 * 32 * 32 + 4
    assert bound_of(lambda x, w: F.conv2d(x, w, stride=1), x, w).bytes_read == 4 * 64 * 64 + 4
    padded = bound_of(lambda x, w: F.conv2d(x, w, stride=2, padding=1), x, w).bytes_read
    assert padded <= 4 * 32 * 32 + 4


def test_the_policy_decides_which_peak_binds() -> None:
    slow_arithmetic = replace(GPU, memory_bandwidth=1e16)
    a = torch.rand(128, 128)
    flops = 2 * 128**3

    def seconds(tolerance: Tolerance, tensor: torch.Tensor = a) -> float:
        return bound_of(lambda x: x @ x, tensor, tolerance=tolerance, gpu=slow_arithmetic).seconds

    assert seconds(Tolerance()) == pytest.approx(flops / 8e13)
    assert seconds(Tolerance(matmul_tf32=True)) == pytest.approx(flops / 1.2e14)
    assert seconds(Tolerance(), a.half()) == pytest.approx(flops / 2.4e14)
    assert seconds(Tolerance(), a.double()) == pytest.approx(flops / 5e12)


def test_the_slower_of_memory_and_arithmetic_is_named() -> None:
    a = torch.rand(128, 128)
    assert bound_of(lambda x: x @ x, a, gpu=replace(GPU, memory_bandwidth=1e16)).limit == "arithmetic"
    assert bound_of(lambda x: x + x, a).limit == "memory"
