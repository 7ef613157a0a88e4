"""The forms in which a module is timed: called eagerly or compiled, call by call or as one CUDA graph of all calls.

One series makes some calls after the caches were flushed, every call on a set of its own, and tells how long one took.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from warpsmith.judge.baseline.workload import Set, free_bytes
from warpsmith.task.usercode import Blame

Call = Callable[[], object]

SERIES_SECONDS = 0.2
"""A series is cut short where calls are so slow that it would last longer: they evict each other's data anyway."""
WARM_UP = 3
"""Calls before anything is timed or captured: libraries choose algorithms and allocate workspace in the first ones."""
COMPILERS = {"compile": "default", "max-autotune": "max-autotune-no-cudagraphs"}
"""What `torch.compile` calls our modes. Graphs are captured by us, so that it must not do so as well."""


def calls_of(mode: str, sets: Sequence[Set]) -> list[Call]:
    """Return a call for each set, warmed up. Raises what the user's code or the compiler raises."""
    calls: list[Call] = [partial(each.target, *each.args, **each.kwargs) for each in _in_mode(mode, sets)]
    for number in range(WARM_UP):
        calls[number % len(calls)]()
    return calls


def _in_mode(mode: str, sets: Sequence[Set]) -> Sequence[Set]:
    if mode == "eager":
        return sets
    option = COMPILERS[mode]
    first = torch.compile(sets[0].target, mode=option)
    for _ in range(2):  # A module that counts its calls is compiled again, for any number, in the second.
        first(*sets[0].args, **sets[0].kwargs)
    compiled = [Set(first, each.args, each.kwargs) for each in sets]
    if len(sets) == 1 or sets[1].target is sets[0].target:
        return compiled
    own = [Set(torch.compile(each.target, mode=option), each.args, each.kwargs) for each in sets]
    try:
        with torch.compiler.set_stance("fail_on_recompile"):
            own[1].target(*own[1].args, **own[1].kwargs)
    except RuntimeError:
        # The compiled code is for this very module. Compiling each copy would end in PyTorch running them eagerly.
        return compiled
    return own


class Flush:
    """Reads memory that nobody else uses, so that no cache holds anything of ours when the clock starts.

    It reads because what a flush has written would have to go to memory while the first calls are timed.
    """

    def __init__(self, nbytes: int, device: str) -> None:
        count = min(nbytes, free_bytes(device) // 4) // 4
        self._memory = torch.zeros(max(1, count), dtype=torch.float32, device=device)

    def __call__(self) -> None:
        """Return when it is done."""
        self._memory.sum().item()


class Plain:
    """Call by call, as a user calls the module."""

    def __init__(self, calls: Sequence[Call], device: str) -> None:
        self._clock = clock_for(device)
        self._calls = calls[: _fitting(self._clock, calls)]
        _all(self._calls)  # The first series allocates the memory of its results.

    def series(self, flush: Flush) -> float:
        """Return seconds per call."""
        flush()
        return self._clock(partial(_all, self._calls)) / len(self._calls)


class Captured:
    """All calls captured in one CUDA graph, and replayed. `file` is whose code may be to blame where that fails."""

    def __init__(self, calls: Sequence[Call], device: str, file: str) -> None:
        self._clock = clock_for(device)
        calls = calls[: _fitting(self._clock, calls)]
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                calls[0]()
        torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.synchronize(device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream), Blame("the module, captured in a CUDA graph,", file):
            _all(calls)
        self._count = len(calls)
        self._graph.replay()  # The first replay uploads the graph.
        torch.cuda.synchronize(device)

    def series(self, flush: Flush) -> float:
        """Return seconds per call."""
        flush()
        return self._clock(self._graph.replay) / self._count


def clock_for(device: str) -> Callable[[Callable[[], object]], float]:
    """Return what measures how many seconds a function takes: events on the stream, on a CPU the process's clock."""
    return partial(_by_events, device) if torch.device(device).type == "cuda" else _by_host


def _by_events(device: str, work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    with _NoCollection():
        start.record()
        kept = work()
        end.record()
    end.synchronize()
    del kept
    return float(start.elapsed_time(end)) * 1e-3


def _by_host(work: Callable[[], object]) -> float:
    with _NoCollection():
        start = time.perf_counter()
        kept = work()
        seconds = time.perf_counter() - start
    del kept
    return seconds


class _NoCollection:
    """Keeps Python from looking for garbage while the clock runs."""

    def __enter__(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_on:
            gc.enable()


def _all(calls: Sequence[Call]) -> list[object]:
    """Make all calls. Results are kept to the end, so that each call writes to memory of its own."""
    return [call() for call in calls]


def _fitting(clock: Callable[[Callable[[], object]], float], calls: Sequence[Call]) -> int:
    """How many calls a series makes: all, or as many as fit into `SERIES_SECONDS`, at least one."""
    seconds = min(clock(call) for call in calls[:WARM_UP])
    return max(1, min(len(calls), int(SERIES_SECONDS / max(seconds, 1e-9))))
