"""The output folder: whole files or none, and nothing of the user's is touched."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.explore.stories import HISTORY, NOTHING, OUTCOME, WINNER
from tests.samples import BOUND, DROPPING, TASK
from warpsmith.archive import Archive, to_plain
from warpsmith.device.catalog import gpu
from warpsmith.errors import SettingsError
from warpsmith.explore import Tally, folder_for, outcome_from_archive, output, render_summary, write_results
from warpsmith.program import read_program
from warpsmith.records import Tolerance

FILES = {"kernel.cu", "plan.toml", "functional.py", "verdict.json", "report.html"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_holds_everything_and_the_program_reads_back(tmp_path: Path) -> None:
    folder = write_results(OUTCOME, tmp_path / "a" / "relu")
    assert names(folder) == FILES
    assert read_program(folder) == WINNER.candidate.program
    assert (folder / "functional.py").read_text() == TASK.functional_source
    document = json.loads((folder / "verdict.json").read_text())
    assert document["passed"] is True
    assert document["verdict"] == to_plain(WINNER.verdict)
    assert document["candidate"]["tunables"] == {"BLOCK": 256}
    assert document["verdict"]["timing"]["source"] == "estimated"


def test_masks_that_only_the_program_reads_are_told_of(tmp_path: Path) -> None:
    """Whoever compares its time with the module's must know that they do not do the same."""
    folder = write_results(replace(OUTCOME, task=DROPPING), tmp_path)
    said = "dropout masks are inputs: the candidate reads them, one byte an element; the baseline draws its own numbers"
    assert json.loads((folder / "verdict.json").read_text())["task"]["restrictions"] == [said]
    assert said in (folder / "report.html").read_text()
    shown = io.StringIO()
    Console(file=shown, width=200).print(render_summary(replace(OUTCOME, task=DROPPING), Tally(), None, "archive.db"))
    assert said in shown.getvalue()
    write_results(OUTCOME, tmp_path)
    assert json.loads((folder / "verdict.json").read_text())["task"]["restrictions"] == []
    assert "dropout" not in (folder / "report.html").read_text()


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_results(OUTCOME, tmp_path)
    write_results(OUTCOME, tmp_path)
    assert names(tmp_path) == FILES | {"notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_where_nothing_passed_no_kernel_of_an_earlier_run_is_left(tmp_path: Path) -> None:
    write_results(OUTCOME, tmp_path)
    write_results(NOTHING, tmp_path)
    assert names(tmp_path) == FILES - {"kernel.cu", "plan.toml"}
    document = json.loads((tmp_path / "verdict.json").read_text())
    assert (document["passed"], document["verdict"], document["search"]["judged"]) == (False, None, 2)


def test_a_failure_on_the_way_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_results(OUTCOME, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def stop(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "render_report", stop)
    with pytest.raises(KeyboardInterrupt):
        write_results(NOTHING, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot write results to"):
        write_results(OUTCOME, tmp_path / "file" / "relu")


def test_each_task_keeps_its_own_folder(tmp_path: Path) -> None:
    first = folder_for(tmp_path, TASK)
    assert first == tmp_path / "relu"
    write_results(OUTCOME, first)
    assert folder_for(tmp_path, TASK) == first
    other = replace(TASK, tolerance=Tolerance(factor=1.0))
    assert folder_for(tmp_path, other) == tmp_path / f"relu-{other.key[:8]}"


def test_a_folder_of_the_user_with_the_same_name_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "relu").mkdir()
    (tmp_path / "relu" / "kernel.cu").write_text("mine")
    assert folder_for(tmp_path, TASK) == tmp_path / f"relu-{TASK.key[:8]}"


@pytest.mark.parametrize(("name", "folder"), [("../../etc", "etc"), ("Conv 2d/ReLU", "Conv-2d-ReLU"), ("…", "task")])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, name: str, folder: str) -> None:
    assert folder_for(tmp_path, replace(TASK, name=name)) == tmp_path / folder


def test_the_archive_gives_the_same_outcome_again(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive.db") as archive:
        run = archive.start_run(TASK, "{}")
        for judged in HISTORY:
            archive.add_candidate(run, judged.candidate)
            archive.add_verdict(run, judged.verdict, judge_version="1", device="H200")
        assert outcome_from_archive(archive, TASK.key, gpu("H200")).stopped == "interrupted"
        archive.add_event(run, "stopped", {"reason": "time is up (60 s)"})
        again = outcome_from_archive(archive, TASK.key, gpu("H200"))
        elsewhere = outcome_from_archive(archive, TASK.key, gpu("A100"))
    assert (again.best, again.history, again.lineage) == (WINNER, HISTORY, OUTCOME.lineage)
    assert (again.stopped, again.device, again.task.key) == ("time is up (60 s)", "H200", TASK.key)
    assert again.bound.seconds > 0 and again.bound.device == BOUND.device
    assert (elsewhere.best, elsewhere.history) == (None, ())


def test_outcome_counts() -> None:
    assert (OUTCOME.passed, OUTCOME.generations, OUTCOME.first_passed) == (5, 2, 8e-8)
    assert OUTCOME.failures == [("numerics", "wrong_value", 1)]
