"""An MCP server whose errors are one clear line, and that speaks over any stream of bytes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import CallToolResult, InputRequiredResult, jsonrpc_message_adapter
from pydantic import ValidationError

from warpsmith.errors import MachineError, SimulatorError, UserError
from warpsmith.version import own_version

MAX_LINE = 16 << 20
"""Bytes of one message over a stream."""

_LINE = 500
_PATH = re.compile(r"(?<![\w.])(?:/[^\s/'\":,;]+)+/([^\s/'\":,;]*)")


class PlainServer(MCPServer[Any]):
    """Serves functions as tools. What they raise on purpose becomes an error of the tool, in one line."""

    def __init__(self, instructions: str, tools: Sequence[Callable[..., Any]]) -> None:
        super().__init__("warpsmith", instructions=instructions, version=own_version(), log_level="WARNING")
        self._arguments = {each.__name__: tuple(inspect.signature(each).parameters) for each in tools}
        for each in tools:
            self.add_tool(each)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises ToolError in one line; for what is a fault of ours, it tells nothing but that."""
        known = self._arguments.get(name, ())
        for argument in arguments:
            if name in self._arguments and argument not in known:
                # The SDK would pass over it, and whoever misspelt it would never know.
                raise ToolError(f"{name} has no argument {without_paths(repr(argument))}; it has {', '.join(known)}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            said = in_a_line(error.__cause__)
            if said is None:
                raise
            raise ToolError(said) from error.__cause__

    async def speak(self, stream: ByteStream) -> None:
        """Serve one client over a stream of lines until it has ended."""
        async with create_client_server_memory_streams() as ((answers, questions), (read, write)):

            async def take() -> None:
                buffered = BufferedByteReceiveStream(stream)
                async with questions:
                    while True:
                        try:
                            line = await buffered.receive_until(b"\n", MAX_LINE)
                        except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
                            return
                        await questions.send(_message(line))

            async def give() -> None:
                async for each in answers:
                    assert isinstance(each, SessionMessage)
                    text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                    try:
                        await stream.send(text.encode() + b"\n")
                    except anyio.BrokenResourceError:
                        return

            async with anyio.create_task_group() as group:
                group.start_soon(take)
                group.start_soon(give)
                await self._lowlevel_server.run(read, write, self._lowlevel_server.create_initialization_options())
                group.cancel_scope.cancel()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        return error


def in_a_line(error: BaseException | None) -> str | None:
    """Say what went wrong without a path of this machine; None for what nobody was meant to see."""
    if isinstance(error, ValidationError):
        details = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()[:3]]
        return without_paths("; ".join(f"{place}: {said}" for place, said in details))
    if isinstance(error, UserError):
        return without_paths(f"line {error.line}: {error.message}" if error.line else error.message)
    if isinstance(error, SimulatorError):
        return without_paths(f"the simulator cannot judge this program: {error}")
    if isinstance(error, MachineError):
        return f"the judge failed on this machine ({type(error).__name__}); the program may be right or wrong"
    return None


def without_paths(text: str) -> str:
    """Return a text as one line of limited length, with the last part of each absolute path in its place."""
    line = _PATH.sub(r"\1", " ".join(text.split()))
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"
