"""The tools that only read: tasks, programs, standings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import anyio.to_thread
from pydantic import Field

from warpsmith.archive import Archive, Standing
from warpsmith.author.agent.words import program_format
from warpsmith.author.builtin.heritage import nearness_to
from warpsmith.device.choose import Choice
from warpsmith.errors import ArchiveError, UserError
from warpsmith.exchange.pages import task_page
from warpsmith.exchange.standing import fastest_programs, history_of, render_standing, standing_of
from warpsmith.records import Candidate, Judged, Task
from warpsmith.server.answers import (
    CandidatePage,
    Found,
    FoundList,
    Judgement,
    ListedTask,
    StandingPage,
    TaskList,
    TaskPage,
)
from warpsmith.server.shelf import Shelf
from warpsmith.server.telling import (
    candidate_page,
    found_of,
    judgement_of,
    tensors_of,
)
from warpsmith.task import bound

TaskName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        description="FILE.py or FILE.py:Class in the folder of tasks, or the first digits of a task's key.",
    ),
]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{4,16}$", description="A candidate's key, or its first digits.")]


class Reading:
    """Answers from the archive and from task files. The docstrings of its tools are what an agent reads of them."""

    def __init__(self, shelf: Shelf, archive: Archive, choice: Choice, *, hybrid: bool) -> None:
        self._shelf = shelf
        self._archive = archive
        self._gpu = choice.spec
        self._hybrid = hybrid

    def list_tasks(self) -> TaskList:
        """List the tasks: files in the folder of tasks, and what the archive knows of them and of others."""
        archived = {each.key: each for each in self._archive.tasks()}
        here = {each.task_key: each for each in self._archive.standings() if each.device == self._gpu.name}
        listed, shown = [], set()
        for file in self._shelf.files():
            key = next((key for key, task in archived.items() if task.source == file.text), None)
            shown.add(key)
            name = archived[key].name if key else file.name.rpartition("/")[2].removesuffix(".py")
            listed.append(_listed(file.name, name, key, here.get(key or "")))
        listed += [_listed(key, task.name, key, here.get(key)) for key, task in archived.items() if key not in shown]
        return TaskList(device=self._gpu.name, tasks=listed)

    async def read_task(self, task: TaskName) -> TaskPage:
        """Say what a task is: its function, its tensors, its tolerance, the device with its limits, the program format.

        Read this before you write anything.
        """
        found = await self._described(task)
        limit = bound(found, self._gpu)
        return TaskPage(
            key=found.key,
            name=found.name,
            functional_source=found.functional_source,
            tensors=tensors_of(found.graph),
            device=self._gpu.name,
            bound_seconds=limit.seconds,
            bound_limit=limit.limit,
            words=task_page(found, self._gpu, limit),
            program_format=program_format(hybrid=self._hybrid),
        )

    async def standing(self, task: TaskName) -> StandingPage:
        """Say how far a task has come: the fastest programs, how near they are to the bound, and what went wrong."""
        found = await self._described(task)
        return await anyio.to_thread.run_sync(self._standing, found)

    async def search_archive(
        self,
        task: Annotated[TaskName | None, Field(description="Find programs for tasks like this one.")] = None,
        query: Annotated[
            str | None,
            Field(max_length=200, description="Or: a key, or words that occur in a task's name or function."),
        ] = None,
        limit: Annotated[int, Field(ge=1, le=50, description="Most programs to return.")] = 10,
    ) -> FoundList:
        """Find programs that passed: for tasks like `task`, or for tasks and keys that `query` names."""
        if (task is None) == (query is None):
            raise UserError("give either task or query")
        found = self._named(query or "") if task is None else self._alike(await self._described(task))
        return FoundList(found=await anyio.to_thread.run_sync(_first, found, limit))

    def read_candidate(self, candidate: Key) -> CandidatePage:
        """Read a program of the archive: both texts, its tunables, where it comes from, and its verdict."""
        found = self.candidate(candidate)
        judged = self._latest(found)
        return candidate_page(found, None if judged is None else self.judgement(judged, known=True))

    # ------------------------------------------------------------------------------------------ for the other tools

    def candidate(self, prefix: str) -> Candidate:
        """Return the candidate whose key begins with `prefix`. Raises ArchiveError where it is none, or several."""
        tasks = {each.key for each in self._archive.tasks()}
        keys = [key for key in self._archive.keys(prefix) if key not in tasks]
        if len(keys) != 1:
            raise ArchiveError(f"{len(keys) or 'no'} keys of candidates in the archive begin with {prefix!r}")
        return self._archive.candidate(keys[0])

    def judgement(self, judged: Judged, *, known: bool) -> Judgement:
        """Return what is said of a candidate."""
        task = self._archive.task(judged.candidate.task_key).task
        return judgement_of(judged, bound(task, self._gpu), known=known)

    # ------------------------------------------------------------------------------------------------------- inside

    async def _described(self, name: str) -> Task:
        """Return a task as far as it takes to describe it. One that the archive knows by its key is not loaded."""
        archived = await anyio.to_thread.run_sync(self._shelf.known, name)
        return await self._shelf.task(name) if archived is None else archived.task

    def _standing(self, task: Task) -> StandingPage:
        standing = standing_of(self._archive, task.key, self._gpu, hybrid=self._hybrid)
        return StandingPage(
            task=task.key,
            name=task.name,
            device=standing.device,
            bound_seconds=standing.bound.seconds,
            judged=standing.judged,
            passed=standing.passed,
            waiting=standing.waiting,
            fastest=[found_of(each, task.name) for each in standing.fastest],
            lessons=list(standing.lessons),
            words=render_standing(standing),
        )

    def _latest(self, candidate: Candidate) -> Judged | None:
        family = self._archive.lineage(candidate.key)
        return next((each for each in family if each.candidate.key == candidate.key), None)

    def _alike(self, task: Task) -> Iterator[Found]:
        """Yield the best program for the task itself, then those that passed for the tasks that are most like it."""
        yield from self._shown(self._best(task.key), task.name)
        for each in self._archive.precedents(task.graph, nearness_to(self._gpu)):
            yield from self._shown(self._latest(self._archive.candidate(each.candidate_key)), each.task_name)

    def _named(self, query: str) -> Iterator[Found]:
        """Yield the best programs for tasks that have all words of the query, or the one key that it is."""
        words = query.lower().split()
        if not words:
            raise UserError("the query is empty")
        tasks = {each.key: each for each in self._archive.tasks()}
        keys = self._archive.keys(words[0]) if len(words) == 1 else []
        for each in tasks.values():
            text = f"{each.name}\n{each.functional_source}".lower()
            if each.key in keys or all(word in text for word in words):
                yield from self._shown(self._best(each.key), each.name)
        for key in keys:
            if key not in tasks:
                candidate = self._archive.candidate(key)
                yield from self._shown(self._latest(candidate), tasks[candidate.task_key].name)

    def _shown(self, judged: Judged | None, task_name: str) -> Iterator[Found]:
        """Yield a program that passed, if it may be built upon here."""
        if judged is not None and judged.verdict.passed and (self._hybrid or judged.candidate.program.plan.pure):
            yield found_of(judged, task_name)

    def _best(self, task_key: str) -> Judged | None:
        """Return the fastest program for a task on our device; where none passed here, on any other."""
        here = fastest_programs(history_of(self._archive, task_key, self._gpu, hybrid=self._hybrid))
        return here[0] if here else self._archive.best(task_key)


def _first(found: Iterator[Found], limit: int) -> list[Found]:
    """Return the first ones, each once; no more are looked up."""
    distinct: dict[str, Found] = {}
    while len(distinct) < limit and (each := next(found, None)) is not None:
        distinct.setdefault(each.candidate, each)
    return list(distinct.values())


def _listed(task: str, name: str, key: str | None, standing: Standing | None) -> ListedTask:
    if standing is None:
        return ListedTask(task=task, name=name, key=key)
    return ListedTask(
        task=task,
        name=name,
        key=key,
        judged=standing.judged,
        passed=standing.passed,
        best_seconds=standing.best_seconds,
        source="measured" if standing.source == "measured" else "estimated" if standing.source else None,
    )
