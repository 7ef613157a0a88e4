"""What a task allows in TF32 is judged alike on a CPU, where PyTorch does not use it, and on a GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from warpsmith.judge.references import refer
from warpsmith.judge.tf32 import policy_of_a_gpu, rounded
from warpsmith.records import Task, Tolerance
from warpsmith.task import draw, evaluate, task_from_module


def test_rounding_keeps_eleven_significant_bits_and_what_is_not_a_number() -> None:
    exact = torch.tensor([1.0, -2.0 - 2.0**-9, 0.0, 1e-3, float("inf"), float("nan"), -float("inf")])
    kept = rounded(exact)
    assert torch.equal(kept[:3], exact[:3])
    assert kept[3] != exact[3]
    assert abs(kept[3] - exact[3]) <= exact[3] * 2.0**-11
    assert torch.equal(kept[4:].nan_to_num(7.0), exact[4:].nan_to_num(7.0))
    assert rounded(torch.tensor(1.0 + 2.0**-11)) == 1.0 + 2.0**-10, "ties go away from zero"


def test_convolutions_round_their_operands_and_products_only_where_they_may() -> None:
    g = torch.Generator().manual_seed(1)
    x, w, m = torch.randn(1, 4, 6, 6, generator=g), torch.randn(3, 4, 3, 3, generator=g), torch.randn(6, 6, generator=g)
    with policy_of_a_gpu(Tolerance()):
        convolved, product = F.conv2d(x, w), m @ m
    assert torch.equal(convolved, F.conv2d(rounded(x), rounded(w)))
    assert torch.equal(product, m @ m)
    with policy_of_a_gpu(Tolerance(matmul_tf32=True, conv_tf32=False)):
        convolved, product = F.conv2d(x, w), torch.addmm(m, m, m)
    assert torch.equal(convolved, F.conv2d(x, w))
    assert torch.equal(product, torch.addmm(m, rounded(m), rounded(m)))


class Normalised(torch.nn.Module):
    """A convolution whose errors go into statistics over all of its results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(3)
    return task_from_module(Normalised(), (torch.randn(2, 4, 20, 20),))


@pytest.mark.parametrize("family", ["nominal", "large", "row_scale"])
def test_errors_of_weights_in_tf32_do_not_average_out_in_a_variance(task: Task, family: str) -> None:
    """All results of a channel share the rounding of its weights: the unit must allow for that in its variance."""
    arguments = draw(task, family, 5)
    due = refer(task, family, 5, arguments).due
    with policy_of_a_gpu(task.tolerance):
        honest = evaluate(task.graph, arguments, "task")
    for name, one in due.items():
        if one.unit is None:
            continue
        errors = (honest[name].double() - one.expected).abs() / one.unit
        # The limit is six units where eager PyTorch makes no larger errors itself; here it is left out of account.
        assert (errors > 6.0).double().mean() < 1e-3, name
