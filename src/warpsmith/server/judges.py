"""Judges programs of any task, one at a time, and writes down everything."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import anyio
import anyio.to_thread

from warpsmith.archive import BEGAN, Archive
from warpsmith.device.choose import Choice
from warpsmith.errors import MachineError
from warpsmith.evolve import Executor
from warpsmith.exchange.judging import LOST
from warpsmith.judge import JUDGE_VERSION
from warpsmith.pipeline import MakeExecutor, local_executor
from warpsmith.records import Candidate, Judged, Task
from warpsmith.settings import Settings

KEPT = 3
"""Executors that stay ready: each holds a process with the references of one task."""
THOROUGH_VERSION = f"{JUDGE_VERSION} thorough"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A candidate with its verdict, and whether that was known before."""

    judged: Judged
    known: bool


class Judges:
    """One executor of one worker for each task, the latest few kept. Every task has one run in the archive."""

    def __init__(
        self, archive: Archive, settings: Settings, choice: Choice, make_executor: MakeExecutor = local_executor
    ) -> None:
        self._archive = archive
        self._settings = settings.model_copy(update={"workers": 1})
        self._choice = choice
        self._make = make_executor
        self._executors: OrderedDict[tuple[str, bool], Executor] = OrderedDict()
        self._runs: dict[str, int] = {}
        self._turn = anyio.Lock()

    async def judge(self, task: Task, candidate: Candidate) -> Outcome:
        """Return the verdict on a candidate, which is a proposal in the archive from now on.

        What this version of the judge has said on this device before is not asked again. Whoever comes later waits.
        Raises MachineError where there can be no verdict; that is written down as well.
        """
        async with self._turn:
            self._archive.add_candidate(self._run(task), candidate)
            return await self._outcome(task, candidate, thorough=False)

    async def review(self, task: Task, candidate: Candidate, *, thorough: bool) -> Outcome:
        """Return the verdict on a candidate of the archive, on request that of a thorough judgement."""
        async with self._turn:
            return await self._outcome(task, candidate, thorough=thorough)

    def close(self) -> None:
        """End all workers."""
        while self._executors:
            self._executors.popitem()[1].close()

    async def _outcome(self, task: Task, candidate: Candidate, *, thorough: bool) -> Outcome:
        version = THOROUGH_VERSION if thorough else JUDGE_VERSION
        device = self._choice.spec.name
        known = self._archive.verdict(candidate.key, version, device)
        if known is not None:
            return Outcome(Judged(candidate, known), True)
        executor = await anyio.to_thread.run_sync(self._executor, task, thorough)
        run = self._run(task)
        try:
            verdict = await executor.judge(candidate)
        except MachineError as error:
            self._archive.add_event(run, LOST, {"candidate": candidate.key, "error": str(error)})
            raise
        self._archive.add_verdict(run, verdict, judge_version=version, device=device)
        return Outcome(Judged(candidate, verdict), False)

    def _run(self, task: Task) -> int:
        if task.key not in self._runs:
            self._runs[task.key] = self._archive.start_run(task, self._settings.to_json())
            self._archive.add_event(self._runs[task.key], BEGAN, {"after": 0.0})
        return self._runs[task.key]

    def _executor(self, task: Task, thorough: bool) -> Executor:
        place = (task.key, thorough)
        if place not in self._executors:
            while len(self._executors) >= KEPT:
                self._executors.popitem(last=False)[1].close()
            self._executors[place] = self._make(task, self._choice, self._settings, thorough)
        self._executors.move_to_end(place)
        return self._executors[place]
