"""How long a solution takes: by the judge's own clock, over calls each of which is checked afterwards.

The time is the slope between N and 2N calls, so that what a question costs once drops out; where noise makes it
smaller than what 2N calls took beyond a question without a call, the latter counts. Nothing waits between the calls: on
a GPU they overlap as calls in a loop do. But every call asked for costs more than itself: its inputs are completed
(`bits`) before the first call and its outputs summed up after the last. These steps wait for the device, so they add to
the calls' time, and what they take at least is known from before there was a solution (`overhead`) and subtracted. What
stays in the time, so that it is a little more than the truth:

* what these steps take beyond their least, a line of Python for each call, and a share of the first call, which finds
  caches cold after the pause that the judge makes to see whether all is quiet;
* making outputs dense where they are not, copying them where the solution returns the same memory every time, setting
  back and copying buffers where the task updates them.

The time is never less than two fifths of the slope, whatever is subtracted, nor less than a 16th of what a call takes
that is the only one, nor less than the bytes and operations of the task take on this GPU. So who makes the driver's
steps quicker, or does the work of all calls in the first, gains a known factor at most, if it is not seen. A baseline
is timed in the same way by handing in the original module as a solution.

Against work outside of the clock:

* An eighth of each input's elements is sealed until the question brings its key, so no result can be made before.
* The answer holds sums over all outputs; what is fetched later must agree with them and is compared in full.
* 2N slots are loaded and few are called. One call that takes as long as many did the work of others.
* The processor time of the whole sandbox is read from outside: little may pass while nothing is asked, and no more
  around the clock than loading took before there was a solution.

What is not covered: a solution that replaces the driver in its own process and has a GPU work on after the answer,
without a processor, while it forges the sums; one that finds the inputs of a series' later calls in memory, does their
work in the first and stays within the slack and the factors above. Hence such verdicts say that host code is not
contained.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from warpsmith.judge.foreign.calls import Caller, Clocked
from warpsmith.judge.foreign.overhead import Overhead, most_calls
from warpsmith.records import Bound, Failure, GpuSpec, Stage, Task, Timing

ROUNDS = 5
_WARM_ROUNDS = 2
_TARGET = 0.004
"""Seconds that N calls should take together, far above what a question costs."""
_FEWEST = 3
_SLACK = 0.001
"""Seconds by which times may contradict each other before it means something, beside a multiple (`_STRAY`) of what the
two least times of any number of calls differ in: a busy machine is no cheat."""
_STRAY = 3.0
_QUIET = 0.0015
"""Processor seconds that may pass in a series while nothing is asked."""
_OFTEN = 3
"""Series in which the sandbox may be busy out of time before it means something."""
_ATTEMPTS = 3
"""Times that contradict each other are measured again: a cheat contradicts itself every time."""
_LEAST_SHARE = 0.4
"""Of the slope, what the time of a call is at least."""
_OVERLAP = 16.0
"""How many times longer a call may take that finds all caches cold and waits for the device by itself."""

_CONTRADICTIONS = frozenset({"batched_calls", "calls_too_cheap", "below_bound"})

Draw = Callable[[int], list[torch.Tensor]]
Check = Callable[[Sequence[torch.Tensor], dict[str, torch.Tensor]], Failure | None]


@dataclass(eq=False)
class Series:
    """Times one solution. `draw` gives fresh inputs for a seed, `check` says what is wrong with a call's outputs.

    `overhead` is what the driver took before the solution was there.
    """

    task: Task
    caller: Caller
    draw: Draw
    check: Check
    overhead: Overhead
    first_seed: int
    walls: dict[int, list[float]] = field(default_factory=dict)
    _inputs: list[list[torch.Tensor]] = field(default_factory=list)
    _drawn: int = 0
    _busy: int = 0

    def measure(self, bound: Bound, gpu: GpuSpec, name: str) -> Timing | Failure:
        """Return the time of one call on the device called `name`, or why there is none."""
        most = most_calls(self.caller)
        fewest = min(_FEWEST, most)
        for _ in range(_WARM_ROUNDS):
            for calls in (0, 1):
                failure = self._once(calls, 2 * fewest)
                if failure is not None:
                    return failure
        each = max(1e-6, min(self.walls[1]) - min(self.walls[0]))
        count = max(fewest, min(most, math.ceil(_TARGET / each)))
        outcome: Timing | Failure | None = None
        for _ in range(_ATTEMPTS):
            outcome = self._rounds(count) or self._timing(count, bound, gpu, name)
            if isinstance(outcome, Timing) or outcome.reason not in _CONTRADICTIONS:
                break
        assert outcome is not None
        return outcome

    def _rounds(self, count: int) -> Failure | None:
        """Time series of no call, one, `count` and twice as many, first in this order and then in reverse."""
        self.walls.clear()
        for number in range(ROUNDS):
            order = (0, 1, count, 2 * count)
            for calls in order if number % 2 == 0 else order[::-1]:
                failure = self._once(calls, 2 * count)
                if failure is not None:
                    return failure
        return None

    def _once(self, calls: int, slots: int) -> Failure | None:
        """Load, call and check one series."""
        while len(self._inputs) < slots:
            self._inputs.append(self._fresh())
        self._inputs = self._inputs[:slots]
        chosen = sorted(range(slots), key=lambda _: secrets.randbits(32))[:calls]
        others = [self._fresh() for _ in chosen]
        sealed, seen = self.caller.seal([self._inputs[slot] for slot in chosen], others, slots)
        start = self.caller.cpu_seconds()
        self.caller.load(self._inputs, sealed)
        clocked = self.caller.go(chosen, sealed)
        got = [self.caller.fetch(slot, seen[i], clocked.sums[i]) for i, slot in enumerate(chosen)]
        end = self.caller.cpu_seconds()
        self.walls.setdefault(calls, []).append(clocked.wall)
        for inputs, outputs in zip(seen, got):
            failure = self.check(inputs, outputs)
            if failure is not None:
                return failure
        for slot in chosen:
            self._inputs[slot] = self._fresh()
        return self._hidden(clocked, slots, 0.0 if start is None or end is None else end - start)

    def _hidden(self, clocked: Clocked, slots: int, total: float) -> Failure | None:
        """Say where the processor was busy outside of the clock."""
        around = total - clocked.inside
        allowed = 3.0 * self.overhead.load * slots * self.caller.nbytes + 0.05 + clocked.inside
        self._busy += clocked.quiet > _QUIET or around > allowed
        if self._busy >= _OFTEN:
            message = (
                f"The solution's process was busy for {max(clocked.quiet, around) * 1e3:.3g} ms outside of the clock, "
                f"against {clocked.inside * 1e3:.3g} ms inside: work was done before or after the timed calls."
            )
            return Failure(Stage.TIME, "work_outside_clock", message)
        return None

    def _timing(self, count: int, bound: Bound, gpu: GpuSpec, name: str) -> Timing | Failure:
        walls = self.walls
        none, one, some, all_ = (min(walls[calls]) for calls in (0, 1, count, 2 * count))
        slope = (all_ - some) / count
        slack = _SLACK + _STRAY * max(sorted(each)[1] - min(each) for each in walls.values())
        if count > 1 and one - none > 3.0 * slope + slack:
            message = (
                f"One call takes {(one - none) * 1e3:.3g} ms and each of many {slope * 1e3:.3g} ms: "
                "the first call does the work of the others."
            )
            return Failure(Stage.TIME, "batched_calls", message)
        if all_ - some < (some - none) / 3.0 - slack:
            message = (
                f"{count} calls take {(some - none) * 1e3:.3g} ms, as many again only {(all_ - some) * 1e3:.3g} ms: "
                "later calls do not do their work."
            )
            return Failure(Stage.TIME, "calls_too_cheap", message)
        samples = self._samples(count)
        median = samples[len(samples) // 2]
        if not (samples[0] > 0.0):
            message = (
                f"{2 * count} calls take no longer than none: they do no work, or the machine is too busy to tell."
            )
            return Failure(Stage.TIME, "calls_too_cheap", message)
        least = least_seconds(bound, gpu, 2 * count)
        if not (median >= least):  # Nothing has been subtracted yet, so this is certain.
            message = (
                f"{median * 1e6:.3g} µs is below the {least * 1e6:.3g} µs that moving the bytes and doing the "
                f"operations of the task takes on {gpu.name}: the solution does not do the work."
            )
            return Failure(Stage.TIME, "below_bound", message)
        alone = (one - none - self.overhead.first - self.overhead.each) / _OVERLAP
        times = [max(each - self.overhead.each, _LEAST_SHARE * each, alone, least) for each in samples]
        clocks = (("wall", median), ("driver", self.overhead.each), ("question", none))
        # Of five samples the extremes hold the median with a probability of 94 %; no more is claimed.
        interval = times[0], times[-1]
        return Timing(tuple(times), times[len(times) // 2], interval, "measured", name, clocks_of=clocks)

    def _samples(self, count: int) -> list[float]:
        """Return seconds per call asked for, sorted: the slope, but never below what 2N took beyond a mere question.

        The i-th smallest times are set against each other: one disturbed series then spoils one sample and not two.
        """
        none, some, all_ = (sorted(self.walls[calls]) for calls in (0, count, 2 * count))
        return sorted(
            max((c - b) / count, (c - a - self.overhead.first) / (2 * count)) for a, b, c in zip(none, some, all_)
        )

    def _fresh(self) -> list[torch.Tensor]:
        self._drawn += 1
        return self.draw(self.first_seed + self._drawn)


def least_seconds(bound: Bound, gpu: GpuSpec, calls: int) -> float:
    """Return the physical least time of one of `calls` calls in a row, each with inputs and outputs of its own.

    What fits into the L2 together need not come from memory, and what was written last need not have got there.
    """
    size = calls * (bound.bytes_read + bound.bytes_written)
    written = max(0.0, bound.bytes_written - gpu.l2_bytes / calls)
    memory = (bound.bytes_read + written) / gpu.memory_bandwidth
    cached = (bound.bytes_read + bound.bytes_written) / gpu.l2_bandwidth
    arithmetic = bound.seconds if bound.limit == "arithmetic" else 0.0
    return max(memory if size > 5 * gpu.l2_bytes else min(memory, cached), arithmetic)
