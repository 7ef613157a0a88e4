"""The best time against the seconds spent: what counts as spent, and what as better."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.samples import TASK, candidate, failed, passed
from warpsmith.archive import BEGAN, Archive, Step
from warpsmith.archive.course import steps

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Row:
    """A row as the database returns it."""

    run_id: int
    candidate_key: str
    median_seconds: float | None
    added_at: datetime
    started_at: datetime
    timing_source: str | None = "estimated"


def row(run: int, began: float, at: float, key: str, seconds: float | None, source: str = "estimated") -> Any:
    def moment(when: float) -> datetime:
        return START + timedelta(seconds=when)

    return Row(run, key, seconds, moment(at), moment(began), source if seconds else None)


def test_only_what_is_faster_than_all_before_is_a_step() -> None:
    rows = [row(1, 0, 2, "a", 5e-6), row(1, 0, 3, "b", None), row(1, 0, 4, "c", 6e-6), row(1, 0, 9, "d", 4e-6)]
    assert steps(rows, {}) == (Step(2, 5e-6, "a"), Step(9, 4e-6, "d"))


def test_the_time_between_two_runs_is_not_spent() -> None:
    rows = [row(1, 0, 2, "a", 5e-6), row(1, 0, 10, "b", None), row(2, 1000, 1003, "c", 4e-6)]
    assert [step.spent for step in steps(rows, {})] == [2, 13]
    assert [step.spent for step in steps(rows, {1: 1.5, 2: 0.5})] == [3.5, 15]


def test_a_second_look_at_a_candidate_is_no_improvement() -> None:
    rows = [row(1, 0, 2, "a", 5e-6), row(1, 0, 3, "a", 4e-6)]
    assert steps(rows, {}) == (Step(2, 5e-6, "a"),)


def test_measurements_and_estimates_are_never_mixed() -> None:
    rows = [row(1, 0, 2, "a", 1e-6), row(1, 0, 3, "b", 5e-6, "measured"), row(1, 0, 4, "c", 2e-6)]
    assert steps(rows, {}) == (Step(3, 5e-6, "b"),)


def test_the_archive_tells_the_course_of_one_device(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive.db") as archive:
        run = archive.start_run(TASK, "{}")
        archive.add_event(run, BEGAN, {"after": 100.0})
        for drawn, verdict in (
            (candidate(0), passed(candidate(0), 3e-6)),
            (candidate(1), failed(candidate(1))),
            (candidate(2), passed(candidate(2), 2e-6)),
        ):
            archive.add_candidate(run, drawn)
            archive.add_verdict(run, verdict, judge_version="1", device="H200")
        found = archive.course(TASK.key, "H200")
        assert archive.course(TASK.key, "A100") == ()
    assert [(step.seconds, step.candidate_key) for step in found] == [
        (3e-6, candidate(0).key),
        (2e-6, candidate(2).key),
    ]
    assert all(100.0 <= step.spent < 160.0 for step in found), "what went before the run was written down counts"
    assert found[0].spent <= found[1].spent


@pytest.mark.parametrize("key", ["beef", TASK.key])
def test_a_task_without_verdicts_has_no_course(tmp_path: Path, key: str) -> None:
    with Archive.open(tmp_path / "archive.db") as archive:
        archive.add_task(TASK)
        assert archive.course(key, "H200") == ()
