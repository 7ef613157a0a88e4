"""The archive on a terminal: a list of tasks, or one task or candidate in full."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from warpsmith.archive import Archive, Standing
from warpsmith.errors import ArchiveError
from warpsmith.explore.words import duration, kind, moment, provenance
from warpsmith.explore.words import reason as reason_words
from warpsmith.program import format_plan
from warpsmith.records import Judged

FASTEST_SHOWN = 10


def render_list(standings: Sequence[Standing]) -> RenderableType:
    """Return a table of tasks and devices. Measured and estimated times stand in columns of their own."""
    if not standings:
        return Text("the archive is empty")
    table = _table("task", padding=2)
    for title in ("key", "device"):
        table.add_column(title, no_wrap=True)
    for title in ("judged", "passed", "measured", "estimated"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("last (UTC)", no_wrap=True)
    for standing in standings:
        best = duration(standing.best_seconds) if standing.best_seconds is not None else "–"
        table.add_row(
            standing.name,
            standing.task_key[:8],
            standing.device,
            str(standing.judged),
            str(standing.passed),
            best if standing.source == "measured" else "–",
            best if standing.source == "estimated" else "–",
            moment(standing.last_at),
        )
    return table


def render_key(archive: Archive, prefix: str) -> RenderableType:
    """Return all about the task or candidate whose key begins with `prefix`.

    Raises ArchiveError where there is none, or more than one.
    """
    keys = archive.keys(prefix) if prefix else []
    if not keys:
        raise ArchiveError(f"no key in the archive begins with {prefix!r}; `warpsmith archive list` shows tasks")
    if len(keys) > 1:
        shown = ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")
        raise ArchiveError(f"{len(keys)} keys begin with {prefix!r}: {shown}")
    is_task = any(task.key == keys[0] for task in archive.tasks())
    return _task(archive, keys[0]) if is_task else _candidate(archive, keys[0])


def _task(archive: Archive, key: str) -> RenderableType:
    task = archive.task(key)
    fastest = sorted((judged for judged in archive.judged(key) if judged.verdict.passed), key=lambda each: each.seconds)
    return Group(
        _facts(
            ("task", f"{task.name}  {task.key}"),
            ("origin", task.origin),
            ("added", f"{moment(task.added_at)} UTC"),
            ("runs", ", ".join(f"{run.id} ({moment(run.started_at)})" for run in archive.runs(key)) or "none"),
        ),
        Text(),
        render_list([standing for standing in archive.standings() if standing.task_key == key]),
        Text(),
        _candidates(fastest[:FASTEST_SHOWN]) if fastest else Text("no candidate has passed"),
        Text(),
        Syntax(task.functional_source, "python", theme="ansi_dark", background_color="default"),
    )


def _candidate(archive: Archive, key: str) -> RenderableType:
    candidate, ancestry = archive.candidate(key), archive.lineage(key)
    lineage = candidate.lineage
    return Group(
        _facts(
            ("candidate", key),
            ("task", f"{archive.task(candidate.task_key).name}  {candidate.task_key}"),
            ("kind", kind(ancestry[-1]) if ancestry else "pure" if candidate.program.plan.pure else "hybrid"),
            ("by", f"{lineage.author}, {lineage.operator}, generation {lineage.generation}"),
            ("tunables", ", ".join(f"{name} = {value}" for name, value in candidate.tunables) or "none"),
            ("note", lineage.note or "–"),
        ),
        Text(),
        _candidates(ancestry, "lineage, oldest first") if ancestry else Text("never judged"),
        Text(),
        Syntax(format_plan(candidate.program.plan), "toml", theme="ansi_dark", background_color="default"),
        Syntax(candidate.program.source, "cuda", theme="ansi_dark", background_color="default"),
    )


def _candidates(judged: Sequence[Judged], title: str = "fastest candidates") -> Table:
    table = _table("candidate", "operator", "generation", "time or reason", "parents")
    table.title, table.title_justify = title, "left"
    for each in judged:
        timing, failure, lineage = each.verdict.timing, each.verdict.failure, each.candidate.lineage
        table.add_row(
            each.candidate.key[:8],
            f"{lineage.author} {lineage.operator}",
            str(lineage.generation),
            f"{duration(timing.median)} {provenance(timing)}" if timing else reason_words(failure) if failure else "–",
            " ".join(parent[:8] for parent in lineage.parents) or "–",
        )
    return table


def _table(*columns: str, padding: int = 3) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, padding, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _facts(*facts: tuple[str, str]) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for fact in facts:
        grid.add_row(*fact)
    return grid
