"""What earlier runs on a task left behind besides verdicts: answers without one, refusals, and bills."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from warpsmith.author.protocol import REPAIR
from warpsmith.evolve.generation import Problem
from warpsmith.evolve.journal import LOST, PASSED_OVER, REFUSED, Journal
from warpsmith.evolve.operators import asked_for
from warpsmith.records import Candidate

LOSSES = 2
"""Runs in which the machine may fail on a candidate before the candidate is to blame, and is not tried again."""


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """`pending` was asked for and never judged by this judge on this device, the oldest first.

    `refused_repairs` has the key of a candidate for each question about it that was answered without a program.
    `unjudged` counts all answers without a verdict, `generation` is the highest of them; `usd` is what all earlier runs
    have paid, in US dollars.
    """

    pending: tuple[Candidate, ...]
    refused_repairs: tuple[str, ...]
    unjudged: int
    generation: int
    usd: float


def unfinished(journal: Journal, problem: Problem) -> Unfinished:
    """Return what was left unfinished on the problem's task."""
    task = problem.task.key
    found = journal.pending(task, judge_version=problem.judge_version, device=problem.gpu.name, wanted=asked_for)
    refused, passed_over = journal.told(task, REFUSED), journal.told(task, PASSED_OVER)
    # Whoever repeats itself word for word says nothing about what it repeats, which may be waiting itself.
    known = frozenset(str(data["candidate"]) for data in passed_over if data["like"] != data["candidate"])
    lost = Counter(str(data["candidate"]) for data in journal.told(task, LOST))
    pending = [each for each in found if each.key not in known and lost[each.key] < LOSSES]
    # What the machine failed on waits behind the rest, so that it cannot keep a run from getting anywhere.
    pending.sort(key=lambda each: lost[each.key])
    generations = [each.lineage.generation for each in pending]
    generations += [int(data["generation"]) for data in (*refused, *passed_over)]
    return Unfinished(
        tuple(pending),
        tuple(str(key) for data in refused if data["operator"] == REPAIR for key in data["parents"]),
        len(pending) + len(refused) + len(passed_over),
        max(generations, default=0),
        journal.spent(task),
    )
