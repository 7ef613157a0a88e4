"""Takes rows of another archive in: what is there already stays, what is new is added, what contradicts is refused.

Tasks, programs and candidates are known by their keys, which are worked out anew from what they are said to be keys of.
A run is the same as one that is there where task, settings, version and the moment of its start are the same, and its
proposals, verdicts and events where all that they say is. So taking in the same rows twice changes nothing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from warpsmith.archive import schema
from warpsmith.archive.codec import decode
from warpsmith.archive.extract import (
    CandidateRow,
    EventRow,
    Extract,
    ProgramRow,
    ProposalRow,
    RunRow,
    TaskRow,
    VerdictRow,
)
from warpsmith.archive.kin import kin_rows
from warpsmith.archive.store import Archive
from warpsmith.errors import ArchiveError, ProgramError
from warpsmith.program.validate import validate_plan
from warpsmith.records import Candidate, Graph, Lineage, Plan, Program, Task, Tolerance, Verdict

_Tunables = tuple[tuple[str, int], ...]
_NOBODY = Lineage("", "")
_JSON = frozenset({"graph", "tolerance", "settings", "plan", "tunables", "document", "data"})
"""Columns that hold JSON text."""


@dataclass(frozen=True, slots=True)
class Merged:
    """How many rows of each kind were new."""

    tasks: int
    runs: int
    candidates: int
    proposals: int
    verdicts: int
    events: int

    @property
    def anything(self) -> bool:
        """Whether the archive holds more than before."""
        return any((self.tasks, self.runs, self.candidates, self.proposals, self.verdicts, self.events))


def absorb(archive: Archive, extracts: Iterable[Extract]) -> Merged:
    """Add what `archive` does not have yet, all of it or, where anything is wrong, nothing.

    Verdicts keep the version of their judge and their device. Raises ArchiveError naming the key under which the
    content is not what it should be, or not what stands there already.
    """
    try:
        with archive._writing() as connection:
            merger = _Merger(connection)
            for extract in extracts:
                merger.take(extract)
    except (ValueError, OverflowError, RecursionError) as error:
        # Text that is no Unicode, numbers that no column holds, lists a thousand levels deep: none of it is ours.
        raise ArchiveError(f"what is to be merged holds a value that cannot be kept: {error}") from error
    new = merger.new
    return Merged(
        new["tasks"], new["runs"], new["candidates"], new["proposals"], new["verdicts"], new["events"]
    )  # fmt: skip


class _Merger:
    """One transaction that takes extracts in."""

    def __init__(self, connection: Connection) -> None:
        self.new: Counter[str] = Counter()
        self._connection = connection

    def take(self, extract: Extract) -> None:
        """Add the rows of an extract that are new."""
        for field in fields(extract):
            for row in getattr(extract, field.name):
                _check_text(row)
        for task in extract.tasks:
            self._task(task)
        programs = {row.key: self._program(row) for row in extract.programs}
        candidates = {row.key: self._candidate(row, programs) for row in extract.candidates}
        runs: dict[int, int] = {}
        fresh: set[int] = set()
        for run in extract.runs:
            runs[run.id], is_new = self._run(run)
            fresh |= {runs[run.id]} if is_new else set()
        self._of_runs(schema.proposals, runs, fresh, [(row, _proposal(row, candidates)) for row in extract.proposals])
        self._of_runs(schema.verdicts, runs, fresh, [(row, _verdict(row, candidates)) for row in extract.verdicts])
        self._of_runs(schema.events, runs, fresh, [(row, _event(row)) for row in extract.events])

    # ------------------------------------------------------------------------------------------- known by their keys

    def _task(self, row: TaskRow) -> None:
        graph, tolerance = decode(Graph, row.graph), decode(Tolerance, row.tolerance)
        _check_key("task", row.key, _task_key(graph, tolerance))
        there = self._there(schema.tasks, row.key)
        if there is not None:
            _check_same("task", row.key, (there.graph, row.graph), Graph)
            _check_same("task", row.key, (there.tolerance, row.tolerance), Tolerance)
            return
        self._insert_once(schema.tasks, ("key",), **_columns(row))
        for values in kin_rows(row.key, graph):
            self._insert_once(schema.kin, ("task_key", "operator"), **values)
        self.new["tasks"] += 1

    def _program(self, row: ProgramRow) -> Program:
        program = Program(row.source, decode(Plan, row.plan))
        _check_key("program", row.key, program.key)
        try:
            validate_plan(program.plan)
        except ProgramError as error:
            raise ArchiveError(f"program {row.key} has a plan that cannot be used: {error}") from error
        there = self._there(schema.programs, row.key)
        if there is None:
            self._insert_once(schema.programs, ("key",), **_columns(row))
        elif there.source != row.source:
            raise _contradiction("program", row.key)
        else:
            _check_same("program", row.key, (there.plan, row.plan), Plan)
        return program

    def _candidate(self, row: CandidateRow, programs: dict[str, Program]) -> Candidate:
        if row.program_key not in programs:
            raise ArchiveError(f"the program {row.program_key} of candidate {row.key} is missing")
        tunables: _Tunables = decode(_Tunables, row.tunables)
        try:
            candidate = Candidate(row.task_key, programs[row.program_key], tunables, _NOBODY)
        except ValueError as error:
            raise ArchiveError(f"candidate {row.key} cannot be one: {error}") from error
        _check_key("candidate", row.key, candidate.key)
        there = self._there(schema.candidates, row.key)
        if there is None:
            self._insert_once(schema.candidates, ("key",), **_columns(row))
            self.new["candidates"] += 1
        elif (there.task_key, there.program_key, _ordered(there.tunables)) != (
            row.task_key,
            row.program_key,
            _ordered(row.tunables),
        ):
            raise _contradiction("candidate", row.key)
        return candidate

    def _there(self, table: Table, key: str) -> Any:
        return self._connection.execute(select(table).where(table.c.key == key)).first()

    def _insert_once(self, table: Table, unique: Sequence[str], **values: Any) -> None:
        # Another process may have added the same since we looked.
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(**values).on_conflict_do_nothing(index_elements=list(unique))
        self._connection.execute(statement)

    # ---------------------------------------------------------------------------------------------- belonging to runs

    def _run(self, row: RunRow) -> tuple[int, bool]:
        """Return the number of the run in this archive, and whether it is new there."""
        values = {name: value for name, value in _columns(row).items() if name != "id"}
        _object(row.settings, f"the settings of the run of {row.started_at:%Y-%m-%d %H:%M:%S}")
        table = schema.runs
        same = select(table.c.id).where(*(table.c[name] == value for name, value in values.items()))
        there = self._connection.execute(same.order_by(table.c.id)).first()
        if there is not None:
            return int(there.id), False
        self.new["runs"] += 1
        inserted = self._connection.execute(insert(table).values(**values)).inserted_primary_key
        assert inserted is not None
        return int(inserted[0]), True

    def _of_runs(
        self,
        table: Table,
        runs: dict[int, int],
        fresh: set[int],
        rows: Sequence[tuple[ProposalRow | VerdictRow | EventRow, dict[str, Any]]],
    ) -> None:
        """Add rows that belong to runs. Of equal ones there are afterwards as many as in the fuller archive."""
        there: dict[int, Counter[tuple[Any, ...]]] = {run: Counter() for run in fresh}
        for row, derived in rows:
            if row.run_id not in runs:
                raise ArchiveError(f"a row of {table.name} belongs to run {row.run_id}, which is missing")
            run = runs[row.run_id]
            told = {**_columns(row), "run_id": run}
            if run not in there:
                names = [table.c[name] for name in told]
                known = self._connection.execute(select(*names).where(table.c.run_id == run))
                there[run] = Counter(tuple(each) for each in known)
            if there[run][tuple(told.values())]:
                there[run][tuple(told.values())] -= 1
                continue
            self._connection.execute(insert(table).values(**told, **derived))
            self.new[table.name] += 1


def _ordered(tunables: str) -> list[tuple[str, int]]:
    """Return tunables in an order of their own: the key does not depend on it."""
    values: _Tunables = decode(_Tunables, tunables)
    return sorted(values)


def _columns(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _check_text(row: Any) -> None:
    """Raise ValueError where JSON text escapes half of a character, which nothing could print afterwards."""
    for name, value in _columns(row).items():
        if name in _JSON and "\\ud" in value.lower():
            json.dumps(json.loads(value), ensure_ascii=False).encode()


def _proposal(row: ProposalRow, candidates: dict[str, Candidate]) -> dict[str, Any]:
    """Return the columns that repeat what the lineage says."""
    lineage = decode(Lineage, row.document)
    if row.candidate_key not in candidates:
        raise ArchiveError(f"a proposal is for candidate {row.candidate_key}, which is missing")
    if not 0.0 <= lineage.cost_usd < math.inf:
        raise ArchiveError(f"a proposal for candidate {row.candidate_key} says that it cost {lineage.cost_usd} dollars")
    return {
        "author": lineage.author,
        "operator": lineage.operator,
        "generation": lineage.generation,
        "cost_usd": lineage.cost_usd,
    }


def _verdict(row: VerdictRow, candidates: dict[str, Candidate]) -> dict[str, Any]:
    """Return the columns that repeat what the verdict says."""
    verdict = decode(Verdict, row.document)
    candidate = candidates.get(row.candidate_key)
    if candidate is None:
        raise ArchiveError(f"a verdict is on candidate {row.candidate_key}, which is missing")
    if (verdict.candidate_key, verdict.task_key) != (candidate.key, candidate.task_key):
        said = f"{verdict.candidate_key} for task {verdict.task_key}"
        raise ArchiveError(f"a verdict on candidate {row.candidate_key} says that it is on {said}")
    timing = verdict.timing
    return {
        "task_key": verdict.task_key,
        "stage": int(verdict.stage),
        "passed": verdict.passed,
        "reason": verdict.failure.reason if verdict.failure else None,
        "median_seconds": timing.median if timing else None,
        "timing_source": timing.source if timing else None,
    }


def _event(row: EventRow) -> dict[str, Any]:
    _object(row.data, f"an event {row.kind!r}")
    return {}


def _object(text: str, what: str) -> None:
    """Refuse a text that is no JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{what} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ArchiveError(f"{what} is no JSON object")


_Kind = TypeVar("_Kind")


def _check_key(kind: str, said: str, due: str) -> None:
    if said != due:
        raise ArchiveError(f"what is called {kind} {said} has the key {due}: it was changed")


def _check_same(kind: str, key: str, texts: tuple[str, str], record: type[_Kind]) -> None:
    """Compare two texts as records, since an older Warpsmith may have written one of them."""
    one, other = texts
    if one != other and decode(record, one) != decode(record, other):
        raise _contradiction(kind, key)


def _contradiction(kind: str, key: str) -> ArchiveError:
    return ArchiveError(f"{kind} {key} is another one in the archive than in what is merged; nothing was changed")


def _task_key(graph: Graph, tolerance: Tolerance) -> str:
    """Return the key of any task with this graph and tolerance."""
    return Task("", "", "", "", graph, {}, {}, module_inputs=False, tolerance=tolerance).key
