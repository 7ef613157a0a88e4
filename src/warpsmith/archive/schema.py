"""The tables. Rows are only ever added.

    tasks ──< runs ──< proposals >── candidates >── programs
                  └─< verdicts  >──┘
        ├──< kin  └─< events

A candidate stands once, by its key, and so does a program; a proposal says who came up with a candidate, each time
somebody did. `kin` says which operators a task has, so that those that are alike are found. Columns hold what is
searched; `document` holds a whole record as canonical JSON (see `codec`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

VERSION_TABLE = "warpsmith_schema"

_KEY = String(16)
# SQLite numbers rows by itself only where the primary key is exactly INTEGER.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite keeps no time zone, so what is read from it is given one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time without a zone: nobody could tell later what it meant."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a time stamp needs a time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("key", _KEY, primary_key=True),
    Column("name", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("functional_source", Text, nullable=False),
    Column("graph", Text, nullable=False),
    Column("tolerance", Text, nullable=False),
    Column("module_inputs", Boolean, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("task_key", _KEY, ForeignKey("tasks.key"), nullable=False),
    Column("settings", Text, nullable=False),
    Column("warpsmith_version", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Index("runs_by_task", "task_key"),
)

kin = Table(
    "kin",
    metadata,
    Column("task_key", _KEY, ForeignKey("tasks.key"), primary_key=True),
    Column("operator", Text, primary_key=True),
    Column("operators", Integer, nullable=False),
    Column("elements", Float(53), nullable=False),
    Index("kin_by_operator", "operator"),
)

programs = Table(
    "programs",
    metadata,
    Column("key", _KEY, primary_key=True),
    Column("source", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
)

candidates = Table(
    "candidates",
    metadata,
    Column("key", _KEY, primary_key=True),
    Column("task_key", _KEY, ForeignKey("tasks.key"), nullable=False),
    Column("program_key", _KEY, ForeignKey("programs.key"), nullable=False),
    Column("tunables", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Index("candidates_by_task", "task_key"),
    Index("candidates_by_program", "program_key"),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("run_id", _NUMBER, ForeignKey("runs.id"), nullable=False),
    Column("candidate_key", _KEY, ForeignKey("candidates.key"), nullable=False),
    Column("author", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("cost_usd", Float(53), nullable=False),
    Column("document", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Index("proposals_by_candidate", "candidate_key"),
    Index("proposals_by_run", "run_id"),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("run_id", _NUMBER, ForeignKey("runs.id"), nullable=False),
    Column("candidate_key", _KEY, ForeignKey("candidates.key"), nullable=False),
    Column("task_key", _KEY, ForeignKey("tasks.key"), nullable=False),
    Column("judge_version", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("reason", Text),
    Column("median_seconds", Float(53)),
    Column("timing_source", Text),
    Column("document", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Index("verdicts_by_candidate", "candidate_key", "judge_version", "device"),
    Index("verdicts_by_task", "task_key", "device", "passed", "median_seconds"),
    Index("verdicts_by_run", "run_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("run_id", _NUMBER, ForeignKey("runs.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Index("events_by_run", "run_id"),
)
