"""The folder of a bench: `run.json` says what was run, `rows.jsonl` has a line for each task that came to an end.

A run that was killed can leave a torn last line: that line is taken away when the run goes on, and its task is run
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpsmith.bench.entries import Entry
from warpsmith.bench.lines import Lines
from warpsmith.bench.row import Row, RunRecord, decode_row, encode_row
from warpsmith.bench.run_folder import RunFolder, read_run
from warpsmith.errors import UserError
from warpsmith.records import frozen

ROWS, ARCHIVE, RESULTS = "rows.jsonl", "archive.db", "results"


@dataclass(frozen=True, eq=False)
class Bench:
    """A run as its folder tells of it: the record, and the last row of every task that belongs to it, in its order."""

    record: RunRecord
    rows: tuple[Row, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The tasks that were selected and have no row yet."""
        done = {row.name for row in self.rows}
        return tuple(name for name in self.record.tasks if name not in done)


def load_bench(folder: str | Path) -> Bench:
    """Read the folder of a run. Raises UserError where it holds none, or a line that is no row."""
    place = Path(folder)
    record = read_run(place)
    if record is None:
        raise UserError("holds no run of `warpsmith bench`", file=str(folder))
    latest = _latest(Lines(place / ROWS, decode_row).read(), record.fingerprint)
    return Bench(record, tuple(latest[name] for name in record.tasks if name in latest))


class BenchFolder(RunFolder):
    """The folder of a bench that is going on. Opening it takes away a torn last line."""

    def mend(self) -> None:
        """Read the rows that there are already."""
        self._lines = Lines(self.path / ROWS, decode_row)
        self._lines.mend()
        self._known = _latest(self._lines.read(), self.record.fingerprint)

    def done(self, entry: Entry, *, retry: bool) -> Row | None:
        """Return the row of a task that need not be run: the same source, and with `retry` no fault of the machine."""
        row = self._known.get(entry.name)
        if row is None or row.source_hash != entry.source_hash or (retry and row.retriable):
            return None
        return row

    def add(self, row: Row) -> None:
        """Append a row; when this returns it is on the disk."""
        self._lines.append(encode_row(row))
        self._known = {**self._known, row.name: row}


def _latest(rows: Sequence[Row], fingerprint: str) -> Mapping[str, Row]:
    return frozen({row.name: row for row in rows if row.fingerprint == fingerprint})
