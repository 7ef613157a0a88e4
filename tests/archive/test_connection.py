"""Opening: what is no archive is refused with a clear message and left as it was."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from warpsmith.archive import Archive
from warpsmith.archive.schema import VERSION_TABLE, metadata
from warpsmith.errors import ArchiveError


def refused(place: str | Path, message: str, *, create: bool = True) -> None:
    with pytest.raises(ArchiveError, match=re.escape(message)):
        Archive.open(place, create=create)


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    Archive.open(tmp_path / "a" / "b" / "archive.db").close()
    assert (tmp_path / "a" / "b" / "archive.db").is_file()


def test_a_url_and_a_path_lead_to_the_same_archive(tmp_path: Path) -> None:
    Archive.open(f"sqlite:///{tmp_path / 'archive.db'}").close()
    Archive.open(tmp_path / "archive.db", create=False).close()


def test_an_archive_that_is_not_there_is_not_made_to_be_listed(tmp_path: Path) -> None:
    refused(tmp_path / "archive.db", "there is no archive at", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_text_file_is_refused_and_kept(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("not a database, but more than a hundred characters long " * 4)
    before = place.read_bytes()
    refused(place, "file is not a database")
    assert place.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_kept(tmp_path: Path) -> None:
    place = tmp_path / "other.db"
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = place.read_bytes()
    refused(place, "is a database of something else")
    assert place.read_bytes() == before


def test_an_empty_database_is_no_archive_to_list(tmp_path: Path) -> None:
    place = tmp_path / "empty.db"
    place.touch()
    refused(place, "empty, not an archive", create=False)
    Archive.open(place).close()


def test_an_archive_of_a_newer_warpsmith_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "archive.db"
    Archive.open(place).close()
    with sqlite3.connect(place) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    refused(place, "has schema 9999")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "archive.db", "cannot create the folder")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://localhost/warpsmith", "not a database URL that can be used|SQLite or PostgreSQL"),
        ("nonsense://x", "not a database URL that can be used"),
        ("sqlite://", "in memory"),
    ],
)
def test_other_databases_are_refused(url: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        Archive.open(url)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ArchiveError) as caught:
        Archive.open("postgresql://me:sesame@127.0.0.1:1/warpsmith")
    assert "sesame" not in str(caught.value)


def test_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    Archive.open(tmp_path / "archive.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'archive.db'}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    with Archive.open(tmp_path / "archive.db") as archive:
        writer = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert archive.tasks() == []
        writer.close()
