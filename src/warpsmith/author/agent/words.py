"""What an agent reads: the question in the words that language models are asked in, and how to answer it with files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment

from warpsmith.author.agent.limits import AgentLimits
from warpsmith.author.llm import prompt
from warpsmith.author.llm.words import tensors
from warpsmith.author.protocol import Context
from warpsmith.templates import environment_for

TOKENS = 60_000
"""Tokens of a question at most."""


def question(context: Context, limits: AgentLimits, *, hybrid: bool) -> str | None:
    """Return the text of `question.md`, or None where the task does not fit into it."""
    posed = prompt.pose(context, TOKENS, hybrid=hybrid)
    if posed is None:
        return None
    return _render("question.md.j2", posed=posed.text, parents=len(context.parents), seconds=limits.seconds)


def task_page(context: Context, *, hybrid: bool) -> str:
    """Return the text of `task.md`: the task, and what a program is."""
    page = prompt.render("task.md", context=context, task=context.task, tensors=tensors(context.task.graph))
    return _render("task.md.j2", task=page, format=program_format(hybrid=hybrid))


def program_format(*, hybrid: bool) -> str:
    """Return the description of the program format as Markdown."""
    return prompt.render("format.md", **prompt.format_words(hybrid))


def _render(name: str, **values: object) -> str:
    return _environment().get_template(name).render(**values).strip() + "\n"


@cache
def _environment() -> Environment:
    return environment_for(Path(__file__).parent / "templates")
