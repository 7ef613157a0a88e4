"""The judge: eight stages in order, the first failure ends.

    screen → build → run → numerics → probes → sanitize → time → profile

It knows no author. What a candidate may see are its inputs, its outputs and its scratch memory; expected outputs,
tolerances and seeds never leave this process, and device code runs only on the device handed in: in the simulator, or
on a GPU in a runner process with a context of its own.

What is covered: wrong values on every input family of the task, lower precision than declared, NaN and infinities,
memory that was never written, writes to inputs and outside of buffers, races, results kept between calls, times below
the bound, calls that are right only when they are not timed. What is not covered: an input that no family draws and
that only this candidate treats differently; an argument that no family shows the task to depend on (see
`Judge.admission`); on a GPU, races in programs that are too large for the simulator and were not sanitized otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch

from warpsmith.device.cuda.device import CudaDevice, seconds_for
from warpsmith.device.cuda.process import Fault
from warpsmith.device.protocol import Device, EstimatingDevice
from warpsmith.device.simulator import Simulator
from warpsmith.errors import MachineError, ProgramError, SimulatorError
from warpsmith.judge import probes, tools
from warpsmith.judge.blockwise import BlockPool, Blocks, blocks_for
from warpsmith.judge.mixtures import draw_any
from warpsmith.judge.pool import Pool, members_for
from warpsmith.judge.profile import profile
from warpsmith.judge.references import CACHE_BYTES, POOL, Reference, References
from warpsmith.judge.roofline import from_times
from warpsmith.judge.screen import mismatched, refused, screen
from warpsmith.judge.timing import Contents, Limits, Stopwatch, fault_failure, least_seconds, measure
from warpsmith.judge.trial import Trial, conduct, locate
from warpsmith.program import Builder
from warpsmith.records import Bound, BoundPlan, Candidate, Failure, Profile, Stage, Task, Verdict, digest
from warpsmith.task import Admission, admit, bound, families_for

JUDGE_VERSION = "2"
NOMINAL = "nominal"
_BUDGET_FLOOR = 50_000_000
_BUDGET_PER_OPERATION = 256
_SIMULATED = 20_000_000
"""Bytes and operations of a task up to which the simulator can look at a whole call of a program on a GPU's behalf."""
_LARGE = 128 << 20
"""Bytes of arguments and results from which on references fill the GPU: fewer families are drawn, each once."""
_FEW = ("nominal", "normal", "offset", "row_scale", "heavy_tail", "exact")
_SHARE_OF_MEMORY = 3
_ON_DEVICE = frozenset({Stage.RUN, Stage.NUMERICS, Stage.PROBES, Stage.TIME})


class Judge:
    """Judges candidates for one task on one device.

    `seed` fixes which inputs are drawn; verdicts of judges with the same seed agree. `budget` limits the
    thread-instructions of one call and defaults to a generous multiple of the task's own work. `cache_bytes` bounds
    the memory of held references; by default 512 MiB, on a GPU a third of its memory. `every_family` draws every input
    family where the task is so large that otherwise five would do. `thorough` is for candidates that are to be kept: on
    a GPU it adds compute-sanitizer and Nsight Compute where they are installed, which take seconds.
    """

    def __init__(
        self,
        task: Task,
        device: Device,
        builder: Builder,
        *,
        seed: int = 0,
        budget: int | None = None,
        cache_bytes: int | None = None,
        every_family: bool = False,
        thorough: bool = False,
    ) -> None:
        self.task = task
        self.device = device
        large = device.measures and _nbytes(task) > _LARGE
        self.families = tuple(f for f in families_for(task) if every_family or not large or f in _FEW)
        self._mixtures = 1 if large and not every_family else len(probes.MIXTURES)
        self._thorough = thorough
        self._builder = builder
        self._seed = seed
        self._bound: Bound = bound(task, device.spec)
        self._budget = budget if budget is not None else _budget(self._bound)
        if cache_bytes is None:
            memory = cast(CudaDevice, device).memory_bytes if device.measures else 0
            cache_bytes = memory // _SHARE_OF_MEMORY if device.measures else CACHE_BYTES
        self._blocks: Blocks | None = None
        if device.measures:
            self._blocks = self._cut(cast(CudaDevice, device).memory_bytes)
        self._references = References(
            task,
            seed,
            limit=cache_bytes,
            device=device.where,
            pool=1 if large else POOL,
            answers=self._blocks is None,
        )
        self._pool: Contents | None = None
        self._checker = Simulator(device.spec) if device.measures and _work(self._bound) <= _SIMULATED else None
        self._admission: Admission | None = None
        self._architecture = device.architecture
        self._stages: tuple[tuple[Stage, Callable[[Trial], Failure | None]], ...] = (
            (Stage.SCREEN, self._screen),
            (Stage.BUILD, self._build),
            (Stage.RUN, self._run),
            (Stage.NUMERICS, self._numerics),
            (Stage.PROBES, self._probes),
            (Stage.SANITIZE, self._sanitize),
            (Stage.TIME, self._time),
            (Stage.PROFILE, self._profile),
        )

    def _cut(self, memory_bytes: int) -> Blocks | None:
        """Cut a task that is too large, and make sure that its blocks compute what the whole computes."""
        blocks = blocks_for(self.task, memory_bytes)
        if blocks is None:
            return None
        with self.device.exclusive():
            return blocks if blocks.holds(draw_any(self.task, NOMINAL, 0, self.device.where)) else None

    @property
    def admission(self) -> Admission:
        """On which families the outputs depend on which arguments. Computed when first asked for."""
        if self._admission is None:
            self._admission = admit(self.task)
        return self._admission

    def judge(self, candidate: Candidate) -> Verdict:
        """Put a candidate through all stages. Raises `MachineError` where the machine fails, never because of it."""
        try:
            return self._judge(candidate)
        except torch.OutOfMemoryError:
            self._forget()
        try:
            return self._judge(candidate)
        except torch.OutOfMemoryError as error:
            raise MachineError(f"the references of {self.task.name} do not fit into the GPU's memory") from error

    def _forget(self) -> None:
        """Let go of all that can be computed again."""
        self._references.clear()
        self._pool = None
        torch.cuda.empty_cache()

    def _judge(self, candidate: Candidate) -> Verdict:
        trial = Trial(self.task, candidate, self.device, self._references, self._budget, self._blocks)
        seconds: list[tuple[str, float]] = []
        failure: Failure | None = None
        reached = Stage.SCREEN
        for reached, step in self._stages:
            start = time.perf_counter()
            with self._hold(reached):
                failure = step(trial)
            seconds.append((reached.name.lower(), time.perf_counter() - start))
            if failure is not None:
                break
        return Verdict(
            candidate_key=candidate.key,
            task_key=self.task.key,
            stage=reached,
            failure=failure,
            timing=trial.timing if failure is None else None,
            families=tuple(trial.families),
            resources=trial.build.resources if trial.build else (),
            counters=trial.counters,
            profile=trial.profile,
            seconds=tuple(seconds),
            sanitized=trial.sanitized,
        )

    def _hold(self, stage: Stage) -> AbstractContextManager[object]:
        """Hold the device while it is used, and leave it to others while we compile or simulate."""
        return self.device.exclusive() if stage in _ON_DEVICE else nullcontext()

    @property
    def gpu(self) -> CudaDevice:
        """The device, where it measures. Raises MachineError for a simulated one, which has no times to compare."""
        if not isinstance(self.device, CudaDevice):
            raise MachineError("a simulated GPU measures nothing: comparisons need a GPU")
        return self.device

    @contextmanager
    def stopwatch(self, candidate: Candidate) -> Iterator[Stopwatch]:
        """Prepare a candidate that has passed for many timings. Raises MachineError where it does not run."""
        trial = Trial(self.task, candidate, self.device, self._references, self._budget, self._blocks)
        device, graph, seed = self.gpu, self.task.graph, self._fill(trial, 2000)
        with device.exclusive():
            failure = self._screen(trial) or self._build(trial)
            if failure is not None:
                raise MachineError(f"a candidate that has passed is refused: {failure.message}")
            try:
                series = device.series(trial.built, trial.plan, graph.arguments, graph.results, seed)
                yield Stopwatch(series, self._timed(device), seconds_for(self._budget), seed)
            except Fault as fault:
                device.recover()
                raise MachineError(f"a candidate that has passed fails: {fault.message}") from fault

    def _timed(self, device: CudaDevice) -> Contents:
        """The contents of timed calls, drawn when first needed."""
        if self._pool is None and self._blocks is not None:
            self._pool = BlockPool(self._blocks, 1, self._references.get(NOMINAL, 1).arguments)
        elif self._pool is None:
            count = members_for(self.task, device.memory_bytes)
            self._pool = Pool(self.task, self._first(), self._seed, count, device.where)
        return self._pool

    def _screen(self, trial: Trial) -> Failure | None:
        plan = screen(self.task, trial.candidate, self.device.spec)
        if isinstance(plan, BoundPlan):
            trial.plan = plan
            return None
        return plan

    def _build(self, trial: Trial) -> Failure | None:
        candidate = trial.candidate
        try:
            trial.build = self._builder.build(candidate.program, dict(candidate.tunables), self._architecture)
        except ProgramError as error:
            return Failure(Stage.BUILD, "bad_plan", str(error))
        return mismatched(trial.build, trial.plan) if trial.build.ok else refused(trial.build)

    def _run(self, trial: Trial) -> Failure | None:
        """Call once on the task's own inputs and parameters, and count what the call does."""
        reference = self._first()
        execution = trial.call(reference, fill=self._fill(trial, 0), count=True)
        trial.first = execution
        trial.counters = execution.counters
        return conduct(execution, Stage.RUN, reference)

    def _numerics(self, trial: Trial) -> Failure | None:
        """Compare every element on every family; the first call counts for the task's own inputs."""
        if trial.first is None:
            raise RuntimeError("the run stage has not passed")
        failure = trial.examine(Stage.NUMERICS, self._first(), trial.first, fill=self._fill(trial, 0))
        if failure is not None:
            return failure
        for step, family in enumerate(f for f in self.families if f != probes.EXACT):
            reference = self._references.get(family, self._references.seed_for(family, trial.candidate.key))
            failure = trial.verify(Stage.NUMERICS, reference, fill=self._fill(trial, 2 * step + 2))
            if failure is not None:
                return failure
        return None

    def _probes(self, trial: Trial) -> Failure | None:
        """Ask the questions of `probes`, cheapest first."""
        return next((failure for failure in self._probed(trial) if failure is not None), None)

    def _probed(self, trial: Trial) -> Iterator[Failure | None]:
        yield probes.exactness(trial, self.families, self._fill(trial, 101))
        yield probes.memory(trial, self._first(), self._fill(trial, 103))
        yield probes.mixtures(trial, self.families, self._fill(trial, 105), self._mixtures)

    def _sanitize(self, trial: Trial) -> Failure | None:
        """Call once more, looking for races, uninitialised reads and barriers that not all threads reach.

        A program for a GPU is looked at in the simulator where the task is small enough and the simulator knows all
        of its instructions; `Verdict.sanitized` tells.
        """
        reference = self._first()
        if not self.device.measures:
            execution = trial.call(reference, fill=self._fill(trial, 109), sanitize=True)
        elif self._checker is not None:
            inputs = {name: value.cpu() for name, value in reference.arguments.items()}
            fill, results = self._fill(trial, 109), self.task.graph.results
            try:
                execution = self._checker.run(
                    trial.built, trial.plan, inputs, results, fill=fill, sanitize=True, budget=self._budget
                )
            except SimulatorError:
                return self._sanitize_natively(trial)
            trial.counters = execution.counters
        else:
            return self._sanitize_natively(trial)
        trial.sanitized = "simulator"
        return conduct(execution, Stage.SANITIZE, reference) or self._sanitize_natively(trial)

    def _sanitize_natively(self, trial: Trial) -> Failure | None:
        """Have compute-sanitizer look, where it is worth the seconds."""
        if not (self._thorough and self.device.measures and tools.sanitizer_here()):
            return None
        reference, results = self._first(), self.task.graph.results
        with self.device.exclusive():
            findings = tools.sanitize(
                self.gpu,
                self._builder,
                trial.built,
                trial.plan,
                reference.arguments,
                results,
                budget=self._budget,
            )
        trial.sanitized = " and ".join(filter(None, (trial.sanitized, "compute-sanitizer")))
        if not findings:
            return None
        finding = findings[0]
        return Failure(Stage.SANITIZE, finding.kind, locate(finding), reference.family, reference.seed, finding=finding)

    def _time(self, trial: Trial) -> Failure | None:
        """Time the program. Faster than the bound is impossible, so it is a failure, whatever the mechanism."""
        if self.device.measures:
            return self._measure(trial, cast(CudaDevice, self.device))
        timing = cast(EstimatingDevice, self.device).time(trial.built, trial.plan, trial.counters)
        if not (timing.median >= self._bound.seconds):
            message = (
                f"{timing.median * 1e6:.3g} µs is below the bound of {self._bound.seconds * 1e6:.3g} µs that "
                f"{self._bound.limit} sets on {self._bound.device}: the program does not do the work."
            )
            return Failure(Stage.TIME, "below_bound", message)
        trial.timing = timing
        return None

    def _measure(self, trial: Trial, device: CudaDevice) -> Failure | None:
        """Time a program by series of verified calls; once more where the runner was ended from outside."""
        try:
            return self._measure_once(trial, device)
        except Fault as fault:
            device.recover()
            if fault.name != "died":
                return fault_failure(fault)
        try:
            return self._measure_once(trial, device)
        except Fault as fault:
            device.recover()
            return fault_failure(fault)

    def _measure_once(self, trial: Trial, device: CudaDevice) -> Failure | None:
        graph, seed = self.task.graph, self._fill(trial, 1000)
        series = device.series(trial.built, trial.plan, graph.arguments, graph.results, seed)
        least = least_seconds(self._bound, device.spec, series.calls)
        limits = Limits(seconds_for(self._budget), least)
        timing = measure(series, self._timed(device), limits, seed, device.spec.name, device.watch.state)
        if self._blocks is not None:
            # One draw of so large a task is as much as can be held beside everything else.
            self._pool = None
        if isinstance(timing, Failure):
            return timing
        trial.timing, trial.spans = timing, series.launch_seconds
        return None

    def _profile(self, trial: Trial) -> Failure | None:
        """Say where the time goes: from what Nsight Compute or the simulator counted, or from measured times alone."""
        timing = trial.timing
        if self.device.measures and timing is not None:
            trial.profile = self._profile_natively(trial, timing.median)
        elif trial.counters:
            trial.profile = profile(trial.built, trial.plan, trial.counters, self.device.spec, self._bound)
        return None

    def _profile_natively(self, trial: Trial, seconds: float) -> Profile | None:
        found, spec = None, self.device.spec
        if self._thorough:
            inputs, results = self._first().arguments, self.task.graph.results
            with self.device.exclusive():
                found = tools.profile(
                    self.gpu,
                    self._builder,
                    trial.built,
                    trial.plan,
                    inputs,
                    results,
                    seconds=seconds,
                    bound=self._bound,
                )
        if found is None and len(trial.spans) == len(trial.plan.launches):
            found = from_times(trial.spans, seconds, trial.built, trial.plan, spec, self._bound, trial.counters)
        return found

    def _first(self) -> Reference:
        """The task's own inputs, drawn with seed 0, and the module's own parameters."""
        return self._references.get(NOMINAL, 0)

    def _fill(self, trial: Trial, call: int) -> int:
        """Seed of the pattern in outputs and scratch: other for every candidate and call, the same when repeated."""
        return int(digest("fill", str(self._seed), trial.candidate.key, str(call))[:8], 16)


def _work(limit: Bound) -> int:
    return limit.operations + limit.bytes_read + limit.bytes_written


def _budget(limit: Bound) -> int:
    """Thread-instructions that a call may take: far more than any sensible program, far less than an endless loop."""
    return _BUDGET_FLOOR + _BUDGET_PER_OPERATION * _work(limit)


def _nbytes(task: Task) -> int:
    return sum(spec.nbytes for spec in task.graph.arguments + task.graph.results)
