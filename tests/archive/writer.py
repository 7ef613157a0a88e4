"""What the writing processes of `test_processes.py` do."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from tests.samples import TASK, candidate, passed
from warpsmith.archive import Archive


def write_candidates(path: Path, first: int, count: int, told: Connection) -> None:
    """Open the archive and add candidates with verdicts; say "open", then the key of each that is safe."""
    with Archive.open(path) as archive:
        told.send("open")
        run = archive.start_run(TASK, "{}")
        for number in range(first, first + count):
            drawn = candidate(number)
            archive.add_candidate(run, drawn)
            archive.add_verdict(run, passed(drawn), judge_version="1", device="H200")
            told.send(drawn.key)
