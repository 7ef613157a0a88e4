"""Answers to a generation: read, judged once, answered; whatever is wrong with one leaves the others alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tests.exchange.kit import RELU, SOFTMAX, Scripted, by_variant, module_file, rows, settings_in, tell_until_killed
from tests.judge import kernels
from tests.samples import program
from warpsmith.archive import Archive
from warpsmith.errors import ArchiveError, TaskError, UserError
from warpsmith.exchange import Progress, ask, tell
from warpsmith.exchange.tell import Told
from warpsmith.program import write_program
from warpsmith.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def asked(settings: Settings, tmp_path: Path) -> Path:
    """A generation of three questions about relu, with nothing answered."""
    ask(module_file(tmp_path), tmp_path / "g", settings, slots=3, author="person:ada")
    return tmp_path / "g"


def put(asked: Path, slot: str, variant: int, name: str = "answer", text: str = "") -> Path:
    """Answer with one of the sample programs."""
    folder = asked / slot / name
    write_program(folder, program(variant))
    source = folder / "kernel.cu"
    source.write_text(source.read_text() + text)
    return folder


def by_hand(folder: Path, source: str) -> Path:
    """Answer with device code that goes with the plan of the softmax by hand."""
    folder.mkdir()
    (folder / "kernel.cu").write_text(source)
    (folder / "plan.toml").write_text(kernels.SOFTMAX.plan)
    return folder


def told(asked: Path, settings: Settings, judge: Scripted | None = None, **given: object) -> tuple[Told, Scripted]:
    scripted = judge or Scripted(by_variant)
    return tell(asked, settings, make_executor=scripted, **given), scripted  # type: ignore[arg-type]


def problem_of(folder: Path) -> str:
    return str(json.loads((folder / "verdict.json").read_text())["problem"])


# ---------------------------------------------------------------------------------------- with the simulator as a judge


def test_a_generation_goes_through_files_alone(settings: Settings, tmp_path: Path) -> None:
    file = module_file(tmp_path, SOFTMAX, "softmax.py")
    ask(file, tmp_path / "g1", settings, slots=2)
    slot = tmp_path / "g1" / "01-rewrite"
    right = by_hand(slot / "answer", kernels.SOFTMAX.source)
    (right / "note.md").write_text("# One block a row\n\nA tree in shared memory.\n")
    wrong = by_hand(slot / "answer-2", kernels.SOFTMAX.source.replace("/ sum", "* sum"))
    broken = by_hand(slot / "answer-3", kernels.SOFTMAX.source + "__device__ int x = y;\n")
    result = tell(tmp_path / "g1", settings)
    assert (result.proposed, result.judged, result.problems) == (3, 4, ())
    assert "**Passed**" in (right / "verdict.md").read_text()
    assert "Tunables: `BLOCK = " in (right / "verdict.md").read_text()
    document = json.loads((right / "verdict.json").read_text())
    assert document["passed"] and document["source"] == "estimated" and document["device"] == "H200"
    assert set(document["against"]) == {"parent", "best", "bound"}
    assert "First wrong element: `out[" in (wrong / "verdict.md").read_text()
    assert "int x = y;" in (broken / "verdict.md").read_text()
    with Archive.open(settings.archive) as archive:
        found = archive.candidate(document["candidate"]).lineage
    question = json.loads((slot / "question.json").read_text())
    assert (found.author, found.operator, found.generation) == ("agent", "rewrite", 1)
    assert found.parents == tuple(question["parents"])
    assert (found.note, found.reply) == ("One block a row", "# One block a row\n\nA tree in shared memory.\n")
    again = ask(file, tmp_path / "g2", settings, slots=3)
    assert (again.generation, again.operators) == (2, ("rewrite", "cross", "repair"))


# ------------------------------------------------------------------------------------------------------------- telling


def test_what_was_told_is_not_judged_or_archived_again(asked: Path, settings: Settings) -> None:
    put(asked, "01-rewrite", 1)
    put(asked, "02-translate", 2)
    first, judge = told(asked, settings)
    assert (first.proposed, first.judged) == (2, 3), "two answers and the program to start from"
    again, judge = told(asked, settings, judge)
    assert (again.proposed, again.judged, len(judge.asked)) == (0, 0, 3)
    assert [each.judged for each in again.answers] == [each.judged for each in first.answers]


def test_more_answers_and_changed_ones_are_taken_in_later(asked: Path, settings: Settings) -> None:
    folder = put(asked, "01-rewrite", 1)
    told(asked, settings)
    source = folder / "kernel.cu"
    source.write_text(source.read_text().replace("variant 1", "variant 3"))
    put(asked, "01-rewrite", 2, "answer-10")
    put(asked, "01-rewrite", 4, "answer-9")
    later, _ = told(asked, settings)
    assert (later.proposed, later.judged) == (3, 3)
    assert [each.folder.name for each in later.answers] == ["answer", "answer-9", "answer-10"]
    assert json.loads((folder / "verdict.json").read_text())["candidate"] == later.answers[0].judged.candidate.key  # type: ignore[union-attr]


def test_an_answer_hears_how_it_compares(asked: Path, settings: Settings) -> None:
    slow, fast = put(asked, "01-rewrite", 1), put(asked, "01-rewrite", 3, "answer-2")
    result, _ = told(asked, settings)
    against = json.loads((slow / "verdict.json").read_text())["against"]
    assert (against["parent"], against["best"]) == pytest.approx((2.0, 0.5))
    assert json.loads((fast / "verdict.json").read_text())["against"]["best"] == pytest.approx(2.0)
    assert "2 times as fast as its fastest parent" in (slow / "verdict.md").read_text()
    assert result.standing.best == result.answers[1].judged
    assert "500 ns estimated" in (asked / "standing.md").read_text()


def test_tunables_choose_values(asked: Path, settings: Settings) -> None:
    folder = put(asked, "01-rewrite", 1)
    (folder / "tunables.toml").write_text("BLOCK = 512\n")
    result, _ = told(asked, settings)
    assert result.answers[0].candidate is not None
    assert result.answers[0].candidate.tunables == (("BLOCK", 512),)


def test_without_a_judge_candidates_wait(asked: Path, settings: Settings) -> None:
    folder = put(asked, "01-rewrite", 1)
    told(asked, settings)
    (folder / "kernel.cu").write_text((folder / "kernel.cu").read_text() + "// more\n")
    waiting = tell(asked, settings, judge=False)
    assert (waiting.proposed, waiting.judged, waiting.standing.waiting) == (1, 0, 1)
    assert not (folder / "verdict.json").exists(), "what was said of the former answer must not stand beside this one"


def test_no_answer_at_all_is_no_error(asked: Path, settings: Settings) -> None:
    (asked / "01-rewrite" / "answer").mkdir()
    result, judge = told(asked, settings)
    assert (result.answers, result.proposed, judge.asked) == ((), 0, [])


def test_progress_is_told(asked: Path, settings: Settings) -> None:
    put(asked, "01-rewrite", 1)
    seen: list[Progress] = []
    told(asked, settings, watch=seen.append)
    assert [(each.done, each.total) for each in seen] == [(1, 2), (2, 2)]


# ------------------------------------------------------------------------------------------------- what can go wrong


def test_an_interruption_keeps_every_verdict_and_the_next_call_goes_on(asked: Path, settings: Settings) -> None:
    for variant in range(1, 5):
        put(asked, "02-translate", variant, f"answer-{variant}" if variant > 1 else "answer")

    def interrupt(progress: Progress) -> None:
        if progress.done == 2:
            signal.raise_signal(signal.SIGINT)

    judge = Scripted(by_variant)
    with pytest.raises(KeyboardInterrupt):
        told(asked, settings, judge, watch=interrupt)
    kept = len(rows(settings))
    assert kept >= 2
    assert len(list(asked.rglob("verdict.json"))) == kept
    result, _ = told(asked, settings, judge)
    assert (result.proposed, result.judged) == (0, 4 - kept)
    assert len({each.judged.candidate.key for each in result.answers if each.judged}) == 4


def test_killed_between_two_judgements_nothing_is_lost(asked: Path, settings: Settings) -> None:
    for variant in range(1, 4):
        put(asked, "02-translate", variant, f"answer-{variant + 1}")
    forks = multiprocessing.get_context("forkserver")
    heard, said = forks.Pipe(duplex=False)
    process = forks.Process(target=tell_until_killed, args=(asked, settings, said))
    process.start()
    said.close()
    assert heard.poll(120), "the first verdict never came"
    first = heard.recv()
    process.kill()
    process.join()
    assert [row[0].key for row in rows(settings)] == [first]
    result, judge = told(asked, settings)
    assert (result.proposed, result.judged) == (0, 2) and first not in judge.asked
    assert all(each.judged and each.judged.verdict.passed for each in result.answers)


def test_a_failing_machine_costs_one_verdict_and_is_asked_again(asked: Path, settings: Settings) -> None:
    lost = put(asked, "01-rewrite", 1, text="// broken machine\n")
    put(asked, "01-rewrite", 2, "answer-2")
    result, _ = told(asked, settings)
    assert result.judged == 2 and "fell off the bus" in result.problems[0]
    assert "fell off the bus" in problem_of(lost)
    mended, _ = told(asked, settings, Scripted())
    assert (mended.judged, mended.problems) == (1, ())
    assert json.loads((lost / "verdict.json").read_text())["passed"]


def malform(folder: Path, how: str) -> None:
    match how:
        case "no source":
            (folder / "kernel.cu").unlink()
        case "no plan":
            (folder / "plan.toml").unlink()
        case "not TOML":
            (folder / "plan.toml").write_text("[symbols]\nrows = \n")
        case "unknown key":
            (folder / "plan.toml").write_text((folder / "plan.toml").read_text() + "stream = 3\n")
        case "not text":
            (folder / "kernel.cu").write_bytes(b"// one\n// two \xff\n")
        case "too long":
            (folder / "kernel.cu").write_text("/" * 5_000_000)
        case "a link":
            (folder / "kernel.cu").unlink()
            (folder / "kernel.cu").symlink_to("/etc/hostname")
        case "a pipe":
            (folder / "kernel.cu").unlink()
            os.mkfifo(folder / "kernel.cu")
        case "a folder":
            (folder / "note.md").mkdir()
        case "unknown tunable":
            (folder / "tunables.toml").write_text("BLOK = 256\n")
        case "value not listed":
            (folder / "tunables.toml").write_text("BLOCK = 7\n")
        case "value no integer":
            (folder / "tunables.toml").write_text("BLOCK = true\n")
        case "tunables not TOML":
            (folder / "tunables.toml").write_text("BLOCK = 256\nBLOCK\n")
        case "a library call":
            call = '[[call]]\nop = "aten.mm"\nargs = ["x", "x"]\nout = "out"\n'
            (folder / "plan.toml").write_text((folder / "plan.toml").read_text() + call)


MALFORMED = {
    "no source": "kernel.cu: is missing",
    "no plan": "plan.toml: is missing",
    "not TOML": "plan.toml:2: not TOML",
    "unknown key": "plan.toml: launch 1: unknown key 'stream'",
    "not text": "kernel.cu:2: is not UTF-8 text",
    "too long": "kernel.cu: is longer than 4000000 bytes",
    "a link": "kernel.cu: is a link",
    "a pipe": "kernel.cu: is no plain file",
    "a folder": "note.md: is no plain file",
    "unknown tunable": "tunables.toml: tunables given ['BLOCK', 'BLOK'], declared ['BLOCK']",
    "value not listed": "tunables.toml: tunable BLOCK = 7 is not one of",
    "value no integer": "tunables.toml: BLOCK must be an integer",
    "tunables not TOML": "tunables.toml:2: not TOML",
    "a library call": "plan.toml: calls a library",
}


def test_malformed_answers_are_reported_with_file_and_line_and_the_others_go_on(
    asked: Path, settings: Settings
) -> None:
    folders = {how: put(asked, "01-rewrite", 1, f"answer-{n}") for n, how in enumerate(MALFORMED, 2)}
    for how, folder in folders.items():
        malform(folder, how)
    good = put(asked, "02-translate", 2)
    result, judge = told(asked, settings)
    assert json.loads((good / "verdict.json").read_text())["passed"]
    assert len(result.problems) == len(MALFORMED) and result.proposed == 1 and len(judge.asked) == 1
    for how, message in MALFORMED.items():
        assert problem_of(folders[how]).startswith(f"01-rewrite/{folders[how].name}/{message}"), how
        assert message.partition(":")[0].replace("_", r"\_") in (folders[how] / "verdict.md").read_text()


def test_a_mended_answer_loses_its_complaint(asked: Path, settings: Settings) -> None:
    folder = put(asked, "01-rewrite", 1)
    plan = (folder / "plan.toml").read_text()
    malform(folder, "not TOML")
    told(asked, settings)
    (folder / "plan.toml").write_text(plan)
    result, _ = told(asked, settings)
    assert result.problems == () and json.loads((folder / "verdict.json").read_text())["passed"]


def test_links_lead_nowhere(asked: Path, settings: Settings, tmp_path: Path) -> None:
    """Neither is anything read through a link, nor is what a link points to overwritten."""
    write_program(tmp_path / "secret", program(1))
    (asked / "01-rewrite" / "answer").symlink_to(tmp_path / "secret")
    folder = put(asked, "02-translate", 2)
    (tmp_path / "precious").write_text("keep me")
    (folder / "verdict.md").symlink_to(tmp_path / "precious")
    result, _ = told(asked, settings)
    assert [each.folder for each in result.answers] == [folder]
    assert (tmp_path / "precious").read_text() == "keep me"
    assert "**Passed**" in (folder / "verdict.md").read_text()
    assert sorted(each.name for each in (tmp_path / "secret").iterdir()) == ["kernel.cu", "plan.toml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"parents": ["0123456789abcdef"]}, "no candidate 0123456789abcdef"),
        ({"parents": ["../../etc"]}, "parents"),
        ({"operator": None}, "operator"),
        ({"more": 1}, "more"),
        ({"run": 2**70}, "run"),
    ],
)
def test_a_question_that_was_tampered_with_is_named_and_the_others_go_on(
    asked: Path, settings: Settings, change: dict[str, object], message: str
) -> None:
    bad, good = put(asked, "02-translate", 1), put(asked, "03-translate", 2)
    file = asked / "02-translate" / "question.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    result, judge = told(asked, settings)
    (problem,) = result.problems
    assert problem.startswith("02-translate/question.json: ") and message in problem
    assert json.loads((good / "verdict.json").read_text())["passed"] and len(judge.asked) == 1
    assert sorted(each.name for each in bad.glob("verdict*")) == (
        ["verdict.json", "verdict.md"] if "no candidate" in message else []
    ), "only what is an answer to a question that can be read gets a reply"


def test_the_code_that_is_run_is_that_which_was_asked_about(asked: Path, settings: Settings, tmp_path: Path) -> None:
    put(asked, "01-rewrite", 1)
    file = tmp_path / "relu.py"
    file.write_text(RELU.replace("64, 128", "64, 256"))
    with pytest.raises(TaskError, match="the questions are about"):
        told(asked, settings)
    file.unlink()
    with pytest.raises(TaskError, match="no such file"):
        told(asked, settings)
    elsewhere = module_file(tmp_path, RELU, "moved.py")
    result, _ = told(asked, settings, task_target=elsewhere)
    assert result.judged == 2


def test_another_archive_did_not_ask(asked: Path, settings: Settings, tmp_path: Path) -> None:
    put(asked, "01-rewrite", 1)
    (tmp_path / "other").mkdir()
    other = settings_in(tmp_path / "other")
    with pytest.raises(ArchiveError, match="there is no archive"):
        told(asked, other)
    ask(module_file(tmp_path, SOFTMAX, "softmax.py"), tmp_path / "other" / "g", other, slots=1)
    with pytest.raises(ArchiveError, match="did not ask about"):
        told(asked, other)
    assert told(asked, settings)[0].judged == 2


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_questions_is_none_of_ours(settings: Settings, tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "g").mkdir()
    with pytest.raises(UserError, match=r"No such file|holds no questions"):
        tell(tmp_path / "g", settings)


def test_generations_are_not_mixed(asked: Path, settings: Settings, tmp_path: Path) -> None:
    ask(tmp_path / "relu.py", tmp_path / "g2", settings, slots=1)
    (tmp_path / "g2" / "01-rewrite").rename(asked / "04-rewrite")
    with pytest.raises(UserError, match="several generations"):
        told(asked, settings)
