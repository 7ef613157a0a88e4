"""Float arithmetic is rounded as IEEE 754 asks, checked against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device.kit import instruction
from warpsmith.device.simulator import fma

EXAMPLES = settings(max_examples=60, deadline=None)

SPECIAL_32 = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.0**-126, -(2.0**-149), 2.0**127, 1 + 2.0**-23]


def single(bits: int) -> float:
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def double(bits: int) -> float:
    return float(np.array([bits], np.uint64).view(np.float64)[0])


floats32 = st.integers(0, 2**32 - 1).map(single) | st.sampled_from(SPECIAL_32)
# Numbers of similar size with few significant bits make sums that lie halfway between two floats.
near32 = st.builds(
    lambda sign, mantissa, exponent: sign * mantissa * 2.0**exponent,
    st.sampled_from((-1, 1)),
    st.integers(1, 2**24 - 1) | st.sampled_from((1, 3, 2**23 + 1, 2**24 - 1)),
    st.integers(-30, 6),
).map(lambda value: float(np.float32(value)))
floats64 = st.integers(0, 2**64 - 1).map(double)
near64 = st.builds(
    lambda sign, mantissa, exponent: sign * mantissa * 2.0**exponent,
    st.sampled_from((-1, 1)),
    st.integers(1, 2**53 - 1) | st.sampled_from((1, 3, 2**52 + 1, 2**53 - 1)),
    st.integers(-60, 6),
)


def round_exactly(value: Fraction, bits: int, smallest: int, largest: Fraction, mode: str = "rn") -> float:
    """Round an exact value to a format with so many significant bits and this least exponent of its last place."""
    if value == 0:
        return 0.0
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - bits + 1, smallest)
    low = size // unit
    rest = size - low * unit
    up = {
        "rn": rest * 2 > unit or (rest * 2 == unit and low % 2 == 1),
        "rz": False,
        "rp": value > 0 and rest > 0,
        "rm": value < 0 and rest > 0,
    }[mode]
    rounded = (low + up) * unit
    sign = -1.0 if value < 0 else 1.0
    if rounded > largest:
        away = mode == "rn" or (mode == "rp" and value > 0) or (mode == "rm" and value < 0)
        return sign * math.inf if away else sign * float(largest)
    return sign * float(rounded)


LARGEST_32 = Fraction((2**24 - 1) * 2**104)
LARGEST_64 = Fraction((2**53 - 1) * 2**971)
LARGEST_16 = Fraction(65504)
LARGEST_BF16 = Fraction(255 * 2**120)


def rounded32(value: Fraction, mode: str = "rn") -> float:
    return round_exactly(value, 24, -149, LARGEST_32, mode)


def same(got: float, expected: float) -> bool:
    if math.isnan(expected):
        return math.isnan(got)
    return got == expected and (expected != 0 or math.copysign(1, got) == math.copysign(1, expected))


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def column(values: list[float], dtype: str = "f4") -> np.ndarray:
    return np.array(values, dtype)


@EXAMPLES
@given(st.lists(st.tuples(floats32 | near32, floats32 | near32, floats32 | near32), min_size=1, max_size=64))
def test_fma_f32_is_rounded_once(rows):
    a, b, c = (column(list(values)) for values in zip(*rows))
    with np.errstate(all="ignore"):
        got = fma.fma32(a, b, c)
        rough = a.astype("f8") * b + c
    for x, y, z, result, near in zip(a.tolist(), b.tolist(), c.tolist(), got.tolist(), rough.tolist()):
        if finite(x, y, z):
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            if exact != 0:
                assert same(result, rounded32(exact)), (x, y, z)
        else:
            assert same(result, near)


def test_fma_f32_where_float64_rounds_twice():
    # a * b + c lies just above a halfway point; the excess is lost when the sum is first rounded to float64.
    a, b, c = np.float32(1 + 2.0**-12), np.float32(1 + 2.0**-12), np.float32(2.0**-60)
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    twice = np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    assert float(twice) != rounded32(exact), "the example must be one that goes wrong when rounded twice"
    got = instruction("fma.rn.f32 {d}, {0}, {1}, {2};", [column([v]) for v in (a, b, c)], "f4")
    assert float(got[0]) == rounded32(exact)


@EXAMPLES
@given(st.lists(st.tuples(*[floats64 | near64] * 3), min_size=1, max_size=32))
def test_fma_f64_is_rounded_once(rows):
    a, b, c = (column(list(values), "f8") for values in zip(*rows))
    with np.errstate(all="ignore"):
        got = fma.fma64(a, b, c)
    for x, y, z, result in zip(a.tolist(), b.tolist(), c.tolist(), got.tolist()):
        if finite(x, y, z):
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            if exact != 0:
                assert same(result, round_exactly(exact, 53, -1074, LARGEST_64)), (x, y, z)
        elif not finite(z):
            assert finite(x, y) <= same(result, z), (x, y, z)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "fma"])
@settings(max_examples=12, deadline=None)
@given(rows=st.lists(st.tuples(*[floats32 | near32] * 3), min_size=40, max_size=80))
def test_f32_in_every_rounding_mode(name, mode, rows):
    columns = [column(list(values)) for values in zip(*rows)][: 3 if name == "fma" else 2]
    operands = ", ".join(f"{{{number}}}" for number in range(len(columns)))
    got = instruction(f"{name}.{mode}.f32 {{d}}, {operands};", columns, "f4")
    exact = {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y if y else Fraction(0),
        "fma": lambda x, y, z: x * y + z,
    }[name]
    for row, result in zip(zip(*(values.tolist() for values in columns)), got.tolist()):
        if finite(*row):
            value = exact(*(Fraction(one) for one in row))
            if value != 0:
                assert same(result, rounded32(value, mode)), row


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["sqrt", "rcp"])
def test_f32_roots_and_reciprocals_in_every_rounding_mode(name, mode):
    values = np.abs(np.random.default_rng(1).standard_normal(400)).astype("f4") * np.float32(2.0) ** np.repeat(
        [-140, -20, 0, 60], 100
    ).astype("f4")
    got = instruction(f"{name}.{mode}.f32 {{d}}, {{0}};", [values], "f4")
    for x, result in zip(values.tolist(), got.tolist()):
        if x == 0:
            continue
        if name == "rcp":
            assert same(result, rounded32(1 / Fraction(x), mode))
            continue
        root = Fraction(math.isqrt(int(Fraction(x) * 4**200)), 2**200)
        inexact = root * root != Fraction(x)
        assert same(result, rounded32(root + (Fraction(1, 2**201) if inexact else 0), mode))


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "mul", "div", "fma"])
def test_f64_in_directed_rounding_modes(name, mode):
    random = np.random.default_rng(2)
    columns = [
        random.standard_normal(60) * 2.0 ** random.integers(-40, 40, 60) for _ in range(3 if name == "fma" else 2)
    ]
    operands = ", ".join(f"{{{number}}}" for number in range(len(columns)))
    got = instruction(f"{name}.{mode}.f64 {{d}}, {operands};", columns, "f8")
    exact = {
        "add": lambda x, y: x + y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
        "fma": lambda x, y, z: x * y + z,
    }[name]
    for row, result in zip(zip(*(values.tolist() for values in columns)), got.tolist()):
        value = exact(*(Fraction(one) for one in row))
        assert result == round_exactly(value, 53, -1074, LARGEST_64, mode)


def test_subnormals_are_kept_without_ftz_and_flushed_with_it():
    tiny = column([2.0**-140, -(2.0**-140), 2.0**-126, 1.0])
    one = column([1.0] * 4)
    assert instruction("mul.f32 {d}, {0}, {1};", [tiny, one], "f4").tolist() == tiny.tolist()
    flushed = instruction("mul.ftz.f32 {d}, {0}, {1};", [tiny, one], "f4")
    assert flushed.tolist() == [0.0, -0.0, 2.0**-126, 1.0]
    assert np.signbit(flushed).tolist() == [False, True, False, False]
    below = instruction("mul.ftz.f32 {d}, {0}, {1};", [column([2.0**-100]), column([2.0**-40])], "f4")
    assert below.tolist() == [0.0]


def test_saturation_clamps_and_turns_nan_into_zero():
    values = column([-1.0, 0.25, 3.0, math.nan, -0.0])
    zero = column([0.0] * 5)
    assert instruction("add.sat.f32 {d}, {0}, {1};", [values, zero], "f4").tolist() == [0.0, 0.25, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("min.f32", [1.0, 1.0, 2.0, 2.0, -0.0, -0.0]),
        ("max.f32", [2.0, 2.0, 2.0, 2.0, 0.0, 0.0]),
        ("min.NaN.f32", [1.0, 1.0, math.nan, math.nan, -0.0, -0.0]),
        ("max.NaN.f32", [2.0, 2.0, math.nan, math.nan, 0.0, 0.0]),
    ],
)
def test_min_and_max_know_nan_and_signed_zero(text, expected):
    a = column([1.0, 2.0, math.nan, 2.0, 0.0, -0.0])
    b = column([2.0, 1.0, 2.0, math.nan, -0.0, 0.0])
    got = instruction(f"{text} {{d}}, {{0}}, {{1}};", [a, b], "f4")
    assert all(same(x, y) for x, y in zip(got.tolist(), expected))


@pytest.mark.parametrize(
    "name", ["ex2.approx.ftz", "lg2.approx.ftz", "sin.approx", "cos.approx", "rsqrt.approx", "tanh.approx"]
)
def test_approximate_functions_are_close(name):
    values = np.linspace(0.1, 3.0, 300).astype("f4")
    reference = {
        "ex2": np.exp2,
        "lg2": np.log2,
        "sin": np.sin,
        "cos": np.cos,
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "tanh": np.tanh,
    }[name.split(".")[0]]
    got = instruction(f"{name}.f32 {{d}}, {{0}};", [values], "f4")
    absolute = 2.0**-20.9 if name in ("sin.approx", "cos.approx") else 1e-9
    np.testing.assert_allclose(got, reference(values.astype("f8")), rtol=1.2e-7, atol=absolute)


def test_copysign_and_testp():
    a, b = column([-1.0, 2.0, -0.0]), column([3.0, -4.0, math.inf])
    assert instruction("copysign.f32 {d}, {0}, {1};", [a, b], "f4").tolist() == [-3.0, 4.0, -math.inf]
    kinds = column([1.0, math.inf, math.nan, 2.0**-140, 0.0])
    for name, expected in (
        ("finite", [1, 0, 0, 1, 1]),
        ("infinite", [0, 1, 0, 0, 0]),
        ("number", [1, 1, 0, 1, 1]),
        ("notanumber", [0, 0, 1, 0, 0]),
        ("normal", [1, 0, 0, 0, 0]),
        ("subnormal", [0, 0, 0, 1, 0]),
    ):
        text = f"testp.{name}.f32 %p0, {{0}}; selp.b32 {{d}}, 1, 0, %p0;"
        assert instruction(text, [kinds], "i4").tolist() == expected, name


half_bits = st.integers(0, 2**16 - 1)


def widen(bits: int, brain: bool) -> float:
    if brain:
        return single(bits << 16)
    return float(np.array([bits], np.uint16).view(np.float16)[0])


def narrowed(value: Fraction, brain: bool) -> float:
    return round_exactly(value, 8, -133, LARGEST_BF16) if brain else round_exactly(value, 11, -24, LARGEST_16)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma.rn"])
@settings(max_examples=10, deadline=None)
@given(rows=st.lists(st.tuples(half_bits, half_bits, half_bits), min_size=60, max_size=100))
def test_half_arithmetic_is_rounded_once(name, kind, rows):
    brain = kind == "bf16"
    columns = [np.array(values, np.uint16) for values in zip(*rows)][: 3 if name == "fma.rn" else 2]
    operands = ", ".join(f"{{{number}}}" for number in range(len(columns)))
    got = instruction(f"{name}.{kind} {{d}}, {operands};", columns, "u2")
    exact = {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "fma.rn": lambda x, y, z: x * y + z,
    }[name]
    for row, result in zip(zip(*(values.tolist() for values in columns)), got.tolist()):
        wide = [widen(bits, brain) for bits in row]
        if finite(*wide):
            value = exact(*(Fraction(one) for one in wide))
            if value != 0:
                assert same(widen(result, brain), narrowed(value, brain)), wide


def test_packed_half_works_on_both_halves():
    a = np.array([1.0, 2.0, -3.0, 0.5], np.float16)
    b = np.array([0.25, -2.0, 8.0, 100.0], np.float16)
    packed = [values.view(np.uint32) for values in (a, b)]
    got = instruction("fma.rn.f16x2 {d}, {0}, {1}, {0};", packed, "u4").view(np.float16)
    assert got.tolist() == (a * b + a).tolist()
    got = instruction("max.f16x2 {d}, {0}, {1};", packed, "u4").view(np.float16)
    assert got.tolist() == np.maximum(a, b).tolist()
