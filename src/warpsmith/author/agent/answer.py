"""Reads what an agent left in `answer`. It may have left anything there, so no link is followed and sizes are limited.

answer/kernel.cu    device code
answer/plan.toml    how its kernels are launched
answer/note.md      optional: its first line is kept with the program
answer/cost.json    optional: {"usd": 0.25}, what the question cost
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from warpsmith.author.llm.budget import brief
from warpsmith.errors import ProgramError
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
        with _opened(folder / FOLDER) as answer:
            source = _text(answer, SOURCE_NAME, _BYTES_PER_CHARACTER * MAX_SOURCE_LENGTH)
            plan = parse_plan(_text(answer, PLAN_NAME, _BYTES_PER_CHARACTER * MAX_PLAN_LENGTH), file=PLAN_NAME)
            if len(source) > MAX_SOURCE_LENGTH:
                raise ProgramError(f"has more than {MAX_SOURCE_LENGTH} characters", file=SOURCE_NAME)
            if not plan.pure and not hybrid:
                raise ProgramError("calls a library, which is not allowed here", file=PLAN_NAME)
            return Answer(Program(source, plan), _note(answer))
    except ProgramError as error:
        return Answer(complaint=brief(str(error), 300))


def read_cost(folder: Path, most_usd: float) -> float:
    """Return what the agent says that its work cost in US dollars, at most `most_usd`; 0 where it says nothing."""
    try:
        with _opened(folder / FOLDER) as answer:
            said = json.loads(_text(answer, COST_NAME, _SMALL))
    except (ProgramError, ValueError, RecursionError):
        return 0.0
    usd = said.get("usd") if isinstance(said, dict) else None
    # Neither a bool nor NaN is an amount of money.
    if not isinstance(usd, int | float) or isinstance(usd, bool) or not usd > 0:
        return 0.0
    return float(min(usd, most_usd))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Yield the descriptor of a folder. Raises ProgramError where there is none, or a link in its place."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise ProgramError("there is no answer", file=folder.name) from None
    except OSError as error:
        raise ProgramError(f"is no folder: {error.strerror}", file=folder.name) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(answer: int, name: str, most: int) -> str:
    """Return the text of a plain file of at most `most` bytes in an open folder. Raises ProgramError for all else."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=answer)
    except FileNotFoundError:
        raise ProgramError("is missing in the answer", file=name) from None
    except OSError as error:
        raise ProgramError(f"cannot be read, or is a link: {error.strerror}", file=name) from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ProgramError("is no plain file", file=name)
        data = stream.read(most + 1)
    if len(data) > most:
        raise ProgramError(f"is longer than {most} bytes", file=name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProgramError(f"is not UTF-8 text (byte {error.start})", file=name) from error


def _note(answer: int) -> str:
    """Return the first line of the note; a note that cannot be read is no reason to refuse a program."""
    try:
        lines = _text(answer, NOTE_NAME, _SMALL).splitlines()
    except ProgramError:
        return ""
    return next((line for line in (brief(each.strip("# \t"), _NOTE) for each in lines) if line), "")
