"""A file of rows, one JSON text in a line, that outlives whoever writes it.

A line is written in one piece and is on the disk before another follows. A process that was killed can leave a torn
last line, and nothing worse: reading leaves that line out, and `mend` takes it away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from warpsmith.errors import SettingsError, UserError

Row = TypeVar("Row")


class Lines(Generic[Row]):
    """The file at `path`. `decode` makes a row of a line, and raises UserError where it is none."""

    def __init__(self, path: Path, decode: Callable[[str], Row]) -> None:
        self.path = path
        self._decode = decode

    def read(self) -> list[Row]:
        """Return all rows but a torn last line. Raises UserError, with its number, for a line that is no row."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate(data.split(b"\n"), 1):
            whole = number <= data.count(b"\n")
            try:
                if line.strip():
                    rows.append(self._decode(line.decode("utf-8")))
            except (UserError, UnicodeDecodeError) as error:
                if whole:
                    message = getattr(error, "message", str(error))
                    raise UserError(message, file=str(self.path), line=number) from error
        return rows

    def mend(self) -> None:
        """Take a torn last line away; one that only lacks its end gets it. Raises SettingsError where it cannot."""
        if not self.path.exists():
            return
        with explained(self.path.parent):
            data = self.path.read_bytes()
            kept = data.rfind(b"\n") + 1
            if kept == len(data):
                return
            try:
                self._decode(data[kept:].decode("utf-8"))
            except (UserError, UnicodeDecodeError):
                os.truncate(self.path, kept)
            else:
                self.append("")

    def append(self, text: str) -> None:
        """Add a line; when this returns it is on the disk. Raises SettingsError where it cannot be written."""
        with explained(self.path.parent):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                data = memoryview(text.encode() + b"\n")
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self.path.parent)


def write_whole(path: Path, text: str) -> None:
    """Write a file anew; it is whole at every moment."""
    staged = path.with_name(f".{path.name}")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as what they name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into a SettingsError that names the folder."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"cannot write to {folder}: {error.strerror or error}") from error
