"""Agents that answer, and agents that do what agents must not do."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from tests.author.agent import scripted
from tests.samples import BOUND, TASK, candidate, failed, passed
from warpsmith.author.agent import AgentLimits, HeadlessAgent
from warpsmith.author.protocol import Context, Proposal, Refusal
from warpsmith.device.catalog import gpu
from warpsmith.errors import SettingsError
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.records import Candidate, GpuSpec, Judged, Task

AMPLE = AgentLimits(seconds=120.0)


@dataclass(frozen=True)
class Desk:
    """A desk that nobody asks."""

    best: Candidate | None = None
    command: tuple[str, ...] = ("judge", "--for", "agents")


def agent(
    mode: str,
    *more: str,
    limits: AgentLimits = AMPLE,
    best: Candidate | None = None,
    environment: tuple[str, ...] = (),
) -> HeadlessAgent:
    """The scripted agent."""

    @asynccontextmanager
    async def open_desk(task: Task, spec: GpuSpec) -> AsyncIterator[Desk]:
        assert task is TASK and spec.name == "H200"
        yield Desk(best)

    command = [sys.executable, scripted.__file__, mode, "{prompt_file}", *more]
    return HeadlessAgent(command, open_desk, limits, environment=environment)


def context(operator: str = "translate", *parents: Judged) -> Context:
    return Context(TASK, gpu("H200"), operator, parents, 0, BOUND)


def ask(author: HeadlessAgent, about: Context | None = None) -> Proposal | Refusal | None:
    return anyio.run(author.propose, about or context())


def refusal(author: HeadlessAgent) -> Refusal:
    answered = ask(author)
    assert isinstance(answered, Refusal)
    return answered


def judged(variant: int = 0) -> Judged:
    return Judged(candidate(variant), passed(candidate(variant)))


def test_an_answer_becomes_a_proposal_with_all_that_was_asked_and_said() -> None:
    answered = ask(agent("good"), context("rewrite", judged(1)))
    assert isinstance(answered, Proposal)
    assert answered.program.source == candidate(1).program.source + "// by the agent\n"
    assert answered.tunables == (("BLOCK", 256),)
    assert answered.note == "Vector loads" and answered.cost_usd == 0.25
    assert answered.prompt is not None and candidate(1).program.source in answered.prompt
    assert "parent-1" in answered.prompt and "judge_program" in answered.prompt and "[[launch]]" in answered.prompt
    assert answered.reply is not None and answered.reply.endswith("and am done.")


def test_a_repair_shows_the_failure() -> None:
    broken = Judged(candidate(2), failed(candidate(2)))
    answered = ask(agent("good"), context("repair", broken))
    assert isinstance(answered, Proposal) and answered.prompt is not None
    assert "reads 4 bytes past the end of x" in answered.prompt


def test_two_parents_are_named_in_the_question() -> None:
    answered = ask(agent("good"), context("cross", judged(1), judged(2)))
    assert isinstance(answered, Proposal) and answered.prompt is not None
    assert "`parent-1` and `parent-2`" in answered.prompt
    assert ask(agent("good"), context("cross", judged(1))) is None


def test_the_agent_sees_a_clean_environment_and_its_key_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_LOGIN", "open sesame 1234")
    monkeypatch.setenv("OTHER_API_KEY", "not for agents")
    answered = refusal(agent("environment", environment=("AGENT_LOGIN", "NOT_SET")))
    assert answered.reply is not None
    assert "AGENT_LOGIN" in answered.reply and "open sesame" not in answered.reply
    assert "OTHER_API_KEY" not in answered.reply and "not for agents" not in answered.reply
    assert "'home', 'mcp.json', 'question.md', 'task.md', 'tmp'" in answered.reply
    seen = answered.reply
    assert f'"HOME": "{os.environ["HOME"]}"' not in seen and '/home"' in seen


def test_a_home_that_is_passed_on_by_name_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/own")
    assert '"HOME": "/own"' in (refusal(agent("environment", environment=("HOME",))).reply or "")


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("nothing", "answer: there is no answer; the agent ended with code 3"),
        ("half", "plan.toml: is missing"),
        ("malformed", "plan.toml:1: not TOML"),
        ("binary", "kernel.cu:1: is not UTF-8"),
        ("enormous", f"kernel.cu: is longer than {4 * MAX_SOURCE_LENGTH} bytes"),
        ("pipe", "kernel.cu: is no plain file"),
        ("library", "plan.toml: calls a library"),
    ],
)
def test_an_answer_that_is_none_is_refused_with_the_exact_complaint(mode: str, said: str) -> None:
    assert said in refusal(agent(mode)).note


@pytest.mark.parametrize("mode", ["link", "linked_folder"])
def test_no_link_out_of_the_folder_is_followed(mode: str, tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text("the user's own")
    (tmp_path / "plan.toml").write_text(scripted.PLAN)
    answered = refusal(agent(mode, str(tmp_path / "kernel.cu")))
    assert "link" in answered.note or "is no folder" in answered.note


@pytest.mark.parametrize(
    ("mode", "limits", "said"),
    [
        ("hang", AgentLimits(seconds=2.0), "longer than 2 s"),
        ("flood", AgentLimits(seconds=120.0, printed_bytes=1_000_000), "printed more than 1000000 bytes"),
        ("fill", AgentLimits(seconds=120.0, folder_bytes=4 << 20), "wrote more than"),
    ],
)
def test_an_agent_beyond_a_limit_is_stopped_and_its_half_answer_does_not_count(
    mode: str, limits: AgentLimits, said: str
) -> None:
    answered = refusal(agent(mode, limits=limits))
    assert answered.note.startswith("the agent was stopped") and said in answered.note
    assert len(answered.reply or "") <= 20_000


def test_what_passed_at_the_desk_counts_where_there_is_no_answer() -> None:
    for mode, limits in (("nothing", AMPLE), ("hang", AgentLimits(seconds=1.0))):
        answered = ask(agent(mode, limits=limits, best=candidate(3)))
        assert isinstance(answered, Proposal) and answered.program == candidate(3).program
        assert answered.note.startswith("the best that the agent had judged")
    answered = ask(agent("good", best=candidate(3)))
    assert isinstance(answered, Proposal) and answered.program != candidate(3).program


def test_children_of_an_agent_do_not_outlive_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert isinstance(ask(agent("fork", str(pids))), Proposal)
    # They have been killed, and die when the machine gets to it.
    while any(running(int(pid)) for pid in pids.read_text().split()):
        time.sleep(0.01)


def test_a_cancelled_question_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def cancel() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(agent("hang").propose, context())
            while not list(tmp_path.glob("*/answer/plan.toml")):
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()

    anyio.run(cancel)
    assert list(tmp_path.iterdir()) == []


def test_a_cost_that_is_none_counts_as_nothing_and_one_without_end_up_to_the_limit() -> None:
    closed = ask(agent("closed"))
    assert isinstance(closed, Proposal) and closed.cost_usd == 0.0
    dear = ask(agent("dear", limits=AgentLimits(seconds=120.0, most_usd=3.0)))
    assert isinstance(dear, Proposal) and dear.cost_usd == 3.0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], "empty"),
        (["no-such-agent-anywhere"], "no program 'no-such-agent-anywhere'"),
        ([sys.executable, "{question}"], r"\{question\} in the command"),
        ([sys.executable, "{folder.parent}"], "means nothing"),
        ([sys.executable, '{"json": 1}'], "means nothing"),
        ([sys.executable, "{folder"], "write {{ for a brace"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_anything_is_asked(command: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        HeadlessAgent(command, lambda *_: pytest.fail("nobody is to be asked"))


@pytest.mark.parametrize("name", ["seconds", "folder_bytes", "printed_bytes", "most_usd"])
def test_limits_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        AgentLimits(**{name: 0})


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be buried does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
