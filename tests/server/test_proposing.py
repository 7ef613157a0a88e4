"""Programs that are handed in: judged in the simulator where the verdict matters, by a scripted judge elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.exchange.kit import Scripted, by_variant
from tests.samples import SOURCE, passed
from tests.server.kit import PLAN, PROGRAM, Call, Refused, conversation, tasks_in, variant
from warpsmith.archive import Archive
from warpsmith.errors import SettingsError, SimulatorError
from warpsmith.program.build import MAX_SOURCE_LENGTH
from warpsmith.program.plan import MAX_PLAN_LENGTH
from warpsmith.records import Candidate, Verdict
from warpsmith.server import serve
from warpsmith.settings import load_settings


def test_the_simulator_says_what_is_right_and_what_is_wrong_and_why(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        right = await call("judge_program", **PROGRAM)
        assert right["passed"] and right["source"] == "estimated" and right["device"] == "H200"
        assert 0 < right["share_of_bound"] < 1 and right["bottleneck"] and right["advice"]
        again = await call("judge_program", **PROGRAM)
        assert again["known"] and not right["known"] and again["seconds"] == right["seconds"]
        other = await call("judge_program", **PROGRAM, tunables={"BLOCK": 512})
        assert other["passed"] and other["candidate"] != right["candidate"]

        wrong = await call("judge_program", **{**PROGRAM, "kernel_cu": SOURCE.replace("0.0f", "0.5f")})
        assert (wrong["stage"], wrong["reason"]) == ("numerics", "wrong_value")
        assert wrong["element"]["output"] == "out" and len(wrong["element"]["index"]) == 2
        assert wrong["seconds"] is None and "**Failed**" in wrong["words"]
        refused = await call("judge_program", **{**PROGRAM, "kernel_cu": SOURCE.replace("fmaxf", "fmux")})
        assert (refused["stage"], refused["line"]) == ("build", 4)

        profile = await call("profile_program", candidate=right["candidate"])
        assert profile["metrics"]["seconds"] == pytest.approx(right["seconds"])
        assert profile["kernels"][0]["kernel"] == "relu" and profile["kernels"][0]["registers"] > 0
        assert profile["kernels"][0]["global_load_sectors"] == 64 * 128 * 4 // 32
        assert profile["judgement"]["known"] and profile["judgement"]["bottleneck"] == right["bottleneck"]
        assert (await call("read_candidate", candidate=right["candidate"]))["operator"] == "judge"

    conversation(tmp_path, say)


def test_a_proposal_keeps_its_parents_and_its_idea(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        first = await call("submit_proposal", **PROGRAM, operator="translate", note="one thread\neach")
        parent = first["candidate"]
        second = await call(
            "submit_proposal", **variant(1), operator="rewrite", parents=[parent[:8]], note="vector loads"
        )
        read = await call("read_candidate", candidate=second["candidate"])
        assert (read["author"], read["operator"], read["parents"]) == ("tester", "rewrite", [parent])
        assert (read["generation"], read["note"]) == (1, "vector loads")
        with pytest.raises(Refused, match="no keys"):
            await call("submit_proposal", **variant(2), operator="rewrite", parents=["ffffffff"])
        with pytest.raises(Refused, match="operator"):
            await call("submit_proposal", **variant(2), operator="DROP TABLE", parents=[])

    conversation(tmp_path, say, Scripted())
    with Archive.open(tmp_path / "archive.db", create=False) as archive:
        (task,) = archive.tasks()
        assert [each.candidate.lineage.note for each in archive.judged(task.key)] == ["one thread each", "vector loads"]
        assert len(archive.runs()) == 1


def test_what_was_judged_before_the_server_started_is_not_judged_again(tmp_path: Path) -> None:
    judge = Scripted()

    async def say(call: Call, _: Any) -> None:
        assert (await call("judge_program", **PROGRAM))["passed"]

    conversation(tmp_path, say, judge)
    conversation(tmp_path, say, judge)
    assert len(judge.asked) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kernel_cu": "x" * (MAX_SOURCE_LENGTH + 1)}, "kernel_cu: .*at most"),
        ({"plan_toml": "#" * (MAX_PLAN_LENGTH + 1)}, "plan_toml: .*at most"),
        ({"kernel_cu": ""}, "kernel_cu: .*at least"),
        ({"plan_toml": "[[launch]\n"}, "line 1: not TOML"),
        ({"plan_toml": PLAN + "speed = 11\n"}, "speed"),
        ({"plan_toml": PLAN.replace("[[launch]]", '[[call]]\nop = "aten.relu"\n[[launch]]')}, "call"),
        ({"tunables": {"BLOCK": 7}}, "BLOCK = 7"),
        ({"tunables": {"TILE": 8}}, "unknown tunable 'TILE'; the plan declares: BLOCK"),
        ({"tunables": {f"T{n}": 1 for n in range(300)}}, "tunables: .*at most"),
        ({"kernel_cu": SOURCE + "\0"}, "characters that no text may hold"),
        ({"kernel_cu": 5}, "kernel_cu"),
        ({"task": "x" * 501}, "task: .*at most"),
        ({"tunable": {"BLOCK": 256}}, "judge_program has no argument 'tunable'"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line_and_nothing_is_stored(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    judge = Scripted()

    async def say(call: Call, _: Any) -> None:
        with pytest.raises(Refused, match=said) as refused:
            await call("judge_program", **{**PROGRAM, **changed})
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 600
        assert (await call("judge_program", **PROGRAM))["passed"], "the server must go on"

    conversation(tmp_path, say, judge)
    assert len(judge.asked) == 1


def test_calls_at_once_are_judged_one_after_the_other_and_reading_does_not_wait(tmp_path: Path) -> None:
    order: list[str] = []

    class Slow(Scripted):
        async def judge(self, candidate: Candidate) -> Verdict:
            order.append("in")
            await read.wait()
            order.append("out")
            return await super().judge(candidate)

    read = anyio.Event()

    async def say(call: Call, _: Any) -> None:
        await call("read_task", task="relu.py")
        answers: list[dict[str, Any]] = []

        async def judge(number: int) -> None:
            answers.append(await call("judge_program", **variant(number % 3)))

        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(judge, number)
            await call("standing", task="relu.py")
            read.set()
        assert len(answers) == 6 and sum(each["known"] for each in answers) == 3

    conversation(tmp_path, say, Slow(by_variant))
    assert order == ["in", "out"] * 3


def test_a_machine_that_fails_is_no_verdict_and_tells_nothing_of_itself(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        with pytest.raises(Refused, match="failed on this machine") as refused:
            await call("judge_program", **{**PROGRAM, "kernel_cu": SOURCE + "// broken machine\n"})
        assert "bus" not in str(refused.value)
        assert (await call("standing", task="relu.py"))["waiting"] == 1
        assert (await call("judge_program", **PROGRAM))["passed"]

    conversation(tmp_path, say, Scripted(by_variant))
    with Archive.open(tmp_path / "archive.db", create=False) as archive:
        (lost,) = [each for each in archive.events(1) if each.kind == "lost"]
        assert lost.data["error"] == "the GPU fell off the bus"


def test_an_instruction_that_the_simulator_does_not_know_is_named(tmp_path: Path) -> None:
    def says(candidate: Candidate) -> Verdict:
        if "exotic" in candidate.program.source:
            raise SimulatorError("mma.exotic is not implemented")
        return passed(candidate)

    async def say(call: Call, _: Any) -> None:
        with pytest.raises(Refused, match=r"mma\.exotic is not implemented"):
            await call("judge_program", **{**PROGRAM, "kernel_cu": SOURCE + "// exotic\n"})

    conversation(tmp_path, say, Scripted(says))


def test_a_fault_of_ours_tells_nothing_but_that(tmp_path: Path) -> None:
    def says(_: Candidate) -> Verdict:
        raise ZeroDivisionError(str(tmp_path))

    async def say(call: Call, _: Any) -> None:
        with pytest.raises(Refused) as refused:
            await call("judge_program", **PROGRAM)
        assert str(refused.value) == "Error executing tool judge_program"

    conversation(tmp_path, say, Scripted(says))


def test_executors_are_closed_beyond_a_few_tasks_and_at_the_end(tmp_path: Path) -> None:
    opened: list[str] = []
    closed: list[str] = []

    class Counted(Scripted):
        def __call__(self, task: Any, *_: Any) -> Any:
            opened.append(task.key)
            made = Counted()
            made.close = lambda: closed.append(task.key)  # type: ignore[method-assign]
            return made

    async def say(call: Call, _: Any) -> None:
        text = (tasks_in(tmp_path) / "relu.py").read_text()
        for number in range(4):
            (tmp_path / "tasks" / f"relu{number}.py").write_text(text.replace("64, 128", f"64, {128 + number}"))
            await call("judge_program", **{**PROGRAM, "task": f"relu{number}.py"})
            await call("judge_program", **{**PROGRAM, "task": f"relu{number}.py"})
        assert closed == opened[:1], "the one that was not used for longest"

    conversation(tmp_path, say, Counted())
    assert len(opened) == 4 and sorted(closed) == sorted(opened)


def test_a_server_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    settings = load_settings(archive=str(tmp_path / "archive.db"))
    with pytest.raises(SettingsError, match="no such folder"):
        serve(settings, tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="author"):
        serve(settings, tmp_path, author="a\nb")
    with pytest.raises(SettingsError, match="no transport 'pigeon'"):
        serve(settings, tmp_path, transport="pigeon")  # type: ignore[arg-type]
