"""Cutting a lowered graph into regions: each becomes one kernel, or a few that belong together.

A region is built around producers that share a domain (the reductions of a softmax, say), around a single contraction,
scan or recurrence, or around the two contractions of an attention; a region without producers is pointwise. Everything
in front of a producer is already fused, since operands are formulas. Behind it, a value joins the region where every
element needs results of the same element (of the same row) only.

The walk visits outputs in the order of the graph, and before each of them the producers that it needs, and asks: can
the newest region among those that it depends on host it? If not, what it needs from other regions is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from warpsmith.author.builtin.attention_match import Attention, matching
from warpsmith.author.builtin.index import Axis, axes_of, lift, ravel, unravel
from warpsmith.author.builtin.lowering import Lowered
from warpsmith.author.builtin.scalar import Load, Result, Scalar, transform, walk
from warpsmith.author.builtin.values import Contraction, Coords, Producer, Recurrence, Reduction, Scan, Stored, Value

# A tensor so small that writing it takes less time than a launch.
_FEW = 1024

Space = Literal["element", "row"]
Kind = Literal["pointwise", "rows", "contraction", "scan", "recurrence", "attention"]


@dataclass(frozen=True, eq=False)
class Output:
    """A tensor that a region writes: once for every element of its domain, or once for every row.

    It has as many elements as the space, in the same row-major order, whatever its own shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    value: Value
    part: int
    space: Space

    def at(self, coords: Coords, extents: tuple[int, ...]) -> Scalar:
        """Return the element that stands at `coords` of a space with these extents."""
        place = coords if extents == self.shape else unravel(ravel(coords, extents), self.shape)
        return self.value.part(self.part, place) if isinstance(self.value, Producer) else self.value.at(place)


@dataclass(eq=False)
class Region:
    """One anchor with its fused neighbours.

    `name` is that of its first producer or output, which no recipe changes. `reduced` are the dimensions of `domain`
    that a reduction, a scan or a recurrence runs over; `tf32` says whether the task allows its products one pass of
    TF32. The producer of an attention is the last of those that it is made of; `attention` has the others.
    """

    name: str
    kind: Kind
    domain: tuple[int, ...]
    reduced: tuple[int, ...] = ()
    producers: list[Producer] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    tf32: bool = False
    attention: Attention | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a recipe may leave unfused. That of an attention's scores takes it apart, and no more."""
        if self.attention is not None:
            return self.name, self.attention.scores.name
        return (self.name,) if self.producers or len(self.outputs) > 1 else ()

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Extents of the dimensions that are not reduced."""
        return tuple(e for d, e in enumerate(self.domain) if d not in self.reduced)

    @property
    def col_shape(self) -> tuple[int, ...]:
        """Extents of the reduced dimensions."""
        return tuple(self.domain[d] for d in self.reduced)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.prod(self.row_shape)

    @property
    def cols(self) -> int:
        """Length of a row."""
        return math.prod(self.col_shape)

    def extents(self, space: Space) -> tuple[int, ...]:
        """Extents of a space that outputs are written in."""
        return self.domain if space == "element" else self.row_shape

    def coordinates(self, row: Coords, col: Coords) -> Coords:
        """Weave row and column coordinates into coordinates of the domain."""
        rows, cols = iter(row), iter(col)
        return tuple(next(cols) if d in self.reduced else next(rows) for d in range(len(self.domain)))

    def written(self, space: Space) -> list[Output]:
        """Outputs in a space."""
        return [output for output in self.outputs if output.space == space]


@dataclass(frozen=True)
class Cut:
    """Regions in the order they run, and the intermediate tensors that they leave in memory."""

    regions: tuple[Region, ...]
    intermediates: tuple[Stored, ...]


def results(expression: Scalar) -> set[Result]:
    """Return every producer result that an expression uses, inside indices too."""
    return {node for node in walk(expression) if isinstance(node, Result)}


def stored(producer: Producer, part: int) -> Stored:
    """Return the tensor in memory that a stored result becomes."""
    name = producer.name.replace(".", "_")
    shape, dtype = producer.part_shape(part), producer.parts[part]
    return Stored(f"{name}{part}" if len(producer.parts) > 1 else name, shape, dtype)


def resolve(expression: Scalar, held: dict[tuple[Producer, int], Scalar]) -> Scalar:
    """Replace results by what the kernel holds, and those of other regions by reads of memory."""

    def visit(node: Scalar) -> Scalar:
        if not isinstance(node, Result):
            return node
        local = held.get((node.producer, node.part))
        if local is not None:
            return local
        read = stored(node.producer, node.part).at(node.coords)
        assert isinstance(read, Load)
        return Load(read.tensor, read.index, read.stored, node.guard)

    return transform(expression, visit)


def cut(lowered: Lowered, unfused: Iterable[str] = ()) -> Cut:
    """Cut into regions. Those named in `unfused` take no epilogue: their results are stored as they are.

    An attention is one region unless its own name or that of its scores is among them.
    """
    cutter = _Cutter(lowered, frozenset(unfused))
    for name, value in _sinks(lowered):
        cutter.place_sink(name, value)
    return Cut(tuple(cutter.regions), (*lowered.stored, *cutter.intermediates))


class _Cutter:
    def __init__(self, lowered: Lowered, unfused: frozenset[str]) -> None:
        self.lowered, self.unfused = lowered, unfused
        self.regions: list[Region] = []
        self.intermediates: list[Stored] = []
        self._home: dict[Producer, Region] = {}
        self._writer: dict[str, Region] = {}

    def place_sink(self, name: str, value: Value) -> None:
        """Let a region write `value` to memory under `name`."""
        expression = value.at(_lifted(axes_of(value.shape, "v")))
        used = results(expression)
        for result in _ordered(used):
            self._place(result.producer)
        host = max((self._home[r.producer] for r in used), key=self.regions.index, default=None)
        if host is not None and host.name not in self.unfused:
            spaces: tuple[Space, ...] = ("element", "row") if host.kind in ("rows", "recurrence") else ("element",)
            for space in spaces:
                output = Output(name, value.shape, value.dtype, value, 0, space)
                if self._joins(host, output):
                    self._write(host, output)
                    return
        output = Output(name, value.shape, value.dtype, value, 0, "element")
        region = self._sibling(value.shape, expression)
        if region is None:
            self._store(used)
            region = Region(name, "pointwise", value.shape)
            self.regions.append(region)
        self._write(region, output)

    def _sibling(self, shape: tuple[int, ...], expression: Scalar) -> Region | None:
        """A pointwise region of the same shape that can write a value too, and gains by it: reads are shared, or a
        launch that does next to nothing is saved.
        """
        wanted = _tensors(expression)
        for region in reversed(self.regions):
            alike = region.kind == "pointwise" and region.domain == shape and region.name not in self.unfused
            pays = alike and (math.prod(shape) <= _FEW or wanted & self._reads(region))
            if pays and self._aligned(region, expression, axes_of(shape, "v")):
                return region
        return None

    def _reads(self, region: Region) -> set[str]:
        at = _lifted(axes_of(region.domain, "v"))
        return set().union(*(_tensors(output.at(at, region.domain)) for output in region.outputs))

    def _write(self, region: Region, output: Output) -> None:
        region.outputs.append(output)
        self._writer[output.name] = region

    def _place(self, producer: Producer) -> None:
        """Give a producer a region: one that can host it, or a new one."""
        if producer in self._home:
            return
        attention = self._attention(producer)
        used = attention.needs() if attention else {r for operand in producer.operands() for r in results(operand)}
        for result in _ordered(used):
            self._place(result.producer)
        host = self._reduction_host(producer) if isinstance(producer, Reduction) else None
        if host is None:
            self._store(used)
            host = _region_of(producer, attention)
            self.regions.append(host)
        else:
            host.producers.append(producer)
        self._home[producer] = host

    def _attention(self, producer: Producer) -> Attention | None:
        """The attention that a producer completes, if nobody else needs what is computed within."""
        found = matching(producer)
        if found is None or self.unfused & {found.mix.name, found.scores.name}:
            return None
        own = {found.mix, *found.inside}
        return found if all(self._users[inside] <= own for inside in found.inside) else None

    @cached_property
    def _users(self) -> Mapping[Producer, set[Producer | None]]:
        """Who needs results of each producer; None stands for what is stored."""
        users: dict[Producer, set[Producer | None]] = {}
        sinks = [value for _, value in _sinks(self.lowered)]
        due: list[tuple[Producer | None, Scalar]] = [(None, v.at(_lifted(axes_of(v.shape, "v")))) for v in sinks]
        while due:
            user, expression = due.pop()
            for producer in {result.producer for result in results(expression)}:
                if producer not in users:
                    users[producer] = set()
                    due += [(producer, operand) for operand in producer.operands()]
                users[producer].add(user)
        return users

    def _reduction_host(self, producer: Reduction) -> Region | None:
        """Find a region over the same domain in which everything that the reduction needs is at hand."""
        for region in reversed(self.regions):
            if region.kind == "rows" and (region.domain, region.reduced) == (producer.domain, producer.reduced):
                row, col = axes_of(region.row_shape, "r"), axes_of(region.col_shape, "c")
                source = producer.source(region.coordinates(_lifted(row), _lifted(col)))
                if self._aligned(region, source, row):
                    return region
        return None

    def _joins(self, region: Region, output: Output) -> bool:
        """Whether the region can write the output, element by element or row by row, from what it holds."""
        extents = region.extents(output.space)
        if math.prod(extents) != math.prod(output.shape):
            return False
        if region.kind == "rows":
            row, col = axes_of(region.row_shape, "r"), axes_of(region.col_shape, "c")
            coords = region.coordinates(_lifted(row), _lifted(col)) if output.space == "element" else _lifted(row)
            return self._aligned(region, output.at(coords, extents), row)
        element = axes_of(extents, "e")
        return self._aligned(region, output.at(_lifted(element), extents), element)

    def _aligned(self, region: Region, expression: Scalar, own: tuple[Axis, ...]) -> bool:
        """Whether the region holds what the expression needs at its own place, and the rest is written before it.

        If so, results of other regions are stored.
        """
        due, place = _lifted(own), self.regions.index(region)
        used = results(expression)
        for result in used:
            home = self._home[result.producer]
            if home is region and result.coords != due:
                return False
            if home is not region and self.regions.index(home) >= place:
                return False
        for node in walk(expression):
            writer = self._writer.get(node.tensor) if isinstance(node, Load) else None
            if writer is not None and self.regions.index(writer) >= place:
                return False
        self._store(r for r in used if self._home[r.producer] is not region)
        return True

    def _store(self, used: Iterable[Result]) -> None:
        """Let the regions of these results write them to memory, once."""
        for result in _ordered(used):
            producer, part = result.producer, result.part
            tensor = stored(producer, part)
            if tensor.name not in self._writer:
                space: Space = "row" if producer.by_row(part) else "element"
                output = Output(tensor.name, tensor.shape, tensor.dtype, producer, part, space)
                self.intermediates.append(tensor)
                self._write(self._home[producer], output)


def _sinks(lowered: Lowered) -> list[tuple[str, Value]]:
    """What must be written to memory, and under which name."""
    cuts = [(tensor.name, lowered.values[tensor.name.removesuffix("_stored")]) for tensor in lowered.stored]
    return cuts + [(spec.name, value) for spec, value in lowered.outputs]


def _tensors(expression: Scalar) -> set[str]:
    """Tensors in memory, and results of other regions, that an expression reads."""
    found = {node.tensor for node in walk(expression) if isinstance(node, Load)}
    return found | {result.producer.name for result in results(expression)}


def _region_of(producer: Producer, attention: Attention | None) -> Region:
    if attention is not None:
        return Region(producer.name, "attention", producer.shape, (), [producer], attention=attention)
    if isinstance(producer, Reduction):
        return Region(producer.name, "rows", producer.domain, producer.reduced, [producer])
    if isinstance(producer, Contraction):
        return Region(producer.name, "contraction", producer.shape, (), [producer])
    if isinstance(producer, Recurrence):
        return Region(producer.name, "recurrence", producer.shape, (producer.time,), [producer])
    assert isinstance(producer, Scan)
    return Region(producer.name, "scan", producer.shape, (producer.dim,), [producer])


def _ordered(used: Iterable[Result]) -> list[Result]:
    """Sort results, so that sets leave no trace in the order of kernels."""
    return sorted(used, key=lambda r: (r.producer.name, r.part, repr(r.coords)))


def _lifted(axes: tuple[Axis, ...]) -> Coords:
    return tuple(lift(axis) for axis in axes)
