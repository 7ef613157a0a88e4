"""The judge's end of the baseline: starts its process, limits it, replaces it, and turns answers into `Baseline`s."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warpsmith import wire
from warpsmith.child import Child, interpreter
from warpsmith.errors import MachineError
from warpsmith.judge.baseline.cache import BaselineKey
from warpsmith.judge.baseline.parcel import write_parcel
from warpsmith.judge.statistics import timing_of
from warpsmith.records import MODES, Baseline, Mode, Task

NO_GRAPHS = "CUDA graphs need a GPU"
_MODULE = "warpsmith.judge.baseline.process"
_START_SECONDS = 120.0
"""To import PyTorch, build the module and draw its inputs."""


def names_of(modes: Iterable[Mode]) -> tuple[str, ...]:
    """Return baselines as `Baseline.name` calls them, in the order in which `Baselines.all` measures them."""
    return tuple(f"{mode} graph" if graph else mode for mode in modes for graph in (False, True))


@dataclass(frozen=True, slots=True)
class Facts:
    """What the process says of itself: names, versions, and through how many sets of inputs a series rotates."""

    device: str
    driver: str
    torch: str
    cuda: str
    sets: int


class Baselines:
    """The original module of a task on one device, in each of the `modes` plainly and as a CUDA graph.

    `rotate_bytes` is what the sets of one rotation exceed together, and what is read to flush the caches: five times
    the L2. `seconds` limits each preparation (compilation and autotuning included) and each series. After any problem
    the process is replaced, and forms that were prepared in it are prepared again when they are next timed. Close it
    when done, or use it as a context manager. Not thread-safe. Holding the GPU's lock is the caller's affair.
    """

    def __init__(
        self, task: Task, device: str = "cuda", *, rotate_bytes: int, seconds: float, modes: Sequence[Mode] = MODES
    ) -> None:
        if not (rotate_bytes >= 0 and 0.0 < seconds < math.inf):
            raise ValueError(f"rotate_bytes = {rotate_bytes}, seconds = {seconds}")
        self._task_key, self._device, self._seconds = task.key, device, seconds
        self._rotate_bytes, self._modes = rotate_bytes, tuple(modes)
        self._folder = tempfile.TemporaryDirectory(prefix="warpsmith-baseline-")
        parcel = Path(self._folder.name) / "task.pt"
        write_parcel(task, parcel)
        self._command = [*interpreter(_MODULE), str(parcel), device, str(rotate_bytes)]
        self._child: Child | None = None
        self._facts: Facts | None = None
        self._prepared: set[tuple[str, bool]] = set()

    def __enter__(self) -> Baselines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, and remove what was written for it."""
        self._end()
        self._folder.cleanup()

    @property
    def pid(self) -> int | None:
        """The process's number while there is one."""
        return self._child.pid if self._child is not None else None

    @property
    def facts(self) -> Facts:
        """What the process says of itself. Raises MachineError where none can be started, or the module not built."""
        problem = self._start()
        if problem or self._facts is None:
            raise MachineError(f"no baseline: {problem}")
        return self._facts

    @property
    def key(self) -> BaselineKey:
        """Under which name all baselines are kept in a `BaselineCache`. Raises MachineError as `facts` does."""
        facts, names = self.facts, names_of(self._modes)
        return BaselineKey(
            self._task_key, facts.device, facts.driver, facts.torch, facts.cuda, names, self._rotate_bytes
        )

    def prepare(self, mode: Mode, graph: bool) -> str:
        """Make a form ready to be timed: compile, warm up, capture. Return nothing, or the problem in a sentence."""
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; known are {', '.join(MODES)}")
        if graph and torch.device(self._device).type != "cuda":
            return NO_GRAPHS
        shared = bool(self._prepared)
        answer = self._ask("prepare", mode, graph)
        if shared and "out of memory" in str(answer.get("problem", "")).lower():
            # Other forms hold memory in that process; in a fresh one this form has all of it.
            answer = self._ask("prepare", mode, graph)
        if "problem" not in answer:
            self._prepared.add((mode, graph))
        return str(answer.get("problem", ""))

    def series(self, mode: Mode, graph: bool) -> float:
        """Time one series; return seconds per call. The form is prepared where it is not.

        Raises MachineError where the module cannot be run this way.
        """
        problem = "" if (mode, graph) in self._prepared else self.prepare(mode, graph)
        if problem:
            raise MachineError(problem)
        answer = self._ask("series", mode, graph)
        if "problem" in answer:
            raise MachineError(str(answer["problem"]))
        seconds = answer.get("seconds")
        if not (isinstance(seconds, float) and 0.0 < seconds < math.inf):
            self._end()
            raise MachineError(f"the baseline's process says that a call took {seconds!r} seconds")
        return seconds

    def measure(self, mode: Mode, graph: bool, series: int = 20) -> Baseline:
        """Time `series` series, after one that does not count. Problems are part of what is returned."""
        if series < 1:
            raise ValueError(f"{series} series")
        problem = self.prepare(mode, graph)
        if problem:
            return Baseline(mode, graph, None, problem)
        try:
            samples = [self.series(mode, graph) for _ in range(1 + series)][1:]
            return Baseline(mode, graph, timing_of(samples, self.facts.device, "measured"))
        except MachineError as error:
            return Baseline(mode, graph, None, str(error))

    def all(self, series: int = 20) -> tuple[Baseline, ...]:
        """Measure all forms. A mode that cannot be called is not tried as a graph."""
        found: list[Baseline] = []
        for mode in self._modes:
            plain = self.measure(mode, False, series)
            found.append(plain)
            found.append(
                self.measure(mode, True, series) if plain.timing else Baseline(mode, True, None, plain.problem)
            )
        return tuple(found)

    @staticmethod
    def best(baselines: Iterable[Baseline]) -> Baseline | None:
        """Return the fastest by its median, None where none could be timed."""
        timed = [(each.timing.median, number, each) for number, each in enumerate(baselines) if each.timing]
        return min(timed)[2] if timed else None

    # -- the process

    def _start(self) -> str:
        """Start the process where there is none. Return the problem, if there is one."""
        if self._child is not None:
            return ""
        self._child = Child(self._command)
        answer = self._answered(_START_SECONDS + self._seconds, "start")
        if "problem" in answer:
            return str(answer["problem"])
        self._facts = Facts(**{name: answer[name] for name in Facts.__slots__})
        return ""

    def _ask(self, what: str, mode: Mode, graph: bool) -> dict[str, Any]:
        problem = self._start()
        if problem:
            return {"problem": problem}
        assert self._child is not None
        try:
            self._child.send({"do": what, "mode": mode, "graph": graph})
        except wire.Closed:
            return self._lost()
        name = f"{mode} graph" if graph else mode
        return self._answered(self._seconds, f"{what} `{name}`")

    def _answered(self, seconds: float, what: str) -> dict[str, Any]:
        """Await an answer. After a problem the process is gone."""
        assert self._child is not None
        try:
            answer, _ = self._child.receive(seconds, max_blob=0)
        except wire.Late:
            self._end()
            return {"problem": f"too slow: the baseline's process did not {what} within {seconds:g} s"}
        except (wire.Closed, wire.Nonsense):
            return self._lost()
        if "problem" in answer:
            self._end()
        return answer

    def _lost(self) -> dict[str, Any]:
        assert self._child is not None
        how, _, printed = self._child.epitaph().partition(": ")
        last = printed.strip().splitlines()[-1:]
        self._end()
        return {"problem": ": ".join([f"the baseline's process {how}", *last])}

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._child = None
        self._prepared.clear()
