"""Barriers of a block: who waits where, and who may go on.

A barrier lets a block go on once all of its threads that have not ended, or the number that it names, have arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import warp
from warpsmith.device.simulator.flow import Barrier
from warpsmith.device.simulator.fragment import Fragment, join
from warpsmith.device.simulator.memory import Fault
from warpsmith.device.simulator.ptx import Integer, Operand, Register

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]


class Barriers:
    """The barriers of a chunk's blocks. `waiting` lists by number who waits, with the values that `bar.red` reduces."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.waiting: dict[int, list[tuple[Barrier, Fragment, Array | None]]] = {}
        self.arrived: dict[int, Array] = {}

    def _operand(self, operand: Operand, fragment: Fragment) -> Array:
        chunk = self.chunk
        if isinstance(operand, Integer):
            return np.array([operand.value], np.int64)
        assert isinstance(operand, Register)
        value: Array = fragment.R[chunk.code.slots[operand.name]].astype(np.int64)
        return value

    def arrive(self, end: Barrier, fragment: Fragment) -> None:
        """Threads arrive; they wait unless they are the last."""
        chunk = self.chunk
        values = chunk.barrier_values
        chunk.barrier_values = None
        ids = self._operand(end.barrier, fragment)
        predicate = None if values is None else warp.expand(fragment, values[1])
        if end.threads is None and fragment.n == chunk.alive_total and not self.waiting and ids.shape[0] == 1:
            self._pass(end, fragment, predicate)
            return
        if ids.shape[0] == 1:
            groups = [(int(ids[0]), fragment, predicate)]
        else:
            live = (*chunk.code.live[end.target], *self._threads_slot(end))
            groups = []
            for number in np.unique(ids).tolist():
                index = np.flatnonzero(ids == number)
                part = None if predicate is None else predicate.take(index)
                groups.append((number, fragment.select(index, live), part))
        for number, group, part in groups:
            if not 0 <= number < 16:
                raise Fault("invalid_launch", group, 0, end.instruction.line, f"there is no barrier {number}")
            counts = self.arrived.setdefault(number, np.zeros(chunk.block_count, np.int64))
            counts += np.bincount(group.block_ids, minlength=chunk.block_count)
            if end.arrive:
                chunk.put(end.target, group)
            else:
                self.waiting.setdefault(number, []).append((end, group, part))
            self._release(number)

    def _threads_slot(self, end: Barrier) -> tuple[int, ...]:
        chunk = self.chunk
        return (chunk.code.slots[end.threads.name],) if isinstance(end.threads, Register) else ()

    def release_all(self) -> None:
        """Look again whether blocks may go on: threads that end count as arrived."""
        for number in list(self.waiting):
            self._release(number)

    def _release(self, number: int) -> None:
        """Let the blocks go on whose threads have all arrived."""
        chunk = self.chunk
        parked = self.waiting.get(number)
        if not parked:
            return
        needed = chunk.alive.copy()
        for end, fragment, _ in parked:
            if end.threads is not None:
                count = warp.expand(fragment, self._operand(end.threads, fragment))
                needed[fragment.block_ids] = count
        counts = self.arrived[number]
        done = (counts >= needed) & (counts > 0)
        if not done.any():
            return
        counts[done] = 0
        remaining: list[tuple[Barrier, Fragment, Array | None]] = []
        released: list[tuple[Barrier, Fragment, Array | None]] = []
        for end, fragment, predicate in parked:
            going = done[fragment.block_ids]
            if going.all():
                released.append((end, fragment, predicate))
                continue
            live = (*chunk.code.live[end.target], *self._threads_slot(end))
            for keep, into in ((going, released), (~going, remaining)):
                index = np.flatnonzero(keep)
                if len(index):
                    part = None if predicate is None else predicate.take(index)
                    into.append((end, fragment.select(index, live), part))
        if remaining:
            self.waiting[number] = remaining
        else:
            del self.waiting[number]
        self._go_on(released)

    def _go_on(self, released: list[tuple[Barrier, Fragment, Array | None]]) -> None:
        chunk = self.chunk
        if chunk.watch is not None and len({end.target for end, _, _ in released}) > 1:
            chunk.watch.mixed_barriers([(end.instruction, fragment) for end, fragment, _ in released])
        by_target: dict[int, list[tuple[Barrier, Fragment, Array | None]]] = {}
        for entry in released:
            by_target.setdefault(entry[0].target, []).append(entry)
        for target, entries in by_target.items():
            end = entries[0][0]
            live = chunk.code.live[target]
            fragment = join([one for _, one, _ in entries], live, chunk.slots)
            predicate = None
            if entries[0][2] is not None:
                slots = np.concatenate([one.slots for _, one, _ in entries])
                joined = np.concatenate([value for _, _, value in entries if value is not None])
                predicate = joined[np.argsort(slots, kind="stable")]
            self._pass(end, fragment, predicate)

    def _pass(self, end: Barrier, fragment: Fragment, predicate: Array | None) -> None:
        """Go on after a barrier, with the result of its reduction if it has one."""
        chunk = self.chunk
        if predicate is not None:
            target = end.instruction.operands[0]
            assert isinstance(target, Register)
            ids = fragment.block_ids
            ones = np.bincount(ids, weights=predicate, minlength=chunk.block_count).astype(np.int64)
            total = np.bincount(ids, minlength=chunk.block_count)
            name = end.instruction.modifiers
            result = ones if "popc" in name else (ones == total) if "and" in name else (ones > 0)
            home = chunk.code.homes[target.name]
            value = result[ids]
            value = value if home.kind == "b" else value.astype(np.int32).view(home)
            fragment.R[chunk.code.slots[target.name]] = value
        if chunk.watch is not None:
            chunk.watch.block_barrier(fragment)
        chunk.put(end.target, fragment)
