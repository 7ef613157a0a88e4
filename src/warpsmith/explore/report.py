"""Renders `report.html`: one file that needs nothing beside it and no network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment

from warpsmith.explore import chart, tree, words
from warpsmith.explore.course import course_line, draw_course
from warpsmith.explore.highlight import highlight, style_sheet
from warpsmith.explore.outcome import Outcome
from warpsmith.program import format_plan
from warpsmith.templates import environment_for
from warpsmith.version import own_version

LIGHT, DARK = "friendly", "github-dark"


def render_report(outcome: Outcome) -> str:
    """Return the report as HTML text."""
    best = outcome.best
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            outcome=outcome,
            best=best,
            timing=best.verdict.timing if best else None,
            chart=chart.draw_chart(outcome.comparable, outcome.bound),
            course=draw_course(outcome.course, outcome.bound),
            tree=tree.draw_tree(outcome.lineage),
            kernel=highlight(best.candidate.program.source, "cuda") if best else "",
            plan=highlight(format_plan(best.candidate.program.plan), "toml") if best else "",
            functional=highlight(outcome.task.functional_source, "python"),
            light=style_sheet(LIGHT),
            dark=style_sheet(DARK),
            version=own_version(),
        )
    )


@cache
def _environment() -> Environment:
    environment = environment_for(Path(__file__).parent / "templates", html=True)
    environment.filters |= {
        "duration": words.duration,
        "amount": words.amount,
        "percent": words.percent,
        "provenance": words.provenance,
        "kind": words.kind,
        "course_line": course_line,
    }
    environment.globals |= {"share": words.share, "chart_shape": chart, "tree_shape": tree}
    return environment
