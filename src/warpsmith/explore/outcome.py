"""All that a report, an output folder or a summary tells of: what came of a task on a device."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from warpsmith.archive import Archive, Step
from warpsmith.evolve.teaching import lessons_told
from warpsmith.records import Bound, GpuSpec, Judged, Task


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a task on the GPU called `device`.

    `history` holds every candidate judged, in order; `lineage` the best one after its ancestors; `stopped` says why
    the search ended. `best` is None where nothing passed. `course` tells how the best time came down with the seconds
    spent; it is empty where that is not known. `lessons` is what authors said can be learnt from changes, in order.
    """

    task: Task
    bound: Bound
    best: Judged | None
    history: tuple[Judged, ...]
    lineage: tuple[Judged, ...]
    device: str
    stopped: str
    course: tuple[Step, ...] = ()
    lessons: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        """How many candidates passed."""
        return sum(judged.verdict.passed for judged in self.history)

    @property
    def generations(self) -> int:
        """How many generations there were after the first translation."""
        return max((judged.candidate.lineage.generation for judged in self.history), default=0)

    @property
    def failures(self) -> list[tuple[str, str, int]]:
        """Stage, reason and how often, the most frequent first."""
        counts = Counter(
            (failure.stage.name.lower(), failure.reason)
            for judged in self.history
            if (failure := judged.verdict.failure) is not None
        )
        return [(stage, reason, count) for (stage, reason), count in counts.most_common()]

    @property
    def comparable(self) -> tuple[Judged, ...]:
        """The history without times of another source than the best one's: measurement and estimate never mix."""
        source = self.best.verdict.timing.source if self.best and self.best.verdict.timing else None
        return tuple(
            judged for judged in self.history if judged.verdict.timing is None or judged.verdict.timing.source == source
        )

    @property
    def first_passed(self) -> float:
        """Seconds of the first candidate that passed, infinite where none did."""
        return next((judged.seconds for judged in self.comparable if judged.verdict.passed), math.inf)


def outcome_from_archive(archive: Archive, task_key: str, gpu: GpuSpec) -> Outcome:
    """Return what the archive knows of a task on a GPU. Raises ArchiveError where it does not know the task."""
    # Here, because this loads PyTorch, which takes seconds that a look at the archive should not take.
    from warpsmith.task import bound as bound_of

    task = archive.task(task_key).task
    best = archive.best(task_key, device=gpu.name)
    return Outcome(
        task=task,
        bound=bound_of(task, gpu),
        best=best,
        history=tuple(archive.judged(task_key, device=gpu.name)),
        lineage=tuple(archive.lineage(best.candidate.key)) if best else (),
        device=gpu.name,
        stopped=_last_reason(archive, task_key),
        course=archive.course(task_key, gpu.name),
        lessons=lessons_told(archive, task_key),
    )


def _last_reason(archive: Archive, task_key: str) -> str:
    """Return why the last run on a task stopped; a run that was killed left no word."""
    runs = archive.runs(task_key)
    stopped = [event for run in runs[-1:] for event in archive.events(run.id) if event.kind == "stopped"]
    return str(stopped[-1].data.get("reason", "")) if stopped else "interrupted"
