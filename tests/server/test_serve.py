"""The server as a process of its own, spoken with as agents do."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.exchange.kit import RELU
from tests.server.kit import PROGRAM, Call, caller, conversation, tasks_in
from warpsmith.judge.profile import ADVICE
from warpsmith.program import parse_plan
from warpsmith.server.serve import skill

PROJECT = Path(__file__).parents[2]
_CODE = """
import json, sys
from warpsmith.server import serve
from warpsmith.settings import load_settings
given = json.loads(sys.argv[1])
settings = load_settings(archive=given["archive"], cache=given["cache"], simulate=True)
serve(settings, given["root"], **given["more"])
"""


def command(folder: Path, root: Path, **more: object) -> list[str]:
    given = {"archive": str(folder / "archive.db"), "cache": str(folder / "cache"), "root": str(root), "more": more}
    return [sys.executable, "-P", "-c", _CODE, json.dumps(given)]


def test_what_a_task_prints_does_not_disturb_the_conversation(tmp_path: Path) -> None:
    root = tasks_in(tmp_path)
    (root / "loud.py").write_text(f"import os\nprint('loud')\nos.write(1, b'louder\\n')\n{RELU}")

    async def talk() -> None:
        program, *arguments = command(tmp_path, root)
        async with Client(StdioServerParameters(command=program, args=arguments)) as client:
            call = caller(client)
            assert {each["task"] for each in (await call("list_tasks"))["tasks"]} == {"relu.py", "loud.py"}
            assert (await call("judge_program", **{**PROGRAM, "task": "loud.py"}))["passed"]
            assert (await call("standing", task="loud.py"))["passed"] == 1

    anyio.run(talk)


def test_it_serves_over_http_on_this_machine_alone(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def talk() -> None:
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            assert [each["task"] for each in (await caller(client)("list_tasks"))["tasks"]] == ["relu.py"]

    with _running(command(tmp_path, tasks_in(tmp_path), transport="streamable-http", port=port)) as server:
        while not _listens(port):
            assert server.poll() is None, "the server has ended"
            time.sleep(0.05)
        anyio.run(talk)


@contextmanager
def _running(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_shipped_skill_is_the_one_in_the_repository() -> None:
    text = skill()
    assert text == (PROJECT / "skills" / "warpsmith" / "SKILL.md").read_text(encoding="utf-8")
    assert re.match(r"---\nname: warpsmith\ndescription: \S.{20,1000}\n---\n", text)


def test_the_skill_names_every_bottleneck() -> None:
    assert [each for each in ADVICE if each not in skill()] == []


def test_the_example_in_the_skill_passes(tmp_path: Path) -> None:
    """Whoever copies it gets a program that the judge lets pass, with every value of its tunable."""
    blocks = dict(re.findall(r"```(python|cuda|toml)\n(.*?)```", skill(), re.DOTALL))
    (tasks_in(tmp_path) / "rms.py").write_text(blocks["python"])
    program = {"task": "rms.py", "kernel_cu": blocks["cuda"], "plan_toml": blocks["toml"]}

    async def say(call: Call, _: Client) -> None:
        values = dict(parse_plan(blocks["toml"]).tunables)["BLOCK"]
        for value in values:
            answer = await call("judge_program", **program, tunables={"BLOCK": value})
            assert answer["passed"], answer["words"]

    conversation(tmp_path, say)
