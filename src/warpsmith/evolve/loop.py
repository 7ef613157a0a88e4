"""The search itself. Read `resume`, `translate` and `run` first: they are the whole idea.

Choices are made for a generation at a time, before any of its answers is known, and verdicts are folded in the order
in which they were asked for. So the same seed on the same archive makes the same choices, however many workers judge
and whoever is quicker. Only the clock can end a search at another candidate.

What the archive knows of similar tasks comes in as `inherited` candidates. They are the first to be judged, beside what
the authors think best, and have no other privilege: each is judged like any other. What an earlier run asked for, and
did not come to judge, is judged before anything new is asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import anyio

from warpsmith.author.protocol import Author, Example
from warpsmith.errors import NothingPassed
from warpsmith.evolve import events, stop
from warpsmith.evolve.bandit import Arm, Bandit, cost, reward
from warpsmith.evolve.choosing import Chooser
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.executor import Executor
from warpsmith.evolve.explaining import Explaining
from warpsmith.evolve.generation import Briefing, Problem, Workshop, plain_errors
from warpsmith.evolve.islands import Islands
from warpsmith.evolve.journal import LOST, Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import Lessons
from warpsmith.evolve.novelty import Twin
from warpsmith.evolve.operators import INHERITED, PENDING, SEARCH, Slot, arms_of
from warpsmith.evolve.past import unfinished
from warpsmith.records import Candidate, Judged

TRANSLATION_ROUNDS = 3
"""Generations of first proposals before a task counts as one that authors who compute cannot translate. Those who read
verdicts are asked on, until something passes or the budget is gone."""

BARREN = 3
"""Generations in a row without a new candidate after which there is nothing left to find."""

PATIENCE = 1.25
"""A program that passes when the time is up waits for those asked for before it, for a quarter of the time it took."""

LOSSES = 3
"""Candidates in a row on which the machine failed after which the machine, and no candidate, is to blame."""


class Evolution:
    """One search for one task. Call `resume`, perhaps `inherit`, then `translate` and `run`, which can be cancelled.

    `judging` is how many candidates the executor judges at once; it changes nothing but the speed. `stop_when` is
    asked besides the limits of the dial. `max_usd` is the most that answers may cost in this run, in US dollars: an
    author whose price does not fit into what is left is not asked any more, the others are. `arms` replaces the
    operators on offer, for comparisons. `examples` and `lessons` from similar tasks are shown to authors that read
    them. `started` is the reading of `clock` (seconds) from which the time counts; `sleep` waits for so many seconds,
    which a search does where all its authors rest.

    Raises ValueError where `max_usd` is no amount of money.
    """

    def __init__(
        self,
        problem: Problem,
        authors: Sequence[Author],
        executor: Executor,
        journal: Journal,
        run: int,
        dial: Dial,
        *,
        seed: int = 0,
        judging: int = 1,
        stop_when: stop.StopCondition | None = None,
        max_usd: float | None = None,
        arms: Sequence[Arm] | None = None,
        ledger: Ledger | None = None,
        examples: Sequence[Example] = (),
        lessons: Sequence[str] = (),
        observer: events.Observer = events.ignore,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        if max_usd is not None and not 0.0 <= max_usd < math.inf:
            raise ValueError(f"max_usd must be an amount of US dollars, not {max_usd}")
        self.population = Islands(dial.capacity, dial.depth, dial.islands, dial.migration)
        self.bandit = Bandit()
        self.lessons = Lessons()
        self.ledger = ledger or Ledger({author.name: author.expected_usd for author in authors})
        self.generation = 0
        self.usd_before = 0.0
        self._number = 0
        self._problem = problem
        self._workshop = Workshop(problem, executor, journal, run, self.ledger, judging, clock, self._hear)
        self._chooser = Chooser(
            authors,
            (*arms_of(authors), SEARCH) if arms is None else arms,
            self.population,
            self.bandit,
            self.ledger,
            dial.size,
            self._room,
            seed=seed,
            max_usd=max_usd,
        )
        self._explaining = Explaining(
            problem, authors, journal, run, self.ledger, self.lessons, max_usd, clock, self._hear_lesson
        )
        self._journal = journal
        self._run = run
        self._dial = dial
        self._max_usd = max_usd
        self._examples = tuple(examples)
        self._taught = tuple(lessons)
        self._tell = observer
        self._clock = clock
        self._sleep = sleep
        self._started = clock() if started is None else started
        self._stop = stop.any_of(
            *([stop_when] if stop_when else []),
            stop.candidates(dial.candidates),
            stop.seconds(dial.seconds),
            *([stop.money(max_usd)] if max_usd is not None else []),
            stop.no_progress(dial.patience),
            stop.exhausted(BARREN),
        )
        self._stale = 0
        self._barren = 0
        self._losses = 0
        self._refusal = ""
        self._heirs: set[str] = set()

    # ------------------------------------------------------------------------------------------------ the three phases

    def resume(self) -> int:
        """Take in what the archive knows of this task from this judge; return how many candidates that is.

        What was asked for and has no verdict yet will be judged first. What earlier runs paid does not count again.
        """
        known = self._journal.judged(
            self._problem.task.key, judge_version=self._problem.judge_version, device=self._problem.gpu.name
        )
        for judged in known:
            if judged.candidate.key not in self.population:
                self._workshop.seen.add(judged.candidate.key)
                self._workshop.novelty.admit(judged.candidate)
                self._chooser.failures.remember(judged.candidate)
                self.generation = max(self.generation, judged.candidate.lineage.generation)
                self._fold(judged, judged.candidate.lineage.generation, cached=True)
        past = unfinished(self._journal, self._problem)
        self.generation = max(self.generation, past.generation)
        self.usd_before = past.usd
        self._workshop.kept.update(candidate.key for candidate in past.pending)
        self._chooser.pending += past.pending
        for parent in past.refused_repairs:
            self._chooser.failures.begin(parent)
        self._chooser.unjudged = past.unjudged
        self._explaining.recall()
        return len(self.population)

    def inherit(self, candidates: Sequence[Candidate]) -> None:
        """Have these candidates judged early, the first ones first; those that were judged before are passed over."""
        new = [each for each in candidates if each.key not in self._workshop.seen]
        self._heirs.update(each.key for each in new)
        self._chooser.inherited += new

    async def translate(self) -> Judged:
        """Ask for first programs until one passes; return the fastest. Raises NothingPassed where none does.

        Each round repairs what failed in the round before, where any author repairs.
        """
        rounds = 0
        while self.population.best is None and self._stop(self._standing()) is None:
            if rounds >= TRANSLATION_ROUNDS and not self._chooser.persists:
                break
            rounds += 1
            await self._live(0, self._chooser.first)
        if self.population.best is None:
            raise NothingPassed(self._why_nothing_passed())
        self._barren = self._stale = 0
        return self.population.best

    async def run(self) -> str:
        """Evolve until there is a reason to stop; return it."""
        while (reason := self._stop(self._standing())) is None:
            self.generation += 1
            best = self.population.best
            if await self._live(self.generation, lambda: self._chooser.next(self.generation)):
                self._stale = 0 if self.population.best is not best else self._stale + 1
        self._tell(events.Stopped(reason))
        return reason

    # -------------------------------------------------------------------------------------------------------- living

    async def _live(self, number: int, choose: Callable[[], list[Slot]]) -> bool:
        """One generation: decide, carry it out, and learn from it. False where there was nothing to do but to wait."""
        self._tell(events.GenerationStarted(number))
        standing, submitted, known = self._standing(), self.ledger.submitted, len(self.population)
        self._number = number
        inquiry = self._explaining.choose(number)
        slots = choose()

        end = self._dial.seconds + self._dial.grace
        first_end = max(end, self._elapsed + self._dial.first)

        def late() -> bool:
            elapsed = self._elapsed if self.ledger.submitted > submitted else self._spent
            return self._stop(replace(standing, elapsed=elapsed)) is not None

        passed_at: list[float] = []

        def left() -> float:
            if not passed_at and any(slot.verdict is not None and slot.verdict.passed for slot in slots):
                passed_at.append(self._elapsed)
            if self.population.best is not None:
                return max(0.0, end - self._elapsed)
            if not passed_at:
                return max(0.0, first_end - self._elapsed)
            # What was asked for earlier, and thought better, began at the same time: it is nearly done as well.
            return max(0.0, min(first_end, max(end, PATIENCE * passed_at[0])) - self._elapsed)

        try:
            with plain_errors():
                async with anyio.create_task_group() as beside:
                    if inquiry is not None:
                        beside.start_soon(self._explaining.ask, inquiry)
                    await self._workshop.carry_out(slots, number, self._briefing(), self._fold_slot, late, left)
                    beside.cancel_scope.deadline = anyio.current_time() + left()
        finally:
            self._explaining.give_up()
            self.population.forget_pending()
            self._chooser.take_back(slots, self._workshop.seen)
        waiting = {candidate.key for candidate in self._chooser.pending}
        for slot in slots:
            if slot.candidate is not None and slot.candidate.key in waiting:
                continue
            if slot.answered.is_set() and not slot.folded and slot.arm not in (INHERITED, PENDING):
                self.bandit.learn(slot.arm.author, slot.arm.operator, -cost(slot.cost_usd, slot.seconds))
        if len(self.population) == known and await self._waited():
            return False
        self._barren = 0 if len(self.population) > known else self._barren + 1
        return True

    async def _waited(self) -> bool:
        """Wait for authors where all of them rest, as long as the time lasts. False where none is waited for."""
        seconds = self._chooser.rest_s
        left = self._dial.seconds - self._elapsed
        if not 0.0 < seconds < math.inf or left <= 0.0:
            return False
        self._tell(events.Waiting(min(seconds, left)))
        await self._sleep(min(seconds, left))
        return True

    def _briefing(self) -> Briefing:
        """What authors are told in the next generation: what was learnt here comes before what others taught."""
        return Briefing(self.population.best, (*self.lessons.sentences, *self._taught), self._examples)

    def _hear(self, slot: Slot, twin: Twin | None) -> None:
        """Tell of an answer that was asked for the moment it is here, and of one that is passed over."""
        if twin is not None and slot.candidate is not None:
            self._chooser.unjudged += 1
            self._tell(events.CandidatePassedOver(slot.candidate, slot.candidate.lineage.generation, twin.why))
        elif slot.refusal is not None:
            self._chooser.unjudged += 1
            refusal, arm = slot.refusal, slot.arm
            self._refusal = refusal.note
            self._tell(events.AnswerRefused(arm.author, arm.operator, self._number, refusal.note, refusal.cost_usd))
        self._tell_progress()

    def _hear_lesson(self, lesson: events.LessonLearnt | None) -> None:
        if lesson is not None:
            self._tell(lesson)
        self._tell_progress()

    def _fold_slot(self, slot: Slot) -> None:
        """Take in what came of a slot. Raises MachineError where the machine fails on one candidate after another."""
        if slot.candidate is None:
            return
        generation = slot.candidate.lineage.generation
        if slot.verdict is not None:
            self._losses = 0
            self._fold(Judged(slot.candidate, slot.verdict), generation, cached=slot.cached)
        elif slot.error is not None:
            self._losses += 1
            self.population.lose(slot.candidate)
            self._tell(events.CandidateLost(slot.candidate, generation, str(slot.error)))
            self._journal.add_event(self._run, LOST, {"candidate": slot.candidate.key, "error": str(slot.error)})
            if self._losses == LOSSES:
                raise slot.error
        self._tell_progress()

    def _fold(self, judged: Judged, generation: int, *, cached: bool) -> None:
        """Learn from a verdict. Everything that later choices depend on is learnt here, new or read again."""
        lineage = judged.candidate.lineage
        reference = self.population.reference(judged.candidate)
        if not cached:
            self._explaining.consider(judged, self.population.parent_of(judged.candidate), self.population.best)
        improved = self.population.fold(judged, generation)
        if generation > 0:  # to be better than the very first programs is too easy to tell operators apart
            self.bandit.learn(lineage.author, lineage.operator, reward(judged, reference))
        self.lessons.learn(judged, reference)
        self._chooser.failures.learn(judged)
        self._workshop.novelty.learn(judged)
        self._tell(events.CandidateJudged(judged, generation, cached))
        if improved:
            self._tell(events.BestImproved(judged))

    # -------------------------------------------------------------------------------------------------------- standing

    def _tell_progress(self) -> None:
        limit = None if self._dial.seconds == math.inf else self._dial.seconds
        self._tell(
            events.Progress(self.ledger.judged, self._elapsed, limit, self.ledger.spent, self._max_usd, self.usd_before)
        )

    @property
    def _elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._started

    @property
    def _spent(self) -> float:
        """Seconds of the budget that are spent: none before the first candidate, so that every search has one.

        What was inherited does not count as that one before it passes: no archive may leave a search without a program
        that it would have found alone.
        """
        inherited = len(self._heirs & self._workshop.seen)
        begun = self.ledger.submitted > inherited or self.population.best is not None
        return self._elapsed if begun else 0.0

    def _room(self, slots: Sequence[Slot]) -> bool:
        """Whether one more slot may be decided on; those decided count as judged already."""
        return len(slots) < self._dial.size and self._stop(self._standing(len(slots))) is None

    def _standing(self, planned: int = 0) -> stop.Standing:
        """How the search stands, with `planned` candidates more than were given to the judge."""
        best = self.population.best
        return stop.Standing(
            elapsed=self._spent,
            candidates=self.ledger.submitted + planned,
            usd=self.ledger.committed,
            stale=self._stale,
            barren=self._barren,
            best=best.seconds if best else math.inf,
            bound=self._problem.bound.seconds,
            price=0.0 if self._max_usd is None else self._chooser.price,
        )

    def _why_nothing_passed(self) -> str:
        """One line: how many were judged, why they failed, and whether there was time for more."""
        reasons = [f"{reason} ({count})" for reason, count in self.lessons.reasons]
        lost = self.ledger.submitted - self.ledger.judged
        if lost:
            reasons.append(f"no verdict ({lost})")
        line = f"none of {self.ledger.submitted} programs for {self._problem.task.name} passed the judge"
        line += f": {', '.join(reasons)}" if reasons else ""
        line += f"; the last answer without a program: {self._refusal}" if self._refusal else ""
        ended = self._stop(self._standing())
        hint = "; a larger budget may help" if ended and not self.ledger.judged else ""
        return f"{line}; {ended}{hint}" if ended else line
