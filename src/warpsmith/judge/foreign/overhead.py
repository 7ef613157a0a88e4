"""What the driver itself takes, found out while all in the sandbox is ours: before the solution's text is loaded.

The questions are those of a series, to the letter; only the calls are missing, and a stand-in gives their results.
Whoever subtracts what is found here must not subtract too much. So the least of all samples counts, and the stand-in is
one piece of memory for all calls, which lies in the cache as real outputs may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from warpsmith.judge.foreign.calls import Caller

_ROUNDS = 7
_ARENA = 256 << 20
_MOST = 32


@dataclass(frozen=True, slots=True)
class Overhead:
    """`load` is processor seconds per byte of loading. The others are seconds of the clock: `each` for a call that is
    asked for, `first` for having any at all."""

    load: float = 0.0
    each: float = 0.0
    first: float = 0.0


def most_calls(caller: Caller) -> int:
    """Return N, the most calls of which a series should hold twice as many."""
    return max(1, min(_MOST, _ARENA // (2 * max(1, caller.nbytes))))


def overhead(caller: Caller, inputs: Sequence[torch.Tensor]) -> Overhead:
    """Ask a driver that has no solution yet. `inputs` are of the right shapes; their values do not matter."""
    load = 0.0
    for _ in range(2):
        start = caller.cpu_seconds() or 0.0
        caller.load([inputs])
        load = max(0.0, (caller.cpu_seconds() or 0.0) - start) / max(1, caller.nbytes)
    count = most_calls(caller)
    slots = range(2 * count)
    sealed, _ = caller.seal([], [], len(slots))
    caller.load([inputs for _ in slots], sealed)
    walls: dict[int, list[float]] = {0: [], 1: [], count: [], 2 * count: []}
    for _ in range(_ROUNDS):
        for calls, seconds in walls.items():
            seconds.append(caller.go(slots[:calls], sealed).wall)
    # Only the quicker half: a question that was disturbed would make the next one look cheap.
    none, one, some, all_ = (sorted(walls[calls])[: _ROUNDS // 2 + 1] for calls in (0, 1, count, 2 * count))
    each = max(0.0, min((c - b) / count for b, c in zip(some, all_)))
    return Overhead(load, each, max(0.0, min(b - a for a, b in zip(none, one)) - each))
