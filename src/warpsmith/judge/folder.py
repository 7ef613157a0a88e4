"""Judging a program that somebody wrote: a folder with `kernel.cu` and `plan.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from warpsmith.errors import ProgramError
from warpsmith.judge.judge import Judge
from warpsmith.program import read_program
from warpsmith.records import Candidate, Judged, Lineage, Task


def judge_folder(judge: Judge, folder: str | Path, tunables: Mapping[str, int] | None = None) -> Judged:
    """Judge the program in `folder` with given values of tunables; the others take their defaults.

    Raises `ProgramError` where the folder holds no program, the plan is malformed, or a tunable is unknown or has a
    value that the plan does not list.
    """
    candidate = read_candidate(judge.task, folder, tunables)
    return Judged(candidate, judge.judge(candidate))


def read_candidate(task: Task, folder: str | Path, tunables: Mapping[str, int] | None = None) -> Candidate:
    """Read the program in `folder` as a candidate for `task`."""
    program = read_program(Path(folder))
    given = dict(tunables or {})
    unknown = sorted(set(given) - set(program.plan.defaults))
    if unknown:
        known = ", ".join(program.plan.defaults) or "none"
        raise ProgramError(f"unknown tunable {unknown[0]!r}; the plan declares: {known}", file=str(folder))
    values = {**program.plan.defaults, **given}
    lineage = Lineage(author="person", operator="judge")
    try:
        return Candidate(task.key, program, tuple(values.items()), lineage)
    except ValueError as error:
        raise ProgramError(str(error), file=str(folder)) from error
