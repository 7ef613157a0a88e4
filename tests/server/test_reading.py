"""What an agent can find out, and what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.exchange.kit import RELU, Scripted, by_variant, module_file
from tests.server.kit import PROGRAM, Call, Refused, conversation, tasks_in, variant
from warpsmith.archive import Archive
from warpsmith.server import shelf


def test_tasks_are_listed_read_and_known_by_their_key_afterwards(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        root = tasks_in(tmp_path)
        (root / "helper.py").write_text("def helper():\n    raise SystemExit('was run')\n")
        (root / ".hidden").mkdir()
        module_file(root / ".hidden")
        assert [(each["task"], each["key"]) for each in (await call("list_tasks"))["tasks"]] == [("relu.py", None)]
        page = await call("read_task", task="relu.py")
        assert "torch.relu" in page["functional_source"] or "relu" in page["functional_source"]
        assert {each["name"]: (each["role"], each["shape"], each["dtype"]) for each in page["tensors"]} == {
            "x": ("input", [64, 128], "float32"),
            "out": ("output", [64, 128], "float32"),
        }
        assert page["bound_limit"] == "memory" and 0 < page["bound_seconds"] < 1e-6
        assert "[[launch]]" in page["program_format"] and "[[call]]" not in page["program_format"]
        assert "speed of light" in page["words"]
        assert (await call("list_tasks"))["tasks"][0]["key"] == page["key"]
        assert (await call("read_task", task=page["key"][:8])) == page

    conversation(tmp_path, say)


def test_a_task_whose_file_is_gone_can_be_read_but_nothing_is_judged_for_it(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        page = await call("read_task", task="relu.py")
        (tmp_path / "tasks" / "relu.py").write_text(RELU + "\n# changed\n")
        assert (await call("read_task", task=page["key"]))["key"] == page["key"]
        with pytest.raises(Refused, match="nothing can be judged"):
            await call("judge_program", **{**PROGRAM, "task": page["key"]})

    conversation(tmp_path, say, Scripted())


@pytest.mark.parametrize(
    "name",
    [
        "../secret.py",
        "sub/../../secret.py",
        "link.py",
        "linked/secret.py",
        "{outside}/secret.py",
        "{outside}/secret.py:Model",
        "relu.py/../../secret.py",
        "nothing.py",
        "notes.txt",
        "a\0b.py",
        "x" * 400 + ".py",
        ".",
        "/etc/passwd",
    ],
)
def test_nothing_outside_the_folder_is_read_or_run(tmp_path: Path, name: str) -> None:
    root = tasks_in(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    ran = tmp_path / "ran"
    for place in (outside / "secret.py", tmp_path / "secret.py"):
        place.write_text(f"open({str(ran)!r}, 'w').close()\n{RELU}")
    (root / "link.py").symlink_to(outside / "secret.py")
    (root / "linked").symlink_to(outside)
    (root / "notes.txt").write_text("no task")

    async def say(call: Call, _: Any) -> None:
        assert [each["task"] for each in (await call("list_tasks"))["tasks"]] == ["relu.py"]
        for tool in ("read_task", "standing"):
            with pytest.raises(Refused, match="no such file in the folder of tasks") as refused:
                await call(tool, task=name.format(outside=outside))
            assert str(tmp_path) not in str(refused.value)

    conversation(tmp_path, say, Scripted())
    assert not ran.exists()


def test_what_a_task_file_raises_is_one_line_without_a_path_of_this_machine(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        root = tasks_in(tmp_path)
        (root / "broken.py").write_text(f"open({str(tmp_path / 'gone' / 'weights.pt')!r})\n{RELU}")
        with pytest.raises(Refused) as refused:
            await call("read_task", task="broken.py")
        said = str(refused.value)
        assert "weights.pt" in said and "line 1" in said
        assert str(tmp_path) not in said and "\n" not in said

    conversation(tmp_path, say, Scripted())


def test_a_task_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LOAD_SECONDS", 0.5)

    async def say(call: Call, _: Any) -> None:
        gate = tmp_path / "gate"
        endless = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
        (tasks_in(tmp_path) / "endless.py").write_text(endless + RELU)
        with pytest.raises(Refused, match="took longer than"):
            await call("read_task", task="endless.py")
        assert len((await call("list_tasks"))["tasks"]) == 2, "the server must go on"
        gate.touch()

    conversation(tmp_path, say, Scripted())


def test_a_standing_tells_the_fastest_and_the_failures(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        for number in (3, 1):
            await call("judge_program", **variant(number))
        await call("judge_program", **{**PROGRAM, "kernel_cu": PROGRAM["kernel_cu"] + "// wrong\n"})
        found = await call("standing", task="relu.py")
        assert (found["judged"], found["passed"], found["waiting"]) == (3, 2, 0)
        assert [each["seconds"] for each in found["fastest"]] == [5e-7, 1e-6]
        assert {each["author"] for each in found["fastest"]} == {"tester"}
        assert len(found["lessons"]) == 1 and "wrong value" in found["words"]

    conversation(tmp_path, say, Scripted(by_variant))


def test_programs_are_found_by_words_by_key_and_by_likeness(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        made = await call("judge_program", **PROGRAM)
        for asked in ({"query": "relu"}, {"query": made["candidate"][:8]}, {"task": "relu.py"}):
            found = (await call("search_archive", **asked))["found"]
            assert [each["candidate"] for each in found] == [made["candidate"]]
        assert (await call("search_archive", query="softmax"))["found"] == []
        await call("judge_program", **variant(1), tunables={"BLOCK": 128})
        assert len((await call("search_archive", task="relu.py", limit=1))["found"]) == 1
        for asked in ({}, {"query": "relu", "task": "relu.py"}, {"query": " "}):
            with pytest.raises(Refused):
                await call("search_archive", **asked)
        read = await call("read_candidate", candidate=made["candidate"][:10])
        assert (read["kernel_cu"], read["plan_toml"]) == (PROGRAM["kernel_cu"], PROGRAM["plan_toml"])
        assert read["judgement"]["passed"] and read["tunables"] == {"BLOCK": 256}
        with pytest.raises(Refused, match="no keys of candidates"):
            await call("read_candidate", candidate="0000000000000000")

    conversation(tmp_path, say, Scripted())


def test_a_server_for_pure_programs_offers_no_others(tmp_path: Path) -> None:
    plan = '[[call]]\nop = "aten.mm"\nargs = ["x", "x"]\nout = "out"\n'

    async def fill(call: Call, _: Any) -> None:
        await call("judge_program", **{**PROGRAM, "plan_toml": plan})
        assert len((await call("search_archive", query="relu"))["found"]) == 1
        assert "[[call]]" in (await call("read_task", task="relu.py"))["program_format"]

    async def say(call: Call, _: Any) -> None:
        for asked in ({"query": "relu"}, {"task": "relu.py"}):
            assert (await call("search_archive", **asked))["found"] == []
        assert (await call("standing", task="relu.py"))["passed"] == 0
        with pytest.raises(Refused, match="calls a library"):
            await call("judge_program", **{**PROGRAM, "plan_toml": plan})

    conversation(tmp_path, fill, Scripted(), hybrid=True)
    conversation(tmp_path, say, Scripted())


def test_the_skill_is_a_resource_and_a_prompt(tmp_path: Path) -> None:
    async def say(_: Call, client: Any) -> None:
        text = Path(__file__).parents[2].joinpath("skills/warpsmith/SKILL.md").read_text()
        assert (await client.read_resource("warpsmith://skill")).contents[0].text == text
        assert (await client.get_prompt("warpsmith")).messages[0].content.text == text

    conversation(tmp_path, say, Scripted())


def test_reading_alone_leaves_no_run_in_the_archive(tmp_path: Path) -> None:
    async def say(call: Call, _: Any) -> None:
        await call("read_task", task="relu.py")
        await call("standing", task="relu.py")

    conversation(tmp_path, say, Scripted())
    with Archive.open(tmp_path / "archive.db", create=False) as archive:
        assert archive.runs() == [] and len(archive.tasks()) == 1
