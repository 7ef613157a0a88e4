"""The text form of a launch plan: TOML in, a frozen `Plan` out, and back.

Keys and types are checked here, names and expressions by `validate`. What needs shapes, values of tunables and a
device is checked by `bind`. See docs/program.md for the format.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Annotated, Never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic_core import ErrorDetails

from warpsmith.errors import ProgramError
from warpsmith.program.hints import suggest
from warpsmith.program.validate import validate_plan
from warpsmith.records import Buffer, Launch, Plan

MAX_PLAN_LENGTH = 200_000
"""Characters of plan text."""


def _as_text(value: object) -> object:
    """An expression may be written as a bare integer."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Expression = Annotated[StrictStr, BeforeValidator(_as_text)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _BufferModel(_Model):
    shape: list[_Expression]
    dtype: StrictStr


class _LaunchModel(_Model):
    kernel: StrictStr
    grid: list[_Expression]
    block: list[_Expression]
    args: list[_Expression]
    shared: _Expression = "0"
    cluster: list[_Expression] = Field(default_factory=list)
    cooperative: StrictBool = False
    max_registers: StrictInt | None = None


class _PlanModel(_Model):
    flags: list[StrictStr] = Field(default_factory=list)
    symbols: dict[str, _Expression] = Field(default_factory=dict)
    tunables: dict[str, list[StrictInt]] = Field(default_factory=dict)
    buffers: dict[str, _BufferModel] = Field(default_factory=dict)
    launch: list[_LaunchModel] = Field(default_factory=list)


_FIELDS = {"launch": _LaunchModel.model_fields, "buffers": _BufferModel.model_fields}


def parse_plan(text: str, file: str | None = None) -> Plan:
    """Read a plan. Raises ProgramError, naming the place in the plan and `file` if given, for anything malformed."""
    if len(text) > MAX_PLAN_LENGTH:
        raise ProgramError(f"the plan has {len(text)} characters; {MAX_PLAN_LENGTH} is the limit", file=file)
    try:
        plan = _plan_of(_PlanModel.model_validate(_tables(text)))
        validate_plan(plan)
    except ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        _refuse(min(error.errors(), key=lambda found: found["type"] != "extra_forbidden"), file)
    except ProgramError as error:
        raise type(error)(error.message, file=file, line=error.line) from error
    return plan


def _tables(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ProgramError("not a plan: nested too deep") from error
    except ValueError as error:
        # Mostly TOMLDecodeError; an integer of thousands of digits is refused by `int` itself.
        place = re.search(r"at line (\d+)", str(error))
        raise ProgramError(f"not TOML: {error}", line=int(place[1]) if place else None) from error


def format_plan(plan: Plan) -> str:
    """Return text that parses to an equal plan. Raises ProgramError if the plan is malformed."""
    validate_plan(plan)
    parts: list[str] = []
    if plan.flags:
        parts.append(f"flags = {_strings(plan.flags)}\n")
    if plan.symbols:
        parts.append("[symbols]\n" + "".join(f"{name} = {_expression(text)}\n" for name, text in plan.symbols))
    if plan.tunables:
        parts.append("[tunables]\n" + "".join(f"{name} = {list(values)}\n" for name, values in plan.tunables))
    for buffer in plan.buffers:
        lines = [f"shape = {_expressions(buffer.shape)}", f"dtype = {_string(buffer.dtype)}"]
        parts.append(f"[buffers.{buffer.name}]\n" + "\n".join(lines) + "\n")
    parts.extend(_format_launch(launch) for launch in plan.launches)
    return "\n".join(parts)


def _format_launch(launch: Launch) -> str:
    lines = [
        "[[launch]]",
        f"kernel = {_string(launch.kernel)}",
        f"grid = {_expressions(launch.grid)}",
        f"block = {_expressions(launch.block)}",
    ]
    if launch.cluster:
        lines.append(f"cluster = {_expressions(launch.cluster)}")
    if launch.cooperative:
        lines.append("cooperative = true")
    if launch.max_registers is not None:
        lines.append(f"max_registers = {launch.max_registers}")
    if launch.shared != "0":
        lines.append(f"shared = {_expression(launch.shared)}")
    lines.append(f"args = {_expressions(launch.args)}")
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    # Validation has let through printable ASCII and tabs only, and of the special characters only those of flags.
    return '"' + text.replace("\t", "\\t") + '"'


def _strings(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(_string, texts)) + "]"


def _expression(text: str) -> str:
    """An integer is written bare, if it is written as TOML writes it."""
    return text if re.fullmatch(r"0|[1-9][0-9]{0,17}", text) else _string(text)


def _expressions(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(_expression, texts)) + "]"


def _plan_of(model: _PlanModel) -> Plan:
    return Plan(
        symbols=tuple(model.symbols.items()),
        tunables=tuple((name, tuple(values)) for name, values in model.tunables.items()),
        buffers=tuple(Buffer(name, tuple(buffer.shape), buffer.dtype) for name, buffer in model.buffers.items()),
        launches=tuple(
            Launch(
                kernel=launch.kernel,
                grid=tuple(launch.grid),
                block=tuple(launch.block),
                args=tuple(launch.args),
                shared=launch.shared,
                cluster=tuple(launch.cluster),
                cooperative=launch.cooperative,
                max_registers=launch.max_registers,
            )
            for launch in model.launch
        ),
        flags=tuple(model.flags),
    )


def _refuse(error: ErrorDetails, file: str | None) -> Never:
    """Say what pydantic found in the words of the plan."""
    path = error["loc"]
    place = _place(path)
    if error["type"] == "extra_forbidden":
        owner = _place(path[:-1])
        known = _FIELDS[str(path[0])] if len(path) > 1 else _PlanModel.model_fields
        kind = "table or key" if len(path) == 1 else "key"
        where = f"{owner}: " if owner else ""
        raise ProgramError(f"{where}unknown {kind} {str(path[-1])!r}{suggest(str(path[-1]), known)}", file=file)
    if error["type"] == "missing":
        raise ProgramError(f"{_place(path[:-1])}: {str(path[-1])!r} is missing", file=file)
    message = "must be text, or an integer where an expression may stand"
    if error["type"] != "string_type":
        message = error["msg"].replace("Input should", "should", 1)
    raise ProgramError(f"{place}: {message}", file=file)


def _place(path: tuple[int | str, ...]) -> str:
    """`("launch", 0, "grid", 1)` is `launch 1: grid[1]`; `("buffers", "x", "shape")` is `buffers.x: shape`."""
    parts = list(path)
    if parts[:1] == ["launch"] and len(parts) > 1:
        head, rest = f"launch {int(parts[1]) + 1}", parts[2:]
    else:
        named = 2 if len(parts) > 1 and isinstance(parts[1], str) else 1
        head, rest = ".".join(map(str, parts[:named])), parts[named:]
    tail = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in rest)
    return f"{head}{tail}" if tail.startswith("[") else f"{head}: {tail}" if tail else head
