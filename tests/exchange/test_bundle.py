"""Candidates travel to another machine and verdicts come back: the same as if they had been judged at home."""

from __future__ import annotations

import shutil
import signal
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.exchange.kit import RELU, SOFTMAX, Scripted, by_variant, fill, module_file, on, rows, settings_in
from tests.judge import kernels
from tests.samples import candidate, passed
from warpsmith.archive import Archive
from warpsmith.errors import ArchiveError, MachineError, SettingsError, TaskError, UserError
from warpsmith.exchange import Progress, ask, bundle, judge_bundle, merge, tell
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Candidate, Judged, Verdict
from warpsmith.settings import Settings
from warpsmith.task import load_task


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "home").mkdir()
    return settings_in(tmp_path / "home", device="NVIDIA H200")


@pytest.fixture
def away(tmp_path: Path) -> Settings:
    (tmp_path / "away").mkdir()
    return settings_in(tmp_path / "away", device="NVIDIA H200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return module_file(tmp_path)


def waiting(settings: Settings, file: Path, *variants: int) -> list[Candidate]:
    """Put candidates into an archive that nobody has judged."""
    task = load_task(file)
    drawn = [on(task, candidate(variant)) for variant in variants]
    with Archive.open(settings.archive) as archive:
        run = archive.start_run(task, "{}")
        for each in drawn:
            archive.add_candidate(run, each)
    return drawn


def verdicts(settings: Settings, device: str = "NVIDIA H200") -> dict[str, Verdict | None]:
    with Archive.open(settings.archive, create=False) as archive:
        keys = [key for key in archive.keys("") if key not in {task.key for task in archive.tasks()}]
        return {key: archive.verdict(key, JUDGE_VERSION, device) for key in keys}


def timeless(verdict: Verdict | None) -> Verdict | None:
    """A verdict without how long the judge took."""
    return verdict and replace(verdict, seconds=())


def test_judged_elsewhere_is_the_same_as_judged_at_home(home: Settings, away: Settings, tmp_path: Path) -> None:
    file = module_file(tmp_path, SOFTMAX, "softmax.py")
    ask(file, tmp_path / "g", home, slots=1)
    slot = tmp_path / "g" / "01-rewrite"
    for name, source in (
        ("answer", kernels.SOFTMAX.source),
        ("answer-2", kernels.SOFTMAX.source.replace("/ sum", "* sum")),
    ):
        (slot / name).mkdir()
        (slot / name / "kernel.cu").write_text(source)
        (slot / name / "plan.toml").write_text(kernels.SOFTMAX.plan)
    assert tell(tmp_path / "g", home, judge=False).standing.waiting == 3
    shutil.copy(home.archive, tmp_path / "alone.db")
    assert bundle(home, tmp_path / "out.zip") == 3
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True)
    assert (done.judged, done.known, done.lost, done.device, done.note) == (3, 0, (), "NVIDIA H200", "")
    merged = merge(home.archive, tmp_path / "back.zip")
    assert (merged.verdicts, merged.candidates, merged.proposals, merged.tasks, merged.runs) == (3, 0, 0, 0, 1)
    assert verdicts(home) == verdicts(away)
    assert bundle(home, tmp_path / "again.zip") == 0 and not (tmp_path / "again.zip").exists()
    told = tell(tmp_path / "g", home, judge=False)
    assert [each.judged.verdict.passed for each in told.answers if each.judged] == [True, False]
    assert "**Passed**" in (slot / "answer" / "verdict.md").read_text()
    merge(tmp_path / "third.db", tmp_path / "back.zip")
    third = settings_in(tmp_path, archive=str(tmp_path / "third.db"))
    assert verdicts(third) == verdicts(away), "a bundle of verdicts is complete in itself"
    alone = settings_in(tmp_path, archive=str(tmp_path / "alone.db"), device="NVIDIA H200")
    assert tell(tmp_path / "g", alone).judged == 3
    assert {k: timeless(v) for k, v in verdicts(alone).items()} == {k: timeless(v) for k, v in verdicts(home).items()}


def test_a_file_of_this_machine_stands_for_the_module_and_foreign_code_is_not_run(
    home: Settings, away: Settings, tmp_path: Path
) -> None:
    trap = RELU + f"\nimport pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    waiting(home, module_file(tmp_path, trap), 1)
    (tmp_path / "ran").unlink()
    bundle(home, tmp_path / "out.zip")
    with pytest.raises(UserError, match=r"brings Python code for relu .* --task, or trust .* --trust"):
        judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away)
    assert rows(away) == [] and not (tmp_path / "back.zip").exists()
    mine = module_file(tmp_path, RELU, "mine.py")
    judge = Scripted()
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, tasks=[str(mine)], make_executor=judge)
    assert done.judged == 1 and not (tmp_path / "ran").exists()


def test_the_same_candidates_give_the_same_bytes(home: Settings, file: Path, tmp_path: Path) -> None:
    waiting(home, file, 1, 2)
    bundle(home, tmp_path / "one.zip")
    bundle(home, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        assert packed.testzip() is None


def test_only_what_waits_on_the_device_is_bundled(home: Settings, file: Path, tmp_path: Path) -> None:
    drawn = on(load_task(file), candidate(1))
    fill(home, file, Judged(drawn, passed(drawn)))
    waiting(home, file, 2)
    assert bundle(home, tmp_path / "out.zip") == 2, "an estimate for an H200 is no verdict of an NVIDIA H200"
    assert bundle(home.model_copy(update={"device": "H200"}), tmp_path / "out.zip") == 1
    waiting(home, module_file(tmp_path, SOFTMAX, "softmax.py"), 3)
    assert bundle(home, tmp_path / "out.zip") == 3
    assert bundle(home, tmp_path / "out.zip", task=load_task(file).key[:6]) == 2
    with pytest.raises(ArchiveError, match="no keys of tasks"):
        bundle(home, tmp_path / "out.zip", task="zzzz")


def test_an_interruption_keeps_what_was_judged_and_the_next_call_goes_on(
    home: Settings, away: Settings, file: Path, tmp_path: Path
) -> None:
    waiting(home, file, 1, 2, 3, 4)
    waiting(home, module_file(tmp_path, SOFTMAX, "softmax.py"), 5, 6)
    bundle(home, tmp_path / "out.zip")

    def interrupt(progress: Progress) -> None:
        assert progress.total == 6
        if progress.done == 2:
            signal.raise_signal(signal.SIGINT)

    judge = Scripted()
    with pytest.raises(KeyboardInterrupt):
        judge_bundle(
            tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, watch=interrupt, make_executor=judge
        )
    kept = len(rows(away))
    assert merge(home.archive, tmp_path / "back.zip").verdicts == kept >= 2
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=judge)
    assert (done.judged, done.known) == (6 - kept, kept)
    assert merge(home.archive, tmp_path / "back.zip").verdicts == 6 - kept
    assert not merge(home.archive, tmp_path / "back.zip").anything


def test_killed_without_a_word_it_goes_on_as_well(home: Settings, away: Settings, file: Path, tmp_path: Path) -> None:
    """The verdicts are in the archive of the machine before they are in the file."""
    drawn = waiting(home, file, 1, 2)
    bundle(home, tmp_path / "out.zip")
    fill(away, file)
    with Archive.open(away.archive) as archive:
        merge(away.archive, tmp_path / "out.zip")
        run = archive.start_run(load_task(file), "{}")
        archive.add_verdict(run, passed(drawn[0]), judge_version=JUDGE_VERSION, device="NVIDIA H200")
    judge = Scripted()
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=judge)
    assert (done.judged, done.known, judge.asked) == (1, 1, [drawn[1].key])
    assert merge(home.archive, tmp_path / "back.zip").verdicts == 2


def test_progress_counts_over_all_tasks(home: Settings, away: Settings, file: Path, tmp_path: Path) -> None:
    waiting(home, file, 1, 2)
    waiting(home, module_file(tmp_path, SOFTMAX, "softmax.py"), 3)
    bundle(home, tmp_path / "out.zip")
    seen: list[Progress] = []
    judge_bundle(
        tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, watch=seen.append, make_executor=Scripted()
    )
    assert [(each.done, each.total) for each in seen] == [(1, 3), (2, 3), (3, 3)]


def test_a_failing_machine_is_told_and_tried_again(home: Settings, away: Settings, file: Path, tmp_path: Path) -> None:
    drawn = waiting(home, file, 1, 2)
    bundle(home, tmp_path / "out.zip")

    def breaks(asked: Candidate) -> Verdict:
        if asked.key == drawn[0].key:
            raise MachineError("the GPU fell off the bus")
        return by_variant(asked)

    both = {"trust": True, "tasks": ()}
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, **both, make_executor=Scripted(breaks))  # type: ignore[arg-type]
    assert (done.judged, done.lost) == (1, ((drawn[0].key, "the GPU fell off the bus"),))
    again = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, **both, make_executor=Scripted())  # type: ignore[arg-type]
    assert (again.judged, again.known, again.lost) == (1, 1, ())


def test_verdicts_of_another_device_than_asked_for_are_told(
    home: Settings, away: Settings, file: Path, tmp_path: Path
) -> None:
    waiting(home, file, 1)
    bundle(home, tmp_path / "out.zip")
    here = away.model_copy(update={"device": "A100"})
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", here, trust=True, make_executor=Scripted())
    assert done.device == "A100" and "on NVIDIA H200; these are verdicts of judge" in done.note
    merge(home.archive, tmp_path / "back.zip")
    assert bundle(home, tmp_path / "out.zip") == 1, "what was asked for is still to come"


def test_a_module_that_fails_half_way_keeps_the_verdicts_before(
    home: Settings, away: Settings, file: Path, tmp_path: Path
) -> None:
    drawn = waiting(home, file, 1, 2)
    bundle(home, tmp_path / "out.zip")

    def fails_later(asked: Candidate) -> Verdict:
        if asked.key == sorted(each.key for each in drawn)[1]:
            raise TaskError("get_inputs() raised ValueError")
        return passed(asked)

    done = judge_bundle(
        tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=Scripted(fails_later)
    )
    assert (done.judged, [why for _, why in done.lost]) == (1, ["get_inputs() raised ValueError"])
    assert merge(home.archive, tmp_path / "back.zip").verdicts == 1


def test_verdicts_are_not_judged(home: Settings, away: Settings, file: Path, tmp_path: Path) -> None:
    waiting(home, file, 1)
    bundle(home, tmp_path / "out.zip")
    judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=Scripted())
    with pytest.raises(UserError, match="holds verdicts, not candidates"):
        judge_bundle(tmp_path / "back.zip", tmp_path / "more.zip", away, trust=True)


def test_code_that_gives_another_task_is_refused_and_the_other_tasks_go_on(
    home: Settings, away: Settings, file: Path, tmp_path: Path
) -> None:
    task = load_task(file)
    other = replace(task, source=RELU.replace("64, 128", "64, 256"))
    lost = on(task, candidate(1))
    with Archive.open(home.archive) as archive:
        archive.add_candidate(archive.start_run(other, "{}"), lost)
    waiting(home, module_file(tmp_path, SOFTMAX, "softmax.py"), 2)
    bundle(home, tmp_path / "out.zip")
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=Scripted())
    assert done.judged == 1
    ((key, why),) = done.lost
    assert key == lost.key and "gives another task here" in why


def test_a_class_of_the_file_is_found_again(home: Settings, away: Settings, tmp_path: Path) -> None:
    text = RELU.replace("class Model", "class Rectify") + "\nclass Other(torch.nn.Module):\n    pass\n"
    target = Path(f"{module_file(tmp_path, text)}:Rectify")
    waiting(home, target, 1)
    bundle(home, tmp_path / "out.zip")
    done = judge_bundle(tmp_path / "out.zip", tmp_path / "back.zip", away, trust=True, make_executor=Scripted())
    assert done.judged == 1


def test_there_must_be_an_archive_and_a_place_to_write(home: Settings, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive"):
        bundle(home, tmp_path / "out.zip")
    waiting(home, file, 1)
    with pytest.raises(SettingsError, match="nowhere"):
        bundle(home, tmp_path / "nowhere" / "out.zip")
