"""Two archives become one: everything is there once, in order, and nothing passes for what it is not."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from tests.samples import DROPPING, TASK, candidate, failed, passed
from warpsmith.archive import Archive
from warpsmith.archive.merge import Merged
from warpsmith.errors import ArchiveError, UserError
from warpsmith.exchange import merge
from warpsmith.records import Tolerance

NOTHING = Merged(0, 0, 0, 0, 0, 0)


def archive_of(path: Path, *variants: int, device: str = "H200", version: str = "5", seconds: float = 1e-6) -> Path:
    """Write an archive in which candidates were proposed and judged in one run."""
    with Archive.open(path) as archive:
        run = archive.start_run(TASK, '{"seed": 3}')
        for variant in variants:
            drawn = candidate(variant, generation=variant)
            archive.add_candidate(run, drawn)
            verdict = failed(drawn) if variant % 2 else passed(drawn, seconds)
            archive.add_verdict(run, verdict, judge_version=version, device=device)
        archive.add_event(run, "stopped", {"reason": "time is up"})
    return path


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, without the numbers that are an archive's own."""
    connection = sqlite3.connect(path)
    tables: dict[str, list[tuple[object, ...]]] = {}
    for table in ("tasks", "kin", "programs", "candidates", "runs", "proposals", "verdicts", "events"):
        columns = [
            row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in ("id", "run_id")
        ]
        tables[table] = sorted(connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall(), key=repr)
    connection.close()
    return tables


def test_an_archive_merged_into_an_empty_one_is_the_same_archive(tmp_path: Path) -> None:
    source = archive_of(tmp_path / "source.db", 1, 2, 3)
    with Archive.open(source) as archive:
        archive.add_task(DROPPING)
    merged = merge(tmp_path / "into.db", source)
    assert merged == Merged(tasks=2, runs=1, candidates=3, proposals=3, verdicts=3, events=1)
    assert content(tmp_path / "into.db") == content(source)
    with Archive.open(source) as one, Archive.open(tmp_path / "into.db") as other:
        assert one.judged(TASK.key) == other.judged(TASK.key)
        assert one.lineage(candidate(2).key) == other.lineage(candidate(2).key)
        assert one.course(TASK.key, "H200") == other.course(TASK.key, "H200")


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    source, into = archive_of(tmp_path / "source.db", 1, 2), archive_of(tmp_path / "into.db", 2, 3)
    assert merge(into, source) == Merged(tasks=0, runs=1, candidates=1, proposals=2, verdicts=2, events=1)
    before = content(into)
    assert merge(into, source) == NOTHING and not merge(into, source).anything
    assert content(into) == before
    assert merge(into, into) == NOTHING


def test_two_archives_come_to_the_same_whichever_way_they_are_merged(tmp_path: Path) -> None:
    one, other = archive_of(tmp_path / "one.db", 1, 2), archive_of(tmp_path / "other.db", 2, 3)
    merge(tmp_path / "first.db", one)
    merge(tmp_path / "first.db", other)
    merge(tmp_path / "second.db", other)
    merge(tmp_path / "second.db", one)
    first, second = content(tmp_path / "first.db"), content(tmp_path / "second.db")
    # Whoever adds a task or candidate first says when it was added.
    for table in ("runs", "proposals", "verdicts", "events", "kin"):
        assert first[table] == second[table]
    assert [row[0] for row in first["candidates"]] == [row[0] for row in second["candidates"]]


def test_a_run_that_went_on_after_it_was_merged_is_completed(tmp_path: Path) -> None:
    source, into = archive_of(tmp_path / "source.db", 1), tmp_path / "into.db"
    merge(into, source)
    with Archive.open(source) as archive:
        archive.add_candidate(1, candidate(2))
        archive.add_verdict(1, passed(candidate(2)), judge_version="5", device="H200")
        # Said twice in one run, it is there twice.
        archive.add_candidate(1, candidate(2))
    assert merge(into, source) == Merged(tasks=0, runs=0, candidates=1, proposals=2, verdicts=1, events=0)
    assert content(into) == content(source)


def test_verdicts_keep_their_judge_and_device(tmp_path: Path) -> None:
    into = archive_of(tmp_path / "into.db", 2, seconds=3e-6)
    merge(into, archive_of(tmp_path / "gpu.db", 2, device="NVIDIA H200", seconds=9e-6))
    merge(into, archive_of(tmp_path / "old.db", 2, version="4", seconds=1e-9))
    key = candidate(2).key
    with Archive.open(into) as archive:
        for version, device, seconds in (("5", "H200", 3e-6), ("5", "NVIDIA H200", 9e-6), ("4", "H200", 1e-9)):
            verdict = archive.verdict(key, version, device)
            assert verdict is not None and verdict.timing is not None and verdict.timing.median == seconds
        assert len(archive.judged(TASK.key, judge_version="5", device="H200")) == 1


def spoil(path: Path, statement: str) -> Path:
    """Change a row behind the archive's back."""
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(statement)
    connection.commit()
    connection.close()
    return path


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("UPDATE programs SET source = source || ' '", candidate(2).program.key),
        ("UPDATE tasks SET graph = replace(graph, '64', '65')", TASK.key),
        ("""UPDATE candidates SET tunables = '[["BLOCK",128]]'""", candidate(2).key),
    ],
)
@pytest.mark.parametrize("spoilt", ["source", "into"])
def test_other_content_under_a_key_is_an_error_that_names_it(
    tmp_path: Path, statement: str, key: str, spoilt: str
) -> None:
    source, into = archive_of(tmp_path / "source.db", 2, 4), archive_of(tmp_path / "into.db", 2)
    spoil(tmp_path / f"{spoilt}.db", statement)
    before = content(into)
    with pytest.raises(ArchiveError, match=key):
        merge(into, source)
    assert content(into) == before


def test_a_newer_task_of_the_same_key_keeps_its_first_text(tmp_path: Path) -> None:
    source, into = tmp_path / "source.db", tmp_path / "into.db"
    with Archive.open(source) as archive:
        archive.add_task(replace(TASK, source="# moved\n", origin="elsewhere.py"))
        archive.add_task(replace(TASK, tolerance=Tolerance(factor=1.0)))
    with Archive.open(into) as archive:
        archive.add_task(TASK)
    assert merge(into, source).tasks == 1
    with Archive.open(into) as archive:
        assert archive.task(TASK.key).origin == TASK.origin


@pytest.mark.parametrize(
    ("source", "message"),
    [("gone.db", "there is no archive"), ("text.txt", "cannot open the archive"), ("oracle://x/y", "not in oracle")],
)
def test_a_source_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("just some text that is long enough to be taken for a page of a database" * 20)
    with pytest.raises(UserError, match=message):
        merge("into.db", source)
    assert not Path("into.db").exists()
