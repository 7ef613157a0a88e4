"""The folder of a run that is going on: one process at a time, and one run for ever, which `run.json` tells of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from filelock import FileLock, Timeout

from warpsmith.bench.lines import explained, write_whole
from warpsmith.bench.order import now
from warpsmith.bench.row import RunRecord, decode_run, encode_run
from warpsmith.errors import SettingsError, UserError

RUN = "run.json"
_LOCK = ".lock"


class RunFolder:
    """Holds the lock of a folder and its record. One process and thread at a time; use as a context manager.

    `record` goes on from the record of earlier calls: with their sessions, and with the tasks of all of them. Where the
    folder holds a run with other settings, on another machine or at another size regime, SettingsError says so: the
    rows of two runs do not belong into one table. SettingsError too where another process has it open, or where it
    cannot be written.
    """

    verb: ClassVar[str] = "bench"
    """The verb of the command line that makes such folders."""

    def __init__(self, folder: str | Path, record: RunRecord) -> None:
        self.path = Path(folder).absolute()
        self._lock = FileLock(self.path / _LOCK)
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise SettingsError(f"another `warpsmith {self.verb}` is writing to {self.path}") from None
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self.record = _continued(self.path, record)
            self.mend()
            self.write_record(self.record)
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def mend(self) -> None:
        """Bring the rows of an earlier call into order, before the record says that there is another call."""

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json` anew; the file is whole at every moment."""
        with explained(self.path):
            write_whole(self.path / RUN, encode_run(record) + "\n")
        self.record = record

    @contextmanager
    def session(self) -> Iterator[None]:
        """Note in the record when this call of the command ended (UTC), and how: finished, interrupted or failed."""
        how = "failed"
        try:
            yield
            how = "finished"
        except KeyboardInterrupt:
            how = "interrupted"
            raise
        finally:
            *earlier, last = self.record.sessions
            sessions = (*earlier, replace(last, ended=now(), how=how))
            self.write_record(replace(self.record, sessions=sessions))


def read_run(folder: Path) -> RunRecord | None:
    """Return the record in a folder, None where there is none. Raises UserError where it cannot be read."""
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


def _continued(folder: Path, record: RunRecord) -> RunRecord:
    """Return the record with the sessions and tasks of a run that the folder holds already."""
    earlier = read_run(folder)
    if earlier is None:
        return record
    if earlier.fingerprint != record.fingerprint:
        raise SettingsError(f"{folder} holds another run ({_difference(earlier, record)}); choose another folder")
    tasks = (*earlier.tasks, *(name for name in record.tasks if name not in set(earlier.tasks)))
    return replace(record, tasks=tasks, sessions=(*earlier.sessions, *record.sessions))


def _difference(earlier: RunRecord, record: RunRecord) -> str:
    old, new = _facts(earlier), _facts(record)
    pairs = ((name, old.get(name, "not set"), new.get(name, "not set")) for name in {**old, **new})
    return "; ".join(f"{name} {before}, now {now}" for name, before, now in pairs if before != now)


def _facts(record: RunRecord) -> dict[str, str]:
    machine = record.machine
    return {
        "regime": record.regime,
        "device": record.device,
        **dict(record.settings),
        "GPUs": ", ".join(machine.gpus) or "none",
        "driver": machine.driver,
        "PyTorch": machine.torch,
        "CUDA": machine.cuda,
        "Python": machine.python,
        "Warpsmith": machine.warpsmith,
    }
