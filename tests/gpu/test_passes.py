"""The judge's own passes over large tensors against what PyTorch's operators give."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.bench import needs_gpu
from warpsmith.judge import passes
from warpsmith.judge.passes import LEAST

pytestmark = needs_gpu
COUNT = LEAST + 12345


@pytest.fixture
def values() -> torch.Tensor:
    found = torch.randn(COUNT, dtype=torch.float64, device="cuda")
    found[:4] = torch.tensor([3.0, float("inf"), float("nan"), -0.0], dtype=torch.float64)
    return found


def test_amounts_have_either_sign_and_no_small_magnitude(values: torch.Tensor) -> None:
    found = passes.amounts(values, 1)
    assert float(found.abs().min()) >= 0.5 and float(found.abs().max()) <= 1.5
    assert abs(float(found.mean())) < 5e-3
    assert abs(float(found.abs().mean()) - 1.0) < 2e-3
    assert not torch.equal(found, passes.amounts(values, 2))
    assert torch.equal(found, passes.amounts(values, 1))
    assert abs(float((found[1:] * found[:-1]).mean())) < 5e-3


def test_values_move_by_their_amounts_and_integers_do_not(values: torch.Tensor) -> None:
    unit = 2.0**-24
    due = torch.addcmul(values, values, passes.amounts(values, 7), value=unit)
    due = torch.where(values == values.round(), values, due)
    found = passes.moved(values, unit, 7)
    assert torch.allclose(found, due, rtol=1e-15, atol=0.0, equal_nan=True)
    assert torch.equal(found[:2], values[:2])
    assert int((found != values).sum()) >= COUNT - 3  # NaN differs from itself, three of four do not move


def test_a_transposed_tensor_keeps_its_places(values: torch.Tensor) -> None:
    square = values[: 1 << 20].view(1 << 10, 1 << 10)
    found = passes.moved(square.T, 0.0, 3)
    assert torch.allclose(found, square.T, rtol=0.0, atol=0.0, equal_nan=True)


def test_squares_of_finite_differences_add_up(values: torch.Tensor) -> None:
    expected = torch.randn_like(values)
    squares = torch.ones_like(values)
    passes.add_squares(squares, values, expected)
    step = (values - expected).nan_to_num(0.0, 0.0, 0.0)
    assert torch.allclose(squares, 1.0 + step * step, rtol=1e-14)
    assert float(squares[1]) == float(squares[2]) == 1.0
