"""Index arithmetic: where in memory an element lies, as an affine expression over named axes.

An `Index` is `constant + Σ coefficient · atom`. An atom is an axis (0 ≤ axis < extent), a floor division or a
remainder of another index, or a position read from memory. Sums are kept canonical, so that two indices are equal
when they are written equal, and `unravel` followed by `ravel` gives back what went in. All indices are non-negative
wherever they are divided, so floor division agrees with C++.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warpsmith.author.builtin.scalar import Scalar


@dataclass(frozen=True, slots=True)
class Axis:
    """A loop variable: 0 ≤ name < extent."""

    name: str
    extent: int


@dataclass(frozen=True, slots=True)
class Div:
    """`base // by`, where base ≥ 0."""

    base: Index
    by: int

    @property
    def extent(self) -> int:
        """One more than the largest value."""
        return self.base.high // self.by + 1


@dataclass(frozen=True, slots=True)
class Mod:
    """`base % by`, where base ≥ 0."""

    base: Index
    by: int

    @property
    def extent(self) -> int:
        """One more than the largest value."""
        return min(self.by, self.base.high + 1)


@dataclass(frozen=True, slots=True)
class Indirect:
    """A position read from a tensor, such as a class target; the caller vouches for 0 ≤ value < extent."""

    value: Scalar
    extent: int


Atom = Axis | Div | Mod | Indirect


@dataclass(frozen=True)
class Index:
    """`constant + Σ coefficient · atom`, canonical. Build with `axis`, `constant` and the operators."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    @cached_property
    def low(self) -> int:
        """Smallest value that the ranges of the atoms allow."""
        return self.constant + sum(c * (a.extent - 1) for a, c in self.terms if c < 0)

    @cached_property
    def high(self) -> int:
        """Largest value that the ranges of the atoms allow."""
        return self.constant + sum(c * (a.extent - 1) for a, c in self.terms if c > 0)

    @cached_property
    def _hash(self) -> int:
        return hash((self.terms, self.constant))

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Index | int) -> Index:
        other = lift(other)
        return _sum([*self.terms, *other.terms], self.constant + other.constant)

    def __sub__(self, other: Index | int) -> Index:
        return self + lift(other) * -1

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index(tuple((a, c * factor) for a, c in self.terms), self.constant * factor)

    def __floordiv__(self, by: int) -> Index:
        if by == 1:
            return self
        whole, rest = self._split(by)
        if rest.low >= 0 and rest.high < by:
            return whole
        for g, upper, _ in rest._coarser(by):
            return whole + upper // (by // g)
        atom = rest._sole_atom()
        if isinstance(atom, Div):
            return whole + atom.base // (atom.by * by)
        return whole + Index(((Div(rest, by), 1),))

    def __mod__(self, by: int) -> Index:
        if by == 1:
            return Index()
        _, rest = self._split(by)
        if rest.low >= 0 and rest.high < by:
            return rest
        for g, upper, lower in rest._coarser(by):
            return (upper % (by // g)) * g + lower
        atom = rest._sole_atom()
        if isinstance(atom, Mod) and atom.by % by == 0:
            return atom.base % by
        return Index(((Mod(rest, by), 1),))

    def _split(self, by: int) -> tuple[Index, Index]:
        """Return (q, r) with self = by·q + r, taking out every multiple that can be seen."""
        whole = Index(tuple((a, c // by) for a, c in self.terms if c % by == 0), self.constant // by)
        rest = Index(tuple((a, c) for a, c in self.terms if c % by != 0), self.constant % by)
        return whole, rest

    def _coarser(self, by: int) -> Iterable[tuple[int, Index, Index]]:
        """Yield (g, u, l) with self = g·u + l, g dividing `by`, 0 ≤ l < g: only u matters to a division by `by`."""
        for g in sorted({math.gcd(c, by) for _, c in self.terms} - {1, by}, reverse=True):
            upper, lower = self._split(g)
            if lower.low >= 0 and lower.high < g:
                yield g, upper, lower
        common = math.gcd(by, *(c for _, c in self.terms))
        if common > 1 and self.terms:
            upper, lower = self._split(common)
            yield common, upper, lower

    def _sole_atom(self) -> Atom | None:
        return self.terms[0][0] if len(self.terms) == 1 and self.terms[0][1] == 1 and self.constant == 0 else None

    @cached_property
    def axes(self) -> frozenset[Axis]:
        """Every axis that the value depends on, through divisions and reads too."""
        found: set[Axis] = set()
        for atom, _ in self.terms:
            if isinstance(atom, Axis):
                found.add(atom)
            elif isinstance(atom, Indirect):
                found |= atom.value.axes
            else:
                found |= atom.base.axes
        return frozenset(found)

    def replace(self, bindings: Mapping[Axis, Index], scalar: Callable[[Scalar], Scalar]) -> Index:
        """Put indices in the place of axes; `scalar` does the same inside positions that are read."""
        total = lift(self.constant)
        for atom, coefficient in self.terms:
            if isinstance(atom, Axis):
                term = bindings.get(atom, lift(atom))
            elif isinstance(atom, Indirect):
                term = Index(((Indirect(scalar(atom.value), atom.extent), 1),))
            elif isinstance(atom, Div):
                term = atom.base.replace(bindings, scalar) // atom.by
            else:
                term = atom.base.replace(bindings, scalar) % atom.by
            total = total + term * coefficient
        return total


def lift(value: Index | Axis | int) -> Index:
    """Turn an axis or a number into an index. An axis of extent one is zero."""
    if isinstance(value, Index):
        return value
    if isinstance(value, Axis):
        return Index(((value, 1),)) if value.extent > 1 else Index()
    return Index((), value)


def _order(term: tuple[Atom, int]) -> tuple[int, str]:
    return (-abs(term[1]), repr(term[0]))


def _sum(terms: Iterable[tuple[Atom, int]], constant: int) -> Index:
    totals: dict[Atom, int] = {}
    for atom, coefficient in terms:
        totals[atom] = totals.get(atom, 0) + coefficient
    totals = {atom: c for atom, c in totals.items() if c}
    for atom, coefficient in totals.items():
        if not isinstance(atom, Mod):
            continue
        # m·k·((b // k) % j) + m·(b % k) is m·(b % (k·j)).
        upper = (atom.base // atom.by) if atom.base.high >= atom.by else None
        joined = next(
            (a for a, c in totals.items() if isinstance(a, Mod) and a.base == upper and c == coefficient * atom.by),
            None,
        )
        if joined is not None:
            rest = [(a, c) for a, c in totals.items() if a not in (atom, joined)]
            whole = atom.base % (atom.by * joined.by) * coefficient
            return _sum([*rest, *whole.terms], constant + whole.constant)
        # m·k·(b // k) + m·(b % k) is m·b.
        quotient = (atom.base // atom.by)._sole_atom()
        if quotient is not None and totals.get(quotient) == coefficient * atom.by:
            rest = [(a, c) for a, c in totals.items() if a not in (atom, quotient)]
            whole = atom.base * coefficient
            return _sum([*rest, *whole.terms], constant + whole.constant)
    return Index(tuple(sorted(totals.items(), key=_order)), constant)


def ravel(coords: Sequence[Index], shape: Sequence[int]) -> Index:
    """Return the row-major linear index of `coords` in a tensor of `shape`."""
    linear = Index()
    for coord, extent in zip(coords, shape, strict=True):
        linear = linear * extent + coord
    return linear


def unravel(linear: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """Return the coordinates of a row-major linear index; the inverse of `ravel`."""
    coords: list[Index] = []
    for extent in reversed(shape):
        coords.append(linear % extent if extent > 1 else Index())
        linear = linear // extent if extent > 1 else linear
    return tuple(reversed(coords))


def axes_of(shape: Sequence[int], prefix: str) -> tuple[Axis, ...]:
    """Name one axis for each extent."""
    return tuple(Axis(f"{prefix}{number}", extent) for number, extent in enumerate(shape))
