"""What the limit lets pass and what it stops, on values computed with PyTorch in place of kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from warpsmith.judge.mixtures import draw_any
from warpsmith.judge.numerics import Comparison, compare
from warpsmith.judge.references import Reference, refer
from warpsmith.judge.rounding import _filter as terms_of_convolution
from warpsmith.records import Task, Tolerance
from warpsmith.task import task_from_module

FAMILIES = ("normal", "small", "large", "offset", "heavy_tail", "equal", "alternating", "sorted", "duplicates")
Values = dict[str, torch.Tensor]


class Product(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


class Chosen(nn.Module):
    """A module out of one function of one input."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def product_task(inner: int) -> Task:
    return task_from_module(Product(), (torch.randn(24, inner), torch.randn(inner, 20)), name=f"product{inner}")


def task_of(function: Callable[[torch.Tensor], torch.Tensor], *shape: int, dtype: torch.dtype = torch.float32) -> Task:
    return task_from_module(Chosen(function), (torch.randn(*shape).to(dtype),), name="chosen")


def drawn(task: Task, family: str, seed: int = 3) -> Reference:
    return refer(task, family, seed, draw_any(task, family, seed))


def judged(reference: Reference, out: torch.Tensor) -> Comparison:
    return compare(reference, {"out": out.contiguous()}, Tolerance())


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Round the significand to 24 - `bits` bits: 13 gives TF32, 16 bfloat16."""
    whole = x.contiguous().view(torch.int32)
    return ((whole + (1 << (bits - 1))) & -(1 << bits)).view(torch.float32)


def in_order(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Add up one product after the other, as one GPU thread does, in the given precision."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=dtype)
    for k in range(a.shape[1]):
        total = (total + (a[:, k : k + 1] * b[k : k + 1]).to(dtype)).to(dtype)
    return total.float()


def split(a: torch.Tensor, b: torch.Tensor, parts: int) -> torch.Tensor:
    pieces = [in_order(x, y) for x, y in zip(a.chunk(parts, 1), b.chunk(parts, 0), strict=True)]
    return torch.stack(pieces).sum(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inner", [64, 1024])
def test_any_order_of_float32_summation_is_right(inner: int, family: str) -> None:
    reference = drawn(product_task(inner), family)
    a, b = reference.arguments["a"], reference.arguments["b"]
    for out in (in_order(a, b), in_order(a.flip(1), b.flip(0)), split(a, b, 8)):
        assert judged(reference, out).reason is None


@pytest.mark.parametrize("inner", [64, 1024])
def test_less_work_or_less_precision_in_a_product_is_wrong(inner: int) -> None:
    reference = drawn(product_task(inner), "normal")
    a, b = reference.arguments["a"], reference.arguments["b"]
    left_out = inner - inner // 64
    wrong = {
        "one pass of TF32": rounded(a, 13) @ rounded(b, 13),
        "one operand in TF32": rounded(a, 13) @ b,
        "bfloat16": rounded(a, 16) @ rounded(b, 16),
        "half accumulation": in_order(a, b, torch.float16),
        "1/64 left out": a[:, :left_out] @ b[:left_out],
        "one term left out": a[:, 1:] @ b[1:],
        "transposed": (a @ b).flip(0),
    }
    assert {name: judged(reference, out).reason for name, out in wrong.items()} == dict.fromkeys(wrong, "wrong_value")


def test_three_passes_of_tf32_are_as_good_as_float32() -> None:
    reference = drawn(product_task(256), "normal")
    a, b = reference.arguments["a"], reference.arguments["b"]
    high_a, high_b = rounded(a, 13), rounded(b, 13)
    out = high_a @ high_b + (high_a @ rounded(b - high_b, 13) + rounded(a - high_a, 13) @ high_b)
    assert judged(reference, out).reason is None


@pytest.mark.parametrize("seed", [2, 3])
def test_exact_probe_stops_tf32_where_the_inner_dimension_hides_it(seed: int) -> None:
    """At K = 16384 random inputs cannot tell TF32 from float32; exact ones can, whichever operand is rounded."""
    task = product_task(16384)
    random, exact = drawn(task, "sorted"), drawn(task, "exact", seed)
    assert judged(random, rounded(random.arguments["a"], 13) @ rounded(random.arguments["b"], 13)).reason is None
    a, b = exact.arguments["a"], exact.arguments["b"]
    parts = [x @ y for x, y in zip(a.chunk(64, 1), b.chunk(64, 0), strict=True)]
    assert judged(exact, torch.stack(parts).sum(0)).reason is None
    assert judged(exact, rounded(a, 13) @ rounded(b, 13)).reason == "wrong_value"


def test_half_a_unit_in_the_last_place_of_a_half_is_right_and_a_percent_is_not() -> None:
    task = task_of(torch.sigmoid, 50, 8, dtype=torch.float16)
    reference = drawn(task, "normal")
    due = torch.sigmoid(reference.arguments["x"].double())
    assert judged(reference, due.half()).reason is None
    assert judged(reference, (due * 1.01).half()).reason == "wrong_value"


@pytest.mark.parametrize("family", ["normal", "large", "offset", "heavy_tail", "equal"])
def test_fast_exponentials_are_honest(family: str) -> None:
    """`__expf(x)` is 2^(x * log2 e) with the product rounded to float32."""
    reference = drawn(task_of(lambda x: torch.softmax(x, -1), 20, 500), family)
    x = reference.arguments["x"]
    scaled = (x - x.amax(-1, keepdim=True)) * torch.tensor(1.4426950408889634)
    powers = torch.exp2(scaled.double()).float()
    assert judged(reference, powers / powers.sum(-1, keepdim=True)).reason is None


def test_a_cancelling_difference_is_held_to_what_its_terms_allow() -> None:
    """x - mean of inputs around 5 loses digits in every honest program; ten times that is a bug."""
    reference = drawn(task_of(lambda x: x - x.mean(-1, keepdim=True), 30, 400), "offset")
    x = reference.arguments["x"]
    honest = x - (x.flip(-1).cumsum(-1)[:, -1:] / 400)
    sloppy = x - x.half().float().mean(-1, keepdim=True) * (1 + 2.0**-14)
    assert judged(reference, honest).reason is None
    assert judged(reference, sloppy).reason == "wrong_value"


def test_one_wrong_element_among_thousands_is_found_and_named() -> None:
    reference = drawn(task_of(torch.tanh, 37, 113), "normal")
    out = torch.tanh(reference.arguments["x"])
    out[30, 99] += 1e-4
    found = judged(reference, out)
    assert found.mismatch is not None
    assert (found.mismatch.index, found.mismatch.wrong, found.mismatch.total) == ((30, 99), 1, 37 * 113)
    assert found.result.error > found.result.limit


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "unexpected_nan"), (float("inf"), "unexpected_infinity"), (3.0e38, "wrong_value")],
)
def test_values_that_no_comparison_may_swallow(value: float, reason: str) -> None:
    reference = drawn(task_of(torch.tanh, 11), "normal")
    out = torch.tanh(reference.arguments["x"])
    out[4] = value
    assert judged(reference, out).reason == reason


def test_nan_and_infinity_must_stand_where_the_answer_has_them() -> None:
    reference = drawn(task_of(torch.log, 400), "zeros_subnormals")
    due = torch.log(reference.arguments["x"])
    assert bool(due.isnan().any()) and bool(due.isinf().any())
    assert judged(reference, due).reason is None
    assert judged(reference, due.nan_to_num(0.0, neginf=-torch.inf)).reason == "swallowed_nan"
    assert judged(reference, torch.where(due.isinf(), -due, due)).reason == "unexpected_infinity"
    assert judged(reference, torch.where(due.isinf(), -3e38, due)).reason == "wrong_value"


@pytest.mark.parametrize(
    ("factor", "value", "reason"),
    [
        (1.00024, float("inf"), None),  # 65519.72 rounds to 65504, and 65520 would round to infinity
        (1.00024, 65504.0, None),
        (1.00024, -float("inf"), "unexpected_infinity"),
        (1.0003, 65504.0, None),  # 65523.65 rounds to infinity
        (0.9, float("inf"), "unexpected_infinity"),
        (2.0, 65504.0, "wrong_value"),
    ],
)
def test_next_to_the_largest_number_a_rounding_error_may_end_in_infinity(
    factor: float, value: float, reason: str | None
) -> None:
    task = task_of(lambda x: (x.float() * factor).half(), 8, dtype=torch.float16)
    reference = refer(task, "normal", 3, {"x": torch.full((8,), 65504.0, dtype=torch.float16)})
    assert judged(reference, torch.full((8,), value, dtype=torch.float16)).reason == reason


def test_overflow_that_pytorch_has_too_is_right_either_way() -> None:
    """(x * 1e30)^2 / 1e38 overflows on the way in float32 only."""
    task = task_of(lambda x: (x * 1e30) * (x * 1e30) / 1e38, 64)
    reference = drawn(task, "offset")
    x = reference.arguments["x"]
    assert judged(reference, (x * 1e30) * (x * 1e30) / 1e38).reason is None
    assert judged(reference, (x.double() ** 2 * 1e22).float()).reason is None
    assert judged(reference, torch.full_like(x, torch.nan)).reason == "unexpected_nan"


def test_flushing_subnormals_to_zero_is_honest_and_dropping_normals_is_not() -> None:
    reference = drawn(task_of(lambda x: x * 0.5, 300), "zeros_subnormals")
    assert judged(reference, torch.zeros(300)).reason is None
    reference = drawn(task_of(lambda x: x * 0.5, 300), "small")
    assert judged(reference, torch.zeros(300)).reason == "wrong_value"


def test_first_of_equal_maxima_is_due() -> None:
    reference = drawn(task_of(lambda x: x.argmax(-1), 40, 30), "duplicates")
    x = reference.arguments["x"]
    last = 29 - x.flip(-1).argmax(-1)
    assert judged(reference, x.argmax(-1)).reason is None
    assert judged(reference, last).reason == "wrong_value"


def test_argmax_of_computed_values_may_go_either_way_within_rounding() -> None:
    """Two columns of the weight differ by one part in 2^23: which of them wins is a matter of rounding."""

    class Nearest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            column = torch.randn(64)
            self.weight = nn.Parameter(torch.stack([column, column * (1 + 2.0**-23), -column], 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.weight).argmax(-1)

    task = task_from_module(Nearest(), (torch.randn(200, 64),), name="nearest")
    reference = drawn(task, "nominal", 0)
    due = reference.due["out"].expected
    assert judged(reference, torch.where(due == 0, 1, due)).reason is None
    assert judged(reference, torch.where(due == 2, 1, due)).reason == "wrong_value"


def test_sorting_may_order_equal_values_as_it_likes_but_not_lose_one() -> None:
    reference = drawn(task_of(lambda x: x.topk(5, dim=-1).indices, 20, 30), "duplicates")
    x = reference.arguments["x"]
    last_first = 29 - x.flip(-1).topk(5, dim=-1).indices
    assert judged(reference, last_first).reason is None
    assert judged(reference, last_first[:, :1].expand(-1, 5)).reason == "wrong_value"
    assert judged(reference, x.topk(5, dim=-1, largest=False).indices).reason == "wrong_value"


def test_shape_dtype_and_presence_are_part_of_the_answer() -> None:
    reference = drawn(task_of(lambda x: x.sum(), 11), "normal")
    total = reference.arguments["x"].sum()
    assert judged(reference, total).reason is None
    assert judged(reference, total.reshape(1)).reason == "wrong_shape"
    assert judged(reference, total.double()).reason == "wrong_dtype"
    assert compare(reference, {}, Tolerance()).reason == "missing_output"


def test_convolution_may_use_tf32_only_where_the_task_says_so() -> None:
    x, w = torch.randn(2, 8, 9, 9), torch.randn(4, 8, 3, 3)
    out = torch.nn.functional.conv2d(rounded(x, 13), rounded(w, 13))

    class Convolution(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.conv2d(x, w)

    task = task_from_module(Convolution(), (x, w), name="convolution")
    fields = {name: getattr(task, name) for name in task.__dataclass_fields__}
    strict = Task(**{**fields, "tolerance": Tolerance(conv_tf32=False)})
    assert judged(refer(task, "nominal", 0, {"x": x, "w": w}), out).reason is None
    assert judged(refer(strict, "nominal", 0, {"x": x, "w": w}), out).reason == "wrong_value"


@pytest.mark.parametrize("seed", range(5))
def test_a_variance_of_equal_numbers_may_show_the_rounding_of_their_mean(seed: int) -> None:
    reference = drawn(task_of(lambda x: x.var(1), 6, 20), "equal", seed)
    x = reference.arguments["x"]
    centred = x - x.sum(1, keepdim=True) / 20
    assert judged(reference, centred.square().sum(1) / 19).reason is None
    assert judged(reference, x.square().sum(1) / 19).reason == "wrong_value"


@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (2, 3, 1), (4, 2, 1), (3, 3, 2)])
def test_the_limit_of_a_transposed_convolution_counts_no_inserted_zeros(
    stride: int, dilation: int, groups: int
) -> None:
    weight = torch.ones(4, 4 // groups, 3, 5)
    settings = {"stride": stride, "dilation": dilation, "groups": groups}
    added = torch.nn.functional.conv_transpose2d(torch.ones(1, 4, 24, 24), weight, **settings).max()
    args = (None, weight, None, [stride], [0], [dilation], True, [0], groups)
    assert terms_of_convolution(added, args) == int(added)


def test_factor_and_floor_of_the_task_move_the_limit() -> None:
    reference = drawn(task_of(torch.tanh, 11), "normal")
    out = {"out": torch.tanh(reference.arguments["x"])}
    limits = [
        compare(reference, out, t).result.limit for t in (Tolerance(), Tolerance(factor=4.0), Tolerance(floor_ulps=9.0))
    ]
    assert limits[0] < limits[1] and limits[0] < limits[2]


def test_next_to_a_kink_an_error_may_cross_it_and_no_limit_is_infinite() -> None:
    """Half of what ReLU gives are zeros that nothing moves, some of them next to what it lets through."""
    task = task_from_module(Chosen(lambda x: torch.relu(x.sum(-1))), (torch.randn(64, 512, 33),), name="kink")
    reference = drawn(task, "normal")
    due = reference.due["out"]
    assert due.unit is not None
    still = due.expected == 0.0
    assert bool(still.any()) and bool((due.unit[still] > 0.0).all())
    out = due.expected.float()
    crossing = out.clone()
    crossing[still] = 1e-6
    found = judged(reference, crossing)
    assert found.reason is None and found.result.limit < 1e3
    crossing[still] = 1e-3
    assert judged(reference, crossing).reason == "wrong_value"


def test_where_nothing_moves_the_answer_an_error_of_pytorch_lets_nothing_pass() -> None:
    """Sums of integers are exact. That eager PyTorch is off at one must not make the limit of all infinite."""
    task = task_of(lambda x: (x * 0.0).sum(-1) + x[:, 0] * 0.0, 8, 4)
    reference = drawn(task, "normal")
    due = reference.due["out"]
    off = dataclasses.replace(due, eager=due.eager + 1e-3)
    reference = dataclasses.replace(reference, due={"out": off})
    assert judged(reference, torch.full((8,), 5.0)).reason == "wrong_value"
