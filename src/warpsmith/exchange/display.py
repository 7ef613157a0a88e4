"""What became of answers and candidates, in lines for a terminal."""

from __future__ import annotations

from warpsmith.exchange.judging import Progress
from warpsmith.exchange.tell import Answer, Told
from warpsmith.explore.words import best_line, duration, reason
from warpsmith.records import Bound, Verdict


def render_told(told: Told) -> str:
    """Return a line for each answer, and one on how the task stands now."""
    standing = told.standing
    lines = [_answer_line(answer, standing.bound) for answer in told.answers]
    best = best_line(standing.best, standing.bound) if standing.best else "none passed yet"
    lines.append(f"{told.proposed} new, {told.judged} judged now, {standing.waiting} wait; best: {best}")
    return "\n".join(lines)


def render_progress(progress: Progress) -> str:
    """Return a line on the candidate that is through."""
    said = _verdict_line(progress.verdict) if progress.verdict else "the machine failed on it"
    return f"{progress.done} of {progress.total}  {progress.candidate.key}  {said}"


def _answer_line(answer: Answer, bound: Bound) -> str:
    if answer.problem:
        return answer.problem
    place = f"{answer.folder.parent.name}/{answer.folder.name}"
    if answer.judged is None:
        return f"{place}: waits for a judge"
    if answer.judged.verdict.passed:
        return f"{place}: passed, {best_line(answer.judged, bound)}"
    return f"{place}: {_verdict_line(answer.judged.verdict)}"


def _verdict_line(verdict: Verdict) -> str:
    if verdict.failure is not None:
        return f"failed at {reason(verdict.failure)}"
    assert verdict.timing is not None
    return f"passed, {duration(verdict.timing.median)} {verdict.timing.source}"
