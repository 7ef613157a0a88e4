"""How a task stands: what is fastest, what went wrong, and that measurements and estimates are not mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.samples import TASK, candidate, failed, passed
from warpsmith.archive import Archive
from warpsmith.device.catalog import gpu
from warpsmith.errors import ArchiveError
from warpsmith.exchange import render_standing, standing_of
from warpsmith.exchange.pages import fenced, inline
from warpsmith.exchange.standing import times_faster
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Call, Candidate, Judged, Stage, Timing, Verdict, View

H200 = gpu("H200")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.open(tmp_path / "archive.db") as opened:
        yield opened


def add(archive: Archive, *pairs: tuple[Candidate, Verdict | None], version: str = JUDGE_VERSION) -> None:
    run = archive.start_run(TASK, "{}")
    for drawn, verdict in pairs:
        archive.add_candidate(run, drawn)
        if verdict is not None:
            archive.add_verdict(run, verdict, judge_version=version, device="H200")


def measured(drawn: Candidate, seconds: float) -> Verdict:
    timing = Timing((seconds,), seconds, (seconds, seconds), "measured", "H200")
    return replace(passed(drawn), timing=timing)


def test_candidates_are_counted_and_programs_ranked_by_their_best_tunables(archive: Archive) -> None:
    slow = replace(candidate(1), tunables=(("BLOCK", 512),))
    add(archive, (candidate(1), passed(candidate(1), 3e-6)), (slow, passed(slow, 4e-6)))
    add(archive, (candidate(2), passed(candidate(2), 2e-6)), (candidate(3), failed(candidate(3))), (candidate(4), None))
    standing = standing_of(archive, TASK.key, H200)
    assert (standing.judged, standing.passed, standing.waiting) == (4, 3, 1)
    assert [judged.candidate for judged in standing.fastest] == [candidate(2), candidate(1)]
    assert standing.best == standing.fastest[0]
    assert standing.bound.device == "H200"


def test_a_measurement_hides_estimates_however_fast_they_are(archive: Archive) -> None:
    add(archive, (candidate(1), passed(candidate(1), 1e-9)), (candidate(2), measured(candidate(2), 5e-6)))
    assert [judged.candidate for judged in standing_of(archive, TASK.key, H200).fastest] == [candidate(2)]
    estimate, real = Judged(candidate(1), passed(candidate(1))), Judged(candidate(2), measured(candidate(2), 5e-6))
    assert times_faster(estimate, real) is None and times_faster(real, estimate) is None
    assert times_faster(estimate, None) is None and times_faster(real, real) == 1.0


def test_another_judge_or_device_does_not_count(archive: Archive) -> None:
    add(archive, (candidate(1), passed(candidate(1))), version="0")
    assert standing_of(archive, TASK.key, H200).judged == 0
    assert standing_of(archive, TASK.key, H200).waiting == 1
    assert standing_of(archive, TASK.key, gpu("A100")).judged == 0


def test_lessons_say_how_often_and_what_last(archive: Archive) -> None:
    add(archive, *((candidate(n), failed(candidate(n))) for n in (1, 2)))
    add(archive, (candidate(3), failed(candidate(3), "barrier", Stage.SANITIZE)))
    said = "3 of 8192 elements of out are wrong"
    assert standing_of(archive, TASK.key, H200).lessons == (
        f"numerics: wrong value, 2 times. The latest: {said}",
        f"sanitize: barrier, once. The latest: {said}",
    )
    assert "- numerics: wrong value, 2 times." in render_standing(standing_of(archive, TASK.key, H200))


def test_hybrid_programs_count_only_where_they_are_wanted(archive: Archive) -> None:
    pure = candidate(1)
    call = Call("aten.mm", (View("x"), View("x")), View("out"))
    hybrid = replace(pure, program=replace(pure.program, plan=replace(pure.program.plan, calls=(call,))))
    add(archive, (pure, passed(pure, 2e-6)), (hybrid, passed(hybrid, 1e-6)))
    best = standing_of(archive, TASK.key, H200).best
    assert best is not None and best.candidate == hybrid
    best = standing_of(archive, TASK.key, H200, hybrid=False).best
    assert best is not None and best.candidate == pure


def test_a_task_that_is_not_there_is_named(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="beef"):
        standing_of(archive, "beef", H200)


def test_where_nothing_passed_the_page_says_so(archive: Archive) -> None:
    archive.add_task(TASK)
    assert "Nothing has passed yet." in render_standing(standing_of(archive, TASK.key, H200))


def test_code_cannot_end_its_block() -> None:
    assert fenced("a\n```\nb", "cuda") == "````cuda\na\n```\nb\n````"


def test_a_line_stays_one_and_says_what_it_says() -> None:
    assert inline("# a\n| *b* `c`") == r"\# a \| \*b\* \`c\`"
