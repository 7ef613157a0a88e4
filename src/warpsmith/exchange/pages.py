"""Renders what people and agents read: Markdown pages from the templates beside this file."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from warpsmith.author.llm.words import tensors
from warpsmith.explore import words
from warpsmith.judge.render import quote
from warpsmith.program import format_plan
from warpsmith.records import Bound, GpuSpec, Task
from warpsmith.templates import environment_for

_DIAGNOSTICS = 5
"""Messages of the compiler shown."""


def render(template: str, **values: Any) -> str:
    """Return a page as Markdown text that ends with a line break."""
    return _environment().get_template(template).render(**values).strip() + "\n"


def task_page(task: Task, gpu: GpuSpec, bound: Bound) -> str:
    """Return what a task is: its function, its tensors, when an output is right, the device and its speed of light."""
    return render("task.md.j2", task=task, tensors=tensors(task.graph), gpu=gpu, bound=bound)


def fenced(text: str, language: str = "") -> str:
    """Return a text as a block of code that nothing in it can end."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def inline(text: object) -> str:
    """Return a text in one line and as it is, whatever Markdown would make of it."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", line)


@cache
def _environment() -> Environment:
    # What others wrote goes through `inline` or `fenced`.
    environment = environment_for(Path(__file__).parent / "templates")
    environment.filters |= {
        "amount": words.amount,
        "duration": words.duration,
        "percent": words.percent,
        "provenance": words.provenance,
        "reason": words.reason,
        "kind": words.kind,
        "fenced": fenced,
        "inline": inline,
        "plan_text": format_plan,
    }
    environment.globals |= {"share": words.share, "quote": quote, "most_diagnostics": _DIAGNOSTICS}
    return environment
