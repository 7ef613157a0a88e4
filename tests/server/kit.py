"""A server on a folder with small tasks, and a client of the SDK that calls its tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from mcp import Client

from tests.exchange.kit import RELU, Scripted, module_file, settings_in
from tests.samples import SOURCE, program
from warpsmith.program import format_plan
from warpsmith.server.serve import server_for

PLAN = format_plan(program().plan)
PROGRAM = {"task": "relu.py", "kernel_cu": SOURCE, "plan_toml": PLAN}
"""The arguments of `judge_program` for a program that is right."""

Call = Callable[..., Awaitable[dict[str, Any]]]


class Refused(Exception):
    """What a tool answered in place of a result."""


def variant(number: int) -> dict[str, Any]:
    """The arguments for another program that is right."""
    return {**PROGRAM, "kernel_cu": f"{SOURCE}// variant {number}\n"}


def tasks_in(folder: Path) -> Path:
    """Make a folder with one task."""
    root = folder / "tasks"
    root.mkdir(exist_ok=True)
    module_file(root, RELU)
    return root


def caller(client: Client) -> Call:
    """Return a function that calls a tool and returns its structured answer. It raises Refused for an error."""

    async def call(tool: str, **arguments: Any) -> dict[str, Any]:
        result = await client.call_tool(tool, arguments)
        if result.is_error:
            raise Refused(result.content[0].text)
        assert result.structured_content is not None
        return result.structured_content

    return call


def conversation(
    folder: Path,
    say: Callable[[Call, Client], Awaitable[None]],
    make: Scripted | None = None,
    **given: object,
) -> None:
    """Talk with a server that judges as `make` does, or else in the simulator."""

    async def talk() -> None:
        settings = settings_in(folder, simulate=True, **given)
        with server_for(settings, tasks_in(folder), author="tester", make_executor=make) as server:
            async with Client(server) as client:
                await say(caller(client), client)

    anyio.run(talk)
