"""Carries out a generation that has been decided on: asks, judges, writes down.

Authors are asked all at once. Their answers are taken in order: one that was judged before is asked for again, a new
one goes to the judge as soon as there is room. Every verdict is in the archive before anything else is done with it,
and is handed on in the order of the slots, so that who was quicker changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import anyio

from warpsmith.author.protocol import Author, Context
from warpsmith.errors import MachineError
from warpsmith.evolve.executor import Executor
from warpsmith.evolve.journal import Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.operators import Slot, candidate_of, seed_of
from warpsmith.records import Bound, Candidate, GpuSpec, Task

ATTEMPTS = 4
"""How often a free author is asked before a slot is given up because everything it offers is known already."""

ASKING = 8
"""Authors at work at once."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is searched for, and by which judge: verdicts of another are never mixed in."""

    task: Task
    gpu: GpuSpec
    bound: Bound
    judge_version: str


class Workshop:
    """Asks authors, and gives what they answer to the judge.

    `judging` is how many candidates the executor judges at once; `clock` reads seconds. `seen` holds the key of every
    candidate that was given to the judge, whatever came of it: none is given twice.
    """

    def __init__(
        self,
        problem: Problem,
        executor: Executor,
        journal: Journal,
        run: int,
        ledger: Ledger,
        judging: int,
        clock: Callable[[], float],
    ) -> None:
        self.seen: set[str] = set()
        self._problem = problem
        self._executor = executor
        self._journal = journal
        self._run = run
        self._ledger = ledger
        self._clock = clock
        self._judges = anyio.CapacityLimiter(judging)
        self._askers = anyio.CapacityLimiter(ASKING)

    async def carry_out(
        self,
        slots: Sequence[Slot],
        number: int,
        fold: Callable[[Slot], None],
        late: Callable[[], bool],
        left: Callable[[], float],
    ) -> None:
        """Ask and judge every slot, calling `fold` with each that is done, in order.

        Once `late` says so nothing more is begun; after the seconds that are `left`, which is asked at the start and
        after every verdict, what is in flight is abandoned as well. Then, and where it is cancelled, what is done by
        then is still folded.
        """
        admitted: list[Slot] = []
        try:
            with plain_errors():
                async with anyio.create_task_group() as judging, anyio.create_task_group() as asking:
                    judging.cancel_scope.deadline = anyio.current_time() + left()
                    for slot in slots:
                        if slot.author is not None:
                            asking.start_soon(self._ask, slot, slot.author, number)
                    for slot in slots:
                        await slot.answered.wait()
                        await self._judges.acquire_on_behalf_of(slot)
                        if late():
                            self._judges.release_on_behalf_of(slot)
                            asking.cancel_scope.cancel()
                            break
                        if await self._admit(slot, number):
                            admitted.append(slot)
                            judging.start_soon(self._judge, slot, admitted, fold, left, judging.cancel_scope)
                        else:
                            self._judges.release_on_behalf_of(slot)
        finally:
            for slot in slots:
                if slot.due:
                    self._ledger.release(slot.arm.author)
            _fold_done([slot for slot in admitted if slot.done], fold)

    async def _ask(self, slot: Slot, author: Author, number: int) -> None:
        """Put the slot's question to its author. Its price was reserved before."""
        async with self._askers:
            before = self._clock()
            proposal = await author.propose(
                Context(self._problem.task, self._problem.gpu, slot.arm.operator, slot.parents, slot.seed)
            )
            took = self._clock() - before
        self._ledger.settle(author.name, proposal.cost_usd if proposal else 0.0)
        slot.due = False
        slot.candidate = candidate_of(slot, proposal, self._problem.task.key, number, took) if proposal else None
        slot.answered.set()

    async def _admit(self, slot: Slot, number: int) -> bool:
        """Whether the slot has something new to judge. An author that repeats itself for free is asked again."""
        for attempt in range(1, ATTEMPTS + 1):
            candidate = slot.candidate
            if candidate is None:
                return False
            if candidate.key not in self.seen:
                self._write_down(slot, candidate)
                return True
            if slot.author is None or candidate.lineage.cost_usd > 0.0 or attempt == ATTEMPTS:
                return False
            slot.seed = seed_of(slot.seed, attempt)
            self._ledger.reserve(slot.author.name)
            slot.due = True
            await self._ask(slot, slot.author, number)
        return False

    def _write_down(self, slot: Slot, candidate: Candidate) -> None:
        """Archive a new candidate, and look up whether another process has had it judged meanwhile."""
        self.seen.add(candidate.key)
        self._journal.add_candidate(self._run, candidate)
        slot.verdict = self._journal.verdict(candidate.key, self._problem.judge_version, self._problem.gpu.name)
        slot.cached = slot.verdict is not None
        if not slot.cached:
            self._ledger.submit()

    async def _judge(
        self,
        slot: Slot,
        admitted: Sequence[Slot],
        fold: Callable[[Slot], None],
        left: Callable[[], float],
        scope: anyio.CancelScope,
    ) -> None:
        """Have the slot's candidate judged, write the verdict down, and fold every slot whose turn has come."""
        try:
            if slot.candidate is not None and slot.verdict is None:
                verdict = await self._executor.judge(slot.candidate)
                self._journal.add_verdict(
                    self._run,
                    verdict,
                    judge_version=self._problem.judge_version,
                    device=self._problem.gpu.name,
                )
                self._ledger.judge()
                slot.verdict = verdict
        except MachineError as error:
            slot.error = error
        finally:
            self._judges.release_on_behalf_of(slot)
        slot.done = True
        _fold_done(list(takewhile(lambda other: other.done, admitted)), fold)
        scope.deadline = anyio.current_time() + left()


def _fold_done(done: Sequence[Slot], fold: Callable[[Slot], None]) -> None:
    """Fold each slot once."""
    for slot in done:
        if not slot.folded:
            slot.folded = True
            fold(slot)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the first error of a task group as itself: callers catch `MachineError`, not groups of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group
