"""The tools that have programs judged. Every program is a proposal in the archive, and every verdict stays there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import anyio.to_thread
from pydantic import Field

from warpsmith.device.choose import Choice
from warpsmith.errors import UserError
from warpsmith.records import Candidate, Lineage
from warpsmith.server.answers import Judgement, ProfilePage
from warpsmith.server.judges import Judges, Outcome
from warpsmith.server.programs import KernelText, PlanText, Tunables, candidate_of
from warpsmith.server.reading import Key, Reading, TaskName
from warpsmith.server.shelf import Shelf
from warpsmith.server.telling import profile_of

JUDGE = "judge"
"""The operator of programs of which nothing is said but that they are to be judged."""


class Proposing:
    """Judges in the name of `author`. The docstrings of its tools are what an agent reads of them."""

    def __init__(
        self, shelf: Shelf, judges: Judges, reading: Reading, choice: Choice, *, author: str, hybrid: bool
    ) -> None:
        self._shelf = shelf
        self._judges = judges
        self._reading = reading
        self._choice = choice
        self._author = author
        self._hybrid = hybrid

    async def judge_program(
        self, task: TaskName, kernel_cu: KernelText, plan_toml: PlanText, tunables: Tunables = None
    ) -> Judgement:
        """Judge a program for a task: is it right, and how fast is it?

        The answer says at which stage and why it failed, or its time and what limits it. Judging takes seconds to a
        minute; calls are judged one after the other. Use submit_proposal for a program that comes from others.
        """
        lineage = Lineage(self._author, JUDGE)
        return await self._judge(task, kernel_cu, plan_toml, tunables, lineage)

    async def submit_proposal(
        self,
        task: TaskName,
        kernel_cu: KernelText,
        plan_toml: PlanText,
        operator: Annotated[
            str,
            Field(
                pattern=r"^[a-z][a-z0-9_-]{0,39}$",
                description="What you did: translate, rewrite, repair, cross, or a word of your own.",
            ),
        ],
        parents: Annotated[
            list[Key] | None, Field(max_length=16, description="Keys of the candidates that it comes from.")
        ] = None,
        note: Annotated[str, Field(max_length=500, description="What you changed and why, in a sentence.")] = "",
        tunables: Tunables = None,
    ) -> Judgement:
        """Judge a program as judge_program does, and keep with it what it comes from and why it was written.

        Later searches start from what is kept, so name the parents and say what the idea is.
        """
        line = "".join(each if each.isprintable() else " " for each in note).strip()
        lineage = Lineage(self._author, operator, note=line)
        return await self._judge(task, kernel_cu, plan_toml, tunables, lineage, parents or ())

    async def profile_program(self, candidate: Key) -> ProfilePage:
        """Say what a program spends its time on: the bottleneck with advice, metrics, and each kernel's counters.

        In the simulator these are counted, on a GPU the program is judged once more with NVIDIA's profiler.
        """
        found = await anyio.to_thread.run_sync(self._reading.candidate, candidate)
        loaded = await self._shelf.task(found.task_key)
        outcome = await self._judges.review(loaded, found, thorough=self._choice.measures)
        return profile_of(outcome.judged, self._told(outcome))

    async def _judge(
        self,
        name: str,
        kernel_cu: str,
        plan_toml: str,
        tunables: Mapping[str, int] | None,
        lineage: Lineage,
        parents: Sequence[str] = (),
    ) -> Judgement:
        task = await self._shelf.task(name)
        family = [self._parent(each, task.key) for each in parents]
        if family:
            generation = 1 + max(each.lineage.generation for each in family)
            lineage = replace(lineage, parents=tuple(each.key for each in family), generation=generation)
        candidate = candidate_of(task.key, kernel_cu, plan_toml, tunables, lineage, hybrid=self._hybrid)
        return self._told(await self._judges.judge(task, candidate))

    def _parent(self, prefix: str, task_key: str) -> Candidate:
        found = self._reading.candidate(prefix)
        if found.task_key != task_key:
            raise UserError(f"parent {found.key} is for another task")
        return found

    def _told(self, outcome: Outcome) -> Judgement:
        return self._reading.judgement(outcome.judged, known=outcome.known)
