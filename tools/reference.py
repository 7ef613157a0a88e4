"""Write the pages of the documentation that are made from the source: command line, names, operators.

python tools/reference.py            write docs/cli.md, docs/reference.md and docs/operators.md
python tools/reference.py --check    exit with 1 if one of them is not up to date
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import typer.models

from warpsmith.author.builtin import lowering
from warpsmith.cli import app
from warpsmith.settings import FILE_NAME, Settings

DOCS = Path(__file__).parents[1] / "docs"

NAMES: Mapping[str, tuple[str, ...]] = {
    "warpsmith": ("optimize", "Result", "load_task", "task_from_module", "Judge", "Archive"),
    "warpsmith.author": ("Author", "Context", "Proposal"),
    "warpsmith.judge": ("judge_folder", "render"),
    "warpsmith.program": ("read_program", "write_program", "parse_plan", "format_plan", "bind", "Builder"),
    "warpsmith.device.simulator": ("Simulator", "explain", "LaunchEstimate"),
    "warpsmith.device.protocol": ("Device",),
    "warpsmith.records": (
        "Task",
        "Tolerance",
        "Bound",
        "Program",
        "Plan",
        "Candidate",
        "Lineage",
        "Verdict",
        "Failure",
        "Mismatch",
        "Finding",
        "Timing",
        "Profile",
        "Judged",
        "GpuSpec",
    ),
}
"""What the page of names describes, by the module to import it from."""


# -------------------------------------------------------------------------------------------------------- command line


WORDS: Mapping[object, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """An argument or option of a verb. `word` stands for its value; a flag has none."""

    label: str
    word: str
    help: str
    required: bool
    positional: bool

    @property
    def shown(self) -> str:
        """As it stands in a usage line."""
        return f"{self.label} {self.word}" if self.word and not self.positional else self.label


def verbs(group: typer.Typer = app, name: str = "warpsmith") -> dict[str, Callable[..., object]]:
    """Return the function behind every verb, by the verb's full name."""
    found: dict[str, Callable[..., object]] = {}
    for command in group.registered_commands:
        if command.callback is not None:
            found[f"{name} {command.name or command.callback.__name__}"] = command.callback
    for below in group.registered_groups:
        if below.typer_instance is not None:
            found |= verbs(below.typer_instance, f"{name} {below.name}")
    return found


def parameters(verb: Callable[..., object]) -> tuple[Parameter, ...]:
    """Return what a verb takes, read from its annotations."""
    hints = typing.get_type_hints(verb, include_extras=True)
    given = inspect.signature(verb).parameters
    return tuple(_parameter(name, hints[name], one.default is one.empty) for name, one in given.items())


def _parameter(name: str, hint: Any, required: bool) -> Parameter:
    kind, info = typing.get_args(hint)
    kinds = [one for one in typing.get_args(kind) or (kind,) if one is not type(None)]
    kind = typing.get_args(kinds[0])[0] if typing.get_origin(kinds[0]) is list else kinds[0]
    if isinstance(info, typer.models.ArgumentInfo):
        return Parameter(name.upper(), WORDS[kind], info.help or "", required, positional=True)
    # In an annotation, Typer takes the first name of an option for its default, and puts that right later.
    written = [one for one in (info.default, *(info.param_decls or ())) if isinstance(one, str)]
    label = next(iter(written), f"--{name.replace('_', '-')}")
    return Parameter(label, "" if kind is bool else WORDS[kind], info.help or "", required, positional=False)


def command_line() -> str:
    """Describe every verb with its arguments and options, and every setting."""
    lines = [
        "# Command line",
        "",
        "Exit codes: 0 done, 1 a judged program did not pass, 2 the input or a setting must be mended, "
        "3 the machine failed, 130 Ctrl-C.",
    ]
    for name, verb in verbs().items():
        taken = parameters(verb)
        lines += ["", f"## {name}", "", inspect.getdoc(verb) or "", "", "```text", _usage(name, taken), "```"]
        if taken:
            lines += ["", "| | |", "| --- | --- |", *(f"| `{one.shown}` | {one.help} |" for one in taken)]
    return "\n".join([*lines, "", *_settings()])


def _usage(name: str, taken: Sequence[Parameter]) -> str:
    words = [name]
    words += [one.shown if one.required else f"[{one.shown}]" for one in taken if one.positional or one.required]
    if any(not one.positional and not one.required for one in taken):
        words.append("[OPTIONS]")
    return " ".join(words)


def _settings() -> list[str]:
    """Describe the settings. Defaults that depend on the machine are left out."""
    lines = [
        "## Settings",
        "",
        f"A flag beats the environment (`WARPSMITH_BUDGET=300`), which beats `{FILE_NAME}` in the current folder, "
        "which beats the default.",
        "",
        "| setting | default | |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = (
            "by the machine" if field.default_factory else "none" if field.default is None else f"`{field.default}`"
        )
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return [*lines, ""]


# --------------------------------------------------------------------------------------------------------------- names


def names() -> str:
    """Describe the public names by their docstrings."""
    lines = ["# Names", "", "The names that a program outside of Warpsmith uses, with their docstrings."]
    for module, members in NAMES.items():
        lines += ["", f"## {module}"]
        for name in members:
            lines += ["", *_described(name, getattr(importlib.import_module(module), name))]
    return "\n".join([*lines, ""])


def _described(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield from _signature(name, thing)
    yield inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        for member, function in vars(thing).items():
            if not member.startswith("_") and _is_method(function):
                yield ""
                yield from _method(member, function)


def _is_method(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, classmethod | property)


def _method(name: str, member: Any) -> Iterator[str]:
    function: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    text = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    parameters = "" if isinstance(member, property) else f"({_parameters(function)})"
    yield f"- `{name}{parameters}`: {text}"


def _signature(name: str, thing: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(thing):
        yield from ["```python", f"class {name}:"]
        for field in dataclasses.fields(thing):
            default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            yield f"    {field.name}: {field.type}{default}"
    elif inspect.isclass(thing):
        if getattr(thing, "_is_protocol", False):
            return
        yield from ["```python", f"{name}({_parameters(thing.__init__)})"]
    else:
        result = inspect.signature(thing).return_annotation
        yield from ["```python", f"{name}({_parameters(thing)}) -> {result}"]
    yield from ["```", ""]


def _parameters(function: Callable[..., Any]) -> str:
    """The parameters as the source has them, without `self`."""
    signature = inspect.signature(function)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in ("self", "cls")]
    shown = str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))[1:-1]
    if " at 0x" in shown:
        raise ValueError(f"a default of {function.__qualname__} shows its address, another in each process: {shown}")
    return re.sub(r": '([^']*)'", r": \1", shown)


# ----------------------------------------------------------------------------------------------------------- operators


def operator_list() -> str:
    """List the ATen operators that the built-in author lowers, one line for all overloads of one, by subject."""
    tables: list[str] = []
    total = 0
    for subject in sorted(module.name for module in pkgutil.iter_modules(lowering.__path__)):
        overloads: dict[str, list[str]] = {}
        for operator in sorted(lowering.operators_of(subject)):
            _, base, overload = operator.split(".")
            overloads.setdefault(base, []).append(f"`{overload}`")
        if overloads:
            total += len(overloads)
            tables += ["", f"## {subject.capitalize()}", "", "| operator | overloads |", "| --- | --- |"]
            tables += [f"| `{base}` | {', '.join(found)} |" for base, found in overloads.items()]
    head = f"The built-in author lowers {total} ATen operators. "
    head += "A module that needs another one ends with a message that names it."
    return "\n".join(["# Operators", "", head, *tables, ""])


PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": command_line,
    "reference.md": names,
    "operators.md": operator_list,
}


def stale() -> list[str]:
    """Return the pages that are not what the source says."""
    return [name for name, page in PAGES.items() if (DOCS / name).read_text(encoding="utf-8") != page()]


def main() -> int:
    """Write the pages, or check them."""
    if "--check" in sys.argv[1:]:
        old = stale()
        for name in old:
            print(f"docs/{name} is not up to date: make reference")
        return 1 if old else 0
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
