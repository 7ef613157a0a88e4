"""The archive: tasks, runs, candidates, verdicts and events, in the order in which they came. Rows are only added."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, Select, Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from warpsmith.archive import course, kin, past, queries, schema
from warpsmith.archive.codec import decode, dumps, encode
from warpsmith.archive.connection import connect, in_a_line, writing
from warpsmith.archive.rows import ArchivedTask, Event, Kindred, Precedent, Run, Standing, Step
from warpsmith.errors import ArchiveError
from warpsmith.records import Candidate, Graph, Judged, Lineage, Task, Verdict
from warpsmith.version import own_version


class Archive:
    """Everything that was ever tried. Several processes and threads may use one archive at once.

    Every `add_` is one transaction and is on disk when it returns. Use `Archive.open`, and `close` or `with`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path_or_url: str | Path, *, create: bool = True) -> Archive:
        """Open the archive in a SQLite file or behind a PostgreSQL URL, and bring its schema up to date.

        Raises ArchiveError where it is not an archive or has a newer schema, or does not exist and `create` is false.
        """
        return cls(connect(path_or_url, create=create))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------- add

    def add_task(self, task: Task) -> None:
        """Add a task without its tensors. A task that is there already stays as it is."""
        with self._writing() as connection:
            _insert_once(
                connection,
                schema.tasks,
                key=task.key,
                name=task.name,
                origin=task.origin,
                source=task.source,
                functional_source=task.functional_source,
                graph=encode(task.graph),
                tolerance=encode(task.tolerance),
                module_inputs=task.module_inputs,
                added_at=_now(),
            )
            for row in kin.kin_rows(task.key, task.graph):
                _insert_once(connection, schema.kin, ("task_key", "operator"), **row)

    def start_run(self, task: Task, settings_json: str) -> int:
        """Add the task and a run on it; return the run's number. `settings_json` holds the settings as JSON text."""
        self.add_task(task)
        with self._writing() as connection:
            return _insert(
                connection,
                schema.runs,
                task_key=task.key,
                settings=dumps(json.loads(settings_json)),
                warpsmith_version=own_version(),
                started_at=_now(),
            )

    def add_candidate(self, run: int, candidate: Candidate) -> None:
        """Add that `run` came up with a candidate. One whose key is there already gets one more proposal.

        Raises ArchiveError where the run or the candidate's task is not in the archive.
        """
        now = _now()
        program, lineage = candidate.program, candidate.lineage
        with self._writing() as connection:
            _insert_once(
                connection,
                schema.programs,
                key=program.key,
                source=program.source,
                plan=encode(program.plan),
                added_at=now,
            )
            _insert_once(
                connection,
                schema.candidates,
                key=candidate.key,
                task_key=candidate.task_key,
                program_key=program.key,
                tunables=encode(candidate.tunables),
                added_at=now,
            )
            _insert(
                connection,
                schema.proposals,
                run_id=run,
                candidate_key=candidate.key,
                author=lineage.author,
                operator=lineage.operator,
                generation=lineage.generation,
                cost_usd=lineage.cost_usd,
                document=encode(lineage),
                added_at=now,
            )

    def add_verdict(self, run: int, verdict: Verdict, *, judge_version: str, device: str) -> None:
        """Add what a judge of `judge_version` said of a candidate on the GPU called `device`.

        Raises ArchiveError where the run, the candidate or its task is not in the archive.
        """
        timing = verdict.timing
        with self._writing() as connection:
            _insert(
                connection,
                schema.verdicts,
                run_id=run,
                candidate_key=verdict.candidate_key,
                task_key=verdict.task_key,
                judge_version=judge_version,
                device=device,
                stage=int(verdict.stage),
                passed=verdict.passed,
                reason=verdict.failure.reason if verdict.failure else None,
                median_seconds=timing.median if timing else None,
                timing_source=timing.source if timing else None,
                document=encode(verdict),
                added_at=_now(),
            )

    def add_event(self, run: int, kind: str, data: Mapping[str, Any]) -> None:
        """Add something that happened in a run. `data` must be what JSON can hold."""
        with self._writing() as connection:
            _insert(connection, schema.events, run_id=run, kind=kind, data=dumps(dict(data)), added_at=_now())

    # ------------------------------------------------------------------------------------------------------------- ask

    def verdict(self, candidate_key: str, judge_version: str, device: str) -> Verdict | None:
        """Return the latest verdict of this version of the judge on this device, or None."""
        table = schema.verdicts
        query = (
            select(table.c.document)
            .where(
                table.c.candidate_key == candidate_key,
                table.c.judge_version == judge_version,
                table.c.device == device,
            )
            .order_by(table.c.id.desc())
            .limit(1)
        )
        rows = self._rows(query)
        return decode(Verdict, rows[0].document) if rows else None

    def judged(
        self, task_key: str, *, judge_version: str | None = None, device: str | None = None, run: int | None = None
    ) -> list[Judged]:
        """Return every verdict on a task with its candidate, in the order in which the verdicts came.

        Each of the filters that is given must match. A candidate comes with the lineage of its first proposal.
        """
        query = _filtered(task_key, judge_version, device, run).order_by(schema.verdicts.c.id)
        return list(queries.read_judged(self._rows(query)))

    def best(self, task_key: str, *, judge_version: str | None = None, device: str | None = None) -> Judged | None:
        """Return the fastest candidate that passed, or None. Measured times, where there are any, hide estimates."""
        query = _filtered(task_key, judge_version, device).where(schema.verdicts.c.passed)
        query = query.order_by(*queries.fastest_first()).limit(1)
        return next(queries.read_judged(self._rows(query)), None)

    def candidate(self, key: str) -> Candidate:
        """Return a candidate with the lineage of its first proposal. Raises ArchiveError if there is none."""
        found = self._candidates({key})
        if not found:
            raise ArchiveError(f"there is no candidate {key} in the archive")
        return found[key]

    def lineage(self, candidate_key: str) -> list[Judged]:
        """Return a candidate after all its ancestors for its task, in the order in which they were first proposed.

        Each comes with its latest verdict; one that was never judged is left out. A parent for another task, from which
        a recipe was carried over, has times that compare with nothing here: with it the lineage ends. Raises
        ArchiveError if there is no such candidate.
        """
        last = self.candidate(candidate_key)
        found = {candidate_key: last}
        frontier = set(found[candidate_key].lineage.parents)
        while frontier:
            ancestors = {k: c for k, c in self._candidates(frontier).items() if c.task_key == last.task_key}
            found |= ancestors
            frontier = {parent for each in ancestors.values() for parent in each.lineage.parents} - set(found)
        table = schema.verdicts
        latest = select(func.max(table.c.id)).where(table.c.candidate_key.in_(sorted(found)))
        query = queries.judged_query().where(table.c.id.in_(latest.group_by(table.c.candidate_key)))
        return list(queries.read_judged(self._rows(query.order_by(schema.proposals.c.id))))

    def standings(self) -> list[Standing]:
        """Return how far each task has come on each device, the one judged last at the end."""
        table = schema.verdicts
        standings = []
        for row in self._rows(queries.standing_query()):
            query = (
                select(table.c.median_seconds, table.c.timing_source)
                .where(table.c.task_key == row.key, table.c.device == row.device, table.c.passed)
                .order_by(*queries.fastest_first())
                .limit(1)
            )
            best = self._rows(query)
            standings.append(queries.read_standing(row, best[0] if best else None))
        return standings

    def task(self, key: str) -> ArchivedTask:
        """Return a task. Raises ArchiveError if there is none."""
        rows = self._rows(select(schema.tasks).where(schema.tasks.c.key == key))
        if not rows:
            raise ArchiveError(f"there is no task {key} in the archive")
        return queries.read_task(rows[0])

    def tasks(self) -> list[ArchivedTask]:
        """Return all tasks, oldest first."""
        return [queries.read_task(row) for row in self._rows(select(schema.tasks).order_by(schema.tasks.c.added_at))]

    def run(self, run_id: int) -> Run:
        """Return a run. Raises ArchiveError if there is none."""
        rows = self._rows(select(schema.runs).where(schema.runs.c.id == run_id))
        if not rows:
            raise ArchiveError(f"there is no run {run_id} in the archive")
        return Run(**rows[0]._mapping)

    def runs(self, task_key: str | None = None) -> list[Run]:
        """Return all runs, or those on one task, oldest first."""
        query = select(schema.runs).order_by(schema.runs.c.id)
        if task_key is not None:
            query = query.where(schema.runs.c.task_key == task_key)
        return [Run(**row._mapping) for row in self._rows(query)]

    def events(self, run: int) -> list[Event]:
        """Return what happened in a run, in order."""
        query = select(schema.events).where(schema.events.c.run_id == run).order_by(schema.events.c.id)
        return [Event(row.run_id, row.kind, json.loads(row.data), row.added_at) for row in self._rows(query)]

    def pending(
        self,
        task_key: str | None,
        *,
        judge_version: str,
        device: str,
        wanted: Callable[[Lineage], bool] | None = None,
    ) -> list[Candidate]:
        """Return the candidates for a task without a verdict of this judge on this device, the first proposed first.

        Without `task_key`, those for all tasks. With `wanted`, only those of whose first proposal it is true.
        """
        rows = self._rows(past.unjudged_query(task_key, judge_version, device))
        found = [candidate for _, candidate in queries.read_candidates(rows)]
        return [candidate for candidate in found if wanted is None or wanted(candidate.lineage)]

    def spent(self, task_key: str) -> float:
        """Return what the answers in all runs on a task have cost, in US dollars, refusals and lessons included."""
        (bill,) = self._rows(past.bill_query(task_key))
        told = [data for kind in past.BILLED for data in self.told(task_key, kind)]
        return float(bill.usd) + past.cost_told(told)

    def told(self, task_key: str, kind: str) -> list[Mapping[str, Any]]:
        """Return the data of all events of this kind in the runs on a task, in order."""
        return [json.loads(row.data) for row in self._rows(past.events_query(task_key, kind))]

    def kindred(self, graph: Graph, nearness: kin.Nearness) -> list[Kindred]:
        """Return fast programs by anyone for the tasks whose graphs are most like this one, the likest task first.

        One for each task and device; which of them are looked at is decided as for `precedents`.
        """
        found: list[Kindred] = []
        for like in self._rows(kin.kindred_query(graph)):
            devices = [row.device for row in self._rows(kin.devices_query(like.task_key))]
            for device in kin.nearest(devices, nearness):
                best = self._rows(kin.fastest_query(like.task_key, device))[0]
                candidate = self.candidate(best.candidate_key)
                found.append(Kindred(best.name, best.device, best.median_seconds, candidate))
        return found

    def precedents(self, graph: Graph, nearness: kin.Nearness) -> list[Precedent]:
        """Return fast programs with recipes for the tasks whose graphs are most like this one, the likest task first.

        `nearness` says how much a device matters; those of nearness 0 are passed over. What is read is bounded: see
        `kin`.
        """
        found: list[Precedent] = []
        for like in self._rows(kin.kindred_query(graph)):
            devices = [row.device for row in self._rows(kin.devices_query(like.task_key))]
            graphs = self._rows(select(schema.tasks.c.graph).where(schema.tasks.c.key == like.task_key))
            theirs = decode(Graph, graphs[0].graph)
            for device in kin.nearest(devices, nearness):
                rows = self._rows(kin.fastest_query(like.task_key, device))
                found += kin.read_precedents(rows, like.task_key, theirs)
        return found

    def course(self, task_key: str, device: str) -> tuple[Step, ...]:
        """Return how the best time of a task came down, against the seconds spent on it in all runs on this device."""
        began = self._rows(course.began_query(task_key))
        after = {row.run_id: float(json.loads(row.data)["after"]) for row in began}
        return course.steps(self._rows(course.course_query(task_key, device)), after)

    # --------------------------------------------------------------------------------------------------------- find

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of tasks and candidates that begin with `prefix`, tasks first."""
        found: list[str] = []
        for table in (schema.tasks, schema.candidates):
            query = select(table.c.key).where(table.c.key.startswith(prefix, autoescape=True)).order_by(table.c.key)
            found += [row.key for row in self._rows(query)]
        return found

    def task_key(self, prefix: str | None, device: str) -> str:
        """Return the key of the task whose key begins with `prefix`; without one, of the task last judged on `device`.

        Raises ArchiveError where that is no task, or not one alone.
        """
        if prefix is None:
            latest = [standing.task_key for standing in self.standings() if standing.device == device]
            if not latest:
                raise ArchiveError(f"no task in the archive was judged on {device}")
            return latest[-1]
        query = select(schema.tasks.c.key).where(schema.tasks.c.key.startswith(prefix, autoescape=True))
        found = [row.key for row in self._rows(query)]
        if len(found) != 1:
            raise ArchiveError(f"{len(found) or 'no'} keys of tasks in the archive begin with {prefix!r}")
        return str(found[0])

    # ------------------------------------------------------------------------------------------------------- inside

    def _candidates(self, keys: set[str]) -> dict[str, Candidate]:
        query = queries.candidate_query().where(schema.candidates.c.key.in_(sorted(keys)))
        return {row.key: candidate for row, candidate in queries.read_candidates(self._rows(query))}

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction of its own that is committed at the end."""
        try:
            with writing(self._engine) as connection:
                yield connection
        except IntegrityError as error:
            raise ArchiveError(f"the archive does not know what this refers to: {in_a_line(error)}") from error
        except DBAPIError as error:
            raise ArchiveError(f"cannot write to the archive: {in_a_line(error)}") from error


def _filtered(task_key: str, judge_version: str | None, device: str | None, run: int | None = None) -> Select[Any]:
    """Select the verdicts on a task, with their candidates, to which each filter given applies."""
    table = schema.verdicts
    query = queries.judged_query().where(table.c.task_key == task_key)
    for column, wanted in ((table.c.judge_version, judge_version), (table.c.device, device), (table.c.run_id, run)):
        if wanted is not None:
            query = query.where(column == wanted)
    return query


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    """Insert a row and return the number that the database gave it."""
    key = connection.execute(insert(table).values(**values)).inserted_primary_key
    if key is None:
        raise ArchiveError(f"the database gave the new row of {table.name} no number")
    return int(key[0])


def _insert_once(connection: Connection, table: Table, unique: Sequence[str] = ("key",), **values: Any) -> None:
    """Insert a row unless one with its key is there, which then says the same: the key is the hash of the content."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing(index_elements=list(unique)))


def _now() -> datetime:
    return datetime.now(UTC)
