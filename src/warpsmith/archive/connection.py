"""Opens the database: connects, refuses what is not an archive, brings the schema up to date under a lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from warpsmith.archive.schema import VERSION_TABLE
from warpsmith.errors import ArchiveError

LOCK_SECONDS = 60.0
# Any constant will do as long as every Warpsmith takes the same one.
_POSTGRESQL_LOCK = 0x57415250


def connect(path_or_url: str | Path, *, create: bool) -> Engine:
    """Return an engine on an archive whose schema is up to date.

    `create` says whether an archive that is not there yet is made. Raises ArchiveError where the place cannot be
    opened, is not an archive, or was written by a newer Warpsmith.
    """
    url = _url(path_or_url)
    shown = url.database if url.get_backend_name() == "sqlite" and url.database else url.render_as_string()
    if url.get_backend_name() == "sqlite":
        _check_file(Path(str(url.database)), create=create)
    try:
        engine = create_engine(url)
    except ModuleNotFoundError as error:
        raise ArchiveError(f"{shown} needs the Python package {error.name!r}, which is not installed") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with _migration_lock(engine), writing(engine) as connection:
            _migrate(connection, shown, create=create)
        if engine.dialect.name == "sqlite":
            _use_write_ahead_log(engine)
    except DBAPIError as error:
        engine.dispose()
        raise ArchiveError(f"cannot open the archive {shown}: {in_a_line(error)}") from error
    except ArchiveError:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection inside a transaction that writes; on SQLite it holds the write lock from the start.

    A transaction that first reads and then wants to write fails on SQLite if another process wrote in between;
    one that takes the lock at its start waits instead.
    """
    with engine.connect().execution_options(warpsmith_writes=True) as connection, connection.begin():
        yield connection


def in_a_line(error: DBAPIError) -> str:
    """Return what the database said, without the details that PostgreSQL puts on further lines."""
    return str(error.orig).partition("\n")[0]


def _url(path_or_url: str | Path) -> URL:
    text_form = str(path_or_url)
    if "://" not in text_form:
        return URL.create("sqlite", database=str(Path(text_form).expanduser()))
    try:
        url = make_url(text_form)
        backend = url.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ArchiveError(f"not a database URL that can be used: {error}") from None
    if backend not in ("sqlite", "postgresql"):
        raise ArchiveError(f"an archive lives in SQLite or PostgreSQL, not in {backend}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise ArchiveError("an archive in memory would lose everything; name a file")
    # Which driver plain "postgresql" means depends on the version of SQLAlchemy.
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _check_file(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise ArchiveError(f"{path} is a folder; the archive is a file")
    if path.is_file():
        return
    if not create:
        raise ArchiveError(f"there is no archive at {path}; `warpsmith optimize` makes one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(f"cannot create the folder of the archive {path}: {error.strerror}") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Set up one connection: ours to begin transactions, many readers beside one writer, durable commits."""
    connection.isolation_level = None
    for pragma in ("busy_timeout = 60000", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _use_write_ahead_log(engine: Engine) -> None:
    """Let readers go on while one writes. The file remembers it; only a file known to be an archive is changed so."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("warpsmith_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _migration_lock(engine: Engine) -> Iterator[None]:
    """Let one process at a time look at the schema and change it."""
    if engine.dialect.name != "sqlite":
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _POSTGRESQL_LOCK})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _POSTGRESQL_LOCK})
        return
    path = Path(str(engine.url.database))
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise ArchiveError(f"another process has held {path}.lock for {LOCK_SECONDS:.0f} s") from None
    except PermissionError as error:
        raise ArchiveError(f"cannot write beside the archive {path}: {error.strerror}") from None


def _migrate(connection: Connection, shown: str, *, create: bool) -> None:
    """Bring the schema up to the newest revision that this Warpsmith knows."""
    existing = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in existing:
        if existing:
            raise ArchiveError(f"{shown} is a database of something else, not an archive")
        if not create:
            raise ArchiveError(f"{shown} is empty, not an archive")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    current = context.get_current_revision()
    if current is not None and current not in known:
        newest = scripts.get_current_head()
        raise ArchiveError(
            f"{shown} has schema {current}, this Warpsmith knows schemas up to {newest}: a newer Warpsmith wrote it"
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
