"""Puts tools, skill and instructions together to a server."""

from __future__ import annotations

from typing import Final

from mcp.server.mcpserver.resources import TextResource

from warpsmith.server.plain import PlainServer
from warpsmith.server.proposing import Proposing
from warpsmith.server.reading import Reading
from warpsmith.server.serve import skill

SKILL_URI: Final = "warpsmith://skill"

_INSTRUCTIONS: Final = (
    "Warpsmith judges CUDA programs that stand for PyTorch modules. Read a task, look at its standing, have programs "
    "judged, read the verdict, improve. The resource warpsmith://skill and the prompt warpsmith say how in full."
)


def build(reading: Reading, proposing: Proposing) -> PlainServer:
    """Return the server with all its tools, and the skill as a resource and as a prompt."""
    tools = (
        reading.list_tasks,
        reading.read_task,
        reading.standing,
        reading.search_archive,
        reading.read_candidate,
        proposing.judge_program,
        proposing.submit_proposal,
        proposing.profile_program,
    )
    server = PlainServer(_INSTRUCTIONS, tools)
    server.add_resource(
        TextResource(
            uri=SKILL_URI,
            name="skill",
            description="How an agent works with Warpsmith.",
            mime_type="text/markdown",
            text=skill(),
        )
    )

    @server.prompt(name="warpsmith", description="How an agent works with Warpsmith.")
    def _prompt() -> str:
        return skill()

    return server
