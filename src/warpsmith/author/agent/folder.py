"""The scratch folder of one question.

question.md  task.md        what is asked, and the task
parent-1/ ...               the programs that the question is about: kernel.cu, plan.toml
mcp.json                    the judge, as the only MCP server
home/  tmp/                 stand in for the user's own
answer/                     made by the agent
"""

from __future__ import annotations

import json
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from warpsmith.errors import SettingsError
from warpsmith.program import write_program
from warpsmith.records import Program

QUESTION_NAME, TASK_NAME, SERVERS_NAME = "question.md", "task.md", "mcp.json"
PROMPT: Final = "Read question.md in this folder, and do what it asks for."

_HOME, _TEMPORARY = "home", "tmp"


def lay_out(folder: Path, question: str, task: str, parents: Sequence[Program], judge: Sequence[str]) -> None:
    """Fill an empty scratch folder. `judge` is the command of the MCP server."""
    (folder / QUESTION_NAME).write_text(question, encoding="utf-8")
    (folder / TASK_NAME).write_text(task, encoding="utf-8")
    for number, program in enumerate(parents, 1):
        write_program(folder / f"parent-{number}", program)
    server = {"command": judge[0], "args": list(judge[1:])}
    (folder / SERVERS_NAME).write_text(json.dumps({"mcpServers": {"warpsmith": server}}, indent=2) + "\n")
    for name in (_HOME, _TEMPORARY):
        (folder / name).mkdir()


def environment_in(folder: Path, passed_on: Sequence[str]) -> dict[str, str]:
    """Return what an agent sees of the environment: PATH, a home in the folder, and what is passed on by name."""
    own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder / _HOME), "TMPDIR": str(folder / _TEMPORARY)}
    return own | {name: os.environ[name] for name in passed_on if name in os.environ}


def _places(folder: Path) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "prompt": PROMPT,
            "prompt_file": str(folder / QUESTION_NAME),
            "folder": str(folder),
            "mcp_config": str(folder / SERVERS_NAME),
        }
    )


def check_command(command: Sequence[str]) -> None:
    """Raise SettingsError, naming what is wrong, for a command that `filled` could not fill."""
    if not command or not command[0]:
        raise SettingsError("the command of an agent is empty")
    known = _places(Path())
    for argument in command:
        try:
            parts = list(string.Formatter().parse(argument))
        except ValueError as error:
            raise SettingsError(f"{argument!r} in the command of an agent: {error}; write {{{{ for a brace") from error
        for _, name, form, conversion in parts:
            if name is not None and (name not in known or form or conversion):
                listed = ", ".join(f"{{{each}}}" for each in known)
                raise SettingsError(f"{{{name}}} in the command of an agent means nothing; known are {listed}")


def filled(command: Sequence[str], folder: Path) -> list[str]:
    """Return the command with the places of `folder` filled in."""
    return [argument.format(**_places(folder)) for argument in command]
