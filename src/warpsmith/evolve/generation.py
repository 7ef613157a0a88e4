"""Carries out a generation that has been decided on: asks, judges, writes down.

Authors are asked all at once. An answer that was asked for is in the archive as soon as it arrives, whatever becomes of
the rest. Answers are taken in order: one that was judged before is asked for again, a new one goes to the judge as soon
as there is room. Every verdict is in the archive before anything else is done with it, and is handed on in the order of
the slots, so that who was quicker changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import anyio

from warpsmith.author.protocol import Author, Context, Example, Proposal, Refusal
from warpsmith.errors import MachineError
from warpsmith.evolve.executor import Executor
from warpsmith.evolve.journal import ABANDONED, PASSED_OVER, REFUSED, Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.novelty import Novelty, Twin
from warpsmith.evolve.operators import Slot, asked_for, candidate_of, seed_of
from warpsmith.records import Bound, Candidate, GpuSpec, Judged, Task

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


@dataclass(frozen=True, slots=True, eq=False)
class Briefing:
    """What authors are told in a generation besides their parents: see `Context`."""

    best: Judged | None = None
    lessons: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


class Workshop:
    """Asks authors, and gives what they answer to the judge.

    `judging` is how many candidates the executor judges at once; `clock` reads seconds. `seen` holds the key of every
    candidate that was given to the judge, whatever came of it: none is given twice. `kept` holds those that stand in
    the archive with the lineage that they have here. `heard` is called with every slot whose answer was asked for, and
    with what it is passed over for, if it is.
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
        heard: Callable[[Slot, Twin | None], None],
    ) -> None:
        self.seen: set[str] = set()
        self.kept: set[str] = set()
        self.novelty = Novelty()
        self._problem = problem
        self._executor = executor
        self._journal = journal
        self._run = run
        self._ledger = ledger
        self._clock = clock
        self._heard = heard
        self._judges = anyio.CapacityLimiter(judging)
        self._askers = anyio.CapacityLimiter(ASKING)
        self._briefing = Briefing()
        self._closing = False

    async def carry_out(
        self,
        slots: Sequence[Slot],
        number: int,
        briefing: Briefing,
        fold: Callable[[Slot], None],
        late: Callable[[], bool],
        left: Callable[[], float],
    ) -> None:
        """Ask and judge every slot, calling `fold` with each that is done, in order.

        Once `late` says so nothing more is begun, but answers that cost money are waited for; after the seconds that
        are `left`, which is asked at the start and after every verdict, what is in flight is abandoned as well. Then,
        and where it is cancelled, what is done by then is still folded.
        """
        self._briefing, self._closing = briefing, False
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
                            self._closing = True
                            if not any(self._billed(each) for each in slots):
                                asking.cancel_scope.cancel()
                            break
                        if await self._admit(slot, number):
                            admitted.append(slot)
                            judging.start_soon(self._judge, slot, admitted, fold, left, judging.cancel_scope)
                        else:
                            self._judges.release_on_behalf_of(slot)
        finally:
            self._give_up([slot for slot in slots if slot.due])
            _fold_done([slot for slot in admitted if slot.done], fold)

    # -------------------------------------------------------------------------------------------------------- asking

    async def _ask(self, slot: Slot, author: Author, number: int) -> None:
        """Put the slot's question to its author. Its price was reserved before."""
        async with self._askers:
            if self._closing:
                return
            slot.begun = True
            before = self._clock()
            answer = await author.propose(self._context(slot))
            took = self._clock() - before
        # From here to the archive nothing is awaited, so nothing can be cancelled that was paid for.
        price = answer.cost_usd if answer is not None else 0.0
        if answer is None:
            self._ledger.release(author.name)  # No bill, which is not the same as a bill of 0: that lowers the mean.
        else:
            self._ledger.settle(author.name, price)
        slot.due = slot.begun = False
        slot.cost_usd += price
        slot.seconds += took
        slot.candidate = None
        if isinstance(answer, Proposal):
            slot.candidate = candidate_of(slot, answer, self._problem.task.key, number, took)
            if asked_for(slot.candidate.lineage):
                self._keep(slot.candidate)
                self._heard(slot, None)
        elif isinstance(answer, Refusal):
            slot.refusal = answer
            self._write_refusal(slot, answer, number)
            self._heard(slot, None)
        slot.answered.set()

    def _context(self, slot: Slot) -> Context:
        return Context(
            self._problem.task,
            self._problem.gpu,
            slot.arm.operator,
            slot.parents,
            slot.seed,
            bound=self._problem.bound,
            best=self._briefing.best,
            lessons=self._briefing.lessons,
            examples=self._briefing.examples,
        )

    def _write_refusal(self, slot: Slot, refusal: Refusal, number: int) -> None:
        data = {
            "author": slot.arm.author,
            "operator": slot.arm.operator,
            "parents": [parent.candidate.key for parent in slot.parents],
            "generation": number,
            "note": refusal.note,
            "cost_usd": refusal.cost_usd,
            "seconds": slot.seconds,
            "prompt": refusal.prompt,
            "reply": refusal.reply,
        }
        self._journal.add_event(self._run, REFUSED, data)

    def _billed(self, slot: Slot) -> bool:
        """Whether a question is with an author who charges for the answer."""
        return slot.begun and self._ledger.price(slot.arm.author) > 0.0

    def _give_up(self, due: Sequence[Slot]) -> None:
        """Give up answers that are still due. What may be billed all the same is written down."""
        for slot in due:
            if self._billed(slot):
                author, operator = slot.arm.author, slot.arm.operator
                data = {"author": author, "operator": operator, "expected_usd": self._ledger.price(author)}
                self._journal.add_event(self._run, ABANDONED, data)
            self._ledger.release(slot.arm.author)

    # ------------------------------------------------------------------------------------------------------ admitting

    async def _admit(self, slot: Slot, number: int) -> bool:
        """Whether the slot has something new to judge. An author that repeats itself for free is asked again."""
        for attempt in range(1, ATTEMPTS + 1):
            candidate = slot.candidate
            if candidate is None:
                return False
            if candidate.key in self.seen:
                twin: Twin | None = Twin(candidate.key, "the very same was tried before")
            else:
                twin = self.novelty.twin(candidate)
            if twin is None:
                self._write_down(slot, candidate)
                return True
            self._pass_over(slot, candidate, twin)
            if slot.author is None or asked_for(candidate.lineage) or attempt == ATTEMPTS:
                return False
            slot.seed = seed_of(slot.seed, attempt)
            self._ledger.reserve(slot.author.name)
            slot.due = True
            await self._ask(slot, slot.author, number)
        return False

    def _write_down(self, slot: Slot, candidate: Candidate) -> None:
        """Archive a new candidate, and look up whether another process has had it judged meanwhile."""
        self.seen.add(candidate.key)
        self.novelty.admit(candidate)
        if candidate.key not in self.kept:
            self._keep(candidate)
        slot.verdict = self._journal.verdict(candidate.key, self._problem.judge_version, self._problem.gpu.name)
        slot.cached = slot.verdict is not None
        if not slot.cached:
            self._ledger.submit()

    def _keep(self, candidate: Candidate) -> None:
        self._journal.add_candidate(self._run, candidate)
        self.kept.add(candidate.key)

    def _pass_over(self, slot: Slot, candidate: Candidate, twin: Twin) -> None:
        """Take a candidate as known. What was asked for stands in the archive, which is told why it is not judged."""
        self.seen.add(candidate.key)
        answered_now = slot.author is not None or twin.candidate_key != candidate.key
        if answered_now and asked_for(candidate.lineage):
            data = {
                "candidate": candidate.key,
                "generation": candidate.lineage.generation,
                "like": twin.candidate_key,
                "why": twin.why,
            }
            self._journal.add_event(self._run, PASSED_OVER, data)
            self._heard(slot, twin)

    # -------------------------------------------------------------------------------------------------------- judging

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
