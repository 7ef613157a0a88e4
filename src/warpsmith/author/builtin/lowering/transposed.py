"""Transposed convolutions as gathers: each output sums over the taps that reach it, and no inserted zero is touched.

Along one dimension input i adds x[i] · w[k] to output p = i · stride + k · dilation - padding. Seen from the output,
tap k counts where p + padding - k · dilation is a multiple of the stride, so that outputs with one remainder of the
stride share their taps: with the remainder r(p), these are k = r, r + stride, r + 2 · stride …, ⌈kernel / stride⌉ of
them. Outputs of one remainder are a dense convolution with a part of the kernel; `Contraction.phases` says so.

A stride and a dilation with a common divisor g reach only every g-th output. The contraction then makes those alone,
with both divided by g, and the rest is bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.lowering.convolutions import Operand, convolved
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, both, compute_dtype, within
from warpsmith.author.builtin.values import Contraction, Coords, Formula, Value, Virtual


@dataclass(frozen=True)
class Line:
    """One dimension of a transposed convolution whose stride and dilation have no common divisor.

    Output p takes input (p + padding - k · dilation) / stride through tap k.
    """

    source: int
    kernel: int
    out: int
    stride: int
    padding: int
    dilation: int

    @property
    def taps(self) -> int:
        """The largest number of taps that an output takes."""
        return -(-self.kernel // self.stride)

    def tap(self, place: Index, number: Index) -> Index:
        """The number-th tap that output `place` takes; beyond the kernel where there are fewer."""
        # k · dilation ≡ p + padding modulo the stride.
        inverse = pow(self.dilation, -1, self.stride) if self.stride > 1 else 0
        return (place + self.padding) * inverse % self.stride + number * self.stride

    def position(self, place: Index, number: Index) -> Index:
        """The input that this tap multiplies; outside of the input where there is none."""
        if self.dilation == 1:
            return (place + self.padding) // self.stride - number
        # (p + padding - first · dilation) / stride, with nothing negative under the division.
        first = self.tap(place, Index()) * self.dilation
        return (place + self.padding + first * (self.stride - 1)) // self.stride - first - number * self.dilation

    def has_tap(self, place: Index, number: Index) -> Scalar | None:
        """Whether output `place` takes so many taps, or None where all do."""
        return within(self.tap(place, number), 0, self.kernel)


@dataclass(frozen=True)
class Sieve:
    """The outputs of one dimension that taps reach: `first` < `step`, `first` + `step` …, `count` of them."""

    first: int
    step: int
    count: int

    def reaches(self, place: Index) -> Scalar | None:
        """Whether a tap reaches output `place`, or None where one may reach every output."""
        return apply("eq", Position(place % self.step), Literal(self.first, "int64")) if self.step > 1 else None

    def number(self, place: Index) -> Index:
        """How many of them stand before output `place`, which is one of them."""
        return place // self.step


def _sieved(source: int, kernel: int, out: int, stride: int, padding: int, dilation: int) -> tuple[Sieve, Line]:
    """Take the common divisor out of stride and dilation."""
    step = math.gcd(stride, dilation)
    first = -padding % step
    count = max(0, -(-(out - first) // step))
    line = Line(source, kernel, count, stride // step, (first + padding) // step, dilation // step)
    return Sieve(first, step, count), line


@lowers("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def transposed_convolution(
    site: Site, x: Value, weight: Value, bias: Value | None = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, _output_padding: int | Sequence[int] = 0, groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Value:  # fmt: skip
    """Every input spread over a window of the output, weighted by the kernel; what falls on one output is added."""
    kernel = weight.shape[2:]
    rank = len(kernel)
    alone = len(x.shape) == rank + 1
    batched = Virtual(x.name, (1, *x.shape), x.dtype, lambda c: x.at(c[1:])) if alone else x
    shapes = (batched.shape[2:], kernel, site.spec.shape[-rank:])
    pairs = zip(*shapes, *(_each(v, rank) for v in (stride, padding, dilation)), strict=True)
    sieves, lines = zip(*(_sieved(*numbers) for numbers in pairs), strict=True)
    total = _total(site, batched, weight, groups, sieves, lines)
    dtype = compute_dtype(site.spec.dtype)

    def at(coords: Coords) -> Scalar:
        whole = total((Index(), *coords) if alone else coords)
        return whole if bias is None else apply("add", whole, element(bias, (coords[-1 - rank],), dtype))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, at)


def _total(site: Site, x: Value, weight: Value, groups: int, sieves: Sequence[Sieve], lines: Sequence[Line]) -> Formula:
    """Return the sums at (image, channel, *place), without the bias."""
    per_group = weight.shape[1]
    dtype = compute_dtype(site.spec.dtype)
    zero = Literal(0.0, dtype)
    if any(sieve.count == 0 for sieve in sieves):
        return lambda coords: zero
    sums = _contraction(site.name("conv"), x, weight, groups, lines, dtype)

    def at(coords: Coords) -> Scalar:
        lead = (coords[0], coords[1] // per_group, coords[1] % per_group)
        reached: Scalar | None = None
        for sieve, place in zip(sieves, coords[2:], strict=True):
            reached = both(reached, sieve.reaches(place))
        inner = tuple(sieve.number(place) for sieve, place in zip(sieves, coords[2:], strict=True))
        return choose(reached, sums.at((*lead, *inner)), zero)

    return at


def _contraction(name: str, x: Value, weight: Value, groups: int, lines: Sequence[Line], dtype: str) -> Contraction:
    """Contract the weights (channel in, channel out of its group, *kernel) with the inputs that reach each output.

    The result is (image, group, channel out of the group, *place).
    """
    inputs, per_group = weight.shape[0] // groups, weight.shape[1]

    def taken(out: Coords, inner: Coords) -> Scalar | None:
        condition: Scalar | None = None
        for line, place, number in zip(lines, out[3:], inner[1:], strict=True):
            condition = both(condition, line.has_tap(place, number))
        return condition

    # Both operands are zero where there is no tap, so that an infinity in one meets no zero of the other.
    def operands(x: Value, filters: Value) -> tuple[Operand, Operand]:
        def left(out: Coords, inner: Coords) -> Scalar:
            taps = (line.tap(place, number) for line, place, number in zip(lines, out[3:], inner[1:], strict=True))
            value = element(filters, (out[1] * per_group + out[2], inner[0], *taps), dtype)
            return choose(taken(out, inner), value, Literal(0.0, dtype))

        def right(out: Coords, inner: Coords) -> Scalar:
            numbered = zip(lines, out[3:], inner[1:], strict=True)
            places = [line.position(place, number) for line, place, number in numbered]
            condition = taken(out, inner)
            for line, place in zip(lines, places, strict=True):
                condition = both(condition, within(place, 0, line.source))
            value = element(x, (out[0], out[1] * inputs + inner[0], *places), dtype)
            return choose(condition, value, Literal(0.0, dtype))

        return left, right

    # As in a convolution that is not transposed: output channel first.
    filters = Virtual(
        weight.name, (groups * per_group, inputs, *weight.shape[2:]), weight.dtype,
        lambda c: weight.at((c[0] // per_group * inputs + c[1], c[0] % per_group, *c[2:])),
    )  # fmt: skip
    shape = (x.shape[0], groups, per_group, *(line.out for line in lines))
    phases = (1, 1, 1, *(line.stride for line in lines))
    roles = "bbm" + "".join("n" if line.stride == 1 else "b" for line in lines)
    return convolved(name, shape, roles, x, filters, [line.taps for line in lines], operands, phases)


def _each(value: int | Sequence[int], rank: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * rank if len(numbers) == 1 else numbers
