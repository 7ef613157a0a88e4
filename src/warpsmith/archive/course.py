"""How the best time of a task came down with the seconds that were spent on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, select

from warpsmith.archive.rows import Step
from warpsmith.archive.schema import events, runs, verdicts

BEGAN = "began"
"""The event with which a run says how long it had been going on when it was written down: `{"after": seconds}`."""


def course_query(task_key: str, device: str) -> Select[Any]:
    """Select all verdicts on a task on a device, with the runs that they come from, in order."""
    return (
        select(
            verdicts.c.run_id,
            verdicts.c.candidate_key,
            verdicts.c.median_seconds,
            verdicts.c.timing_source,
            verdicts.c.added_at,
            runs.c.started_at,
        )
        .join(runs, runs.c.id == verdicts.c.run_id)
        .where(verdicts.c.task_key == task_key, verdicts.c.device == device)
        .order_by(verdicts.c.id)
    )


def began_query(task_key: str) -> Select[Any]:
    """Select what the runs on a task said when they began."""
    return (
        select(events.c.run_id, events.c.data)
        .join(runs, runs.c.id == events.c.run_id)
        .where(runs.c.task_key == task_key, events.c.kind == BEGAN)
    )


def steps(rows: Iterable[Row[Any]], after: dict[int, float]) -> tuple[Step, ...]:
    """Return the improvements among the rows of `course_query`; `after` has the seconds of each run before its row.

    The time between two runs does not count, and neither does what a run did after its last verdict. Only the first
    verdict on a candidate does. A measurement hides the estimates before it: the two are never mixed.
    """
    found: list[Step] = []
    source: str | None = None
    spent_before = spent_now = 0.0
    run, seen = 0, set[str]()
    for row in rows:
        if row.run_id != run:
            run, spent_before = row.run_id, spent_before + spent_now
        spent_now = after.get(row.run_id, 0.0) + _seconds(row.started_at, row.added_at)
        if row.timing_source == "measured" and source == "estimated":
            found.clear()
        if row.median_seconds is None or row.candidate_key in seen or (source, row.timing_source) == _HIDES:
            continue
        source = row.timing_source
        seen.add(row.candidate_key)
        if row.median_seconds < (found[-1].seconds if found else math.inf):
            found.append(Step(spent_before + spent_now, row.median_seconds, row.candidate_key))
    return tuple(found)


_HIDES = ("measured", "estimated")


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())
