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
from pydantic_core import ErrorDetails, PydanticCustomError

from warpsmith.errors import ProgramError
from warpsmith.program.hints import suggest
from warpsmith.program.validate import validate_plan
from warpsmith.records import Buffer, Call, Launch, Plan, View

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
    overlap: StrictBool = False
    max_registers: StrictInt | None = None


def _as_view(value: object) -> object:
    """A tensor that a call takes as it is may be written as its name."""
    if not isinstance(value, str | dict):
        raise PydanticCustomError("view", "must be the name of a tensor, or a table with 'tensor' and 'shape'")
    return {"tensor": value} if isinstance(value, str) else value


def _as_list(value: object) -> object:
    """One number of an option may stand by itself."""
    return value if isinstance(value, list) else [value]


class _ViewModel(_Model):
    tensor: StrictStr
    shape: list[_Expression] = Field(default_factory=list)
    strides: list[_Expression] = Field(default_factory=list)
    offset: _Expression = "0"


_View = Annotated[_ViewModel, BeforeValidator(_as_view)]


class _CallModel(_Model):
    op: StrictStr
    args: list[_View]
    out: _View
    options: dict[str, Annotated[list[_Expression], BeforeValidator(_as_list)]] = Field(default_factory=dict)
    after: StrictInt = 0


class _PlanModel(_Model):
    flags: list[StrictStr] = Field(default_factory=list)
    symbols: dict[str, _Expression] = Field(default_factory=dict)
    tunables: dict[str, list[StrictInt]] = Field(default_factory=dict)
    buffers: dict[str, _BufferModel] = Field(default_factory=dict)
    launch: list[_LaunchModel] = Field(default_factory=list)
    call: list[_CallModel] = Field(default_factory=list)


_FIELDS = {
    "launch": _LaunchModel.model_fields,
    "buffers": _BufferModel.model_fields,
    "call": _CallModel.model_fields,
}


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
    parts.extend(_format_call(step) if isinstance(step, Call) else _format_launch(step) for step in plan.steps)
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
    if launch.overlap:
        lines.append("overlap = true")
    if launch.max_registers is not None:
        lines.append(f"max_registers = {launch.max_registers}")
    if launch.shared != "0":
        lines.append(f"shared = {_expression(launch.shared)}")
    lines.append(f"args = {_expressions(launch.args)}")
    return "\n".join(lines) + "\n"


def _format_call(call: Call) -> str:
    lines = ["[[call]]", f"op = {_string(call.op)}"]
    if call.after:
        lines.append(f"after = {call.after}")
    lines.append(f"args = [{', '.join(map(_format_view, call.args))}]")
    lines.append(f"out = {_format_view(call.out)}")
    if call.options:
        given = (f"{name} = {_option(texts)}" for name, texts in call.options)
        lines.append(f"options = {{ {', '.join(given)} }}")
    return "\n".join(lines) + "\n"


def _format_view(view: View) -> str:
    if not view.shape:
        return _string(view.tensor)
    parts = [f"tensor = {_string(view.tensor)}", f"shape = {_expressions(view.shape)}"]
    if view.strides:
        parts.append(f"strides = {_expressions(view.strides)}")
    if view.offset != "0":
        parts.append(f"offset = {_expression(view.offset)}")
    return f"{{ {', '.join(parts)} }}"


def _option(texts: tuple[str, ...]) -> str:
    return _expression(texts[0]) if len(texts) == 1 else _expressions(texts)


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
                overlap=launch.overlap,
            )
            for launch in model.launch
        ),
        flags=tuple(model.flags),
        calls=tuple(
            Call(
                op=call.op,
                args=tuple(map(_view_of, call.args)),
                out=_view_of(call.out),
                options=tuple((name, tuple(texts)) for name, texts in call.options.items()),
                after=call.after,
            )
            for call in model.call
        ),
    )


def _view_of(model: _ViewModel) -> View:
    return View(model.tensor, tuple(model.shape), tuple(model.strides), model.offset)


def _refuse(error: ErrorDetails, file: str | None) -> Never:
    """Say what pydantic found in the words of the plan."""
    path = error["loc"]
    place = _place(path)
    if error["type"] == "extra_forbidden":
        owner = _place(path[:-1])
        known = _known(path)
        kind = "table or key" if len(path) == 1 else "key"
        where = f"{owner}: " if owner else ""
        raise ProgramError(f"{where}unknown {kind} {str(path[-1])!r}{suggest(str(path[-1]), known)}", file=file)
    if error["type"] == "missing":
        raise ProgramError(f"{_place(path[:-1])}: {str(path[-1])!r} is missing", file=file)
    message = "must be text, or an integer where an expression may stand"
    if error["type"] != "string_type":
        message = error["msg"].replace("Input should", "should", 1)
    raise ProgramError(f"{place}: {message}", file=file)


def _known(path: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that may stand where the last of `path` does."""
    if len(path) == 1:
        return _PlanModel.model_fields
    in_view = path[0] == "call" and len(path) > 3
    return _ViewModel.model_fields if in_view else _FIELDS[str(path[0])]


def _place(path: tuple[int | str, ...]) -> str:
    """`("launch", 0, "grid", 1)` is `launch 1: grid[1]`; `("buffers", "x", "shape")` is `buffers.x: shape`."""
    parts = list(path)
    if parts[:1] in (["launch"], ["call"]) and len(parts) > 1:
        head, rest = f"{parts[0]} {int(parts[1]) + 1}", parts[2:]
    else:
        named = 2 if len(parts) > 1 and isinstance(parts[1], str) else 1
        head, rest = ".".join(map(str, parts[:named])), parts[named:]
    tail = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest).removeprefix(".")
    return f"{head}{tail}" if tail.startswith("[") else f"{head}: {tail}" if tail else head
