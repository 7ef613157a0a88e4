"""Renders a run, or two beside each other, as one HTML file that needs nothing beside it and no network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment

import warpsmith.explore
from warpsmith.bench import drawings
from warpsmith.bench.budgets import budgets
from warpsmith.bench.contrast import Contrast
from warpsmith.bench.folder import Bench, load_bench
from warpsmith.bench.row import Row
from warpsmith.bench.scores import BASELINES, THRESHOLDS, scores
from warpsmith.bench.tables import contrast_facts, pair_cells, regime_words, speed_cells
from warpsmith.errors import SettingsError
from warpsmith.explore import words
from warpsmith.templates import environment_for
from warpsmith.version import own_version

REPORT = "bench.html"
SOURCES = ("measured", "estimated")


def render_bench(folder: str | Path) -> str:
    """Return the report on the run in `folder` as HTML text. Raises UserError where it holds none."""
    return render_bench_of(load_bench(folder))


def render_bench_of(bench: Bench) -> str:
    """Return the report on a run as HTML text."""
    rows = bench.rows
    compared = [name for name in BASELINES if any(row.against(name) for row in rows)]
    return (
        _environment()
        .get_template("bench.html.j2")
        .render(
            bench=bench,
            scores=scores(rows) if rows else (),
            regime=regime_words(bench),
            compared=compared,
            curves=[(name, drawings.draw_curves(_groups(rows), name)) for name in compared],
            speedups=[(name, drawings.draw_speedups(rows, name)) for name in compared],
            shares=[(source, drawn) for source in SOURCES if (drawn := drawings.draw_shares(rows, source))],
            sources=[source for source in SOURCES if any(row.timing == source for row in rows)],
            reached=budgets(rows),
            failures=[row for row in rows if not row.passed],
            remarks=[row for row in rows if row.passed and (row.marks or row.message)],
        )
    )


def render_contrast_html(contrast: Contrast) -> str:
    """Return two runs beside each other as HTML text."""
    sure = [(pair.first.name, pair.ratio, pair.beyond_doubt) for pair in contrast.pairs if pair.ratio is not None]
    return (
        _environment()
        .get_template("bench_contrast.html.j2")
        .render(
            contrast=contrast,
            facts=contrast_facts(contrast),
            drawn=drawings.draw_ratios(sure),
            cells=pair_cells,
            regimes=(regime_words(contrast.first), regime_words(contrast.second)),
        )
    )


def write_bench(folder: str | Path) -> Path:
    """Write `bench.html` into the folder of a run, and return it. Raises UserError where the folder holds none."""
    return _write(Path(folder) / REPORT, render_bench(folder))


def write_contrast(contrast: Contrast, file: str | Path) -> Path:
    """Write two runs beside each other to a file, and return it."""
    return _write(Path(file), render_contrast_html(contrast))


def _write(file: Path, text: str) -> Path:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}") from error
    return file


def _groups(rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """Return the rows of each level by its name, and all of them where there is more than one level."""
    levels = sorted({row.level for row in rows if row.level is not None})
    groups: list[tuple[str, Sequence[Row]]] = [
        (f"level {level}", [row for row in rows if row.level == level]) for level in levels
    ]
    return groups if len(groups) == 1 and len(groups[0][1]) == len(rows) else [*groups, ("all", rows)]


@cache
def _environment() -> Environment:
    folders = [Path(__file__).parent / "templates", Path(warpsmith.explore.__file__).parent / "templates"]
    environment = environment_for(*folders, html=True)
    environment.filters |= {"duration": words.duration, "percent": words.percent, "clock": words.clock}
    # The style sheet of the reports takes the colours of code from outside; there is no code here.
    environment.globals |= {
        "shape": drawings,
        "thresholds": THRESHOLDS,
        "baseline_names": BASELINES,
        "speed_cells": speed_cells,
        "version": own_version(),
        "light": "",
        "dark": "",
    }
    return environment
