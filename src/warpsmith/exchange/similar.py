"""What the archive has found for tasks like this one: programs to learn from."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.archive import Archive
from warpsmith.author.builtin.heritage import nearness_to
from warpsmith.records import Candidate, GpuSpec, Task

SHOWN = 3
"""Tasks shown, each with its fastest program."""


@dataclass(frozen=True, slots=True)
class Similar:
    """A fast program for another task; `seconds` is the median time of a call on `device`."""

    task_name: str
    task_key: str
    device: str
    seconds: float
    candidate: Candidate


def similar_programs(archive: Archive, task: Task, gpu: GpuSpec, *, hybrid: bool) -> tuple[Similar, ...]:
    """Return the fastest known program for each of the tasks most like this one, the likest first."""
    found: dict[str, Similar] = {}
    for each in archive.precedents(task.graph, nearness_to(gpu)):
        if each.task_key == task.key or each.task_key in found or len(found) == SHOWN:
            continue
        candidate = archive.candidate(each.candidate_key)
        if hybrid or candidate.program.plan.pure:
            found[each.task_key] = Similar(each.task_name, each.task_key, each.device, each.seconds, candidate)
    return tuple(found.values())
