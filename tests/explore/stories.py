"""A run to tell of: two ancestors, a cross, a winner, and failures between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.samples import BOUND, TASK, candidate, failed, passed
from warpsmith.evolve.events import (
    BestImproved,
    CandidateJudged,
    CandidateLost,
    Event,
    GenerationStarted,
    Progress,
    StageFinished,
    StageStarted,
    Stopped,
    TaskLoaded,
)
from warpsmith.explore import Outcome
from warpsmith.records import Call, Judged, Stage, Timing, View


def _judged(variant: int, seconds: float | None, **lineage: object) -> Judged:
    drawn = candidate(variant, **lineage)  # type: ignore[arg-type]
    return Judged(drawn, failed(drawn) if seconds is None else passed(drawn, seconds))


FIRST = _judged(0, 8e-8)
SECOND = _judged(1, 6e-8)
WRONG = _judged(2, None, parents=(FIRST.candidate.key,), operator="mutate", generation=1)
CROSS = _judged(3, 4e-8, parents=(FIRST.candidate.key, SECOND.candidate.key), operator="cross", generation=1)
SLOWER = _judged(4, 9e-8, parents=(SECOND.candidate.key,), operator="mutate", generation=1)
WINNER = _judged(5, 2e-8, parents=(CROSS.candidate.key,), operator="tune", generation=2)
HISTORY = (FIRST, SECOND, WRONG, CROSS, SLOWER, WINNER)

NOT_BUILT_CANDIDATE = candidate(6, generation=2)
NOT_BUILT = Judged(NOT_BUILT_CANDIDATE, failed(NOT_BUILT_CANDIDATE, "compile_error", Stage.BUILD))

OUTCOME = Outcome(TASK, BOUND, WINNER, HISTORY, (FIRST, SECOND, CROSS, WINNER), "H200", "time is up (60 s)")
NOTHING = Outcome(TASK, BOUND, None, (WRONG, NOT_BUILT), (), "H200", "interrupted")


def hybrid(judged: Judged, share: float | None) -> Judged:
    """The same, with a library call that takes a share of the time."""
    program = judged.candidate.program
    call = Call("aten.mm", (View("x"), View("x")), View("out"))
    calling = replace(program, plan=replace(program.plan, calls=(call,)))
    candidate = replace(judged.candidate, program=calling)
    return Judged(candidate, replace(judged.verdict, candidate_key=candidate.key, library_share=share))


def measured(judged: Judged) -> Judged:
    """The same, with its time measured."""
    timing = judged.verdict.timing
    assert timing is not None
    again = Timing(timing.samples, timing.median, timing.interval, "measured", timing.device)
    return Judged(judged.candidate, replace(judged.verdict, timing=again))


EVENTS: Sequence[Event] = (
    StageStarted("functionalize", "examples/relu.py"),
    StageFinished("functionalize", 0.5, "1 operator"),
    TaskLoaded(TASK, BOUND),
    StageStarted("translate", "first programs"),
    GenerationStarted(0),
    CandidateJudged(FIRST, 0, True),
    BestImproved(FIRST),
    CandidateJudged(SECOND, 0, False),
    BestImproved(SECOND),
    StageFinished("translate", 2.0, "8 ns by builtin"),
    StageStarted("evolve", "for 60 s"),
    GenerationStarted(1),
    CandidateJudged(WRONG, 1, False),
    CandidateJudged(CROSS, 1, False),
    BestImproved(CROSS),
    CandidateJudged(SLOWER, 1, False),
    GenerationStarted(2),
    CandidateJudged(NOT_BUILT, 2, False),
    CandidateLost(candidate(9), 2, "a worker died"),
    CandidateJudged(WINNER, 2, False),
    BestImproved(WINNER),
    Progress(7, 12.0, 60.0),
    Stopped("time is up (60 s)"),
)
