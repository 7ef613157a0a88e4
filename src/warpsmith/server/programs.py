"""Two texts from outside become a candidate, or a clear refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from warpsmith.errors import ProgramError
from warpsmith.program import parse_plan
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.program.plan import MAX_PLAN_LENGTH
from warpsmith.records import Candidate, Lineage, Program

KernelText = Annotated[
    str, Field(min_length=1, max_length=MAX_SOURCE_LENGTH, description="CUDA device code: the whole of kernel.cu.")
]
PlanText = Annotated[
    str, Field(min_length=1, max_length=MAX_PLAN_LENGTH, description="The launch plan: the whole of plan.toml.")
]
Tunables = Annotated[
    dict[str, int] | None,
    Field(max_length=256, description="Values of tunables by name; the others take the first value in the plan."),
]


def candidate_of(
    task_key: str,
    kernel_cu: str,
    plan_toml: str,
    tunables: Mapping[str, int] | None,
    lineage: Lineage,
    *,
    hybrid: bool,
) -> Candidate:
    """Return the candidate. Raises ProgramError for what cannot be used; without `hybrid`, for calls of a library."""
    for name, text in (("kernel_cu", kernel_cu), ("plan_toml", plan_toml)):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise ProgramError(f"{name} holds characters that no text may hold")
    plan = parse_plan(plan_toml)
    if not plan.pure and not hybrid:
        raise ProgramError("the plan calls a library, which is not allowed here: kernels must do all of the work")
    given = dict(tunables or {})
    unknown = sorted(set(given) - set(plan.defaults))
    if unknown:
        known = ", ".join(plan.defaults) or "none"
        raise ProgramError(f"unknown tunable {unknown[0]!r}; the plan declares: {known}")
    try:
        return Candidate(task_key, Program(kernel_cu, plan), tuple({**plan.defaults, **given}.items()), lineage)
    except ValueError as error:
        raise ProgramError(str(error)) from error
