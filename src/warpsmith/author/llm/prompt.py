"""Prompts from the Markdown templates in `author/prompts`, one for each operator, held to a budget of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment

from warpsmith.author.llm.budget import brief, shorten, tokens_in
from warpsmith.author.llm.fences import fenced
from warpsmith.author.llm.matter import Matter, focus, matter_of
from warpsmith.author.llm.secrets import without_secrets
from warpsmith.author.llm.words import C_TYPES, FILTERS, distance, tensors
from warpsmith.author.protocol import Context
from warpsmith.program import FLAGS, format_plan
from warpsmith.program.arithmetic import FUNCTIONS
from warpsmith.program.library import LIBRARY
from warpsmith.program.validate import DEVICE_PROPERTIES
from warpsmith.records import Judged, Program
from warpsmith.templates import environment_for

FOLDER = Path(__file__).parent.parent / "prompts"

HINTS = (
    "",
    "Prefer the simplest program that can be fast.",
    "Think first of memory traffic that can be saved: read every input once, keep what is used again in registers.",
    "Think first of vector loads and of several elements per thread.",
    "Think first of how the work is divided among blocks and warps, and choose another division than the obvious one.",
    "Think first of latency: several independent accumulators, fewer barriers, warp shuffles instead of shared memory.",
    "Think first of what the hardware offers: tensor cores where the task allows them, asynchronous copies, clusters.",
)
"""One of them ends a prompt, so that several attempts at one question differ."""

COMPLAINT_TOKENS = 600
"""Kept free in a first prompt for the complaint about the answer to it."""

_ABOUT = 1200
"""Characters of a complaint."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is sent: `instructions` that are the same for every task, and the question itself."""

    instructions: str
    text: str

    @property
    def tokens(self) -> int:
        """About how many tokens a model reads."""
        return tokens_in(self.instructions) + tokens_in(self.text)

    @property
    def whole(self) -> str:
        """Everything as one text, for the archive."""
        return f"{self.instructions}\n{self.text}"


def pose(context: Context, budget: int, *, hybrid: bool = False) -> Prompt | None:
    """Return the prompt for a context, of at most `budget` tokens with room for a complaint.

    What is left out where there is too much: examples, then lessons, then older programs, then the middle of long
    sources; never anything of the task. None where that does not suffice.
    """
    instructions = render("system.md", **format_words(hybrid))
    matter: Matter | None = matter_of(context)
    while matter is not None:
        text = render(f"{context.operator}.md", context=context, **_task(context), **_shown(context, matter))
        prompt = Prompt(instructions, without_secrets(text))
        if prompt.tokens + COMPLAINT_TOKENS <= budget:
            return prompt
        matter = matter.less()
    return None


def pose_again(first: Prompt, reply: str, complaint: str, budget: int) -> Prompt:
    """Return the same question with what is wrong with the reply; the reply itself only where the budget allows it."""
    about = brief(complaint, _ABOUT) if "\n" not in complaint else complaint[:_ABOUT]
    for shown in (reply, ""):
        text = render("again.md", prompt=first.text, reply=shown, complaint=about)
        prompt = Prompt(first.instructions, without_secrets(text))
        if prompt.tokens <= budget:
            break
    return prompt


def pose_explanation(parent: Judged, child: Judged, context: Context, budget: int) -> Prompt | None:
    """Return the prompt that asks for the lesson of a change, or None where it does not fit into `budget` tokens."""
    instructions = render("explain_system.md")
    matter: Matter | None = Matter((parent, child), 2)
    while matter is not None:
        text = render("explain.md", context=context, **_task(context), **_shown(context, matter))
        prompt = Prompt(instructions, without_secrets(text))
        if prompt.tokens <= budget:
            return prompt
        matter = matter.less()
    return None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A judged program as templates show it."""

    judged: Judged
    source: str
    plan: str
    distance: str


def _shown(context: Context, matter: Matter) -> dict[str, object]:
    def show(judged: Judged) -> _Shown:
        program = judged.candidate.program
        source = shorten(program.source, matter.source_limit, focus(judged))
        return _Shown(judged, source, format_plan(program.plan), distance(judged, context.bound))

    return {"programs": [show(judged) for judged in matter.programs], "matter": matter}


def _task(context: Context) -> dict[str, object]:
    return {
        "task": context.task,
        "tensors": tensors(context.task.graph),
        "hint": HINTS[context.seed % len(HINTS)],
    }


def format_words(hybrid: bool) -> dict[str, object]:
    """Return what the description of the program format is filled in with."""
    return {
        "hybrid": hybrid,
        "c_types": C_TYPES,
        "properties": DEVICE_PROPERTIES,
        "functions": FUNCTIONS,
        "flags": FLAGS,
        "library": LIBRARY,
        "example": example_program(),
    }


def example_program() -> str:
    """Return the worked example that every prompt shows, in the form of a reply."""
    return (FOLDER / "example.md").read_text(encoding="utf-8").strip()


def render(name: str, **values: object) -> str:
    """Render a template. What is filled in is never read as a template itself."""
    return _environment().get_template(name).render(**values).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = environment_for(FOLDER)
    environment.filters |= {**FILTERS, "fenced": fenced, "program_plan": _plan_text}
    return environment


def _plan_text(program: Program) -> str:
    return format_plan(program.plan)
