"""Integer instructions and conversions agree with Python's unbounded integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device.kit import instruction
from tests.device.test_arithmetic import LARGEST_16, LARGEST_32, LARGEST_BF16, round_exactly, single, widen

FEW = settings(max_examples=8, deadline=None)
word = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
long = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 63, 64, 2**63 - 1, 2**63, 2**64 - 1])
rows3 = st.lists(st.tuples(word, word, word), min_size=40, max_size=120)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def words(values) -> np.ndarray:
    return np.array(list(values), np.uint32)


def check(text, rows, expected, source="u4", result="u4"):
    """Run an instruction on columns and compare with a function of Python integers, modulo the result's width."""
    columns = [np.array(list(values), source) for values in zip(*rows)]
    got = instruction(text, columns, result)
    bits = 8 * np.dtype(result).itemsize
    for row, value in zip(rows, got.tolist()):
        assert value == expected(*row) % (1 << bits), (text, row)


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add.s32 {d}, {0}, {1};", lambda a, b, c: a + b),
        ("sub.s32 {d}, {0}, {1};", lambda a, b, c: a - b),
        ("mul.lo.s32 {d}, {0}, {1};", lambda a, b, c: a * b),
        ("mul.hi.u32 {d}, {0}, {1};", lambda a, b, c: a * b >> 32),
        ("mul.hi.s32 {d}, {0}, {1};", lambda a, b, c: signed(a, 32) * signed(b, 32) >> 32),
        ("mad.lo.s32 {d}, {0}, {1}, {2};", lambda a, b, c: a * b + c),
        ("mad.hi.u32 {d}, {0}, {1}, {2};", lambda a, b, c: (a * b >> 32) + c),
        ("min.s32 {d}, {0}, {1};", lambda a, b, c: min(signed(a, 32), signed(b, 32))),
        ("max.u32 {d}, {0}, {1};", lambda a, b, c: max(a, b)),
        ("abs.s32 {d}, {0};", lambda a, b, c: abs(signed(a, 32))),
        ("neg.s32 {d}, {0};", lambda a, b, c: -a),
        ("and.b32 {d}, {0}, {1};", lambda a, b, c: a & b),
        ("xor.b32 {d}, {0}, {1};", lambda a, b, c: a ^ b),
        ("not.b32 {d}, {0};", lambda a, b, c: ~a),
        ("cnot.b32 {d}, {0};", lambda a, b, c: int(a == 0)),
        ("shl.b32 {d}, {0}, {1};", lambda a, b, c: a << min(b, 32)),
        ("shr.u32 {d}, {0}, {1};", lambda a, b, c: a >> min(b, 32)),
        ("shr.s32 {d}, {0}, {1};", lambda a, b, c: signed(a, 32) >> min(b, 32)),
        ("shr.s32 {d}, {0}, 7;", lambda a, b, c: signed(a, 32) >> 7),
        ("div.u32 {d}, {0}, {1};", lambda a, b, c: a // b if b else -1),
        ("rem.u32 {d}, {0}, {1};", lambda a, b, c: a % b if b else a),
        ("div.s32 {d}, {0}, {1};", lambda a, b, c: truncated(signed(a, 32), signed(b, 32)) if b else -1),
        ("rem.s32 {d}, {0}, {1};", lambda a, b, c: math.fmod(1, 1) if not b else 0),
        ("popc.b32 {d}, {0};", lambda a, b, c: a.bit_count()),
        ("clz.b32 {d}, {0};", lambda a, b, c: 32 - a.bit_length()),
        ("brev.b32 {d}, {0};", lambda a, b, c: int(f"{a:032b}"[::-1], 2)),
        ("bfind.u32 {d}, {0};", lambda a, b, c: a.bit_length() - 1),
        ("bfind.shiftamt.u32 {d}, {0};", lambda a, b, c: 32 - a.bit_length() if a else -1),
        ("sad.s32 {d}, {0}, {1}, {2};", lambda a, b, c: c + abs(signed(a, 32) - signed(b, 32))),
        ("sad.u32 {d}, {0}, {1}, {2};", lambda a, b, c: c + abs(a - b)),
        ("add.sat.s32 {d}, {0}, {1};", lambda a, b, c: max(-(2**31), min(2**31 - 1, signed(a, 32) + signed(b, 32)))),
        ("shf.l.wrap.b32 {d}, {0}, {1}, {2};", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32),
        ("shf.r.wrap.b32 {d}, {0}, {1}, {2};", lambda a, b, c: (b << 32 | a) >> (c & 31)),
        ("shf.l.clamp.b32 {d}, {0}, {1}, {2};", lambda a, b, c: (b << 32 | a) << min(c, 32) >> 32),
        ("shf.r.clamp.b32 {d}, {0}, {1}, {2};", lambda a, b, c: (b << 32 | a) >> min(c, 32)),
        ("mul24.lo.u32 {d}, {0}, {1};", lambda a, b, c: (a & 0xFFFFFF) * (b & 0xFFFFFF)),
        ("slct.u32.s32 {d}, {0}, {1}, {2};", lambda a, b, c: a if signed(c, 32) >= 0 else b),
    ],
)
@FEW
@given(rows=rows3)
def test_32_bits(text, expected, rows):
    if text.startswith("rem.s32"):

        def expected(a, b, c):
            return signed(a, 32) - truncated(signed(a, 32), signed(b, 32)) * signed(b, 32) if b else a

    check(text, rows, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add.s64 {d}, {0}, {1};", lambda a, b: a + b),
        ("mul.lo.s64 {d}, {0}, {1};", lambda a, b: a * b),
        ("mul.hi.u64 {d}, {0}, {1};", lambda a, b: a * b >> 64),
        ("mul.hi.s64 {d}, {0}, {1};", lambda a, b: signed(a, 64) * signed(b, 64) >> 64),
        ("div.s64 {d}, {0}, {1};", lambda a, b: truncated(signed(a, 64), signed(b, 64)) if b else -1),
        ("rem.u64 {d}, {0}, {1};", lambda a, b: a % b if b else a),
        ("min.u64 {d}, {0}, {1};", lambda a, b: min(a, b)),
        ("brev.b64 {d}, {0};", lambda a, b: int(f"{a:064b}"[::-1], 2)),
        ("not.b64 {d}, {0};", lambda a, b: ~a),
        ("shl.b64 {d}, {0}, 13;", lambda a, b: a << 13),
    ],
)
@FEW
@given(rows=st.lists(st.tuples(long, long), min_size=40, max_size=80))
def test_64_bits(text, expected, rows):
    check(text, rows, expected, "u8", "u8")


@FEW
@given(rows=rows3)
def test_wide_products(rows):
    check("mul.wide.u32 {d}, {0}, {1};", rows, lambda a, b, c: a * b, result="u8")
    check("mad.wide.s32 {d}, {0}, {1}, 5;", rows, lambda a, b, c: signed(a, 32) * signed(b, 32) + 5, result="u8")


@FEW
@given(rows=st.lists(st.tuples(word, st.integers(0, 255), st.integers(0, 255)), min_size=60, max_size=120))
def test_bit_fields(rows):
    def extract(a, start, length):
        return a >> start & ((1 << length) - 1) if start < 32 else 0

    def extract_signed(a, start, length):
        if length == 0:
            return 0
        extended = signed(a, 32) >> min(start, 31) if start < 32 else (-1 if a >> 31 else 0)
        top = min(start + length - 1, 31)
        if length >= 32 or start >= 32:
            return extended
        kept = extended & ((1 << length) - 1)
        return kept | (-(1 << min(length, 32 - start)) if a >> top & 1 else 0)

    def insert(a, b, start, length):
        mask = (((1 << length) - 1) << start) & 0xFFFFFFFF
        return b & ~mask | (a << start & mask)

    check("bfe.u32 {d}, {0}, {1}, {2};", rows, extract)
    check("bfe.s32 {d}, {0}, {1}, {2};", rows, extract_signed)
    check("bfi.b32 {d}, {0}, 0x12345678, {1}, {2};", rows, lambda a, s, n: insert(a, 0x12345678, s, n))


@pytest.mark.parametrize("table", [0, 0x80, 0x96, 0xCA, 0xE8, 0x1B, 0xFE, 0xFF, 0x6A, 0x2D])
def test_lop3_follows_its_truth_table(table):
    rows = [tuple(int(v) for v in row) for row in np.random.default_rng(table).integers(0, 2**32, (50, 3))]

    def expected(a, b, c):
        bits = ((a >> n & 1) << 2 | (b >> n & 1) << 1 | (c >> n & 1) for n in range(32))
        return sum((table >> index & 1) << n for n, index in enumerate(bits))

    check(f"lop3.b32 {{d}}, {{0}}, {{1}}, {{2}}, {table};", rows, expected)


@FEW
@given(rows=rows3)
def test_prmt_picks_bytes_and_replicates_signs(rows):
    def expected(a, b, selector):
        pool = (b << 32 | a).to_bytes(8, "little")
        picked = []
        for place in range(4):
            nibble = selector >> 4 * place & 15
            byte = pool[nibble & 7]
            picked.append((0xFF if byte >> 7 else 0) if nibble & 8 else byte)
        return int.from_bytes(bytes(picked), "little")

    check("prmt.b32 {d}, {0}, {1}, {2};", rows, expected)


@FEW
@given(rows=rows3)
def test_dot_products_of_bytes(rows):
    def expected(a, b, c):
        pairs = zip(a.to_bytes(4, "little"), b.to_bytes(4, "little"))
        return c + sum(signed(x, 8) * y for x, y in pairs)

    check("dp4a.s32.u32 {d}, {0}, {1}, {2};", rows, expected)


@FEW
@given(rows=rows3)
def test_carries_run_through_long_additions(rows):
    text = "add.cc.u32 {d}, {0}, {1}; addc.u32 {d}, {2}, 0;"
    check(text, rows, lambda a, b, c: c + (a + b >> 32))
    text = "sub.cc.u32 {d}, {0}, {1}; subc.u32 {d}, {2}, 0;"
    check(text, rows, lambda a, b, c: c - (a < b))


@FEW
@given(rows=rows3)
def test_differences_of_bytes(rows):
    def each(a, b, c):
        return int.from_bytes([abs(x - y) for x, y in zip(a.to_bytes(4, "little"), b.to_bytes(4, "little"))], "little")

    check("vabsdiff4.u32.u32.u32 {d}, {0}, {1}, {2};", rows, each)
    check(
        "vabsdiff4.u32.u32.u32.add {d}, {0}, {1}, {2};",
        rows,
        lambda a, b, c: c + sum(each(a, b, c).to_bytes(4, "little")),
    )


def test_packed_16_bit_integers():
    a, b = np.array([1, -5, 300, -32768], np.int16), np.array([-1, 7, 200, 32767], np.int16)
    packed = [a.view(np.uint32), b.view(np.uint32)]
    assert instruction("max.s16x2 {d}, {0}, {1};", packed, "u4").view(np.int16).tolist() == np.maximum(a, b).tolist()
    assert instruction("add.u16x2 {d}, {0}, {1};", packed, "u4").view(np.int16).tolist() == (a + b).tolist()


# ------------------------------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("eq", lambda a, b: a == b),
        ("ne", lambda a, b: a < b or a > b),
        ("lt", lambda a, b: a < b),
        ("ge", lambda a, b: a >= b),
        ("equ", lambda a, b: not (a < b or a > b)),
        ("neu", lambda a, b: a != b),
        ("ltu", lambda a, b: not a >= b),
        ("leu", lambda a, b: not a > b),
        ("gtu", lambda a, b: not a <= b),
        ("geu", lambda a, b: not a < b),
        ("num", lambda a, b: a == a and b == b),
        ("nan", lambda a, b: a != a or b != b),
    ],
)
def test_float_comparisons_know_nan(comparison, expected):
    values = [1.0, -1.0, 0.0, -0.0, math.nan, math.inf]
    pairs = [(a, b) for a in values for b in values]
    a, b = (np.array(list(column), "f4") for column in zip(*pairs))
    text = f"setp.{comparison}.f32 %p0, {{0}}, {{1}}; selp.b32 {{d}}, 1, 0, %p0;"
    assert instruction(text, [a, b], "i4").tolist() == [int(expected(x, y)) for x, y in pairs]


def test_comparisons_combine_with_predicates():
    a, b = words([1, 5, 5, 9]), words([5, 5, 1, 9])
    text = (
        "setp.lt.u32 %p0, {0}, {1}; setp.eq.and.u32 %p1|%p2, {0}, 9, !%p0;"
        "selp.b32 {d}, 1, 0, %p1; @%p2 add.s32 {d}, {d}, 2; @%p0 add.s32 {d}, {d}, 4;"
    )
    # p1 = (a == 9) and not (a < b); p2 = (a != 9) and not (a < b)
    assert instruction(text, [a, b], "i4").tolist() == [4, 2, 2, 1]


def test_unsigned_comparisons_are_unsigned():
    text = "setp.hi.u32 %p0, {0}, {1}; selp.b32 {d}, 1, 0, %p0; setp.gt.s32 %p0, {0}, {1}; @%p0 add.s32 {d}, {d}, 2;"
    assert instruction(text, [words([0xFFFFFFFF, 1]), words([1, 0xFFFFFFFF])], "i4").tolist() == [1, 2]


# ------------------------------------------------------------------------------------------------------- conversions


@pytest.mark.parametrize("mode", ["rni", "rzi", "rmi", "rpi"])
@pytest.mark.parametrize(
    ("kind", "bits"),
    [("s8", 8), ("u8", 8), ("s16", 16), ("u16", 16), ("s32", 32), ("u32", 32), ("s64", 64), ("u64", 64)],
)
def test_floats_to_integers_round_and_clamp(mode, kind, bits):
    values = [
        0.0,
        -0.5,
        0.5,
        1.5,
        2.5,
        -1.5,
        127.5,
        128.5,
        -129.0,
        65535.7,
        2.0**31,
        -(2.0**31),
        4e9,
        -4e9,
        1e19,
        2.0**63,
    ]
    values += [2.0**64, -1e30, math.inf, -math.inf]
    width = max(bits, 32)
    got = instruction(f"cvt.{mode}.{kind}.f32 {{d}}, {{0}};", [np.array(values, "f4")], f"u{width // 8}")
    rounding = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[mode]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "s" else (0, 2**bits - 1)
    for value, result in zip(np.array(values, "f4").tolist(), got.tolist()):
        exact = (low if value < 0 else high) if math.isinf(value) else min(max(rounding(value), low), high)
        assert result == exact % (1 << width), (value, result)


def test_nan_to_integers_as_the_isa_says():
    nan = np.array([math.nan], "f4")
    assert instruction("cvt.rzi.s32.f32 {d}, {0};", [nan], "i4").tolist() == [0]
    assert instruction("cvt.rzi.s64.f32 {d}, {0};", [nan], "i8").tolist() == [-(2**63)]
    assert instruction("cvt.rzi.s32.f64 {d}, {0};", [nan.astype("f8")], "i4").tolist() == [-(2**31)]


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_integers_to_f32_in_every_rounding_mode(mode, kind):
    bits = int(kind[1:])
    random = np.random.default_rng(bits)
    values = [
        int(v) >> int(s)
        for v, s in zip(
            random.integers(0, 2**bits, 200, np.uint64 if bits == 64 else np.uint32), random.integers(0, bits, 200)
        )
    ]
    values += [0, 1, 2**bits - 1, 2 ** (bits - 1), 2**24 + 1, 2**25 + 2]
    got = instruction(f"cvt.{mode}.f32.{kind} {{d}}, {{0}};", [np.array(values, f"u{bits // 8}")], "f4")
    for value, result in zip(values, got.tolist()):
        exact = signed(value, bits) if kind[0] == "s" else value
        assert result == round_exactly(Fraction(exact), 24, -149, LARGEST_32, mode), value


@pytest.mark.parametrize("mode", ["rn", "rz"])
@pytest.mark.parametrize(
    ("kind", "bits", "least", "largest"), [("f16", 11, -24, LARGEST_16), ("bf16", 8, -133, LARGEST_BF16)]
)
@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(
        st.integers(0, 2**32 - 1).map(single) | st.floats(-70000, 70000, width=32), min_size=50, max_size=50
    )
)
def test_f32_to_half_formats(mode, kind, bits, least, largest, values):
    got = instruction(f"cvt.{mode}.{kind}.f32 {{d}}, {{0}};", [np.array(values, "f4")], "u2")
    for value, result in zip(values, got.tolist()):
        if math.isfinite(value) and value:
            assert widen(result, kind == "bf16") == round_exactly(Fraction(value), bits, least, largest, mode)
        elif math.isnan(value):
            assert math.isnan(widen(result, kind == "bf16"))


def test_f64_to_f16_is_rounded_once():
    # Halfway between two float16 numbers once rounded to float32, a little above in float64.
    value = 1.0 + 2.0**-11 + 2.0**-40
    assert instruction("cvt.rn.f16.f64 {d}, {0};", [np.array([value])], "u2").view(np.float16).tolist() == [
        1 + 2.0**-10
    ]


def test_packed_conversion_puts_the_first_source_on_top():
    got = instruction("cvt.rn.f16x2.f32 {d}, {0}, {1};", [np.array([1.0], "f4"), np.array([2.0], "f4")], "u4")
    assert got.view(np.float16).tolist() == [2.0, 1.0]
    got = instruction("cvt.rn.bf16x2.f32 {d}, {0}, {1};", [np.array([1.0], "f4"), np.array([-2.0], "f4")], "u4")
    assert got.tolist() == [0x3F80C000]


def test_narrow_integers_are_extended_by_their_sign():
    source = words([0x80, 0x7F, 0x1FF])
    assert instruction("cvt.s32.s8 {d}, {0};", [source], "i4").tolist() == [-128, 127, -1]
    assert instruction("cvt.u32.u8 {d}, {0};", [source], "i4").tolist() == [128, 127, 255]
    assert instruction("cvt.s64.s32 {d}, {0};", [words([0xFFFFFFFF])], "i8").tolist() == [-1]
    assert instruction("cvt.u64.u32 {d}, {0};", [words([0xFFFFFFFF])], "i8").tolist() == [0xFFFFFFFF]
    assert instruction("cvt.sat.u8.s32 {d}, {0};", [words([300, -5 % 2**32, 7])], "i4").tolist() == [255, 0, 7]


def test_float_roundings_to_integral_values():
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.2, 1e30], "f4")
    for mode, expected in (
        ("rni", [0.0, 2.0, 2.0, -0.0, -1.0, 1e30]),
        ("rzi", [0.0, 1.0, 2.0, -0.0, -1.0, 1e30]),
        ("rmi", [0.0, 1.0, 2.0, -1.0, -2.0, 1e30]),
        ("rpi", [1.0, 2.0, 3.0, -0.0, -1.0, 1e30]),
    ):
        got = instruction(f"cvt.{mode}.f32.f32 {{d}}, {{0}};", [values], "f4")
        assert got.tolist() == np.array(expected, "f4").tolist()


def test_vectors_pack_and_unpack_low_part_first():
    low, high = words([0x11111111]), words([0x22222222])
    text = ".reg .b64 %both; mov.b64 %both, {{{0}, {1}}}; shr.u64 %both, %both, 16; .reg .b32 %top; mov.b64 {{{d}, %top}}, %both;"
    assert instruction(text, [low, high], "u4").tolist() == [0x22221111]
