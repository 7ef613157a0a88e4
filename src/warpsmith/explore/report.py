"""Renders `report.html`: one file that needs nothing beside it and no network."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers.c_like import CudaLexer
from pygments.lexers.configs import TOMLLexer
from pygments.lexers.python import PythonLexer

from warpsmith.explore import chart, tree, words
from warpsmith.explore.outcome import Outcome
from warpsmith.program import format_plan

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
            tree=tree.draw_tree(outcome.lineage),
            kernel=_code(best.candidate.program.source, CudaLexer()) if best else "",
            plan=_code(format_plan(best.candidate.program.plan), TOMLLexer()) if best else "",
            functional=_code(outcome.task.functional_source, PythonLexer()),
            light=_style(LIGHT),
            dark=_style(DARK),
            version=version("warpsmith"),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": words.duration,
        "amount": words.amount,
        "percent": words.percent,
        "provenance": words.provenance,
    }
    environment.globals |= {"share": words.share, "chart_shape": chart, "tree_shape": tree}
    return environment


def _code(text: str, lexer: Lexer) -> Markup:
    """Return highlighted source. Pygments escapes the text, so the result may stand in a page as it is."""
    return Markup(highlight(text, lexer, HtmlFormatter(cssclass="code", linenos="inline")))


def _style(name: str) -> Markup:
    return Markup(HtmlFormatter(style=name, cssclass="code").get_style_defs(".code"))
