"""What runs on a task left behind besides verdicts: candidates that were never judged, bills, and what they told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Select, func, select

from warpsmith.archive.queries import candidate_query
from warpsmith.archive.schema import candidates, events, proposals, runs, verdicts

BILLED = ("refused", "explained")
"""Kinds of events that tell of an answer with a price: one without a program, and a lesson."""


def unjudged_query(task_key: str | None, judge_version: str, device: str) -> Select[Any]:
    """Select the candidates, all or those for a task, without a verdict of this judge on this device.

    Each comes by its first proposal, the first proposed first.
    """
    same = select(verdicts.c.id).where(
        verdicts.c.candidate_key == candidates.c.key,
        verdicts.c.judge_version == judge_version,
        verdicts.c.device == device,
    )
    query = candidate_query().where(~same.exists()).order_by(proposals.c.id)
    return query if task_key is None else query.where(candidates.c.task_key == task_key)


def bill_query(task_key: str) -> Select[Any]:
    """Select the sum of what all proposals in runs on a task have cost, in US dollars."""
    return (
        select(func.coalesce(func.sum(proposals.c.cost_usd), 0.0).label("usd"))
        .join(runs, runs.c.id == proposals.c.run_id)
        .where(runs.c.task_key == task_key)
    )


def events_query(task_key: str, kind: str) -> Select[Any]:
    """Select the data of all events of a kind in the runs on a task, in order."""
    return (
        select(events.c.data)
        .join(runs, runs.c.id == events.c.run_id)
        .where(runs.c.task_key == task_key, events.c.kind == kind)
        .order_by(events.c.id)
    )


def cost_told(told: Iterable[Mapping[str, Any]]) -> float:
    """Return the sum of the costs that events tell, in US dollars; an event that tells none costs nothing."""
    return sum(float(data.get("cost_usd", 0.0)) for data in told)
