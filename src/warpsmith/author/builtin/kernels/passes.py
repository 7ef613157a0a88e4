"""The passes over a row: which accumulators each fills, and what the kernel knows after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.kernels.emission import Add
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Literal, Local, Result, Scalar, apply, cast, walk
from warpsmith.author.builtin.values import Coords, Producer, Reduction

Held = dict[tuple[Producer, int], Scalar]
Namer = Callable[[str], str]

_SIMPLE: Mapping[str, tuple[str, str]] = {
    "sum": ("Sum", "total"),
    "prod": ("Product", "product"),
    "max": ("Largest", "largest"),
    "min": ("Smallest", "smallest"),
    "any": ("Any", "found"),
    "all": ("All", "kept"),
    "argmax": ("LargestAt", "best"),
    "argmin": ("SmallestAt", "best"),
}


@dataclass(frozen=True, eq=False)
class Step:
    """One accumulator: its struct, its variable, what is added for each element, and what it yields."""

    struct: str
    dtype: str
    variable: str
    value: Scalar
    positioned: bool
    yields: tuple[tuple[int, Scalar], ...]
    producer: Reduction

    @property
    def ctype(self) -> str:
        """The accumulator's C++ type."""
        return self.struct if self.struct in ("Any", "All") else f"{self.struct}<{CTYPES[self.dtype]}>"

    def sink(self, col: Index) -> Add:
        """What the loop over the row does with an element."""
        return Add(self.variable, self.value, col if self.positioned else None)


@dataclass(frozen=True, eq=False)
class Pass:
    """Steps that read the row together."""

    steps: tuple[Step, ...]


def plan_passes(region: Region, row: Coords, col: Coords, one_pass: bool) -> tuple[tuple[Pass, ...], Held]:
    """Order a region's reductions into as few passes as their dependencies allow.

    `row` and `col` are the coordinates to express elements in; `one_pass` fills moments and softmax sums with compound
    accumulators instead of two passes. Returns the passes, and what holds each result after them.
    """
    held: Held = {}
    level_of: dict[Producer, int] = {}
    levels: dict[int, list[Step]] = {}
    names: dict[str, int] = {}

    def variable(stem: str) -> str:
        names[stem] = names.get(stem, 0) + 1
        return stem if names[stem] == 1 else f"{stem}{names[stem]}"

    for producer in region.producers:
        assert isinstance(producer, Reduction)
        raw = producer.source(region.coordinates(row, col))
        level = max((level_of[r.producer] + 1 for r in _own(raw, level_of)), default=0)
        source = resolve(raw, held)
        for offset, step in enumerate(_steps(producer, source, one_pass, variable)):
            levels.setdefault(level + offset, []).append(step)
            level_of[producer] = level + offset
            for part, value in step.yields:
                held[producer, part] = value
    return tuple(Pass(tuple(levels[n])) for n in sorted(levels)), held


def _own(expression: Scalar, placed: Mapping[Producer, int]) -> list[Result]:
    return [n for n in walk(expression) if isinstance(n, Result) and n.producer in placed]


def _steps(producer: Reduction, source: Scalar, one_pass: bool, variable: Namer) -> Sequence[Step]:
    dtype = producer.parts[0]
    if producer.kind == "mean_var":
        return _moments(producer, source, dtype, one_pass, variable)
    if producer.kind == "max_sumexp":
        return _softmax(producer, source, dtype, one_pass, variable)
    struct, stem = _SIMPLE[producer.kind]
    name = variable(stem)
    value = Local(f"{name}.value", dtype)
    if dtype == "bool":
        return [
            Step(
                struct,
                "bool",
                name,
                cast(source, "bool"),
                False,
                ((0, cast(Local(f"{name}.value", "int32"), "bool")),),
                producer,
            )
        ]
    if len(producer.parts) == 2:
        place = cast(Local(f"{name}.at", "int32"), "int64")
        return [Step(struct, dtype, name, source, True, ((0, value), (1, place)), producer)]
    return [Step(struct, dtype, name, source, False, ((0, value),), producer)]


def _moments(producer: Reduction, source: Scalar, dtype: str, one_pass: bool, variable: Namer) -> Sequence[Step]:
    if one_pass:
        name = variable("moments")
        yields = (0, Local(f"{name}.mean", dtype)), (1, Local(f"{name}.deviation", dtype))
        return [Step("Moments", dtype, name, source, False, yields, producer)]
    total, squares = variable("total"), variable("squares")
    mean = apply("div", Local(f"{total}.value", dtype), Literal(float(producer.cols), dtype))
    gap = apply("sub", source, mean)
    return [
        Step("Sum", dtype, total, source, False, ((0, mean),), producer),
        Step("Sum", dtype, squares, apply("mul", gap, gap), False, ((1, Local(f"{squares}.value", dtype)),), producer),
    ]


def _softmax(producer: Reduction, source: Scalar, dtype: str, one_pass: bool, variable: Namer) -> Sequence[Step]:
    if one_pass:
        name = variable("online")
        yields = (0, Local(f"{name}.largest", dtype)), (1, Local(f"{name}.sum", dtype))
        return [Step("OnlineSoftmax", dtype, name, source, False, yields, producer)]
    largest, total = variable("largest"), variable("total")
    top = Local(f"{largest}.value", dtype)
    shifted = apply("exp", apply("sub", source, top))
    return [
        Step("Largest", dtype, largest, source, False, ((0, top),), producer),
        Step("Sum", dtype, total, shifted, False, ((1, Local(f"{total}.value", dtype)),), producer),
    ]
