"""What is known of a run so far, from its events alone. A display shows it; it does not know how."""

from __future__ import annotations

from dataclasses import dataclass, replace

from warpsmith.evolve.events import (
    AnswerRefused,
    BestImproved,
    CandidateJudged,
    CandidateLost,
    CandidatePassedOver,
    Event,
    GenerationStarted,
    LessonLearnt,
    Progress,
    StageFinished,
    StageStarted,
    Stopped,
    TaskLoaded,
    Waiting,
)
from warpsmith.records import Bound, Judged, Stage, Task

REASONS_SHOWN = 4
"""Reasons for failure that fit in a line, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """A stage that ended: its name, how many seconds it took, and what came of it in a line."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True)
class Tally:
    """A run so far. `after` an event there is a new one, so that another thread may show the old one meanwhile.

    `judged`, `built` and `passed` count the candidates of this run, `recalled` those that the archive knew; `lost`
    are those on which the machine failed, `loss` says how it failed last. `failures`
    pairs each short reason with how often it came up. `refused` counts answers without a program, `passed_over`
    candidates that said nothing new, `lessons` what authors said can be learnt; `waiting` is for how many seconds
    nobody can be asked. `elapsed` and `limit` are in seconds; `usd` is what answers cost in this run, `usd_before` in
    earlier ones, `usd_limit` the most that they may, in US dollars.
    """

    task: Task | None = None
    bound: Bound | None = None
    stage: str = ""
    detail: str = ""
    finished: tuple[FinishedStage, ...] = ()
    generation: int = 0
    judged: int = 0
    built: int = 0
    passed: int = 0
    lost: int = 0
    loss: str = ""
    recalled: int = 0
    refused: int = 0
    passed_over: int = 0
    lessons: int = 0
    waiting: float = 0.0
    failures: tuple[tuple[str, int], ...] = ()
    best: Judged | None = None
    elapsed: float = 0.0
    limit: float | None = None
    usd: float = 0.0
    usd_limit: float | None = None
    usd_before: float = 0.0
    stopped: str = ""

    @property
    def failed(self) -> int:
        """Candidates of this run that did not pass."""
        return self.judged - self.passed

    def after(self, event: Event) -> Tally:
        """Return what is known after one more event."""
        match event:
            case TaskLoaded(task=task, bound=bound):
                return replace(self, task=task, bound=bound)
            case StageStarted(stage=stage, detail=detail):
                return replace(self, stage=stage, detail=detail)
            case StageFinished(stage=stage, seconds=seconds, detail=detail):
                return replace(self, finished=(*self.finished, FinishedStage(stage, seconds, detail)))
            case GenerationStarted(number=number):
                return replace(self, generation=number, waiting=0.0)
            case CandidateJudged(judged=judged, cached=cached):
                return replace(self, recalled=self.recalled + 1) if cached else self._with(judged)
            case CandidateLost(message=message):
                return replace(self, lost=self.lost + 1, loss=message)
            case AnswerRefused():
                return replace(self, refused=self.refused + 1)
            case LessonLearnt():
                return replace(self, lessons=self.lessons + 1)
            case Waiting(seconds=seconds):
                return replace(self, waiting=seconds)
            case CandidatePassedOver():
                return replace(self, passed_over=self.passed_over + 1)
            case BestImproved(judged=judged):
                return replace(self, best=judged)
            case Progress(elapsed=elapsed, limit=limit, usd=usd, usd_limit=most, usd_before=before):
                return replace(self, elapsed=elapsed, limit=limit, usd=usd, usd_limit=most, usd_before=before)
            case Stopped(reason=reason):
                return replace(self, stopped=reason, waiting=0.0)

    def _with(self, judged: Judged) -> Tally:
        failure = judged.verdict.failure
        if failure is None:
            return replace(self, judged=self.judged + 1, built=self.built + 1, passed=self.passed + 1)
        counts = dict(self.failures)
        counts[failure.reason] = counts.get(failure.reason, 0) + 1
        return replace(
            self,
            judged=self.judged + 1,
            built=self.built + (failure.stage > Stage.BUILD),
            failures=tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        )


def counts(tally: Tally) -> str:
    """Say in a line how many candidates there were and what became of them."""
    text = f"{tally.judged} judged, {tally.built} built, {tally.passed} passed, {tally.failed} failed"
    if tally.failures:
        shown = [f"{count} {reason.replace('_', ' ')}" for reason, count in tally.failures[:REASONS_SHOWN]]
        text += f" ({', '.join(shown)})"
    if tally.lost:
        text += f", {tally.lost} lost by the machine"
    if tally.refused:
        text += f", {tally.refused} answers without a program"
    if tally.passed_over:
        text += f", {tally.passed_over} nothing new"
    if tally.lessons:
        text += f", {tally.lessons} lessons"
    text += f", {tally.recalled} known from the archive" if tally.recalled else ""
    spent = money(tally)
    return f"{text}, {spent}" if spent else text


def money(tally: Tally) -> str:
    """Say what answers have cost, and may; nothing where none has a price."""
    if not (tally.usd or tally.usd_before or tally.usd_limit is not None):
        return ""
    text = f"{tally.usd:.4f} USD"
    text += f" of {tally.usd_limit:g}" if tally.usd_limit is not None else ""
    return text + (f", {tally.usd_before:.4f} before" if tally.usd_before else "")
