"""Several processes, and processes that are killed. They are forked from a server that has imported everything already."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tests.archive.writer import write_candidates
from tests.samples import TASK
from warpsmith.archive import Archive

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.archive.writer"])


def start(path: Path, first: int, count: int) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    heard, told = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=write_candidates, args=(path, first, count, told))
    process.start()
    told.close()
    return process, heard


def everything(heard: Connection) -> list[str]:
    """All that a process said until it ended."""
    said = []
    try:
        while True:
            said.append(heard.recv())
    except EOFError:
        return said


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    answer: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    return answer


def test_kill_loses_at_most_the_candidate_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    chance = random.Random(11)
    safe: list[str] = []
    rounds = 12
    for number in range(rounds):
        process, heard = start(path, number * 10_000, 10_000)
        assert heard.poll(60) and heard.recv() == "open", "an archive whose writer was killed must open again"
        if number % 2:  # On a busy machine a writer may not get to write before it is killed; every other one does.
            safe.append(heard.recv())
        time.sleep(chance.uniform(0.0, 0.08))
        process.kill()
        process.join()
        safe += everything(heard)
        assert integrity(path) == "ok"
    with Archive.open(path, create=False) as archive:
        judged = [judged.candidate.key for judged in archive.judged(TASK.key)]
    connection = sqlite3.connect(path)
    (unjudged,) = connection.execute(
        "SELECT count(*) FROM candidates WHERE key NOT IN (SELECT candidate_key FROM verdicts)"
    ).fetchone()
    connection.close()
    assert len(safe) >= rounds // 2
    assert set(safe) <= set(judged), "a verdict that was acknowledged is lost"
    assert len(judged) - len(safe) <= rounds, "each kill may fall between a commit and its acknowledgement, once"
    assert unjudged <= rounds


def test_kill_while_the_tables_are_made_leaves_nothing_half_made(tmp_path: Path) -> None:
    chance = random.Random(5)
    for number in range(10):
        path = tmp_path / f"{number}.db"
        process, _ = start(path, 0, 0)
        time.sleep(chance.uniform(0.0, 0.04))
        process.kill()
        process.join()
        with Archive.open(path) as archive:
            # A quick machine may have come as far as the task; then it is there as a whole.
            assert [task.key for task in archive.tasks()] in ([], [TASK.key])


def test_two_processes_make_and_fill_one_archive_at_once(tmp_path: Path) -> None:
    path = tmp_path / "archive.db"
    # The second half of one and the first half of the other are the same candidates.
    writers = [start(path, first, 60) for first in (0, 30)]
    said = [everything(heard) for _, heard in writers]
    for process, _ in writers:
        process.join()
        assert process.exitcode == 0
    with Archive.open(path, create=False) as archive:
        runs = [run.id for run in archive.runs(TASK.key)]
        written = [[judged.candidate.key for judged in archive.judged(TASK.key, run=run)] for run in runs]
        assert sorted(written) == sorted(keys[1:] for keys in said)
        (standing,) = archive.standings()
        assert (standing.judged, standing.passed) == (90, 90)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM programs").fetchone() == (90,)
    connection.close()
