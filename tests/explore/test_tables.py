"""Tables on the terminal: the closing table of a run, and the archive's list and show."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.explore.stories import HISTORY, NOTHING, OUTCOME, WINNER, WRONG, hybrid, measured
from tests.samples import TASK
from warpsmith.archive import Archive
from warpsmith.errors import ArchiveError
from warpsmith.explore import FinishedStage, Tally, render_best, render_key, render_list, render_summary, write_results


def text(renderable: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=140).print(renderable)
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive.db") as opened:
        run = opened.start_run(TASK, "{}")
        for judged in HISTORY:
            opened.add_candidate(run, judged.candidate)
            opened.add_verdict(run, judged.verdict, judge_version="1", device="H200")
        yield opened


def test_summary_says_what_happened_in_each_stage_and_where_results_lie(tmp_path: Path) -> None:
    folder = write_results(OUTCOME, tmp_path / "relu")
    stages = (FinishedStage("functionalize", 0.5, "1 operator"), FinishedStage("evolve", 55.0, "60 candidates"))
    tally = Tally(finished=stages, stage="evolve")
    shown = text(render_summary(OUTCOME, tally, folder, "out/archive.db"))
    assert "relu: 20.0 ns estimated for H200, 70% of the speed of light, 4.00× the first that worked" in shown
    assert "functionalize       0.5   1 operator" in shown
    assert "evolve             55.0   60 candidates" in shown
    assert "relu/" in shown
    for file in ("kernel.cu", "plan.toml", "functional.py", "report.html", "verdict.json"):
        assert file in shown
    assert f"warpsmith archive show {TASK.key[:8]}" in shown


def test_summary_says_that_a_library_had_a_part_in_it() -> None:
    shown = text(render_best(replace(OUTCOME, best=hybrid(WINNER, 0.25))))
    assert "70% of the speed of light (hybrid, 25% of the time in library code), 4.00×" in shown


def test_summary_of_an_interrupted_run_says_how_far_it_came() -> None:
    tally = Tally(finished=(FinishedStage("translate", 1.0, ""),), stage="evolve", judged=5, built=5, passed=4)
    shown = text(render_summary(OUTCOME, tally, None, "archive.db"))
    assert "evolve            –   interrupted; 5 judged, 5 built, 4 passed, 1 failed" in shown
    assert "results" not in shown


def test_list_fits_a_narrow_terminal(archive: Archive) -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(render_list(archive.standings()))
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].rstrip().endswith(f"{archive.standings()[0].last_at:%H:%M}")


def test_best_so_far_where_nothing_passed() -> None:
    assert render_best(NOTHING).plain == "relu: nothing passed among 2 candidates"


def test_list_keeps_measured_and_estimated_apart(archive: Archive) -> None:
    estimated = text(render_list(archive.standings())).splitlines()
    assert estimated[0].split() == [
        "task",
        "key",
        "device",
        "judged",
        "passed",
        "measured",
        "estimated",
        "last",
        "(UTC)",
    ]
    assert estimated[1].split()[:8] == ["relu", TASK.key[:8], "H200", "6", "5", "–", "20.0", "ns"]
    archive.add_verdict(1, measured(WINNER).verdict, judge_version="1", device="H200")
    row = text(render_list(archive.standings())).splitlines()[1].split()
    assert row[5:8] == ["20.0", "ns", "–"]
    assert "empty" in text(render_list([]))


def test_show_task(archive: Archive) -> None:
    shown = text(render_key(archive, TASK.key[:5]))
    for part in (TASK.key, "examples/relu.py", "aten.relu", WINNER.candidate.key[:8], "20.0 ns estimated for H200"):
        assert part in shown
    assert shown.index(WINNER.candidate.key[:8]) < shown.index(HISTORY[0].candidate.key[:8]), "fastest first"


def test_show_candidate_with_its_ancestors_and_source(archive: Archive) -> None:
    shown = text(render_key(archive, WINNER.candidate.key))
    for ancestor in OUTCOME.lineage:
        assert ancestor.candidate.key[:8] in shown
    for part in ("tune, generation 2", "BLOCK = 256", "fmaxf", "ceil_div(count, BLOCK)"):
        assert part in shown
    assert "numerics: wrong value" in text(render_key(archive, WRONG.candidate.key))


@pytest.mark.parametrize("prefix", ["", "zz"])
def test_show_what_is_not_there(archive: Archive, prefix: str) -> None:
    with pytest.raises(ArchiveError, match="no key in the archive begins with"):
        render_key(archive, prefix)


def test_show_asks_for_more_of_a_key_that_is_not_alone(archive: Archive) -> None:
    keys = [TASK.key, *(judged.candidate.key for judged in HISTORY)]
    shared = next(key[0] for key in keys if sum(other[0] == key[0] for other in keys) > 1)
    with pytest.raises(ArchiveError, match=f"keys begin with '{shared}'"):
        render_key(archive, shared)
