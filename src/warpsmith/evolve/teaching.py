"""What runs on similar tasks teach: their fastest programs as examples, and the sentences that they ended with."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.archive import Archive, Kindred
from warpsmith.author.protocol import Example
from warpsmith.evolve.journal import EXPLAINED, STOPPED

EXAMPLES = 3
"""Programs for similar tasks that authors are shown at most: each is as long as the question itself."""

SENTENCES = 6
"""Sentences from runs on similar tasks at most."""

LESSONS = 3
"""Of them, lessons that authors gave on one task."""


def examples(kindred: Sequence[Kindred]) -> tuple[Example, ...]:
    """Return programs for similar tasks, each with how its author put what it does; the likest task first."""
    return tuple(_example(each) for each in kindred[:EXAMPLES])


def sentences(archive: Archive, kindred: Sequence[Kindred]) -> tuple[str, ...]:
    """Return what runs on similar tasks learnt, each with the name of its task; the likest task first.

    Of each task first the lessons that authors gave, also in runs that were killed, the latest first; then what the
    last run ended with besides.
    """
    tasks = {each.candidate.task_key: each.task_name for each in kindred}
    found: dict[str, None] = {}
    for key, name in tasks.items():
        lessons = lessons_told(archive, key)[::-1]
        ends = archive.told(key, STOPPED)
        told = [*lessons[:LESSONS], *(ends[-1].get("told", []) if ends else [])]
        found |= dict.fromkeys(f"{name}: {sentence}" for sentence in told)
    return tuple(found)[:SENTENCES]


def lessons_told(archive: Archive, task_key: str) -> tuple[str, ...]:
    """Return the lessons that authors gave in all runs on a task, in order."""
    return tuple(str(data["lesson"]) for data in archive.told(task_key, EXPLAINED) if data["lesson"])


def _example(kindred: Kindred) -> Example:
    candidate, lineage = kindred.candidate, kindred.candidate.lineage
    note = f"the fastest of its task, by {lineage.author}: {lineage.note or lineage.operator}"
    return Example(kindred.task_name, kindred.device, kindred.seconds, candidate.program, candidate.tunables, note)
