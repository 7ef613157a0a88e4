"""Rows of an archive as plain values, to be carried to another one.

Each value has the columns of its table that cannot be worked out from the others; texts stand as they are stored.
Numbers of runs hold within one extract only: the archive that takes it in gives them numbers of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Table, and_, select

from warpsmith.archive import schema
from warpsmith.archive.store import Archive

_AT_ONCE = 500
"""Keys in one query: databases limit how many values a statement may have."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task; `graph` and `tolerance` are JSON text."""

    key: str
    name: str
    origin: str
    source: str
    functional_source: str
    graph: str
    tolerance: str
    module_inputs: bool
    added_at: datetime


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run; `settings` is JSON text."""

    id: int
    task_key: str
    settings: str
    warpsmith_version: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """A program; `plan` is JSON text."""

    key: str
    source: str
    plan: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A candidate; `tunables` is JSON text."""

    key: str
    task_key: str
    program_key: str
    tunables: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """That a run came up with a candidate; `document` is its lineage as JSON text."""

    run_id: int
    candidate_key: str
    document: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What a judge said of a candidate; `document` is the verdict as JSON text."""

    run_id: int
    candidate_key: str
    judge_version: str
    device: str
    document: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something that happened in a run; `data` is JSON text."""

    run_id: int
    kind: str
    data: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Extract:
    """A part of an archive in which everything that a row refers to is there as well."""

    tasks: tuple[TaskRow, ...] = ()
    runs: tuple[RunRow, ...] = ()
    programs: tuple[ProgramRow, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    proposals: tuple[ProposalRow, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    events: tuple[EventRow, ...] = ()


_Row = TypeVar("_Row", TaskRow, RunRow, ProgramRow, CandidateRow, ProposalRow, VerdictRow, EventRow)
_Value = TypeVar("_Value", str, int)


def extract_candidates(
    archive: Archive, keys: Iterable[str], *, judge_version: str | None = None, device: str | None = None
) -> Extract:
    """Return candidates with their tasks, programs and proposals, and the runs that these come from.

    With `judge_version` and `device` also the verdicts of that version of the judge on that device.
    """
    table = schema.verdicts
    candidates = _where(archive, CandidateRow, schema.candidates.c.key, keys)
    known = [row.key for row in candidates]
    proposals = _where(archive, ProposalRow, schema.proposals.c.candidate_key, known)
    verdicts: tuple[VerdictRow, ...] = ()
    if judge_version is not None and device is not None:
        same = and_(table.c.judge_version == judge_version, table.c.device == device)
        verdicts = _where(archive, VerdictRow, table.c.candidate_key, known, same)
    runs = {row.run_id for row in proposals} | {row.run_id for row in verdicts}
    return Extract(
        tasks=_where(archive, TaskRow, schema.tasks.c.key, {row.task_key for row in candidates}),
        runs=_where(archive, RunRow, schema.runs.c.id, runs),
        programs=_where(archive, ProgramRow, schema.programs.c.key, {row.program_key for row in candidates}),
        candidates=candidates,
        proposals=proposals,
        verdicts=verdicts,
    )


def extract_all(archive: Archive) -> Iterator[Extract]:
    """Yield all of an archive in parts: its tasks, then one run after the other with all that belongs to it."""
    yield Extract(tasks=_rows(archive, TaskRow, schema.tasks))
    for run in _rows(archive, RunRow, schema.runs):
        proposals = _rows(archive, ProposalRow, schema.proposals, schema.proposals.c.run_id == run.id)
        verdicts = _rows(archive, VerdictRow, schema.verdicts, schema.verdicts.c.run_id == run.id)
        keys = {row.candidate_key for row in proposals} | {row.candidate_key for row in verdicts}
        candidates = _where(archive, CandidateRow, schema.candidates.c.key, keys)
        yield Extract(
            runs=(run,),
            programs=_where(archive, ProgramRow, schema.programs.c.key, {row.program_key for row in candidates}),
            candidates=candidates,
            proposals=proposals,
            verdicts=verdicts,
            events=_rows(archive, EventRow, schema.events, schema.events.c.run_id == run.id),
        )


def _rows(
    archive: Archive, kind: type[_Row], table: Table, condition: ColumnElement[bool] | None = None
) -> tuple[_Row, ...]:
    """Return rows of a table, in the order in which they were added."""
    order = table.c.id if "id" in table.c else table.c.added_at
    query = select(*(table.c[field.name] for field in fields(kind))).order_by(order, *table.primary_key)
    if condition is not None:
        query = query.where(condition)
    return tuple(kind(**row._mapping) for row in archive._rows(query))


def _where(
    archive: Archive,
    kind: type[_Row],
    column: Column[Any],
    values: Iterable[_Value],
    condition: ColumnElement[bool] | None = None,
) -> tuple[_Row, ...]:
    """Return the rows in which `column` has one of `values`, by ascending values."""
    found: list[_Row] = []
    rest = iter(sorted(set(values)))
    while some := list(islice(rest, _AT_ONCE)):
        one = column.in_(some)
        found += _rows(archive, kind, column.table, one if condition is None else and_(one, condition))
    return tuple(found)
