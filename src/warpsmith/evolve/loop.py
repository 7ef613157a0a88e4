"""The search itself. Read `resume`, `translate` and `run` first: they are the whole idea.

Choices are made for a generation at a time, before any of its answers is known, and verdicts are folded in the order
in which they were asked for. So the same seed on the same archive makes the same choices, however many workers judge
and whoever is quicker. Only the clock can end a search at another candidate.

What the archive knows of similar tasks comes in as `inherited` candidates. They are the first to be judged, beside what
the authors think best, and have no other privilege: each is judged like any other.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from warpsmith.author.protocol import Author
from warpsmith.errors import NothingPassed
from warpsmith.evolve import events, stop
from warpsmith.evolve.bandit import Arm, Bandit, reward
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.executor import Executor
from warpsmith.evolve.generation import Problem, Workshop
from warpsmith.evolve.journal import Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import Lessons
from warpsmith.evolve.operators import INHERITED, SEARCH, Slot, arms_of, ready_slot, seed_of, tuned_candidate
from warpsmith.evolve.population import Population, draw_by_rank
from warpsmith.records import Candidate, Judged

TRANSLATION_ROUNDS = 3
"""Generations of first proposals before a task counts as one that no author can translate."""

TUNING_SHARE = 3
"""One slot in so many is kept for tunables while any program is owed a trial; the bandit decides on the others."""

INHERITED_SHARE = 2
"""At most one slot in so many of a generation goes to what was inherited."""

BARREN = 3
"""Generations in a row without a new candidate after which there is nothing left to find."""

PATIENCE = 1.25
"""A program that passes when the time is up waits for those asked for before it, for a quarter of the time it took."""

LOSSES = 3
"""Candidates in a row on which the machine failed after which the machine, and no candidate, is to blame."""


class Evolution:
    """One search for one task. Call `resume`, perhaps `inherit`, then `translate` and `run`, which can be cancelled.

    `judging` is how many candidates the executor judges at once; it changes nothing but the speed. `stop_when` is
    asked besides the limits of the dial. `arms` replaces the operators on offer, for comparisons. `started` is the
    reading of `clock` (seconds) from which the time counts.
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
        arms: Sequence[Arm] | None = None,
        ledger: Ledger | None = None,
        observer: events.Observer = events.ignore,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
    ) -> None:
        self.population = Population(dial.capacity, dial.depth)
        self.bandit = Bandit()
        self.lessons = Lessons()
        self.ledger = ledger or Ledger()
        self.generation = 0
        self._problem = problem
        self._authors = {author.name: author for author in authors}
        self._arms = (*arms_of(authors), SEARCH) if arms is None else tuple(arms)
        self._workshop = Workshop(problem, executor, journal, run, self.ledger, judging, clock)
        self._journal = journal
        self._run = run
        self._dial = dial
        self._seed = seed
        self._tell = observer
        self._clock = clock
        self._started = clock() if started is None else started
        self._stop = stop.any_of(
            *([stop_when] if stop_when else []),
            stop.candidates(dial.candidates),
            stop.seconds(dial.seconds),
            stop.no_progress(dial.patience),
            stop.exhausted(BARREN),
        )
        self._stale = 0
        self._barren = 0
        self._losses = 0
        self._inherited: list[Candidate] = []
        self._taken: set[str] = set()

    # ------------------------------------------------------------------------------------------------ the three phases

    def resume(self) -> int:
        """Take in what the archive knows of this task from this judge; return how many candidates that is."""
        known = self._journal.judged(
            self._problem.task.key, judge_version=self._problem.judge_version, device=self._problem.gpu.name
        )
        for judged in known:
            if judged.candidate.key not in self.population:
                self._workshop.seen.add(judged.candidate.key)
                self.generation = max(self.generation, judged.candidate.lineage.generation)
                self._fold(judged, judged.candidate.lineage.generation, cached=True)
        return len(self.population)

    def inherit(self, candidates: Sequence[Candidate]) -> None:
        """Have these candidates judged early, the first ones first; those that were judged before are passed over."""
        self._inherited += [each for each in candidates if each.key not in self._workshop.seen]

    async def translate(self) -> Judged:
        """Ask for first programs until one passes; return the fastest. Raises NothingPassed where none does."""
        for _ in range(TRANSLATION_ROUNDS):
            if self.population.best is None and self._stop(self._standing()) is None:
                await self._live(0, self._first_slots)
        if self.population.best is None:
            raise NothingPassed(self._why_nothing_passed())
        return self.population.best

    async def run(self) -> str:
        """Evolve until there is a reason to stop; return it."""
        while (reason := self._stop(self._standing())) is None:
            self.generation += 1
            best, known = self.population.best, len(self.population)
            await self._live(self.generation, self._choose)
            self._stale = 0 if self.population.best is not best else self._stale + 1
            self._barren = 0 if len(self.population) > known else self._barren + 1
        self._tell(events.Stopped(reason))
        return reason

    # ----------------------------------------------------------------------------------------------------- choosing

    def _first_slots(self) -> list[Slot]:
        """First programs, from all authors in turn. Seed 0 asks each for what it thinks best before it strays.

        The most promising of what was inherited comes before, the rest of it after the first answer of each author.
        Where nothing passed in a first round the authors come first.
        """
        creators = [arm for arm in self._arms if arm.parents == 0]
        heirs = self._inherited_slots()
        slots: list[Slot] = []
        while creators and self._room([*heirs, *slots]):
            slots.append(self._author_slot(creators[len(slots) % len(creators)], (), 0, len(slots)))
        if not self.population:
            for slot in slots[: len(creators)]:
                slot.seed = 0
        lead = 0 if self.population else 1
        return [*heirs[:lead], *slots[: len(creators)], *heirs[lead:], *slots[len(creators) :]]

    def _inherited_slots(self) -> list[Slot]:
        """The next of what was inherited."""
        slots: list[Slot] = []
        most = max(1, self._dial.size // INHERITED_SHARE)
        while self._inherited and len(slots) < most and self._room(slots):
            candidate = self._inherited.pop(0)
            self._taken.add(candidate.key)
            slots.append(ready_slot(INHERITED, (), candidate))
        return slots

    def _choose(self) -> list[Slot]:
        """Decide on a whole generation before it begins."""
        chance = random.Random(seed_of(self._seed, self.generation, len(self.population)))
        slots = self._inherited_slots()
        while self._room(slots) and (arms := [arm for arm in self._arms if self._possible(arm)]):
            tuning_is_due = SEARCH in arms and len(slots) < self._dial.size // TUNING_SHARE
            arm = SEARCH if tuning_is_due else self.bandit.choose(arms, chance)
            if arm == SEARCH:
                slots.append(self._tuning_slot(chance))
            else:
                parents = self.population.parents(arm.parents, self.generation, chance)
                slots.append(self._author_slot(arm, parents, self.generation, len(slots)))
        return slots

    def _room(self, slots: Sequence[Slot]) -> bool:
        """Whether one more slot may be decided on; those decided count as judged already."""
        return len(slots) < self._dial.size and self._stop(self._standing(len(slots))) is None

    def _possible(self, arm: Arm) -> bool:
        """Whether there is anything that this operator could work on."""
        return bool(self.population.tunable()) if arm == SEARCH else len(self.population.ranked) >= arm.parents

    def _tuning_slot(self, chance: random.Random) -> Slot:
        """The next tunables of a program that is owed a trial, the faster the likelier."""
        member, point = draw_by_rank(self.population.tunable(), chance)
        member.pending.add(point)
        return ready_slot(SEARCH, (member.best,), tuned_candidate(member.best, point, self.generation))

    def _author_slot(self, arm: Arm, parents: tuple[Judged, ...], generation: int, index: int) -> Slot:
        """A question to an author. Its price is committed here, before it is asked."""
        self.ledger.reserve(arm.author)
        seed = seed_of(self._seed, generation, len(self.population), index)
        return Slot(arm, parents, seed, author=self._authors[arm.author], due=True)

    # -------------------------------------------------------------------------------------------------------- living

    async def _live(self, number: int, choose: Callable[[], list[Slot]]) -> None:
        """One generation: decide, carry it out, and learn from it."""
        self._tell(events.GenerationStarted(number))
        standing, submitted = self._standing(), self.ledger.submitted
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
            await self._workshop.carry_out(slots, number, self._fold_slot, late, left)
        finally:
            self.population.forget_pending()
            begun = self._workshop.seen
            waiting = [slot.candidate for slot in slots if slot.arm == INHERITED and slot.candidate is not None]
            self._inherited[:0] = [candidate for candidate in waiting if candidate.key not in begun]
        for slot in slots:
            if slot.answered.is_set() and not slot.folded and slot.arm != INHERITED:
                self.bandit.learn(slot.arm.author, slot.arm.operator, 0.0)

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
            self._journal.add_event(self._run, "lost", {"candidate": slot.candidate.key, "error": str(slot.error)})
            if self._losses == LOSSES:
                raise slot.error
        self._tell(events.Progress(self.ledger.judged, self._elapsed, self._time_limit))

    def _fold(self, judged: Judged, generation: int, *, cached: bool) -> None:
        """Learn from a verdict. Everything that later choices depend on is learnt here, new or read again."""
        lineage = judged.candidate.lineage
        reference = self.population.reference(judged.candidate)
        improved = self.population.fold(judged, generation)
        if generation > 0:  # to be better than the very first programs is too easy to tell operators apart
            self.bandit.learn(lineage.author, lineage.operator, reward(judged, reference))
        self.lessons.learn(judged)
        self._tell(events.CandidateJudged(judged, generation, cached))
        if improved:
            self._tell(events.BestImproved(judged))

    # -------------------------------------------------------------------------------------------------------- standing

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
        inherited = len(self._taken & self._workshop.seen)
        begun = self.ledger.submitted > inherited or self.population.best is not None
        return self._elapsed if begun else 0.0

    @property
    def _time_limit(self) -> float | None:
        """Seconds after which nothing new begins, if there is such a limit."""
        return None if self._dial.seconds == float("inf") else self._dial.seconds

    def _standing(self, planned: int = 0) -> stop.Standing:
        """How the search stands, with `planned` candidates more than were given to the judge."""
        best = self.population.best
        return stop.Standing(
            elapsed=self._spent,
            candidates=self.ledger.submitted + planned,
            usd=self.ledger.committed,
            stale=self._stale,
            barren=self._barren,
            best=best.seconds if best else float("inf"),
            bound=self._problem.bound.seconds,
        )

    def _why_nothing_passed(self) -> str:
        """One line: how many were judged, why they failed, and whether there was time for more."""
        reasons = [f"{reason} ({count})" for reason, count in self.lessons.reasons]
        lost = self.ledger.submitted - self.ledger.judged
        if lost:
            reasons.append(f"no verdict ({lost})")
        line = f"none of {self.ledger.submitted} programs for {self._problem.task.name} passed the judge"
        line += f": {', '.join(reasons)}" if reasons else ""
        ended = self._stop(self._standing())
        hint = "; a larger budget may help" if ended and not self.ledger.judged else ""
        return f"{line}; {ended}{hint}" if ended else line
