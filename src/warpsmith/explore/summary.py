"""The table at the end: what happened in each stage, and where the results lie."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warpsmith.explore.course import course_line
from warpsmith.explore.outcome import Outcome
from warpsmith.explore.output import FILES
from warpsmith.explore.tally import Tally, counts
from warpsmith.explore.words import best_line, duration


def render_summary(outcome: Outcome, tally: Tally, folder: Path | None, archive: str) -> RenderableType:
    """Return the closing table. `tally` tells of the stages; `folder` is None where nothing was written."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("stage", style="bold")
    table.add_column("seconds", justify="right")
    table.add_column("what happened")
    for stage in tally.finished:
        table.add_row(stage.name, f"{stage.seconds:.1f}", stage.detail)
    if tally.stage and tally.stage not in {stage.name for stage in tally.finished}:
        table.add_row(tally.stage, "–", f"{tally.stopped or 'interrupted'}; {counts(tally)}")
    return Group(_headline(outcome), Text(), table, Text(), _results(outcome, folder, archive))


def render_best(outcome: Outcome) -> Text:
    """Return the line that says how fast the best is, or that nothing passed."""
    if outcome.best is None:
        return Text(f"{outcome.task.name}: nothing passed among {len(outcome.history)} candidates", style="yellow")
    text = Text(f"{outcome.task.name}: ", style="bold")
    text.append(best_line(outcome.best, outcome.bound))
    gain = outcome.first_passed / outcome.best.seconds
    return text.append(f", {gain:.2f}× the first that worked") if gain >= 1.005 else text


def _headline(outcome: Outcome) -> Text:
    text = render_best(outcome)
    text.append(f"\nbound {duration(outcome.bound.seconds)} on {outcome.device}, limited by {outcome.bound.limit}")
    for restriction in outcome.task.restrictions:
        text.append(f"\n{restriction}", style="yellow")
    return text


def _results(outcome: Outcome, folder: Path | None, archive: str) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    if folder is not None:
        written = [name for name in FILES if (folder / name).exists()]
        grid.add_row("results", f"{folder}/")
        grid.add_row("", "  ".join(written))
    if outcome.course:
        grid.add_row("best", course_line(outcome.course))
    grid.add_row("archive", f"{archive}  (warpsmith archive show {outcome.task.key[:8]})")
    if outcome.stopped:
        grid.add_row("stopped", outcome.stopped)
    return grid
