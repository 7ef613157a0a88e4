"""Reads what an agent left in `answer`. It may have left anything there, so no link is followed and sizes are limited.

answer/kernel.cu    device code
answer/plan.toml    how its kernels are launched
answer/note.md      optional: its first line is kept with the program
answer/cost.json    optional: {"usd": 0.25}, what the question cost
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from warpsmith.author.llm.budget import brief
from warpsmith.errors import ProgramError, UserError
from warpsmith.files import read_text
from warpsmith.program import parse_plan
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.program.files import PLAN_NAME, SOURCE_NAME
from warpsmith.program.plan import MAX_PLAN_LENGTH
from warpsmith.records import Program

FOLDER, NOTE_NAME, COST_NAME = "answer", "note.md", "cost.json"

_BYTES_PER_CHARACTER = 4
_SMALL = 50_000
_NOTE = 200
"""Characters of a note."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent answered: a program with a note, or a `complaint` in one line where there is none to be had."""

    program: Program | None = None
    note: str = ""
    complaint: str = ""


def read_answer(folder: Path, *, hybrid: bool) -> Answer:
    """Read the answer in the scratch folder. Without `hybrid`, a plan that calls a library is none."""
    try:
        source = _text(folder, SOURCE_NAME, _BYTES_PER_CHARACTER * MAX_SOURCE_LENGTH)
        text = _text(folder, PLAN_NAME, _BYTES_PER_CHARACTER * MAX_PLAN_LENGTH)
        plan = parse_plan(text, file=f"{FOLDER}/{PLAN_NAME}")
        if len(source) > MAX_SOURCE_LENGTH:
            raise ProgramError(f"has more than {MAX_SOURCE_LENGTH} characters", file=f"{FOLDER}/{SOURCE_NAME}")
        if not plan.pure and not hybrid:
            raise ProgramError("calls a library, which is not allowed here", file=f"{FOLDER}/{PLAN_NAME}")
    except UserError as error:
        # The scratch folder is gone when this is read; inside of it names say enough.
        return Answer(complaint=brief(str(error).replace(f"{folder}/", ""), 300))
    return Answer(Program(source, plan), _note(folder))


def read_cost(folder: Path, most_usd: float) -> float:
    """Return what the agent says that its work cost in US dollars, at most `most_usd`; 0 where it says nothing."""
    try:
        said = json.loads(_text(folder, COST_NAME, _SMALL))
    except (UserError, ValueError, RecursionError):
        return 0.0
    usd = said.get("usd") if isinstance(said, dict) else None
    # Neither a bool nor NaN is an amount of money.
    if not isinstance(usd, int | float) or isinstance(usd, bool) or not usd > 0:
        return 0.0
    return float(min(usd, most_usd))


def _text(folder: Path, name: str, most: int) -> str:
    """Return the text of a plain file of at most `most` bytes in the answer. Raises UserError for all else."""
    answer = folder / FOLDER
    if answer.is_symlink() or not answer.is_dir():
        there = answer.is_symlink() or answer.exists()
        raise UserError("is no folder" if there else "there is no answer", file=str(answer))
    return read_text(answer / name, most)


def _note(folder: Path) -> str:
    """Return the first line of the note; a note that cannot be read is no reason to refuse a program."""
    try:
        lines = _text(folder, NOTE_NAME, _SMALL).splitlines()
    except UserError:
        return ""
    return next((line for line in (brief(each.strip("# \t"), _NOTE) for each in lines) if line), "")
