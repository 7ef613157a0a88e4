"""A contest as tables for a terminal, and as a JSON file for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warpsmith.bench.lines import explained, write_whole
from warpsmith.bench.row import GOES_ON
from warpsmith.contest.figures import ArmFigures, OperatorFigures, figures, operator_figures
from warpsmith.contest.folder import ARMS, Contest
from warpsmith.contest.trial import Trial
from warpsmith.explore.words import clock, percent
from warpsmith.judge.statistics import LEAST_BLOCKS

DOCUMENT = "contest.json"
_NONE = "–"
_MEANING = (
    "solved: tasks of which a program passed. "
    "ratio: the first arm's best time over this arm's, same task and seed, geometric mean; above 1 this arm is faster. "
    "tied: the same program, or times within 1 %."
)
_COSTS = "judged: candidates; time: of whole processes, start and loading included."
_OPERATORS = "improved: more than 1 % faster than its fastest parent; gain: by how many times, geometric mean of those."
_HIDDEN = ("archive from", "agent_command")
"""Settings that may name folders of a machine."""


def render_contest(contest: Contest) -> RenderableType:
    """Return the closing tables: what each arm found, what it spent, and what each of its operators brought."""
    if not contest.trials:
        return Text("no search has come to an end yet", style="yellow")
    found = figures(contest)
    parts: list[RenderableType] = [_headline(contest), Text(), _arms(found), Text(_MEANING, style="dim")]
    parts += [Text(note, style="yellow") for note in _notes(contest, found)]
    parts += [Text(), _costs(found), Text(_COSTS, style="dim")]
    if rows := operator_figures(contest):
        parts += [Text(), _by_operator(rows), Text(_OPERATORS, style="dim")]
    return Group(*parts)


def write_contest(contest: Contest, folder: str | Path) -> Path:
    """Write rows and figures to `contest.json` in a folder, and return it. Raises SettingsError where it cannot."""
    place = Path(folder) / DOCUMENT
    with explained(place.parent):
        write_whole(place, json.dumps(document(contest), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return place


def document(contest: Contest) -> dict[str, Any]:
    """Return a contest as plain values: what was compared and how, the figures, and a row for each search."""
    record = contest.record
    settings = {name: value for name, value in record.settings if name not in (ARMS, *_HIDDEN)}
    return {
        "device": record.device,
        "settings": settings,
        "machine": asdict(record.machine),
        "arms": [asdict(each) for each in figures(contest)],
        "operators": [asdict(each) for each in operator_figures(contest)],
        "rows": [_plain(trial) for trial in contest.trials],
    }


def _plain(trial: Trial) -> dict[str, Any]:
    row = trial.row
    return {
        "task": row.name,
        "arm": trial.arm,
        "repeat": trial.repeat,
        "seed": trial.seed,
        "status": row.status,
        "seconds": row.seconds,
        "timing": row.timing,
        "bound": row.bound,
        "best": trial.best,
        "judged": row.judged,
        "spent": round(row.spent, 2),
        "usd": trial.usd,
        "marks": list(row.marks),
        "message": row.message,
    }


def _headline(contest: Contest) -> Text:
    repeats = len({trial.repeat for trial in contest.trials})
    tasks, device = len(contest.record.tasks), contest.record.device
    timing = dict(contest.record.settings)["timing"]
    where = f"times measured on {device}" if timing == "measured" else f"times estimated for {device}"
    text = Text(f"{len(contest.arms)} arms, {_counted(tasks, 'task')}, {_counted(repeats, 'seed')}", style="bold")
    return text.append(f"; {where}; ratios against {contest.arms[0][0]}", style="not bold")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _arms(found: Sequence[ArmFigures]) -> Table:
    table = _table(("arm",), ("solved", "ratio", "95 % interval", "won/tied/lost"))
    for number, each in enumerate(found):
        table.add_row(
            Text(each.arm),
            f"{each.solved} of {each.tasks}",
            _NONE if each.mean is None else f"{each.mean:.3f}×",
            _NONE if each.interval is None else f"{each.interval[0]:.3f}–{each.interval[1]:.3f}",
            _NONE if number == 0 else f"{each.wins}/{each.ties}/{each.losses}",
        )
    return table


def _costs(found: Sequence[ArmFigures]) -> Table:
    """What the arms have spent, by itself, since all columns do not fit beside each other in 80 characters."""
    table = _table(("arm",), ("searches", "judged", "time", "USD"))
    for each in found:
        usd = f"{each.usd:.4f}" if each.usd else "0"
        table.add_row(Text(each.arm), str(each.searches), str(each.judged), clock(each.seconds), usd)
    return table


def _notes(contest: Contest, found: Sequence[ArmFigures]) -> list[str]:
    """Say what a reader must know before believing the table."""
    notes = []
    if any(each.searches != found[0].searches for each in found):
        notes.append("Not all arms have done the same searches yet; figures are over those that they share.")
    failed = sum(not trial.row.passed for trial in contest.trials)
    if failed:
        notes.append(f"Searches that brought no program: {failed}; the rows say why.")
    known = {trial.row.name for trial in contest.trials if GOES_ON in trial.row.marks}
    if known:
        names = ", ".join(sorted(known))
        notes.append(f"Not compared, since the archive had programs for the very same task: {names}.")
    if len(contest.record.tasks) < LEAST_BLOCKS:
        notes.append(f"Intervals over fewer than {LEAST_BLOCKS} tasks are too narrow: they say little of other tasks.")
    return notes


def _by_operator(rows: Sequence[OperatorFigures]) -> Table:
    table = _table(("arm", "author", "operator"), ("proposals", "passed", "improved", "gain"))
    for each in rows:
        table.add_row(
            Text(each.arm),
            Text(each.author),
            each.operator,
            str(each.proposals),
            percent(each.passed / each.proposals),
            str(each.improved),
            _NONE if each.mean is None else f"{each.mean:.2f}×",
        )
    return table


def _table(names: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, style="bold" if name == "arm" else "", no_wrap=True)
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    return table
