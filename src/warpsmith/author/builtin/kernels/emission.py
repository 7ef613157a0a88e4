"""What a kernel family gives back, and the tools that all families write CUDA with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from warpsmith.author.builtin.index import Axis, Index, lift
from warpsmith.author.builtin.printer import CTYPES, Printer
from warpsmith.author.builtin.regions import Region
from warpsmith.author.builtin.scalar import Apply, Load, Local, Scalar, walk
from warpsmith.records import DTYPE_BYTES, Buffer, GpuSpec, Launch

Genes = Mapping[str, int | str]


@dataclass(frozen=True)
class Gene:
    """One choice that a recipe makes for a region; the first is the default."""

    name: str
    choices: tuple[int | str, ...]


@dataclass(frozen=True)
class Turn:
    """An argument, [lead, along, across], that is to be in memory as [lead, across, along] before anything else runs.

    `source` and `target` are the names of the argument and of a buffer, both of `dtype`. With `tf32` elements are
    rounded to what tensor cores read.
    """

    source: str
    target: str
    dtype: str
    lead: int
    along: int
    across: int
    tf32: bool = False


@dataclass(frozen=True)
class Kernels:
    """The CUDA text of one region with its launches, scratch buffers and tunables.

    `helpers` names functions of `printer.HELPERS` and of `kernels/snippets` that the text calls; `turns` are what one
    kernel does for all regions at the start.
    """

    source: str
    launches: tuple[Launch, ...]
    tunables: tuple[tuple[str, tuple[int, ...]], ...]
    buffers: tuple[Buffer, ...] = ()
    helpers: frozenset[str] = frozenset()
    turns: tuple[Turn, ...] = ()


class Family(Protocol):
    """Turns regions of one kind into kernels. A family is one module: templates, genes and nothing else."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Return the choices there are for this region; only those that give a correct kernel."""
        ...

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write the kernels for one choice of genes."""
        ...


@dataclass
class Scope:
    """Names for one region: its kernel, its tunables, the parameters of its kernels.

    `shared` are the bytes of shared memory that a block may use; `arguments` the tensors that are there from the start.
    """

    kernel: str
    prefix: str
    wide: bool
    shared: int
    arguments: frozenset[str]
    fast: bool = False
    helpers: set[str] = field(default_factory=set)

    def tunable(self, name: str) -> str:
        """The macro that a tunable of this region is called."""
        return f"{self.prefix}{name}"

    @property
    def integer(self) -> str:
        """The type of indices: one word, so that it can be written like a function to convert."""
        return "ptrdiff_t" if self.wide else "int"

    def printer(self) -> Printer:
        """A printer for this region's expressions."""
        return Printer(load=self.read, fast=self.fast, wide=self.wide, helpers=self.helpers)

    def read(self, load: Load, at: str) -> str:
        """Read one element from memory, widened to the dtype that it is computed in."""
        return widened(load.stored, f"{pointer(load.tensor)}[{at}]")


# Names that kernels use for themselves.
_RESERVED = re.compile(
    r"(i|k|j|row|col|lane|item|turn|split|warp|batch|m|n|last|more|left|right|part|start|step|group|column|slot|fetch|"
    r"place|task|mine|before|carry|slice|at|running|inside|w|y|p|[thvk]\d+|acc\d*|tile\w*|depth\d*|first\w*|next\w*|"
    r"r|e|h|quad|member|due|strange|band|height|within|shared|sum|large|small|row_\w+|own|unit|team|chunk|state|cell|after|held|arrived|(kept|weight|given|sum|all)\d+|kept|"
    r"(total|product|largest|smallest|found|kept|best|moments|squares|online)\d*(_i)?|\w+_[rsv]\d*|"
    r"key|score|rescale|base|peak|c|seen\d*|end|strip|tap|"
    r"piece|load|largest|exponent|scale|lost|at|to|known|facts|cross|stop|read|released|(left|right)_facts|"
    r"float|double|int|bool|char|long|short|half|min|max|Vec|[A-Z_]+)"
)


def pointer(tensor: str) -> str:
    """The name of the kernel parameter that points to a tensor."""
    return f"{tensor}_" if _RESERVED.fullmatch(tensor) else tensor


def widened(stored: str, text: str) -> str:
    """Convert a stored element to the dtype that it is computed in."""
    return f"float({text})" if stored in ("float16", "bfloat16") else text


def narrowed(dtype: str, text: str) -> str:
    """Convert a computed value to the dtype that it is stored in."""
    return f"{CTYPES[dtype]}({text})" if dtype in ("float16", "bfloat16") else text


def loads(expressions: Iterable[Scalar]) -> list[Load]:
    """Every read of memory below some expressions, each once."""
    found: dict[Load, None] = {}
    for expression in expressions:
        for node in walk(expression):
            if isinstance(node, Load):
                found[node] = None
    return list(found)


def parameters(reads: Iterable[Load], writes: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], str]:
    """Return the launch arguments and the C++ parameter list for tensors read, and (name, dtype) of those written."""
    sources = {load.tensor: load.stored for load in reads}
    targets = dict(writes)
    names = [*sorted(sources), *targets]
    inputs = [f"const {CTYPES[sources[name]]}* __restrict__ {pointer(name)}" for name in sorted(sources)]
    outputs = [f"{CTYPES[dtype]}* __restrict__ {pointer(name)}" for name, dtype in targets.items()]
    return tuple(names), ", ".join(inputs + outputs)


def hoist(printer: Printer, expressions: Iterable[Scalar], inner: Iterable[Axis], prefix: str = "h") -> list[str]:
    """Define variables for the largest parts of the expressions that do not depend on the inner axes."""
    moving = frozenset(inner)
    found: dict[str, Scalar] = {}
    for expression in expressions:
        for part in _fixed_parts(printer, expression, moving):
            if part not in found.values():
                found[f"{prefix}{printer.fresh()}"] = part
    return printer.define(found)


def _fixed_parts(printer: Printer, root: Scalar, moving: frozenset[Axis]) -> list[Scalar]:
    parts: list[Scalar] = []
    seen: set[Scalar] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen or printer.knows(node):
            continue
        seen.add(node)
        if not node.axes & moving:
            if isinstance(node, (Apply, Load)):
                parts.append(node)
            continue
        stack.extend(node.children)
    return parts


@dataclass(frozen=True)
class Store:
    """Write a value to an element of a tensor, if there is a guard only where it holds."""

    tensor: str
    dtype: str
    index: Index
    value: Scalar
    guard: Scalar | None = None

    @property
    def place(self) -> Load:
        """The element, as if it were read."""
        return Load(self.tensor, self.index, self.dtype, self.guard)

    def hand_over(self, printer: Printer) -> str:
        """Return the statement."""
        value = narrowed(self.dtype, printer.value(self.value))
        return f"{self.condition(printer)}{pointer(self.tensor)}[{printer.index(self.index)}] = {value};"

    def condition(self, printer: Printer) -> str:
        """What stands before the statement that writes."""
        return f"if ({printer.value(self.guard)}) " if self.guard is not None else ""


@dataclass(frozen=True)
class Add:
    """Add a value to an accumulator, with its position where the accumulator wants one."""

    accumulator: str
    value: Scalar
    position: Index | None = None

    def hand_over(self, printer: Printer) -> str:
        """Return the statement."""
        place = f", {printer.index(self.position)}" if self.position is not None else ""
        return f"{self.accumulator}.add({printer.value(self.value)}{place});"


@dataclass(frozen=True)
class Assign:
    """Set a variable of the kernel, of the type that `dtype` is stored in, to a value."""

    variable: str
    value: Scalar
    dtype: str = "float32"

    def hand_over(self, printer: Printer) -> str:
        """Return the statement."""
        return f"{self.variable} = {narrowed(self.dtype, printer.value(self.value))};"


Sink = Store | Add | Assign


@dataclass(frozen=True)
class Lanes:
    """VEC neighbouring elements that one thread treats together: element `vec · group + k`.

    `group` is the axis over vectors, `k` the axis within one.
    """

    group: Axis
    vec: int

    @property
    def k(self) -> Axis:
        """The axis within a vector."""
        return Axis("k", self.vec)

    @property
    def linear(self) -> Index:
        """The position of an element."""
        return lift(self.group) * self.vec + lift(self.k)

    def is_vector(self, load: Load) -> bool:
        """Whether the elements lie side by side and start at a multiple of the vector's width."""
        if self.vec == 1 or (load.guard is not None and self.k in load.guard.axes):
            return False
        rest = load.index - lift(self.k)
        return self.k not in rest.axes and aligned(rest, self.vec)

    def body(self, printer: Printer, sinks: Sequence[Sink]) -> list[str]:
        """Return statements that compute the values of all sinks for one group of lanes, and hand them over."""
        values = [sink.value for sink in sinks]
        if self.vec == 1:
            text = printer.share(values)
            return text + [sink.hand_over(printer) for sink in sinks]
        text, inner = self.vectors(printer, [load for load in loads(values) if not printer.knows(load)])
        text += hoist(printer, values, [self.k])
        inner = inner.adopt(printer)
        wide = [sink for sink in sinks if isinstance(sink, Store) and self.is_vector(sink.place)]
        text += [f"Vec<{CTYPES[store.dtype]}, {self.vec}> {store.tensor}_v;" for store in wide]
        lines = inner.share(values)
        for sink in sinks:
            if isinstance(sink, Store) and sink in wide:
                lines.append(f"{sink.tensor}_v.at[k] = {narrowed(sink.dtype, inner.value(sink.value))};")
            else:
                lines.append(sink.hand_over(inner))
        text += ["#pragma unroll", f"for (int k = 0; k < {self.vec}; ++k) {{", *indented(lines), "}"]
        for store in wide:
            at = printer.index((store.index - lift(self.k)) // self.vec)
            ctype = f"Vec<{CTYPES[store.dtype]}, {self.vec}>"
            spot = f"reinterpret_cast<{ctype}*>({pointer(store.tensor)})[{at}]"
            text.append(f"{store.condition(printer)}{spot} = {store.tensor}_v;")
        return text

    def vectors(self, printer: Printer, reads: Sequence[Load]) -> tuple[list[str], Printer]:
        """Read whole vectors where that is possible; returns the statements and a printer that uses them."""
        text: list[str] = []
        held: dict[Load, str] = {}
        for load in reads:
            if self.is_vector(load):
                name = f"{load.tensor}_v" if f"{load.tensor}_v" not in held.values() else f"{load.tensor}_v{len(held)}"
                text += vector_read(printer, load, self, name, declare=True)
                held[load] = name

        def read(load: Load, at: str) -> str:
            name = held.get(load)
            if name is None:
                return widened(load.stored, f"{pointer(load.tensor)}[{at}]")
            return widened(load.stored, f"{name}.at[k]")

        inner = printer.fork(read)
        for load in held:
            inner.name(load, read(load, ""))
        return text, inner


def vector_read(printer: Printer, load: Load, lanes: Lanes, target: str, *, declare: bool) -> list[str]:
    """Return statements that read one vector into `target`, zeros where the read's guard is false."""
    ctype = f"Vec<{CTYPES[load.stored]}, {lanes.vec}>"
    at = printer.index((load.index - lift(lanes.k)) // lanes.vec)
    source = f"reinterpret_cast<const {ctype}*>({pointer(load.tensor)})[{at}]"
    if load.guard is None:
        return [f"{f'const {ctype} ' if declare else ''}{target} = {source};"]
    empty = f"{ctype} {target}{{}};" if declare else f"{target} = {ctype}{{}};"
    return [empty, f"if ({printer.value(load.guard)}) {target} = {source};"]


def aligned(index: Index, vec: int) -> bool:
    """Whether an index is a multiple of `vec` whatever its axes are."""
    return index.constant % vec == 0 and all(coefficient % vec == 0 for _, coefficient in index.terms)


def vector_widths(extent: int, dtypes: Iterable[str]) -> tuple[int, ...]:
    """Widths that divide an extent and fit 16-byte accesses of the narrowest dtype, widest first."""
    smallest = min((DTYPE_BYTES[d] for d in dtypes), default=4)
    return tuple(v for v in (8, 4, 2, 1) if extent % v == 0 and v * smallest <= 16)


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Indent statements; preprocessor lines too."""
    return ["    " * depth + line if line else line for line in lines]


def unrolled(variable: str, count: int | str, body: Sequence[str], step: int = 1, integer: str = "int") -> list[str]:
    """Frame a loop that the compiler unrolls. A variable that places are computed from is a `Scope.integer`."""
    advance = f"++{variable}" if step == 1 else f"{variable} += {step}"
    head = f"for ({integer} {variable} = 0; {variable} < {count}; {advance})"
    if len(body) == 1:
        return ["#pragma unroll", f"{head} {body[0]}"]
    return ["#pragma unroll", f"{head} {{", *indented(body), "}"]


def function(scope: Scope, name: str, params: str, bounds: str, body: Sequence[str], comment: str) -> str:
    """Frame a kernel."""
    head = [f"// {line}" for line in comment.splitlines()]
    signature = f'extern "C" __global__ void __launch_bounds__({bounds}) {name}({params}) {{'
    return "\n".join([*head, signature, *indented(body), "}"])


__all__ = [
    "Add",
    "Assign",
    "Family",
    "Gene",
    "Genes",
    "Kernels",
    "Lanes",
    "Local",
    "Scope",
    "Sink",
    "Store",
    "Turn",
    "aligned",
    "function",
    "hoist",
    "indented",
    "loads",
    "narrowed",
    "parameters",
    "pointer",
    "unrolled",
    "vector_read",
    "vector_widths",
    "widened",
]
