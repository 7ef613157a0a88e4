"""What the judge does on a GPU only: time by series of verified calls, and have sanitizers and profilers look.

The simulator looks on the GPU's behalf where a task is small enough; NVIDIA's own tools look at candidates that are to
be kept. All of it takes a trial that has come so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from warpsmith.device.cuda.device import CudaDevice, seconds_for
from warpsmith.device.cuda.process import Fault
from warpsmith.device.simulator import Simulator
from warpsmith.errors import MachineError, SimulatorError
from warpsmith.judge import tools
from warpsmith.judge.blockwise import BlockPool, Blocks, blocks_for
from warpsmith.judge.crowd import with_patience
from warpsmith.judge.library import library_profile
from warpsmith.judge.mixtures import draw_any
from warpsmith.judge.pool import FAMILY, Pool, members_for
from warpsmith.judge.references import Reference
from warpsmith.judge.roofline import from_times
from warpsmith.judge.timing import Contents, Limits, Stopwatch, fault_failure, least_seconds, measure
from warpsmith.judge.trial import Trial, conduct, locate
from warpsmith.program import Builder
from warpsmith.records import Bound, Failure, Profile, Stage, Task

SIMULATED = 20_000_000
"""Bytes and operations of a task up to which the simulator can look at a whole call of a program on a GPU's behalf."""


class Native:
    """The judge's hands on one GPU, for one task. `blocks` says how a task that is too large is cut.

    `budget` is in thread-instructions. `thorough` uses NVIDIA's tools, where they are installed.
    """

    def __init__(
        self, task: Task, device: CudaDevice, builder: Builder, bound: Bound, budget: int, seed: int, thorough: bool
    ) -> None:
        self.device = device
        self._task, self._builder, self._bound, self._budget = task, builder, bound, budget
        self._seed, self._thorough = seed, thorough
        self._pool: Contents | None = None
        work = bound.operations + bound.bytes_read + bound.bytes_written
        self._checker = Simulator(device.spec) if work <= SIMULATED else None
        self.blocks = self._cut()

    def _cut(self) -> Blocks | None:
        """Cut a task that is too large, and make sure that its blocks compute what the whole computes."""
        blocks = blocks_for(self._task, self.device.memory_bytes)
        if blocks is None:
            return None

        def holds() -> bool:
            with self.device.exclusive():
                return blocks.holds(draw_any(self._task, FAMILY, 0, self.device.where))

        sound = with_patience(holds, torch.cuda.empty_cache, self.device, self._task.name, lambda _: False)
        return blocks if sound else None

    def forget(self) -> None:
        """Let go of all that can be computed again."""
        self._pool = None
        self.device.recover()
        torch.cuda.empty_cache()

    # -- sanitize

    def sanitize(self, trial: Trial, first: Reference, fill: int) -> Failure | None:
        """Look for races, uninitialised reads and divergent barriers; `trial.sanitized` then says who did."""
        return self._simulate(trial, first, fill) or self._sanitize(trial, first)

    def _simulate(self, trial: Trial, first: Reference, fill: int) -> Failure | None:
        """Have the simulator look, where the task is small enough and it knows all instructions."""
        if self._checker is None:
            return None
        with self.device.exclusive():
            inputs = {name: value.cpu() for name, value in first.arguments.items()}
        results = self._task.graph.results
        try:
            execution = self._checker.run(
                trial.built, trial.plan, inputs, results, fill=fill, sanitize=True, budget=self._budget
            )
        except SimulatorError:
            return None
        trial.counters, trial.sanitized = execution.counters, "simulator"
        return conduct(execution, Stage.SANITIZE, first)

    def _sanitize(self, trial: Trial, first: Reference) -> Failure | None:
        """Have compute-sanitizer look, where it is worth the seconds."""
        if not (self._thorough and tools.sanitizer_here()):
            return None
        call = trial.built, trial.plan, first.arguments, self._task.graph.results
        findings, ended = tools.sanitize(self.device, self._builder, *call)
        looked = f"compute-sanitizer ({', '.join(ended)})" if ended else ""
        trial.sanitized = " and ".join(filter(None, (trial.sanitized, looked)))
        if not findings:
            return None
        finding = findings[0]
        return Failure(Stage.SANITIZE, finding.kind, locate(finding), first.family, first.seed, finding=finding)

    # -- time

    def time(self, trial: Trial, first: Reference, seed: int) -> Failure | None:
        """Time a program by series of verified calls; once more where the runner was ended from outside."""
        for attempt in range(2):
            try:
                return self._measure(trial, first, seed)
            except Fault as fault:
                self.device.recover()
                if fault.name != "died" or attempt:
                    return fault_failure(fault)
        raise AssertionError("unreachable")

    def _measure(self, trial: Trial, first: Reference, seed: int) -> Failure | None:
        graph, device = self._task.graph, self.device
        series = device.series(trial.built, trial.plan, graph.arguments, graph.results, seed)
        limits = Limits(seconds_for(self._budget), least_seconds(self._bound, device.spec, series.calls))
        contents = self._contents(trial, first)
        timing = measure(series, contents, limits, seed, device.spec.name, device.watch.state)
        if self.blocks is not None:
            # One draw of so large a task is as much as can be held beside everything else.
            self._pool = None
        if isinstance(timing, Failure):
            return timing
        trial.timing, trial.spans, trial.library_share = timing, series.launch_seconds, series.library_share
        return None

    @contextmanager
    def stopwatch(self, trial: Trial, first: Reference, seed: int) -> Iterator[Stopwatch]:
        """Prepare a built candidate for many timings. Raises MachineError where it does not run."""
        graph = self._task.graph
        try:
            series = self.device.series(trial.built, trial.plan, graph.arguments, graph.results, seed)
            yield Stopwatch(series, self._contents(trial, first), seconds_for(self._budget), seed)
        except Fault as fault:
            self.device.recover()
            raise MachineError(f"a candidate that has passed fails: {fault.message}") from fault

    def _contents(self, trial: Trial, first: Reference) -> Contents:
        """What timed calls are given, drawn when first needed."""
        if self._pool is None and self.blocks is not None:
            self._pool = BlockPool(self.blocks, 1, trial.references.get(FAMILY, 1).arguments)
        elif self._pool is None:
            count = members_for(self._task, self.device.memory_bytes)
            self._pool = Pool(self._task, first, self._seed, count, self.device.where)
        return self._pool

    # -- profile

    def profile(self, trial: Trial, first: Reference, seconds: float) -> Profile | None:
        """Say where the time goes: by Nsight Compute where that is worth it, else by the time of each launch.

        Of a hybrid program only what the library takes is known: its kernels are not told one by one.
        """
        if trial.plan.calls:
            return library_profile(trial.plan, trial.library_share, seconds)
        found = None
        if self._thorough:
            call = trial.built, trial.plan, first.arguments, self._task.graph.results
            with self.device.exclusive():
                found = tools.profile(self.device, self._builder, *call, seconds=seconds, bound=self._bound)
        if found is None and len(trial.spans) == len(trial.plan.launches):
            spec = self.device.spec
            found = from_times(trial.spans, seconds, trial.built, trial.plan, spec, self._bound, trial.counters)
        return found
