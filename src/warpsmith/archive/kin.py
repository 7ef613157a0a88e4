"""Which tasks are alike, and which of their programs are worth looking at again.

Two tasks are the more alike the larger the share of operators that they have in common (of all operators of either,
each counted once), and among equals the nearer their sizes are. That finds the few tasks whose graphs are then compared
in earnest, by whoever knows what a program does with a graph. However large the archive is, at most `TASKS` graphs
and `TASKS * PROGRAMS` recipes are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Float, Row, Select, case, cast, func, select

from warpsmith.archive.codec import decode
from warpsmith.archive.queries import fastest_first
from warpsmith.archive.rows import Precedent
from warpsmith.archive.schema import candidates, kin, proposals, tasks, verdicts
from warpsmith.records import Graph, Lineage

TASKS = 8
"""Tasks looked at."""

PROGRAMS = 6
"""Fast candidates of each task looked at; most of them are one program with several sets of tunables."""

DEVICES = 2
"""Devices of each task looked at, the nearest ones."""

Nearness = Callable[[str], float]
"""How much a time on the device of this name says about the device in question: 0 for nothing, 1 for everything."""

_Tunables = tuple[tuple[str, int], ...]


def kin_rows(task_key: str, graph: Graph) -> list[dict[str, Any]]:
    """Return the rows of the table `kin` for a task: one for each operator. A task without operators has none."""
    operators = sorted({node.op for node in graph.nodes})
    elements = elements_of(graph)
    return [
        {"task_key": task_key, "operator": operator, "operators": len(operators), "elements": elements}
        for operator in operators
    ]


def elements_of(graph: Graph) -> float:
    """Number of elements of all arguments and results, at least 1."""
    return float(max(1, sum(spec.numel for spec in (*graph.arguments, *graph.results))))


def kindred_query(graph: Graph) -> Select[Any]:
    """Select the tasks most alike for which any program has passed, the likest first; of equals, the lesser key."""
    operators = sorted({node.op for node in graph.nodes})
    elements = elements_of(graph)
    shared = func.count()
    total = func.max(kin.c.operators) + len(operators) - shared
    size = func.max(kin.c.elements)
    ratio = case((size > elements, size / elements), else_=elements / size)
    passed = select(verdicts.c.id).where(verdicts.c.task_key == kin.c.task_key, verdicts.c.passed).exists()
    return (
        select(kin.c.task_key)
        .where(kin.c.operator.in_(operators), passed)
        .group_by(kin.c.task_key)
        .order_by((cast(shared, Float) / total).desc(), ratio, kin.c.task_key)
        .limit(TASKS)
    )


def devices_query(task_key: str) -> Select[Any]:
    """Select the devices on which a program has passed for a task."""
    query = select(verdicts.c.device).where(verdicts.c.task_key == task_key, verdicts.c.passed)
    return query.distinct().order_by(verdicts.c.device)


def nearest(devices: Iterable[str], nearness: Nearness) -> Sequence[str]:
    """Return the nearest devices, without those that say nothing."""
    telling = [device for device in devices if nearness(device) > 0.0]
    return sorted(telling, key=lambda device: (-nearness(device), device))[:DEVICES]


def fastest_query(task_key: str, device: str) -> Select[Any]:
    """Select the fastest candidates for a task on a device, each by the lineage of its first proposal."""
    others = proposals.alias()
    first = select(func.min(others.c.id)).where(others.c.candidate_key == verdicts.c.candidate_key)
    return (
        select(
            tasks.c.name,
            candidates.c.tunables,
            verdicts.c.candidate_key,
            verdicts.c.device,
            verdicts.c.median_seconds,
            proposals.c.document.label("lineage"),
        )
        .join(tasks, tasks.c.key == verdicts.c.task_key)
        .join(candidates, candidates.c.key == verdicts.c.candidate_key)
        .join(proposals, proposals.c.id == first.correlate(verdicts).scalar_subquery())
        .where(verdicts.c.task_key == task_key, verdicts.c.device == device, verdicts.c.passed)
        .order_by(*fastest_first())
        .limit(PROGRAMS)
    )


def read_precedents(rows: Iterable[Row[Any]], task_key: str, graph: Graph) -> list[Precedent]:
    """Return the candidates of `fastest_query` that have a recipe, one for each recipe, the fastest first."""
    found: dict[str, Precedent] = {}
    for row in rows:
        recipe = decode(Lineage, row.lineage).recipe
        if recipe is not None and recipe not in found:
            tunables: _Tunables = decode(_Tunables, row.tunables)
            found[recipe] = Precedent(
                task_key, row.name, graph, row.candidate_key, row.device, row.median_seconds, recipe, tunables
            )
    return list(found.values())
