"""Reads what authors left in a generation folder. They may be anybody, so nothing outside the folder is read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from warpsmith.errors import ProgramError, UserError
from warpsmith.exchange.documents import QUESTION_NAME, QuestionDocument
from warpsmith.files import read_text
from warpsmith.program import parse_plan
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.program.files import PLAN_NAME, SOURCE_NAME
from warpsmith.program.plan import MAX_PLAN_LENGTH
from warpsmith.records import Candidate, Lineage, Program

NOTE_NAME = "note.md"
TUNABLES_NAME = "tunables.toml"

_ANSWER = re.compile(r"answer(?:-([1-9][0-9]{0,3}))?")
_SLOT = re.compile(r"[0-9]{2,4}-[a-z]+")
_BYTES_PER_CHARACTER = 4
_MAX_NOTE = 50_000
_MAX_TUNABLES = 20_000
_NOTE_LINE = 200
"""Characters of a note that stand in the lineage; the whole note is kept as the reply."""


def slots_in(folder: Path) -> list[Path]:
    """Return the folders of questions in a generation folder, in order. Raises UserError where it is none."""
    found = [each for each in _entries(folder) if _SLOT.fullmatch(each.name) and _is_folder(each)]
    slots = sorted(each for each in found if (each / QUESTION_NAME).exists())
    if not slots:
        raise UserError("holds no questions; `warpsmith ask` makes a folder with some", file=str(folder))
    return slots


def answers_in(slot: Path) -> list[Path]:
    """Return the folders of answers to a question, in order; an empty one is no answer. Raises UserError."""
    matches = ((each, _ANSWER.fullmatch(each.name)) for each in _entries(slot))
    numbered = [(int(match[1] or 1), each) for each, match in matches if match is not None and _is_folder(each)]
    return [answer for _, answer in sorted(numbered) if _entries(answer)]


def read_answer(folder: Path, question: QuestionDocument, *, hybrid: bool) -> Candidate:
    """Read an answer as a candidate. Raises UserError with file and line for whatever cannot be used."""
    source = read_text(folder / SOURCE_NAME, MAX_SOURCE_LENGTH * _BYTES_PER_CHARACTER)
    plan_file = folder / PLAN_NAME
    plan = parse_plan(read_text(plan_file, MAX_PLAN_LENGTH * _BYTES_PER_CHARACTER), file=str(plan_file))
    if not plan.pure and not hybrid:
        raise ProgramError("calls a library, which is only allowed with --hybrid", file=str(plan_file))
    note = read_text(folder / NOTE_NAME, _MAX_NOTE) if (folder / NOTE_NAME).exists() else ""
    values = {**plan.defaults, **_tunables(folder / TUNABLES_NAME)}
    lineage = Lineage(
        author=question.author,
        operator=question.operator,
        parents=tuple(question.parents),
        generation=question.generation,
        reply=note or None,
        note=_first_line(note),
    )
    try:
        return Candidate(question.task_key, Program(source, plan), tuple(values.items()), lineage)
    except ValueError as error:
        raise ProgramError(str(error), file=str(folder / TUNABLES_NAME)) from error


def _tunables(file: Path) -> dict[str, int]:
    """Read values of tunables: lines of `NAME = integer`. No file means none."""
    if not file.exists():
        return {}
    try:
        values = tomllib.loads(read_text(file, _MAX_TUNABLES))
    except (ValueError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        raise ProgramError(f"not TOML: {error}", file=str(file), line=int(place[1]) if place else None) from error
    for name, value in values.items():
        if type(value) is not int:
            raise ProgramError(f"{name} must be an integer", file=str(file))
    return values


def _first_line(note: str) -> str:
    lines = [line.strip("# \t") for line in note.splitlines()]
    return next((line for line in lines if line), "")[:_NOTE_LINE]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=str(folder)) from error


def _is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()
