"""Index arithmetic is exact: what it simplifies has the same value for every position."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from warpsmith.author.builtin.index import Axis, Div, Index, Mod, axes_of, lift, ravel, unravel


def value(index: Index, places: dict[str, int]) -> int:
    """Evaluate an index with Python's integers."""
    total = index.constant
    for atom, coefficient in index.terms:
        if isinstance(atom, Axis):
            inner = places[atom.name]
        elif isinstance(atom, Div):
            inner = value(atom.base, places) // atom.by
        else:
            assert isinstance(atom, Mod)
            inner = value(atom.base, places) % atom.by
        total += coefficient * inner
    return total


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(shapes)
def test_unravel_then_ravel_gives_back_the_linear_index(shape: tuple[int, ...]) -> None:
    linear = lift(Axis("i", math.prod(shape)))
    assert ravel(unravel(linear, shape), shape) == linear


@given(shapes, st.data())
def test_reshaping_back_and_forth_changes_no_coordinate(shape: tuple[int, ...], data: st.DataObject) -> None:
    coords = tuple(lift(a) for a in axes_of(shape, "a"))
    split = data.draw(st.integers(0, len(shape)))
    other = (math.prod(shape[:split]), math.prod(shape[split:]))
    assert unravel(ravel(unravel(ravel(coords, shape), other), other), shape) == coords


@given(shapes, st.lists(st.tuples(st.sampled_from("/%*+"), st.integers(1, 12)), max_size=5))
def test_simplified_arithmetic_agrees_with_integers(shape: tuple[int, ...], steps: list[tuple[str, int]]) -> None:
    axes = axes_of(shape, "a")
    index = ravel([lift(a) for a in axes], shape)
    for places in itertools.islice(itertools.product(*(range(e) for e in shape)), 64):
        named = {a.name: p for a, p in zip(axes, places, strict=True)}
        due, got = value(index, named), index
        for sign, number in steps:
            if sign == "/":
                due, got = due // number, got // number
            elif sign == "%":
                due, got = due % number, got % number
            elif sign == "*":
                due, got = due * number, got * number
            else:
                due, got = due + number, got + number
        assert value(got, named) == due
        assert got.low <= due <= got.high


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 12))
def test_replacing_an_axis_agrees_with_evaluating_it(extent: int, count: int, by: int) -> None:
    i, j, k = Axis("i", extent * count), Axis("j", count), Axis("k", extent)
    index = lift(i) // by * 3 + lift(i) % by
    woven = index.replace({i: lift(j) * extent + lift(k)}, lambda scalar: scalar)
    for a, b in itertools.product(range(count), range(extent)):
        assert value(woven, {"j": a, "k": b}) == value(index, {"i": a * extent + b})
