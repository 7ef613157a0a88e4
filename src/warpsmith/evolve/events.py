"""What happens while a task is optimised, told to whoever watches.

An observer is called from the event loop between two steps of the search, so it must return quickly and must not
raise. The archive keeps the record; events are for displays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warpsmith.records import Bound, Candidate, Judged, Task


@dataclass(frozen=True, slots=True)
class StageStarted:
    """One of the four stages began: `functionalize`, `translate`, `evolve` or `archive`."""

    stage: str
    detail: str


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage ended after `seconds`; `detail` is one line for people."""

    stage: str
    seconds: float
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class TaskLoaded:
    """The task is functional; `bound` is its speed of light on the device that is optimised for."""

    task: Task
    bound: Bound


@dataclass(frozen=True, slots=True)
class GenerationStarted:
    """A generation began. Numbers go on where an earlier run on the same archive ended; translation is 0."""

    number: int


@dataclass(frozen=True, slots=True)
class CandidateJudged:
    """A verdict was folded into the population. `cached` means that it comes from the archive, not from this run."""

    judged: Judged
    generation: int
    cached: bool


@dataclass(frozen=True, slots=True)
class CandidateLost:
    """The machine failed on a candidate, so there is no verdict; it is not tried again in this run."""

    candidate: Candidate
    generation: int
    message: str


@dataclass(frozen=True, slots=True)
class AnswerRefused:
    """An author answered without a program; `note` says in a line what was wrong, `cost_usd` what it cost."""

    author: str
    operator: str
    generation: int
    note: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class LessonLearnt:
    """An author said what can be learnt from a change: `lesson` is one line, `cost_usd` what it cost."""

    author: str
    generation: int
    lesson: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """For `seconds` nobody can be asked, because every author rests; then the search goes on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CandidatePassedOver:
    """A candidate is not judged because it says nothing new; `why` is one line for people."""

    candidate: Candidate
    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class BestImproved:
    """A candidate passed that is faster than every one before it."""

    judged: Judged


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run is: candidates judged in this run, seconds since its start, and its limit in seconds if any.

    `usd` is what its answers have cost so far and `usd_limit` the most that they may, if there is a limit, in US
    dollars; `usd_before` is what earlier runs on this task have spent, which does not count against the limit.
    """

    candidates: int
    elapsed: float
    limit: float | None
    usd: float = 0.0
    usd_limit: float | None = None
    usd_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The search ended; `reason` is one line for people."""

    reason: str


Event = (
    StageStarted
    | StageFinished
    | TaskLoaded
    | GenerationStarted
    | CandidateJudged
    | CandidateLost
    | AnswerRefused
    | LessonLearnt
    | Waiting
    | CandidatePassedOver
    | BestImproved
    | Progress
    | Stopped
)

Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Watch nothing: the observer of a run that nobody watches."""
