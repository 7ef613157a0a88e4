"""What the archive asks of the database, and how rows become records again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, case, func, select

from warpsmith.archive.codec import decode
from warpsmith.archive.rows import ArchivedTask, Standing
from warpsmith.archive.schema import candidates, programs, proposals, tasks, verdicts
from warpsmith.records import Candidate, Graph, Judged, Lineage, Plan, Program, Tolerance, Verdict

_Tunables = tuple[tuple[str, int], ...]


def candidate_query() -> Select[Any]:
    """Select candidates with their programs and first proposals."""
    first = select(func.min(proposals.c.id)).group_by(proposals.c.candidate_key)
    return (
        select(
            candidates.c.key,
            candidates.c.task_key,
            candidates.c.program_key,
            candidates.c.tunables,
            programs.c.source,
            programs.c.plan,
            proposals.c.id.label("proposal_id"),
            proposals.c.document.label("lineage"),
        )
        .select_from(candidates)
        .join(programs, programs.c.key == candidates.c.program_key)
        .join(proposals, proposals.c.candidate_key == candidates.c.key)
        .where(proposals.c.id.in_(first))
    )


def judged_query() -> Select[Any]:
    """Select verdicts with their candidates."""
    return (
        candidate_query()
        .join(verdicts, verdicts.c.candidate_key == candidates.c.key)
        .add_columns(verdicts.c.document.label("verdict"))
    )


def fastest_first() -> tuple[ColumnElement[Any], ...]:
    """Order passed verdicts by time, all measurements before all estimates: the two cannot be compared."""
    return (case((verdicts.c.timing_source == "measured", 0), else_=1), verdicts.c.median_seconds, verdicts.c.id)


def read_candidates(rows: Iterable[Row[Any]]) -> Iterator[tuple[Row[Any], Candidate]]:
    """Return each row with its candidate. Candidates of one program share it."""
    known: dict[str, Program] = {}
    for row in rows:
        if row.program_key not in known:
            known[row.program_key] = Program(row.source, decode(Plan, row.plan))
        tunables: _Tunables = decode(_Tunables, row.tunables)
        yield row, Candidate(row.task_key, known[row.program_key], tunables, decode(Lineage, row.lineage))


def read_judged(rows: Iterable[Row[Any]]) -> Iterator[Judged]:
    """Return the candidate and verdict of each row of `judged_query`."""
    for row, candidate in read_candidates(rows):
        yield Judged(candidate, decode(Verdict, row.verdict))


def read_task(row: Row[Any]) -> ArchivedTask:
    """Return the task of a row of the table of tasks."""
    values = dict(row._mapping)
    values["graph"] = decode(Graph, row.graph)
    values["tolerance"] = decode(Tolerance, row.tolerance)
    return ArchivedTask(**values)


def standing_query() -> Select[Any]:
    """Select, for each task and device, how many candidates were judged and passed, and when the last one was."""
    return (
        select(
            tasks.c.key,
            tasks.c.name,
            tasks.c.origin,
            verdicts.c.device,
            func.count(verdicts.c.candidate_key.distinct()).label("judged"),
            func.count(case((verdicts.c.passed, verdicts.c.candidate_key)).distinct()).label("passed"),
            func.max(verdicts.c.id).label("last"),
            func.max(verdicts.c.added_at).label("last_at"),
        )
        .join(verdicts, verdicts.c.task_key == tasks.c.key)
        .group_by(tasks.c.key, tasks.c.name, tasks.c.origin, verdicts.c.device)
        .order_by("last")
    )


def read_standing(row: Row[Any], best: Row[Any] | None) -> Standing:
    """Return the standing of a row of `standing_query` and the fastest verdict that goes with it."""
    return Standing(
        task_key=row.key,
        name=row.name,
        origin=row.origin,
        device=row.device,
        judged=row.judged,
        passed=row.passed,
        best_seconds=best.median_seconds if best else None,
        source=best.timing_source if best else None,
        last_at=row.last_at,
    )
