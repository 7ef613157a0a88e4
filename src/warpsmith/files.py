"""Reads and writes single files in folders that others write to as well.

Links are not followed: whoever may write to such a folder must not thereby read, or write, somewhere else. Files are of
limited size, and complete at every moment: they are written elsewhere first and moved into place.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from warpsmith.errors import SettingsError, UserError


def read_text(file: Path, most: int) -> str:
    """Return the text of a plain file of at most `most` bytes. Raises UserError, naming the file, for anything else."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UserError("is missing", file=str(file)) from None
    except OSError as error:
        what = "is a link, which is not followed" if file.is_symlink() else f"cannot be read: {error.strerror}"
        raise UserError(what, file=str(file)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError("is no plain file", file=str(file))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise UserError(f"is longer than {most} bytes", file=str(file))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError("is not UTF-8 text", file=str(file), line=line) from error


def write_text(file: Path, text: str) -> None:
    """Write a file in one go. Raises SettingsError, naming the file, where that is not possible."""
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file in one go; a link in its place is replaced, not followed."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot be written: {error.strerror}", file=str(file)) from error
