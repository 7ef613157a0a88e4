"""Products of warpgroups (`wgmma`) on their way: issued now, in registers when the warps have waited for their group.

A product reads its matrices and is computed when it is issued. From then until a `wgmma.wait_group` that covers its
group its registers hold a *mark*: a signalling NaN that says which product's which register will be there. Marks move
with values through `mov`, and through fragments that part and meet; further products of the same shape may take them
as accumulators. The wait replaces them by the results (`flying` finds the registers that may hold some). A kernel that
does not wait computes with NaNs, and the sanitizer reports the first instruction that does. On hardware the results
may appear at any time between.

Reported as well: a product before which its warps executed no `wgmma.fence`, or none since the last wait although
registers that it takes were computed since; what `proxies` finds out about shared memory.

Not reported: a register of A, or an accumulator, that gets another value meanwhile. The compiler does that by itself
where it gives two variables one register, and the assembler, which sees it, lets such products run one after the other.
Nor registers that are computed after a fence, since the compiler moves computations past fences; nor products that
nobody waits for or looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import descriptors, warp, warpgroups
from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.mma import require_whole_warps
from warpsmith.device.simulator.wgmma import Product, to_matrix, to_registers
from warpsmith.errors import SimulatorError

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk
    from warpsmith.device.simulator.proxies import Proxies

Array = NDArray[Any]
U4 = np.dtype(np.uint32)
MARK, MARK_BITS = np.uint32(0xFFA00000), np.uint32(0xFFE00000)
_REGISTERS = 128
MOST = 1 << 14


def marked(bits: Array) -> Array:
    """Whether each register (uint32) holds a mark."""
    found: Array = (bits & MARK_BITS) == MARK
    return found


def _read(marks: Array) -> tuple[Array, Array]:
    """The number of the product and of the register that marks stand for."""
    which = (marks & ~MARK_BITS).astype(np.int64)
    return which // _REGISTERS, which % _REGISTERS


@dataclass(slots=True)
class Flight:
    """A product on its way: of which threads (`slots`) and warps; which of the latter have not waited yet.

    `group` is the number of the group of each warp that the product belongs to. `total` is None once a later product
    has taken all of it as its accumulators.
    """

    form: Product
    slots: Array
    warps: Array
    group: Array
    pending: NDArray[np.bool_]
    total: NDArray[np.float32] | None
    registers: Array | None = None

    def results(self) -> Array | None:
        """Its registers (n / 2, threads), uint32."""
        if self.registers is None and self.total is not None:
            self.registers = to_registers(self.total)
        return self.registers

    def on_its_way(self, slots: Array) -> Array:
        """Whether the warps of these threads have yet to wait."""
        late: Array = self.pending[np.searchsorted(self.warps, slots // WARP)]
        return late


class Products:
    """The products of a chunk. `groups` counts those that each warp has committed; `fenced` warps have fenced once."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.flights: dict[int, Flight] = {}
        self.next = 0
        self.groups = np.zeros(chunk.slot_count // WARP, np.int64)
        self.fenced = np.zeros(chunk.slot_count // WARP, np.bool_)

    # -- instructions

    def fence(self, fragment: Fragment, line: int) -> None:
        """`wgmma.fence`."""
        require_whole_warps(fragment, line, "wgmma.fence")
        self.fenced[warpgroups.warps_of(fragment)] = True

    def commit(self, fragment: Fragment, line: int) -> None:
        """`wgmma.commit_group`: close the group of products that these warps have issued since the last one."""
        require_whole_warps(fragment, line, "wgmma.commit_group")
        self.groups[warpgroups.warps_of(fragment)] += 1

    def issue(
        self, fragment: Fragment, form: Product, unfenced: bool, d: Sequence[Array], a: Any, b: Array, scale: Array
    ) -> tuple[Array, ...]:
        """`wgmma.mma_async`: return what the registers of D hold from now on.

        `a` is a descriptor or the four registers of A; `unfenced` says that a register which it takes was computed
        with no fence thereafter.
        """
        warpgroups.require(fragment, form.line)
        self._demand_fence(fragment, form, unfenced)
        adding = warpgroups.uniform(fragment, scale, form.line, "whether to add")
        pieces = []
        if form.left is not None:
            pieces.append(descriptors.pieces_of(self.chunk, fragment, form.line, form.left, a))
            left = form.from_memory(descriptors.load(self.chunk, form.left, pieces[0]))
        else:
            left = form.from_registers(self._stacked(fragment, a))
        pieces.append(descriptors.pieces_of(self.chunk, fragment, form.line, form.right, b))
        right = form.from_memory(descriptors.load(self.chunk, form.right, pieces[-1]))
        number = self._number(form.line)
        self._observe(fragment, form, number, np.concatenate(pieces, axis=1))
        added = self._accumulators(fragment, form, d, adding) if adding.any() else None
        warps = warpgroups.warps_of(fragment)
        pending = np.ones(len(warps), np.bool_)
        total = form.multiply(left, right, added)
        self.flights[number] = Flight(form, fragment.slots, warps, self.groups[warps], pending, total)
        marks = MARK | np.arange(number * _REGISTERS, number * _REGISTERS + form.n // 2, dtype=U4)
        return tuple(marks[:, None])

    def wait(self, fragment: Fragment, line: int, left: int, registers: Sequence[Array]) -> tuple[Array, ...]:
        """`wgmma.wait_group`: let all groups of these warps arrive but the last `left`; return the registers."""
        require_whole_warps(fragment, line, "wgmma.wait_group")
        warps = warpgroups.warps_of(fragment)
        limit = np.full(len(self.groups), -1, np.int64)
        limit[warps] = self.groups[warps] - left
        over = []
        for number, flight in self.flights.items():
            flight.pending[flight.group < limit[flight.warps]] = False
            waiting: Array = np.logical_or.reduce(flight.pending.reshape(-1, warpgroups.WARPS), axis=1)
            if self._proxies is not None:
                self._proxies.finished(number, waiting)
            if not waiting.any():
                over.append(number)
        settled = tuple(self._settle(fragment, bits) for bits in registers)
        for number in over:
            del self.flights[number]
        return settled

    # -- checks of registers

    def check(self, fragment: Fragment, line: int, registers: Sequence[Array]) -> None:
        """Report an instruction that reads what is not there yet."""
        for bits in registers:
            wrong = marked(bits)
            if wrong.any():
                lane = int(np.argmax(wrong))
                message = "reads a register whose result is on its way" + self._origin(bits[lane])
                self._report(fragment, lane, line, message + "; wgmma.wait_group must come first", 0)
                return

    def _demand_fence(self, fragment: Fragment, form: Product, unfenced: bool) -> None:
        without = ~self.fenced[warpgroups.warps_of(fragment)]
        if without.any():
            lane = int(np.argmax(without)) * WARP
            self._report(fragment, lane, form.line, "wgmma.fence must come before the first wgmma of a warpgroup", 0)
        elif unfenced:
            message = "takes registers that were computed after the last wgmma.wait_group, with no wgmma.fence since"
            self._report(fragment, 0, form.line, message, 0)

    def _report(self, fragment: Fragment, lane: int, line: int, message: str, other_line: int) -> None:
        if self.chunk.watch is not None:
            self.chunk.watch.report("uninitialised", fragment, lane, line, message, other_line)

    def _origin(self, mark: Any) -> str:
        flight = self.flights.get(int(_read(np.array([mark], U4))[0][0]))
        return "" if flight is None else f", from the wgmma in line {flight.form.line}"

    # -- registers

    def _number(self, line: int) -> int:
        """A number that no product on its way has."""
        if len(self.flights) >= MOST:
            raise SimulatorError(f"line {line}: more than {MOST} wgmma on their way at once")
        while self.next in self.flights:
            self.next = (self.next + 1) % MOST
        number, self.next = self.next, (self.next + 1) % MOST
        return number

    @staticmethod
    def _stacked(fragment: Fragment, registers: Sequence[Array]) -> Array:
        return np.stack([warp.expand(fragment, one) for one in registers])

    def _accumulators(self, fragment: Fragment, form: Product, d: Sequence[Array], adding: Array) -> Array:
        """Return what to add, (warpgroups, 64, n) in float32: zeros for warpgroups that do not."""
        whole = self._chained(fragment, form, d, keep=not adding.all())
        if whole is None:
            bits = self._stacked(fragment, [self._passed_on(fragment, form, one, n) for n, one in enumerate(d)])
            whole = to_matrix(bits)
            left = marked(bits).any(axis=0) & np.repeat(adding, warpgroups.WARPGROUP)
            if left.any():
                self.check(fragment, form.line, tuple(bits))
        return whole if adding.all() else np.where(adding[:, None, None], whole, np.float32(0))

    def _chained(self, fragment: Fragment, form: Product, d: Sequence[Array], keep: bool) -> NDArray[np.float32] | None:
        """The result of the product that these registers are marked with, if they are all of it and of this shape."""
        if any(one.shape[0] != 1 for one in d):
            return None
        marks = np.concatenate(d)
        if not marked(marks[:1]).all() or not (marks == marks[0] + np.arange(len(marks), dtype=U4)).all():
            return None
        number, first = (int(one[0]) for one in _read(marks[:1]))
        flight = self.flights.get(number)
        if (
            flight is None
            or first
            or flight.form.shape != form.shape
            or not np.array_equal(flight.slots, fragment.slots)
        ):
            return None
        total = flight.total
        if not keep:
            flight.total = None
        return total

    def _passed_on(self, fragment: Fragment, form: Product, bits: Array, register: int) -> Array:
        """Replace marks of products of this shape, where they stand in their own register, by what those give."""
        if not marked(bits).any():
            return bits
        due = lambda flight, index, _: (flight.form.shape == form.shape) & (index == register)  # noqa: E731
        return self._replace(fragment, bits, due)

    def _settle(self, fragment: Fragment, bits: Array) -> Array:
        """Replace marks of products that have arrived."""
        if not marked(bits).any():
            return bits
        if bits.shape[0] == 1:
            number, register = (int(one[0]) for one in _read(bits))
            flight = self.flights.get(number)
            found = None if flight is None or flight.pending.any() else flight.results()
            if flight is not None and found is not None and np.array_equal(flight.slots, fragment.slots):
                row: Array = found[register]
                return row
        return self._replace(fragment, bits, lambda flight, index, slots: ~flight.on_its_way(slots))

    def _replace(self, fragment: Fragment, bits: Array, due: Any) -> Array:
        """Replace the marks for which `due(flight, registers, slots)` holds by results."""
        bits = warp.expand(fragment, bits).copy()
        lanes = np.flatnonzero(marked(bits))
        numbers, registers = _read(bits[lanes])
        for number in np.unique(numbers).tolist():
            flight = self.flights.get(number)
            results = None if flight is None else flight.results()
            if flight is None or results is None:
                continue
            chosen = numbers == number
            at, index = lanes[chosen], registers[chosen]
            slots = fragment.slots[at]
            place = np.searchsorted(flight.slots, slots)
            right = due(flight, index, slots)
            bits[at[right]] = results[index[right], place[right]]
        return bits

    # -- shared memory

    def _observe(self, fragment: Fragment, form: Product, number: int, pieces: Array) -> None:
        """Tell counters and sanitizer what a product reads."""
        counting = self.chunk.run_state.counting
        if counting is not None:
            counting.matrix_read(pieces.size)
        if self._proxies is not None:
            self._proxies.read(fragment, form.line, number, pieces)

    @property
    def _proxies(self) -> Proxies | None:
        return None if self.chunk.watch is None else self.chunk.watch.proxies
