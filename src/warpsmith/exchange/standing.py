"""How a task stands on a device: the fastest programs, how far they are from the bound, and what went wrong so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from warpsmith.archive import Archive
from warpsmith.exchange.pages import render
from warpsmith.explore.words import reason
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Bound, GpuSpec, Judged
from warpsmith.task import bound as bound_of

FASTEST = 5
"""Programs shown, each with its best tunables."""
LESSONS = 8
"""Ways to fail shown, the most frequent first."""


@dataclass(frozen=True, slots=True)
class TaskStanding:
    """How a task stands on the GPU called `device`, by the verdicts of this version of the judge.

    `judged` and `passed` count candidates, `waiting` those that have no verdict. `fastest` holds one candidate for each
    program, by ascending time; where anything was measured, no estimate is among them. `lessons` has a sentence for
    each way to fail that was met, with how often.
    """

    task_key: str
    name: str
    device: str
    bound: Bound
    judged: int
    passed: int
    waiting: int
    fastest: tuple[Judged, ...]
    lessons: tuple[str, ...]

    @property
    def best(self) -> Judged | None:
        """The fastest candidate, or None where nothing has passed."""
        return self.fastest[0] if self.fastest else None


def standing_of(archive: Archive, task_key: str, gpu: GpuSpec, *, hybrid: bool = True) -> TaskStanding:
    """Return how a task stands on a GPU; without `hybrid`, programs that call a library are left out.

    Raises ArchiveError where the archive does not know the task.
    """
    task = archive.task(task_key)
    history = history_of(archive, task_key, gpu, hybrid=hybrid)
    waiting = archive.pending(task_key, judge_version=JUDGE_VERSION, device=gpu.name)
    return TaskStanding(
        task_key=task_key,
        name=task.name,
        device=gpu.name,
        bound=bound_of(task.task, gpu),
        judged=len(history),
        passed=sum(judged.verdict.passed for judged in history),
        waiting=sum(hybrid or candidate.program.plan.pure for candidate in waiting),
        fastest=fastest_programs(history)[:FASTEST],
        lessons=tuple(_lessons(history))[:LESSONS],
    )


def history_of(archive: Archive, task_key: str, gpu: GpuSpec, *, hybrid: bool) -> tuple[Judged, ...]:
    """Return each candidate judged by this version of the judge on this GPU once, with its latest verdict."""
    found = archive.judged(task_key, judge_version=JUDGE_VERSION, device=gpu.name)
    latest = {each.candidate.key: each for each in found if hybrid or each.candidate.program.plan.pure}
    return tuple(latest.values())


def fastest_programs(history: Iterable[Judged]) -> tuple[Judged, ...]:
    """Return the best candidate of every program that passed, fastest first. Measurements hide estimates."""
    passed = [judged for judged in history if judged.verdict.timing is not None]
    measured = [judged for judged in passed if judged.verdict.timing and judged.verdict.timing.source == "measured"]
    best: dict[str, Judged] = {}
    for judged in sorted(measured or passed, key=lambda judged: judged.seconds):
        best.setdefault(judged.candidate.program.key, judged)
    return tuple(best.values())


def times_faster(judged: Judged, than: Judged | None) -> float | None:
    """Return how many times as fast a candidate is as another one; None where their times cannot be compared."""
    ours, theirs = judged.verdict.timing, than.verdict.timing if than else None
    if ours is None or theirs is None or ours.source != theirs.source or ours.device != theirs.device:
        return None
    ratio = theirs.median / ours.median
    return ratio if math.isfinite(ratio) else None


def render_standing(standing: TaskStanding) -> str:
    """Return a standing as Markdown text."""
    return render("standing.md.j2", standing=standing)


def _lessons(history: Sequence[Judged]) -> list[str]:
    """Say each way to fail with how often it was met, and the latest message, the most frequent first."""
    met: dict[str, tuple[int, str]] = {}
    for judged in history:
        failure = judged.verdict.failure
        if failure is not None:
            count, _ = met.get(reason(failure), (0, ""))
            met[reason(failure)] = (count + 1, failure.message)
    ordered = sorted(met.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        f"{what}, {'once' if count == 1 else f'{count} times'}. The latest: {said}" for what, (count, said) in ordered
    ]
