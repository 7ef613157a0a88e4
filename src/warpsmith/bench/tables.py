"""The figures of a run, and of two beside each other, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warpsmith.bench.budgets import Reached, budgets
from warpsmith.bench.contrast import Contrast, Pair
from warpsmith.bench.folder import Bench
from warpsmith.bench.scores import THRESHOLDS, Against, Score, scores
from warpsmith.explore.words import clock, duration, percent

_NONE = "–"
_SHOWN = 20
_FAST = 5
"""Where in `speed_cells` the shares of fast tasks begin."""


def render_scores(bench: Bench, folder: str | Path | None = None) -> RenderableType:
    """Return the closing tables of a run: one row for each level, and one for all."""
    if not bench.rows:
        return Text("no task has come to an end yet", style="yellow")
    found = scores(bench.rows)
    parts: list[RenderableType] = [_headline(bench, found), Text(), _summary(found)]
    if any(each.compared for score in found for each in score.against):
        parts += [Text(), _speed(found), Text(), _fast(found), Text(_OVER, style="dim")]
    else:
        parts += [Text(), Text("Nothing was compared with a baseline.", style="dim")]
    if reached := budgets(bench.rows):
        parts += [Text(), _budgets(reached), Text(_BOUGHT, style="dim")]
    if bench.missing:
        parts += [Text(f"{len(bench.missing)} of {len(bench.record.tasks)} tasks have not been run.", style="yellow")]
    if folder is not None:
        parts += [Text(), Text(f"rows  {Path(folder) / 'rows.jsonl'}")]
    return Group(*parts)


_OVER = (
    "faster: beyond doubt, of the correct tasks (of all). mean: geometric, over the correct tasks compared. "
    "fast_p: share of all tasks that are correct and more than p times faster."
)

_BOUGHT = "slower: geometric mean of the best time then to the best at the end, over the tasks that had a program then."


def _budgets(reached: Sequence[Reached]) -> Table:
    table = _table("seconds spent", ("tasks with a program", "slower than their best"))
    for each in reached:
        slower = _NONE if each.slower is None else f"{each.slower:.2f}×"
        table.add_row(f"{each.mark:g}", f"{each.had} of {each.of}", slower)
    return table


def _headline(bench: Bench, found: Sequence[Score]) -> Text:
    every = found[-1]
    text = Text(f"{every.correct} of {every.tasks} correct", style="bold")
    text.append(f" on {', '.join(sorted({row.device for row in bench.rows}))}; {regime_words(bench)}")
    if every.sources:
        text.append(f"; times {' and '.join(every.sources)}")
    return text


def regime_words(bench: Bench) -> str:
    """Name the size regime of a run."""
    regime = bench.record.regime
    return "sizes of no KernelBench release" if regime == "other" else f"KernelBench sizes {regime}"


def _summary(found: Sequence[Score]) -> Table:
    table = _table("", ("tasks", "correct", "pure", "hybrid", "share of bound", "time spent"))
    for score in found:
        table.add_row(
            score.label,
            str(score.tasks),
            _part(score.correct, score.tasks),
            str(score.pure),
            str(score.hybrid),
            _NONE if score.share is None else percent(score.share),
            clock(score.spent),
        )
    return table


def _speed(found: Sequence[Score]) -> Table:
    return _against(found, ("compared", "faster", "slower", "mean", "median"), slice(0, _FAST))


def _fast(found: Sequence[Score]) -> Table:
    return _against(found, [f"fast {p:g}" for p in THRESHOLDS], slice(_FAST, None))


def _against(found: Sequence[Score], titles: Sequence[str], part: slice) -> Table:
    """Some columns of `speed_cells`, since all of them do not fit beside each other in 80 characters."""
    table = _table("against", titles)
    compared = {each.baseline for score in found for each in score.against if each.compared}
    for score in found:
        for each in score.against:
            if each.baseline in compared:
                table.add_row(f"{score.label}, {each.baseline}", *speed_cells(score, each)[part])
    return table


def speed_cells(score: Score, against: Against) -> list[str]:
    """Return what a table says of a level against a baseline, in the order of its columns."""
    if against.mean is None or against.middle is None or against.fast is None:
        return [_NONE] * (_FAST + len(THRESHOLDS))
    return [
        str(against.compared),
        f"{_part(against.faster, score.correct)} ({against.faster / score.tasks:.0%})",
        str(against.slower),
        f"{against.mean:.2f}×",
        f"{against.middle:.2f}×",
        *(f"{share:.0%}" for share in against.fast),
    ]


def render_contrast(contrast: Contrast) -> RenderableType:
    """Return two runs beside each other for a terminal: warnings, figures, and the tasks that changed the most."""
    parts: list[RenderableType] = [Text(f"{contrast.names[0]}  →  {contrast.names[1]}", style="bold")]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in contrast.warnings]
    facts = Table.grid(padding=(0, 3, 0, 0))
    for name, value in contrast_facts(contrast):
        facts.add_row(Text(name, style="dim"), Text(value))
    parts += [Text(), facts]
    changed = most_changed(contrast)
    if changed:
        table = _table("task", ("first", "second", "ratio", ""))
        for pair in changed:
            table.add_row(*pair_cells(pair))
        parts += [Text(), table]
        if len(contrast.pairs) > len(changed):
            parts.append(Text(f"the {len(changed)} of {len(contrast.pairs)} that changed the most", style="dim"))
    return Group(*parts)


def contrast_facts(contrast: Contrast) -> list[tuple[str, str]]:
    """Return the figures of two runs, each with its name."""
    first, second = (f"{sum(row.passed for row in bench.rows)} of {len(bench.rows)}" for bench in _both(contrast))
    mean, middle = contrast.mean, contrast.middle
    over = f" over {len(contrast.ratios)} tasks correct in both"
    return [
        ("correct", f"{first}, then {second}"),
        ("gained", f"{len(contrast.gained)} {_names(contrast.gained)}".strip()),
        ("lost", f"{len(contrast.lost)} {_names(contrast.lost)}".strip()),
        ("geometric mean of ratios", _NONE if mean is None else f"{mean:.3f}×{over}"),
        ("median of ratios", _NONE if middle is None else f"{middle:.3f}×"),
        ("faster, slower beyond doubt", f"{len(contrast.faster)}, {len(contrast.slower)}"),
    ]


def most_changed(contrast: Contrast, count: int = _SHOWN) -> list[Pair]:
    """Return gained and lost tasks, then those whose time changed the most; unchanged ones are left out."""
    turned = [*contrast.gained, *contrast.lost]
    moved = [pair for pair in contrast.pairs if pair.ratio is not None and pair.ratio != 1.0]
    moved.sort(key=lambda pair: -max(pair.ratio or 1.0, 1.0 / (pair.ratio or 1.0)))
    return (turned + moved)[:count]


def pair_cells(pair: Pair) -> list[str]:
    """Return what a table says of a task in two runs."""
    ratio = pair.ratio
    doubt = "" if ratio is None else "faster" if ratio > 1.0 else "slower" if ratio < 1.0 else ""
    if doubt and not pair.beyond_doubt:
        doubt = "within noise"
    if pair.first.passed != pair.second.passed:
        doubt = "gained" if pair.second.passed else "lost"
    times = (
        duration(row.seconds) if row.seconds else row.status.replace("_", " ") for row in (pair.first, pair.second)
    )
    return [pair.first.name, *times, _NONE if ratio is None else f"{ratio:.2f}×", doubt]


def _both(contrast: Contrast) -> tuple[Bench, Bench]:
    return contrast.first, contrast.second


def _names(pairs: Sequence[Pair]) -> str:
    shown = ", ".join(pair.first.name for pair in pairs[:3])
    return f"({shown}{', …' if len(pairs) > 3 else ''})" if pairs else ""


def _part(count: int, of: int) -> str:
    return f"{count} {count / of:.0%}" if of else str(count)


def _table(first: str, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, style="bold", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
