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
from functools import partial
from typing import cast

from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.protocol import Device, EstimatingDevice
from warpsmith.errors import MachineError, ProgramError
from warpsmith.judge import probes
from warpsmith.judge.crowd import OWN_BYTES, says_so, with_patience
from warpsmith.judge.library import estimated_share, library_profile
from warpsmith.judge.native import Native
from warpsmith.judge.profile import profile
from warpsmith.judge.references import CACHE_BYTES, POOL, Reference, References
from warpsmith.judge.screen import mismatched, refused, screen
from warpsmith.judge.timing import Stopwatch
from warpsmith.judge.trial import Trial, conduct
from warpsmith.program import Builder
from warpsmith.records import Bound, BoundPlan, Candidate, Failure, Stage, Task, Verdict, digest
from warpsmith.task import Admission, admit, bound, families_for

JUDGE_VERSION = "5"
NOMINAL = "nominal"
_BUDGET_FLOOR = 50_000_000
_BUDGET_PER_OPERATION = 256
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
        large = isinstance(device, CudaDevice) and _nbytes(task) > _LARGE
        self.families = tuple(f for f in families_for(task) if every_family or not large or f in _FEW)
        self._mixtures = 1 if large and not every_family else len(probes.MIXTURES)
        self._builder = builder
        self._seed = seed
        self._bound: Bound = bound(task, device.spec)
        self._budget = budget if budget is not None else _budget(self._bound)
        self._native: Native | None = None
        if isinstance(device, CudaDevice):
            self._native = Native(task, device, builder, self._bound, self._budget, seed, thorough)
            default = device.memory_bytes // _SHARE_OF_MEMORY
        else:
            default = CACHE_BYTES
        self._blocks = self._native.blocks if self._native else None
        self._references = References(
            task,
            seed,
            limit=default if cache_bytes is None else cache_bytes,
            device=device.where,
            pool=1 if large else POOL,
            answers=self._blocks is None,
        )
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

    @property
    def admission(self) -> Admission:
        """On which families the outputs depend on which arguments. Computed when first asked for."""
        if self._admission is None:
            self._admission = admit(self.task)
        return self._admission

    def judge(self, candidate: Candidate) -> Verdict:
        """Put a candidate through all stages. Raises `MachineError` where the machine fails, never because of it.

        Where the GPU's memory is full of what other processes hold, this waits for it, unless the program would not
        fit into an empty GPU either.
        """
        if self._native is None:
            return self._judge(candidate)

        def crowded_out(verdict: Verdict) -> bool:
            return says_so(verdict) and self._fits(candidate)

        device, name = self._native.device, self.task.name
        return with_patience(partial(self._judge, candidate), self.forget, device, name, crowded_out)

    def forget(self) -> None:
        """Let go of all that can be computed again."""
        self._references.clear()
        if self._native is not None:
            self._native.forget()

    def _judge(self, candidate: Candidate) -> Verdict:
        trial = self._trial(candidate)
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
            library_share=trial.library_share if failure is None else None,
        )

    def _fits(self, candidate: Candidate) -> bool:
        """Whether an empty GPU has room for the task's tensors, the program's buffers and what a judge needs itself."""
        spec = self.device.spec
        plan = screen(self.task, candidate, spec)
        buffers = sum(buffer.nbytes for buffer in plan.buffers) if isinstance(plan, BoundPlan) else 0
        return _nbytes(self.task) + buffers + OWN_BYTES <= spec.memory_bytes

    def _hold(self, stage: Stage) -> AbstractContextManager[object]:
        """Hold the device while it is used, and leave it to others while we compile or simulate."""
        return self.device.exclusive() if stage in _ON_DEVICE else nullcontext()

    def _trial(self, candidate: Candidate) -> Trial:
        return Trial(self.task, candidate, self.device, self._references, self._budget, self._blocks)

    @property
    def gpu(self) -> CudaDevice:
        """The device, where it measures. Raises MachineError for a simulated one, which has no times to compare."""
        return self._hands().device

    @contextmanager
    def stopwatch(self, candidate: Candidate) -> Iterator[Stopwatch]:
        """Prepare a candidate that has passed for many timings. Raises MachineError where it does not run."""
        trial, native = self._trial(candidate), self._hands()
        with native.device.exclusive():
            failure = self._screen(trial) or self._build(trial)
            if failure is not None:
                raise MachineError(f"a candidate that has passed is refused: {failure.message}")
            with native.stopwatch(trial, self._first(), self._fill(trial, 2000)) as watch:
                yield watch

    def _hands(self) -> Native:
        if self._native is None:
            raise MachineError("a simulated GPU measures nothing: comparisons need a GPU")
        return self._native

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
        """Look for races, uninitialised reads and barriers that not all threads reach."""
        with self.device.exclusive():
            reference, fill = self._first(), self._fill(trial, 109)
        if self._native is not None:
            return self._native.sanitize(trial, reference, fill)
        trial.sanitized = "simulator"
        return conduct(trial.call(reference, fill=fill, sanitize=True), Stage.SANITIZE, reference)

    def _time(self, trial: Trial) -> Failure | None:
        """Time the program. Faster than the bound is impossible, so it is a failure, whatever the mechanism."""
        if self._native is not None:
            return self._native.time(trial, self._first(), self._fill(trial, 1000))
        timing = cast(EstimatingDevice, self.device).time(trial.built, trial.plan, trial.counters)
        if not (timing.median >= self._bound.seconds):
            message = (
                f"{timing.median * 1e6:.3g} µs is below the bound of {self._bound.seconds * 1e6:.3g} µs that "
                f"{self._bound.limit} sets on {self._bound.device}: the program does not do the work."
            )
            return Failure(Stage.TIME, "below_bound", message)
        trial.timing = timing
        trial.library_share = estimated_share(trial.plan, timing.median, self.device.spec)
        return None

    def _profile(self, trial: Trial) -> Failure | None:
        """Say where the time goes, as far as anybody has counted or measured."""
        if self._native is not None and trial.timing is not None:
            with self.device.exclusive():
                first = self._first()
            trial.profile = self._native.profile(trial, first, trial.timing.median)
        elif trial.timing is not None and (trial.counters or trial.plan.calls):
            calls = library_profile(trial.plan, trial.library_share, trial.timing.median)
            trial.profile = calls or profile(trial.built, trial.plan, trial.counters, self.device.spec, self._bound)
        return None

    def _first(self) -> Reference:
        """The task's own inputs, drawn with seed 0, and the module's own parameters."""
        return self._references.get(NOMINAL, 0)

    def _fill(self, trial: Trial, call: int) -> int:
        """Seed of the pattern in outputs and scratch: other for every candidate and call, the same when repeated."""
        return int(digest("fill", str(self._seed), trial.candidate.key, str(call))[:8], 16)


def _budget(limit: Bound) -> int:
    """Thread-instructions that a call may take: far more than any sensible program, far less than an endless loop."""
    work = limit.operations + limit.bytes_read + limit.bytes_written
    return _BUDGET_FLOOR + _BUDGET_PER_OPERATION * work


def _nbytes(task: Task) -> int:
    return sum(spec.nbytes for spec in task.graph.arguments + task.graph.results)
