"""A series: calls on many slots, captured as one graph, replayed cold, each on contents of its own.

Slots together exceed five times the L2, or a flush in front of the series makes up for it. Before every replay all
slots are filled anew, outputs and scratch with NaNs; afterwards inputs, guards and module variables are looked at, and
the outputs of every call are there to be compared.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.cupti import busy
from warpsmith.device.cuda.process import RunnerProcess

MOST_NODES = 2048
"""Kernels in one graph: more take long to capture and say nothing new."""
KERNELS_OF_A_CALL = 3
"""Of a library call, where they are not counted: a product whose sum is shared, the sum of the parts, and a bias."""
_SECONDS = 30.0
_WALL_SECONDS, _WALL_PAIRS = 4e-3, 3


@dataclass(frozen=True, slots=True)
class Conduct:
    """What the calls of a series did that they must not: the same as in `records.Execution`."""

    overwritten: tuple[str, ...]
    trampled: tuple[str, ...]
    kept: tuple[str, ...]


class Series:
    """A captured series.

    `slots` are all slots, `calls` how many of them are called, in an order that nobody knows, `launches` how many
    kernels a call launches, `launch_seconds` how long each took on the device, once `activity` was asked for. Where a
    call of the program makes `library_calls`, `launches` is what it launches at most, and `activity` tells in
    `library_share` what share of the time library code takes, in place of the seconds of each launch.
    """

    def __init__(
        self,
        runner: RunnerProcess,
        arena: Arena,
        launches: int,
        l2_bytes: int,
        chance: random.Random,
        library_calls: int = 0,
    ) -> None:
        self.slots = arena.layout.slots
        self.launches = launches = launches + KERNELS_OF_A_CALL * library_calls
        self.library_share: float | None = None
        self._hybrid = library_calls > 0
        self.launch_seconds: tuple[float, ...] = ()
        self.calls = min(self.slots, max(1, MOST_NODES // max(1, launches)))
        self.order = chance.sample(range(self.slots), self.calls)
        self._runner, self._arena = runner, arena
        self._flush = 5 * l2_bytes
        self._guards: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        self._kept: tuple[str, ...] = ()
        runner.ask({"do": "capture", "order": self.order}, seconds=_SECONDS)

    def refill(self, pool: Mapping[str, torch.Tensor], members: torch.Tensor, fill: int) -> None:
        """Fill everything anew: slot i gets member `members[i]` of a pool of arguments stacked along dimension 0."""
        self._arena.fill(fill)
        self._arena.put_all(pool, members)
        self._guards = [(name, strip, strip.clone()) for name, strip in self._arena.guards()]
        self._arena.push()

    def replay(self, seconds: float) -> float:
        """Replay the series once, cold; return the time of one call in seconds. Raises Fault."""
        question = {"do": "replay", "flush": self._flush}
        answer, _ = self._runner.ask(question, seconds=_SECONDS + seconds * self.calls)
        self._kept = tuple(answer["kept"])
        self._arena.pull()
        return float(answer["seconds"]) / self.calls

    def step(self, number: int, seconds: float) -> bool:
        """Make the call that stands at `number` in the order, by itself; whether it left all other memory alone."""
        slot = self.order[number]
        before = self._arena.fingerprint(slot)
        answer, _ = self._runner.ask({"do": "call", "slot": slot}, seconds=seconds)
        self._kept = tuple(answer["kept"])
        self._arena.pull()
        return self._arena.fingerprint(slot) == before

    def conduct(self, pool: Mapping[str, torch.Tensor], members: torch.Tensor) -> Conduct:
        """Look at what was not to change."""
        trampled = [name for name, strip, first in self._guards if not torch.equal(strip, first)]
        overwritten = self._arena.changed("input", pool, members)
        return Conduct(overwritten, tuple(dict.fromkeys(trampled)), self._kept)

    def output(self, name: str) -> torch.Tensor:
        """Return an output of all slots, of shape [slots, *shape]; those that were not called hold NaNs."""
        return self._arena.tensor(name)

    def activity(self) -> float | None:
        """Return how long the device was at work for one call, by CUPTI; None where that is not there."""
        answer, _ = self._runner.ask({"do": "activity", "flush": self._flush}, seconds=_SECONDS, max_blob=1 << 24)
        spans = [(int(low), int(high)) for low, high in answer["spans"] or ()]
        if self._hybrid and spans:
            library = [(int(low), int(high)) for low, high in answer["library"]]
            self.library_share = busy(library) / busy(spans)
        elif len(spans) == self.calls * self.launches:
            # The device works through the series in order, so every launch of the plan comes around again.
            self.launch_seconds = tuple(
                statistics.median(high - low for low, high in spans[number :: self.launches]) * 1e-9
                for number in range(self.launches)
            )
        return busy(spans) * 1e-9 / self.calls if spans else None

    def wall(self, seconds: float) -> tuple[float, float]:
        """Return the slope of the parent's own clock for one call, and what events say of the same calls.

        The slope is by how much 2N replays take longer than N, so that what a message costs falls out. Nothing is
        flushed in between, so both are those of warm caches. `seconds` is what one call takes; it decides N.
        """
        times = max(1, min(400, int(_WALL_SECONDS / max(1e-9, seconds * self.calls))))
        pairs = [(self._clocked(times), self._clocked(2 * times)) for _ in range(_WALL_PAIRS)]
        # The least of each, since a busy host only ever adds.
        once = min(first for (first, _), _ in pairs)
        twice, events = min(second for _, second in pairs)
        return (twice - once) / (times * self.calls), events

    def _clocked(self, times: int) -> tuple[float, float]:
        start = time.perf_counter()
        answer, _ = self._runner.ask({"do": "replay", "times": times}, seconds=_SECONDS)
        return time.perf_counter() - start, float(answer["seconds"]) / self.calls
