"""The archive of one arm and repeat, as it stood before each of its tasks.

Tasks of a lane come one after the other, and each finds what the earlier ones left. `archive-2.db` is the archive
before the task numbered 2; the search works on `archive-3.db`, a copy. The older file goes away only once the task has
its row. So a search that was interrupted begins again from where it began, and knows nothing of its first try.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.errors import ArchiveError, SettingsError

GIVEN = "given.db"


class Lane:
    """The folder of one arm and repeat. `given` is the archive that it begins with, None for an empty one."""

    def __init__(self, folder: Path, given: Path | None) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self._given = given

    def before(self, number: int) -> Path:
        """Return the archive before the task of this number. Raises ArchiveError where it is gone."""
        place = self.folder / f"archive-{number}.db"
        if number == 0 and not place.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._given is not None:
                copy_archive(self._given, place)
            Archive.open(place).close()
        if not place.exists():
            raise ArchiveError(f"{place} is gone, without which the contest cannot go on; begin in another folder")
        return place

    def begin(self, number: int) -> Path:
        """Return a fresh copy of that archive for the search to work on."""
        copy = self.folder / f"archive-{number + 1}.db"
        copy_archive(self.before(number), copy)
        return copy

    def finish(self, number: int, *, last: bool) -> None:
        """The task of this number has its row. After the last one compiled programs are of no use either."""
        _remove(self.folder / f"archive-{number}.db")
        if last:
            shutil.rmtree(self.cache, ignore_errors=True)


def keep_given(source: str | None, folder: Path) -> Path | None:
    """Copy the archive that all arms begin with into the folder of the contest, once, since it may change later.

    Raises SettingsError for a database that is no file, and ArchiveError where there is no archive.
    """
    kept = folder / GIVEN
    if source is None:
        return None
    if "://" in source:
        raise SettingsError(f"a contest begins with a copy of a file, and {source.partition('://')[0]} is a database")
    if not kept.exists():
        place = Path(source).expanduser()
        if not place.is_file():
            raise ArchiveError(f"there is no archive at {source}")
        copy_archive(place, kept)
    Archive.open(kept, create=False).close()
    return kept


def copy_archive(source: Path, target: Path) -> None:
    """Copy an SQLite file, also one that is being written to; the target is there whole or not at all."""
    staged = target.with_suffix(".new")
    _remove(staged)
    _remove(target)
    try:
        with closing(sqlite3.connect(source)) as theirs, closing(sqlite3.connect(staged)) as ours:
            theirs.backup(ours)
    except sqlite3.Error as error:
        raise ArchiveError(f"{source} cannot be copied: {error}") from error
    staged.replace(target)


def _remove(place: Path) -> None:
    """Remove an SQLite file with what lies beside it."""
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
