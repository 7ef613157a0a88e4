"""What the archive tells besides candidates and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from warpsmith.records import Candidate, Graph, Task, Tolerance


@dataclass(frozen=True, slots=True)
class ArchivedTask:
    """A task without the values of its parameters, which are not stored. The fields are those of `Task`."""

    key: str
    name: str
    origin: str
    source: str
    functional_source: str
    graph: Graph
    tolerance: Tolerance
    module_inputs: bool
    added_at: datetime

    @property
    def task(self) -> Task:
        """The task as far as the archive keeps it: enough to describe it and to know its bound, not to run it."""
        return Task(
            name=self.name,
            origin=self.origin,
            source=self.source,
            functional_source=self.functional_source,
            graph=self.graph,
            state={},
            examples={},
            module_inputs=self.module_inputs,
            tolerance=self.tolerance,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One call of `optimize`. `settings` is JSON text; `started_at` is in UTC."""

    id: int
    task_key: str
    settings: str
    warpsmith_version: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run, other than a candidate or a verdict. `at` is in UTC."""

    run_id: int
    kind: str
    data: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a task has come on one device. Times are in seconds, measured or estimated as `source` says.

    `judged` and `passed` count candidates, each once. `best_seconds` and `source` are None where none has passed.
    """

    task_key: str
    name: str
    origin: str
    device: str
    judged: int
    passed: int
    best_seconds: float | None
    source: str | None
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Precedent:
    """A program that passed for a task with operators in common, as far as it can teach something about another task.

    `recipe` is the genome of its author as JSON text, `tunables` what it was judged with. `seconds` is its time on
    `device`; it says how good the program is among those for its own task, and nothing about any other.
    """

    task_key: str
    task_name: str
    graph: Graph
    candidate_key: str
    device: str
    seconds: float
    recipe: str
    tunables: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Kindred:
    """The fastest program for a task with operators in common, on one device, whoever wrote it.

    `seconds` is its time on `device`, which says nothing about any other task.
    """

    task_name: str
    device: str
    seconds: float
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate that was faster than all before it.

    `spent` is in seconds of search until its verdict was there, over all runs on the task; `seconds` the median time
    of a call.
    """

    spent: float
    seconds: float
    candidate_key: str
