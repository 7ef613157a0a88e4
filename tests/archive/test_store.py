"""What a user asks the archive, and what it promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from tests.archive import strategies
from tests.samples import TASK, candidate, failed, passed
from warpsmith.archive import Archive
from warpsmith.errors import ArchiveError
from warpsmith.records import Candidate, Judged, Timing, Tolerance, Verdict

# The URL of a PostgreSQL database that may be emptied, for whoever wants the tests to run on that as well.
POSTGRESQL = os.environ.get("TEST_POSTGRESQL_URL")


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRESQL else [])])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'archive.db'}"
    assert POSTGRESQL is not None
    engine = create_engine(POSTGRESQL)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return POSTGRESQL


@pytest.fixture
def archive(place: str) -> Iterator[Archive]:
    with Archive.open(place) as opened:
        yield opened


def add(archive: Archive, run: int, of: Candidate, verdict: Verdict, device: str = "H200") -> Judged:
    archive.add_candidate(run, of)
    archive.add_verdict(run, verdict, judge_version="1", device=device)
    return Judged(of, verdict)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.candidates(TASK.key), strategies.verdicts())
def test_candidate_and_verdict_come_back_equal(archive: Archive, drawn: Candidate, said: Verdict) -> None:
    run = archive.start_run(TASK, "{}")
    verdict = replace(said, candidate_key=drawn.key, task_key=TASK.key)
    archive.add_candidate(run, drawn)
    archive.add_verdict(run, verdict, judge_version="1", device="H200")
    assert archive.verdict(drawn.key, "1", "H200") == verdict
    assert archive.candidate(drawn.key).key == drawn.key
    assert archive.judged(TASK.key, run=run)[-1].verdict == verdict


def test_everything_is_there_after_opening_again_in_order(place: str) -> None:
    with Archive.open(place) as archive:
        run = archive.start_run(TASK, '{"seed": 3}')
        kept = [add(archive, run, candidate(n), passed(candidate(n), 1e-6 * (9 - n))) for n in range(3)]
        kept.append(add(archive, run, candidate(7), failed(candidate(7))))
        archive.add_event(run, "stopped", {"reason": "time is up", "candidates": 4})
    with Archive.open(place, create=False) as archive:
        assert archive.judged(TASK.key) == kept
        assert archive.best(TASK.key) == kept[2]
        assert archive.run(run).settings == '{"seed":3}'
        assert [(event.kind, event.data["candidates"]) for event in archive.events(run)] == [("stopped", 4)]
        (task,) = archive.tasks()
        assert (task.key, task.graph, task.tolerance) == (TASK.key, TASK.graph, TASK.tolerance)


def test_verdicts_of_another_judge_or_device_do_not_count(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    archive.add_candidate(run, candidate())
    archive.add_verdict(run, failed(candidate()), judge_version="1", device="H200")
    archive.add_verdict(run, passed(candidate()), judge_version="2", device="H200")
    assert archive.verdict(candidate().key, "1", "H200") == failed(candidate())
    assert archive.verdict(candidate().key, "2", "H200") == passed(candidate())
    assert archive.verdict(candidate().key, "2", "A100") is None
    assert [each.verdict.passed for each in archive.judged(TASK.key, judge_version="2")] == [True]
    assert archive.judged(TASK.key, device="A100") == []
    assert archive.best(TASK.key, judge_version="1") is None


def test_a_measured_time_is_never_beaten_by_an_estimate(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    add(archive, run, candidate(1), passed(candidate(1), 1e-9))
    measured = replace(passed(candidate(2)), timing=Timing((5e-6,), 5e-6, (4e-6, 6e-6), "measured", "H200"))
    slower = add(archive, run, candidate(2), measured)
    assert archive.best(TASK.key) == slower
    (standing,) = archive.standings()
    assert (standing.best_seconds, standing.source) == (5e-6, "measured")


def test_who_proposed_a_candidate_first_stays_its_author(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    first, second = candidate(1, operator="create"), candidate(1, operator="cross", parents=(candidate(0).key,))
    assert first.key == second.key
    archive.add_candidate(run, first)
    archive.add_candidate(run, second)
    assert archive.candidate(first.key) == first


def test_lineage_is_all_ancestors_oldest_first(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    root, other, stranger = candidate(0), candidate(1), candidate(2)
    child = candidate(3, parents=(root.key, other.key), operator="cross", generation=1)
    grandchild = candidate(4, parents=(child.key,), operator="mutate", generation=2)
    kept = {c.key: add(archive, run, c, passed(c)) for c in (root, other, stranger, child, grandchild)}
    assert archive.lineage(grandchild.key) == [kept[c.key] for c in (root, other, child, grandchild)]
    assert archive.lineage(root.key) == [kept[root.key]]


def test_standings_count_each_candidate_once_for_each_device(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    add(archive, run, candidate(1), passed(candidate(1), 3e-6))
    archive.add_verdict(run, passed(candidate(1), 3e-6), judge_version="2", device="H200")
    add(archive, run, candidate(2), failed(candidate(2)))
    add(archive, run, candidate(3), failed(candidate(3)), device="A100")
    by_device = {standing.device: standing for standing in archive.standings()}
    assert (by_device["H200"].judged, by_device["H200"].passed, by_device["H200"].best_seconds) == (2, 1, 3e-6)
    assert (by_device["A100"].judged, by_device["A100"].passed, by_device["A100"].best_seconds) == (1, 0, None)


def test_keys_are_found_by_their_beginning(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    archive.add_candidate(run, candidate())
    assert archive.keys(TASK.key[:6]) == [TASK.key]
    assert archive.keys(candidate().key[:6]) == [candidate().key]
    assert archive.keys("%") == []


def test_time_stamps_are_utc(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    started = archive.run(run).started_at
    assert started.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=1)


def test_a_task_with_another_tolerance_is_another_task(archive: Archive) -> None:
    strict = replace(TASK, tolerance=Tolerance(factor=1.0))
    archive.add_task(TASK)
    archive.add_task(strict)
    archive.add_task(TASK)
    assert [task.key for task in archive.tasks()] == [TASK.key, strict.key]
    assert archive.task(strict.key).tolerance.factor == 1.0


@pytest.mark.parametrize("table", ["tasks", "kin", "runs", "programs", "candidates", "proposals", "verdicts", "events"])
def test_no_program_can_change_or_delete_a_row(place: str, table: str) -> None:
    with Archive.open(place) as archive:
        run = archive.start_run(TASK, "{}")
        add(archive, run, candidate(), passed(candidate()))
        archive.add_event(run, "stopped", {})
    engine = create_engine(place)
    column = "key" if table in ("tasks", "programs", "candidates") else "operator" if table == "kin" else "id"
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
        with engine.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))
    engine.dispose()


def test_what_is_not_there_is_named(archive: Archive) -> None:
    run = archive.start_run(TASK, "{}")
    for ask, what in (
        (lambda: archive.candidate("beef"), "candidate beef"),
        (lambda: archive.lineage("beef"), "candidate beef"),
        (lambda: archive.task("beef"), "task beef"),
        (lambda: archive.run(99), "run 99"),
        (lambda: archive.add_verdict(run, passed(candidate()), judge_version="1", device="H200"), "does not know"),
        (lambda: archive.add_candidate(99, candidate()), "does not know"),
        (lambda: archive.add_event(99, "stopped", {}), "does not know"),
    ):
        with pytest.raises(ArchiveError, match=what):
            ask()
    assert archive.keys(candidate().key) == [], "a refused candidate left something behind"
