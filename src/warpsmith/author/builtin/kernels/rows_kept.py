"""What a kernel keeps of a row between its passes: in registers, in shared memory, or in that of a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from warpsmith.author.builtin.kernels.emission import Lanes, loads, pointer, vector_read, widened
from warpsmith.author.builtin.kernels.frame import Frame
from warpsmith.author.builtin.kernels.mapping import Mapping
from warpsmith.author.builtin.printer import CTYPES, Printer
from warpsmith.author.builtin.scalar import Load
from warpsmith.records import DTYPE_BYTES

# Registers that a thread may spend on keeping its share of a row.
MOST_REGISTERS = 64
# Shared memory that a block may spend on a row, with room left for the reductions.
_STATIC_BYTES = 40 * 1024


def kept_loads(frame: Frame) -> list[Load]:
    """Reads that more than one pass makes, and that can be kept."""
    inner = set(frame.inner)
    rounds = [[step.value for step in p.steps] for p in frame.passes] + [[s.value for s in frame.element_stores()]]
    counts: dict[Load, int] = {}
    for values in rounds:
        for load in loads(values):
            kept = frame.lanes.vec == 1 or frame.lanes.is_vector(load)
            if kept and load.index.axes & inner:
                counts[load] = counts.get(load, 0) + 1
    return [load for load, count in counts.items() if count > 1]


@dataclass(frozen=True)
class Kept:
    """Reads that are made once. `where` is registers, shared (the whole row), cluster (a block's share of it) or none.

    In registers and in a cluster's memory a thread finds by the number of its `item` what it has put there itself.
    """

    where: str
    loads: tuple[Load, ...]
    lanes: Lanes
    mapping: Mapping

    @staticmethod
    def of(frame: Frame, mapping: Mapping, stage: str) -> Kept:
        """Choose what to keep; nothing where it does not fit."""
        found = tuple(kept_loads(frame)) if stage != "reload" else ()
        row = sum(DTYPE_BYTES[load.stored] for load in found) * frame.region.cols
        where = "none"
        if not found:
            return Kept(where, (), frame.lanes, mapping)
        if stage == "registers" and -(-frame.region.cols // _fewest_threads(mapping)) <= MOST_REGISTERS:
            where = "registers"
        elif mapping.cluster:
            where = "cluster"
        elif stage == "shared" and mapping.snippet == "block_reduce" and row <= _STATIC_BYTES:
            where = "shared"
        return Kept(where, found if where != "none" else (), frame.lanes, mapping)

    @property
    def by_items(self) -> bool:
        """Whether a thread counts what it has kept."""
        return self.where in ("registers", "cluster")

    @property
    def bytes(self) -> str:
        """Dynamic shared memory, as an expression of a plan."""
        if self.where != "cluster":
            return "0"
        size = sum(DTYPE_BYTES[load.stored] for load in self.loads) * self.lanes.vec
        threads, (block,) = self.mapping.threads, self.mapping.block
        return f"ceil_div({self.lanes.group.extent}, {threads}) * {block} * {size}"

    def declared(self) -> list[str]:
        """Declare where reads are kept."""
        threads, text = self.mapping.threads, []
        if self.by_items:
            text.append(f"constexpr int ITEMS = (COLS + {threads} - 1) / {threads};  // of each thread")
        if self.where == "cluster":
            text.append("extern __shared__ __align__(16) char shared[];")
        start = "shared"
        # The widest first, so that all are aligned.
        for number in sorted(range(len(self.loads)), key=lambda n: -DTYPE_BYTES[self.loads[n].stored]):
            name, ctype = self._name(number), self._ctype(self.loads[number])
            if self.where == "cluster":
                text.append(f"{ctype}* const {name} = reinterpret_cast<{ctype}*>({start});")
                start = f"{name} + ITEMS * {self.mapping.block[0]}"
            elif self.where == "shared":
                text.append(f"__shared__ {ctype} {name}[COLS];")
            else:
                text.append(f"{ctype} {name}[ITEMS];")
        return text

    def fetched(self, printer: Printer) -> list[str]:
        """Statements that read and keep; from then on the printer finds the values where they are kept."""
        fetch, text = printer.fork(), []
        for number, load in enumerate(self.loads):
            spot = self._spot(number)
            if self.lanes.vec > 1:
                text += vector_read(fetch, load, self.lanes, spot, declare=False)
                printer.name(load, widened(load.stored, f"{spot}.at[k]"))
            else:
                raw = fetch.fork(lambda load, at: f"{pointer(load.tensor)}[{at}]")
                text.append(f"{spot} = {raw.value(load)};")
                printer.name(load, widened(load.stored, spot))
        return text

    def _name(self, number: int) -> str:
        return f"{self.loads[number].tensor}_{'r' if self.where == 'registers' else 's'}{number or ''}"

    def _spot(self, number: int) -> str:
        place = {"registers": "item", "shared": "j", "cluster": f"item * {self.mapping.block[0]} + threadIdx.x"}
        return f"{self._name(number)}[{place[self.where]}]"

    def _ctype(self, load: Load) -> str:
        return f"Vec<{CTYPES[load.stored]}, {self.lanes.vec}>" if self.lanes.vec > 1 else CTYPES[load.stored]


def _fewest_threads(mapping: Mapping) -> int:
    """Threads to a row for the least values of all tunables."""
    fixed = {"": 1, "warp_reduce": 32}.get(mapping.snippet)
    return fixed if fixed is not None else math.prod(min(values) for _, values in mapping.tunables)
