"""The judge: eight stages in order, the first failure ends.

    screen → build → run → numerics → probes → sanitize → time → profile

It knows no author. What a candidate may see are its inputs, its outputs and its scratch memory; expected outputs,
tolerances and seeds never leave this process, and device code runs only on the device handed in.

What is covered: wrong values on every input family of the task, lower precision than declared, NaN and infinities,
memory that was never written, writes to inputs and outside of buffers, races, results kept between calls, estimates
below the bound. What is not covered: an input that no family draws and that only this candidate treats differently;
an argument that no family shows the task to depend on (see `Judge.admission`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from warpsmith.device.protocol import Device
from warpsmith.errors import ProgramError
from warpsmith.judge import probes
from warpsmith.judge.profile import profile
from warpsmith.judge.references import CACHE_BYTES, Reference, References
from warpsmith.judge.screen import mismatched, refused, screen
from warpsmith.judge.trial import Trial, conduct
from warpsmith.program import Builder
from warpsmith.records import Bound, BoundPlan, Candidate, Failure, Stage, Task, Verdict, digest
from warpsmith.task import Admission, admit, bound, families_for

JUDGE_VERSION = "1"
NOMINAL = "nominal"
_BUDGET_FLOOR = 50_000_000
_BUDGET_PER_OPERATION = 256


class Judge:
    """Judges candidates for one task on one device.

    `seed` fixes which inputs are drawn; verdicts of judges with the same seed agree. `budget` limits the
    thread-instructions of one call and defaults to a generous multiple of the task's own work. `cache_bytes` bounds
    the memory of held references.
    """

    def __init__(
        self,
        task: Task,
        device: Device,
        builder: Builder,
        *,
        seed: int = 0,
        budget: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.task = task
        self.device = device
        self.families = families_for(task)
        self._builder = builder
        self._seed = seed
        self._bound: Bound = bound(task, device.spec)
        self._budget = budget if budget is not None else _budget(self._bound)
        self._references = References(task, seed, limit=cache_bytes)
        self._admission: Admission | None = None
        major, minor = device.spec.compute_capability
        self._architecture = f"sm_{major}{minor}"
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
        """Put a candidate through all stages. Raises `MachineError` where the machine fails, never because of it."""
        trial = Trial(self.task, candidate, self.device, self._references, self._budget)
        seconds: list[tuple[str, float]] = []
        failure: Failure | None = None
        reached = Stage.SCREEN
        for reached, step in self._stages:
            start = time.perf_counter()
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
        )

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
        yield probes.mixtures(trial, self.families, self._fill(trial, 105))

    def _sanitize(self, trial: Trial) -> Failure | None:
        """Call once more, looking for races, uninitialised reads and barriers that not all threads reach."""
        reference = self._first()
        execution = trial.call(reference, fill=self._fill(trial, 109), sanitize=True)
        return conduct(execution, Stage.SANITIZE, reference)

    def _time(self, trial: Trial) -> Failure | None:
        """Time the program. Faster than the bound is impossible, so it is a failure, whatever the mechanism."""
        timing = self.device.time(trial.built, trial.plan, trial.counters)
        if not (timing.median >= self._bound.seconds):
            message = (
                f"{timing.median * 1e6:.3g} µs is below the bound of {self._bound.seconds * 1e6:.3g} µs that "
                f"{self._bound.limit} sets on {self._bound.device}: the program does not do the work."
            )
            return Failure(Stage.TIME, "below_bound", message)
        trial.timing = timing
        return None

    def _profile(self, trial: Trial) -> Failure | None:
        """Say where the time goes, as far as the device has counted."""
        if trial.counters:
            trial.profile = profile(trial.built, trial.plan, trial.counters, self.device.spec, self._bound)
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
