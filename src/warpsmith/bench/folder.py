"""The folder of a run: `run.json` says what was run, `rows.jsonl` has a line for each task that came to an end.

A line is written in one piece and is on the disk before another task takes the place of its own. A run that was killed
can leave a torn last line, and nothing worse: that line is taken away when the run goes on, and its task is run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from warpsmith.bench.entries import Entry
from warpsmith.bench.row import Row, RunRecord, decode_row, decode_run, encode_row, encode_run
from warpsmith.errors import SettingsError, UserError
from warpsmith.records import frozen

RUN, ROWS, ARCHIVE, RESULTS = "run.json", "rows.jsonl", "archive.db", "results"
_LOCK = ".lock"


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
    record = _read_run(place)
    if record is None:
        raise UserError("holds no run of `warpsmith bench`", file=str(folder))
    latest = _latest(_read_rows(place / ROWS), record.fingerprint)
    return Bench(record, tuple(latest[name] for name in record.tasks if name in latest))


class BenchFolder:
    """The folder of a run that is going on. One process and thread at a time; use as a context manager.

    Opening it takes away a torn last line. Where it holds a run with other settings, on another machine or at another
    size regime, SettingsError says so: the rows of two runs do not belong into one table. SettingsError too where
    another process has it open, or where it cannot be written.
    """

    def __init__(self, folder: str | Path, record: RunRecord) -> None:
        self.path = Path(folder).absolute()
        self._lock = FileLock(self.path / _LOCK)
        with _explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise SettingsError(f"another `warpsmith bench` is writing to {self.path}") from None
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self.record = _continued(self.path, record)
            self._rows = self.path / ROWS
            with _explained(self.path):
                _mend(self._rows)
            self.write_record(self.record)
            self._known = _latest(_read_rows(self._rows), record.fingerprint)
            undo.pop_all()

    def __enter__(self) -> BenchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def done(self, entry: Entry, *, retry: bool) -> Row | None:
        """Return the row of a task that need not be run: the same source, and with `retry` no fault of the machine."""
        row = self._known.get(entry.name)
        if row is None or row.source_hash != entry.source_hash or (retry and row.retriable):
            return None
        return row

    def add(self, row: Row) -> None:
        """Append a row; when this returns it is on the disk."""
        with _explained(self.path):
            _append(self._rows, encode_row(row))
        self._known = {**self._known, row.name: row}

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json` anew; the file is whole at every moment."""
        with _explained(self.path):
            staged = self.path / f".{RUN}"
            with staged.open("w", encoding="utf-8") as file:
                file.write(encode_run(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.path / RUN)
            _sync_folder(self.path)
        self.record = record


def _continued(folder: Path, record: RunRecord) -> RunRecord:
    """Return the record with the sessions and tasks of a run that the folder holds already."""
    earlier = _read_run(folder)
    if earlier is None:
        return record
    if earlier.fingerprint != record.fingerprint:
        raise SettingsError(f"{folder} holds another run ({_difference(earlier, record)}); choose another folder")
    tasks = (*earlier.tasks, *(name for name in record.tasks if name not in set(earlier.tasks)))
    return RunRecord(
        record.suite,
        record.regime,
        record.device,
        record.settings,
        record.machine,
        tasks,
        (*earlier.sessions, *record.sessions),
    )


def _difference(earlier: RunRecord, record: RunRecord) -> str:
    pairs = zip(_facts(earlier), _facts(record))
    return "; ".join(f"{name} {old}, now {new}" for (name, old), (_, new) in pairs if old != new)


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    machine = record.machine
    return [
        ("regime", record.regime),
        ("device", record.device),
        *record.settings,
        ("GPUs", ", ".join(machine.gpus) or "none"),
        ("driver", machine.driver),
        ("PyTorch", machine.torch),
        ("CUDA", machine.cuda),
        ("Python", machine.python),
        ("Warpsmith", machine.warpsmith),
    ]


def _read_run(folder: Path) -> RunRecord | None:
    try:
        text = (folder / RUN).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", file=str(folder / RUN)) from error
    try:
        return decode_run(text)
    except UserError as error:
        raise UserError(error.message, file=str(folder / RUN)) from error


def _read_rows(path: Path) -> Sequence[Row]:
    """Return all rows of a file; a torn last line, one that has no end, is left out."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return ()
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        whole = number <= data.count(b"\n")
        try:
            if line.strip():
                rows.append(decode_row(line.decode("utf-8")))
        except (UserError, UnicodeDecodeError) as error:
            if whole:
                raise UserError(getattr(error, "message", str(error)), file=str(path), line=number) from error
    return rows


def _latest(rows: Sequence[Row], fingerprint: str) -> Mapping[str, Row]:
    return frozen({row.name: row for row in rows if row.fingerprint == fingerprint})


def _mend(path: Path) -> None:
    """Take a torn last line away; one that only lacks its end gets it."""
    if not path.exists():
        return
    data = path.read_bytes()
    kept = data.rfind(b"\n") + 1
    if kept == len(data):
        return
    try:
        decode_row(data[kept:].decode("utf-8"))
    except (UserError, UnicodeDecodeError):
        os.truncate(path, kept)
    else:
        _append(path, "")


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        data = memoryview(text.encode() + b"\n")
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as what they name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"cannot write to {folder}: {error.strerror or error}") from error
