"""Tensor values: arguments in memory, virtual tensors given by a formula, and producers that need a kernel.

A view or a pointwise operator makes a `Virtual`: nothing is stored, each element is a scalar expression of its
coordinates. What cannot be written element by element is a `Producer`: a reduction, a contraction (matrix product or
convolution) or a scan. Its operands are formulas too, so whatever stands in front of it is fused by construction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal as Choice

from warpsmith.author.builtin.index import Axis, Index, axes_of, lift, ravel
from warpsmith.author.builtin.scalar import Load, Result, Scalar, compute_dtype

Coords = tuple[Index, ...]
Formula = Callable[[Coords], Scalar]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor. `dtype` is its ATen dtype; half precisions are computed in float32 and rounded where ATen rounds."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def at(self, coords: Coords) -> Scalar:
        """Return the element at `coords`."""
        raise AssertionError(f"{type(self).__name__} has no elements")


@dataclass(frozen=True, eq=False)
class Stored(Value):
    """A tensor in memory under its own name: an argument of the graph, or a value that the recipe stores."""

    def at(self, coords: Coords) -> Scalar:
        """Read the element."""
        return Load(self.name, ravel(coords, self.shape), self.dtype)


@dataclass(frozen=True, eq=False)
class Virtual(Value):
    """A tensor given by a formula."""

    formula: Formula

    def at(self, coords: Coords) -> Scalar:
        """Expand the formula."""
        return self.formula(coords)


@dataclass(frozen=True, eq=False)
class Producer(Value):
    """Base of what needs a kernel of its own. `parts` lists the dtypes of its results; they share one shape,
    unless the kind of producer says otherwise.

    The name is that of the node, a dot, and what is computed for it: `layer_norm.moments`.
    """

    parts: tuple[str, ...]

    def at(self, coords: Coords) -> Scalar:
        """Refer to the first result."""
        return self.part(0, coords)

    def part(self, number: int, coords: Coords) -> Scalar:
        """Refer to one of the results."""
        return Result(self, number, coords, compute_dtype(self.parts[number]))

    def part_shape(self, number: int) -> tuple[int, ...]:
        """Extents of one of the results."""
        return self.shape

    def by_row(self, number: int) -> bool:
        """Whether a result has one element for each row of its region, not one for each element."""
        return False

    def operands(self) -> tuple[Scalar, ...]:
        """The formulas that it consumes, over axes of its own."""
        raise AssertionError(f"{type(self).__name__} has no operands")


ReductionKind = Choice["sum", "prod", "max", "min", "any", "all", "argmax", "argmin", "mean_var", "max_sumexp"]
ScanKind = Choice["sum", "prod"]
RecurrenceKind = Choice["lstm", "gru", "tanh", "relu"]


@dataclass(frozen=True, eq=False)
class Reduction(Producer):
    """Reduce `source` over `reduced` dimensions of `domain`; `shape` is `domain` without them.

    Parts: `argmax` and `argmin` give the value and its first position; `mean_var` the mean and the sum of
    squared deviations from it; `max_sumexp` the maximum m and Σ exp(x - m). Positions are int64 linear indices over the
    reduced dimensions.
    """

    kind: ReductionKind
    domain: tuple[int, ...]
    reduced: tuple[int, ...]
    source: Formula

    def by_row(self, number: int) -> bool:
        """All results of a reduction are one to a row."""
        return True

    @property
    def rows(self) -> int:
        """Number of independent reductions."""
        return math.prod(self.shape)

    @property
    def cols(self) -> int:
        """Number of elements in each."""
        return math.prod(self.domain[d] for d in self.reduced)

    def operands(self) -> tuple[Scalar, ...]:
        """The source, over axes `d0, d1 …` of the domain."""
        return (self.source(tuple(lift(a) for a in axes_of(self.domain, "d"))),)


@dataclass(frozen=True, eq=False)
class Packed:
    """Another way to reach the operands of a contraction: from `tensors` that are written first, in an order that
    suits it. `inner`, `left` and `right` are as in the contraction; the sums are the same but for their order.
    """

    tensors: tuple[Virtual, ...]
    inner: tuple[int, ...]
    left: Callable[[Coords, Coords], Scalar]
    right: Callable[[Coords, Coords], Scalar]


@dataclass(frozen=True, eq=False)
class Contraction(Producer):
    """out[o] = Σ_k left(o, k) · right(o, k).

    `roles` says of every output dimension whether only the left operand varies along it ("m"), only the right one
    ("n"), or both ("b"). `inner` are the extents of the summed dimensions. A matrix product has roles "mn"; a
    convolution, with weights on the left, "bmnn" and the input channel and window as inner dimensions.
    `operation` names what it is: `matmul` or `conv`, since precision policies differ. `phases`, if given, says by which
    number every output dimension is divided: operands vary with the remainder of its coordinate otherwise than with
    the quotient, and a kernel treats the two as dimensions of their own. `packed` offers the operands in another order.
    """

    roles: str
    inner: tuple[int, ...]
    left: Callable[[Coords, Coords], Scalar]
    right: Callable[[Coords, Coords], Scalar]
    operation: Choice["matmul", "conv"]
    phases: tuple[int, ...] = ()
    packed: Packed | None = None

    @property
    def depth(self) -> int:
        """Length of the sum."""
        return math.prod(self.inner)

    def operands(self) -> tuple[Scalar, ...]:
        """Both operands, over axes `o…` and `k…`."""
        out = tuple(lift(a) for a in axes_of(self.shape, "o"))
        inner = tuple(lift(a) for a in axes_of(self.inner, "k"))
        return self.left(out, inner), self.right(out, inner)


@dataclass(frozen=True, eq=False)
class Scan(Producer):
    """Inclusive running `kind` of `source` along dimension `dim`, from the end if `reverse`."""

    kind: ScanKind
    dim: int
    reverse: bool
    source: Formula

    def operands(self) -> tuple[Scalar, ...]:
        """The source, over axes `d0, d1 …`."""
        return (self.source(tuple(lift(a) for a in axes_of(self.shape, "d"))),)


@dataclass(frozen=True, eq=False)
class Direction:
    """One way through the steps of a recurrence: from the first, or `reverse` from the last.

    `given(step, row, unit)` are the values of a cell that do not depend on the state, so that they can be read ahead;
    `weight(line, column)` is the matrix [gates · hidden, hidden] that the state is multiplied with;
    `initial(row, unit)` are the states to begin with: hidden, and for an LSTM that of the cell.
    """

    reverse: bool
    given: Callable[[Index, Index, Index], tuple[Scalar, ...]]
    weight: Callable[[Index, Index], Scalar]
    initial: tuple[Callable[[Index, Index], Scalar], ...]


@dataclass(frozen=True, eq=False)
class Recurrence(Producer):
    """One layer of a recurrent network, in all of its directions: h[t] = cell(given[t], weight · h[t-1], state).

    `shape` is [steps, batch, directions · hidden], or with `batch_first` [batch, steps, directions · hidden]. Part 0 is
    the hidden state after every step; part 1, of shape [batch, directions · hidden], the last one of each direction,
    part 2 of an LSTM the last state of the cell.
    """

    kind: RecurrenceKind
    batch_first: bool
    directions: tuple[Direction, ...]

    @property
    def time(self) -> int:
        """The dimension of steps."""
        return 1 if self.batch_first else 0

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.shape[self.time]

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.shape[1 - self.time]

    @property
    def hidden(self) -> int:
        """Units of one direction."""
        return self.shape[2] // len(self.directions)

    @property
    def gates(self) -> int:
        """Rows of the weight for each unit."""
        return {"lstm": 4, "gru": 3}.get(self.kind, 1)

    def part_shape(self, number: int) -> tuple[int, ...]:
        """All steps, or the last one."""
        return (self.batch, self.shape[2]) if number else self.shape

    def by_row(self, number: int) -> bool:
        """Last states are known at the end only."""
        return number > 0

    def operands(self) -> tuple[Scalar, ...]:
        """Everything that any direction reads, over axes of its own."""
        step, row, unit = (lift(Axis(n, e)) for n, e in (("s", self.steps), ("b", self.batch), ("u", self.hidden)))
        line = lift(Axis("l", self.gates * self.hidden))
        found: list[Scalar] = []
        for one in self.directions:
            found += [*one.given(step, row, unit), one.weight(line, unit), *(f(row, unit) for f in one.initial)]
        return tuple(found)


def expand_coords(coords: Coords, shape: Sequence[int]) -> Coords:
    """Return the coordinates in a tensor of `shape` that broadcast to `coords`."""
    tail = coords[len(coords) - len(shape) :]
    return tuple(Index() if extent == 1 else coord for coord, extent in zip(tail, shape, strict=True))


__all__ = [
    "Axis",
    "Contraction",
    "Coords",
    "Direction",
    "Formula",
    "Packed",
    "Producer",
    "Recurrence",
    "Reduction",
    "Scan",
    "Stored",
    "Value",
    "Virtual",
    "expand_coords",
]
