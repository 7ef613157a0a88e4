"""The desk of a headless agent: one task, one tool, verdicts and nothing else."""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.author.agent import scripted
from tests.exchange.kit import Scripted, by_variant, module_file, settings_in
from tests.samples import SOURCE
from tests.server.kit import PLAN, Refused, caller
from warpsmith.archive import Archive
from warpsmith.author.agent import AgentLimits
from warpsmith.author.protocol import Context, Proposal
from warpsmith.device.catalog import gpu
from warpsmith.errors import MachineError, WorkerDied
from warpsmith.evolve import Executor
from warpsmith.optimize import optimize
from warpsmith.pipeline import local_executor
from warpsmith.records import Task
from warpsmith.server import headless_agent
from warpsmith.server.desk import JudgingDesk, open_desk
from warpsmith.settings import Settings
from warpsmith.task import load_task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(module_file(tmp_path_factory.mktemp("task")))


def settings(folder: Path) -> Settings:
    return settings_in(folder, simulate=True)


def client_of(desk: JudgingDesk) -> Client:
    """A client that starts what an agent would start."""
    return Client(StdioServerParameters(command=desk.command[0], args=list(desk.command[1:])))


def test_an_agent_sees_one_tool_and_its_best_program_is_remembered(task: Task, tmp_path: Path) -> None:
    async def work() -> None:
        async with (
            open_desk(task, gpu("H200"), settings=settings(tmp_path), make_executor=Scripted(by_variant)) as desk,
            client_of(desk) as client,
        ):
            call = caller(client)
            assert [each.name for each in (await client.list_tools()).tools] == ["judge_program"]
            assert (await client.list_resources()).resources == []
            assert desk.best is None
            for number in (1, 3, 2):
                source = f"{SOURCE}// variant {number}\n"
                assert (await call("judge_program", kernel_cu=source, plan_toml=PLAN))["passed"]
            assert (await call("judge_program", kernel_cu=source, plan_toml=PLAN))["known"]
            assert not (await call("judge_program", kernel_cu=SOURCE + "// wrong", plan_toml=PLAN))["passed"]
            assert desk.best is not None and desk.best.program.source.endswith("// variant 3\n")
            with pytest.raises(Refused, match="not TOML"):
                await call("judge_program", kernel_cu=SOURCE, plan_toml="[[launch]")
            with pytest.raises(Refused, match="judge_program has no argument 'task'"):
                await call("judge_program", task="other.py", kernel_cu=SOURCE, plan_toml=PLAN)
            with pytest.raises(Refused, match="Unknown tool"):
                await call("read_candidate", candidate="0123")

    anyio.run(work)
    assert not (tmp_path / "archive.db").exists(), "what an agent tries out is not what is searched"


def test_the_desk_judges_with_a_seed_of_its_own(task: Task, tmp_path: Path) -> None:
    seeds = []

    class Asked(Scripted):
        def __call__(self, task: Task, choice: object, settings: Settings, thorough: bool) -> Scripted:
            seeds.append(settings.seed)
            return self

    async def work() -> None:
        for _ in range(2):
            opened = open_desk(task, gpu("H200"), settings=settings(tmp_path), make_executor=Asked())
            async with opened as desk, client_of(desk) as client:
                await client.call_tool("judge_program", {"kernel_cu": SOURCE, "plan_toml": PLAN})

    anyio.run(work)
    assert len({*seeds, 0}) == 3


def test_clients_that_send_nonsense_or_go_away_harm_nobody_else(task: Task, tmp_path: Path) -> None:
    async def work() -> None:
        async with open_desk(task, gpu("H200"), settings=settings(tmp_path), make_executor=Scripted()) as desk:
            for sent in (
                b"\n",
                b"{}\n" * 50,
                b"\xff\xfe\n",
                b"[" * 100_000 + b"\n",
                b'{"jsonrpc": "2.0"',
                b"x" * (17 << 20),
            ):
                with socket.socket(socket.AF_UNIX) as rude:
                    rude.connect(desk.command[-1])
                    rude.setblocking(False)
                    await _send(rude, sent)
            async with client_of(desk) as client:
                assert (await caller(client)("judge_program", kernel_cu=SOURCE, plan_toml=PLAN))["passed"]

    async def _send(rude: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await anyio.wait_writable(rude)
            try:
                view = view[rude.send(view) :]
            except (BrokenPipeError, ConnectionResetError):
                return

    anyio.run(work)


def test_a_place_where_no_socket_can_be_is_said(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    async def work() -> None:
        async with open_desk(task, gpu("H200"), settings=settings(tmp_path)):
            pytest.fail("there can be no socket with such a path")

    with pytest.raises(MachineError, match="no socket"):
        anyio.run(work)


def test_nothing_is_left_when_a_question_ends(task: Task, tmp_path: Path) -> None:
    made: list[Executor] = []

    def make(*arguments: object) -> Executor:
        made.append(local_executor(*arguments))  # type: ignore[arg-type]
        return made[0]

    async def work() -> None:
        async with open_desk(task, gpu("H200"), settings=settings(tmp_path), make_executor=make) as desk:
            async with client_of(desk) as client:
                answer = await caller(client)("judge_program", kernel_cu=SOURCE, plan_toml=PLAN)
                assert answer["passed"] and answer["source"] == "estimated"
            assert Path(desk.command[-1]).exists() and Path(desk.command[-1]).parent.stat().st_mode & 0o077 == 0
        assert not Path(desk.command[-1]).parent.exists()
        with pytest.raises(WorkerDied, match="closed"):
            await made[0].judge(desk.best)  # type: ignore[arg-type]

    anyio.run(work)


def test_a_headless_agent_judges_through_the_relay_and_its_best_program_is_proposed(task: Task, tmp_path: Path) -> None:
    command = [sys.executable, scripted.__file__, "judge", "{prompt_file}", "{mcp_config}"]
    author = headless_agent(command, settings(tmp_path), AgentLimits(seconds=200.0))
    answered = anyio.run(author.propose, Context(task, gpu("H200"), "translate", (), 0))
    assert isinstance(answered, Proposal), answered
    assert answered.program.source == scripted.SOURCE and dict(answered.tunables) == {"BLOCK": 128}
    assert answered.reply is not None
    assert answered.reply.splitlines() == ["tools: ['judge_program']", "judged: False wrong_value", "judged: True None"]


def test_a_search_goes_on_with_nothing_but_a_headless_agent(tmp_path: Path) -> None:
    file = module_file(tmp_path)
    given = settings_in(tmp_path, simulate=True, budget=30.0, max_candidates=2, out=tmp_path / "out")
    author = headless_agent([sys.executable, scripted.__file__, "good", "{prompt_file}"], given, name="agent:scripted")
    result = optimize(file, authors=[author], settings=given)
    (own, *_) = [each for each in result.history if each.candidate.lineage.author == "agent:scripted"]
    assert own.verdict.passed and own.candidate.lineage.cost_usd == 0.25
    with Archive.open(given.archive, create=False) as archive:
        reply = archive.candidate(own.candidate.key).lineage.reply
        assert reply is not None and reply.endswith("and am done.")
