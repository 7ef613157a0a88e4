"""Programs for similar tasks that can be launched for this one as they are.

A plan speaks of shapes by name, so a program that was written for one size may be right for another, and for another
task whose tensors have the same names. Whether it is right the judge decides; what is known here is only that its plan
fits. Programs with a recipe are left to their author, who carries over more of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from warpsmith.errors import ProgramError
from warpsmith.program import bind
from warpsmith.records import Candidate, GpuSpec, Lineage, Task


@dataclass(frozen=True, slots=True, eq=False)
class Relative:
    """A program that passed for another task; `origin` says in words for which and where."""

    candidate: Candidate
    origin: str


def as_they_are(
    task: Task, gpu: GpuSpec, relatives: Sequence[Relative], count: int, known: Collection[str] = ()
) -> tuple[Candidate, ...]:
    """Return up to `count` candidates in the order of `relatives`, none of them `known` by its key."""
    tensors = {spec.name: spec for spec in (*task.graph.arguments, *task.graph.results)}
    found: dict[str, Candidate] = {}
    for each in relatives:
        given = each.candidate
        if given.lineage.recipe is not None or given.task_key == task.key or len(found) == count:
            continue
        try:
            bind(given.program.plan, tensors, dict(given.tunables), gpu, task.tolerance)
        except ProgramError:
            continue
        lineage = Lineage(given.lineage.author, "inherit", parents=(given.key,), note=f"as it is from {each.origin}")
        candidate = Candidate(task.key, given.program, given.tunables, lineage)
        if candidate.key not in known:
            found.setdefault(candidate.key, candidate)
    return tuple(found.values())
