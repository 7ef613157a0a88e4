"""Several populations that share what they know and seldom mix, so that one good idea does not end all others.

A generation belongs to one island, each in turn: all its parents live there, and so will their children. Every few
generations the fastest program of each island comes to the next one as well. What is judged tells its generation, so
the islands are a pure fold of the verdicts like each population alone.
"""

from __future__ import annotations

import math
import random

from warpsmith.evolve.population import Member, Population, Recorded, Records
from warpsmith.evolve.tune import Tunables
from warpsmith.records import Candidate, Judged

LEAST = 8
"""Programs that an island holds at least."""


class Islands(Recorded):
    """`count` populations that share `capacity` programs; `migration` is the number of generations between two moves.

    With one island this is a population, choice for choice.
    """

    def __init__(self, capacity: int, depth: int, count: int = 1, migration: int = 1) -> None:
        super().__init__(Records())
        each = capacity if count == 1 else max(LEAST, capacity // count)
        self._islands = [Population(each, depth, self._records) for _ in range(count)]
        self._migration = migration
        self._moves = 0
        self._founders = 0

    # ------------------------------------------------------------------------------------------------------ reading

    @property
    def islands(self) -> tuple[Population, ...]:
        """Each population, in the order in which they have their turns."""
        return tuple(self._islands)

    @property
    def best(self) -> Judged | None:
        """The fastest candidate that passed."""
        return min((best for each in self._islands if (best := each.best)), key=lambda best: best.seconds, default=None)

    def reference(self, candidate: Candidate) -> float:
        """Seconds that a candidate has to beat, on whichever island its parents live: see `Population.reference`."""
        return min(island.reference(candidate) for island in self._islands)

    def parent_of(self, candidate: Candidate) -> Judged | None:
        """Return the fastest of a candidate's parents that passed, or None where there is none."""
        return self._islands[0].parent_of(candidate)

    # ------------------------------------------------------------------------------------------------------ folding

    def fold(self, judged: Judged, generation: int) -> bool:
        """Take in a verdict; return whether it is the best so far."""
        self._migrate(generation)
        before = self.best.seconds if self.best else math.inf
        program = judged.candidate.program.key
        homes = [island for island in self._islands if island.holds(program)] or [self._home(judged, generation)]
        for island in homes:
            island.fold(judged, generation)
        return judged.seconds < before

    def lose(self, candidate: Candidate) -> None:
        """Take in that the machine failed on a candidate: its tunables count as tried."""
        self._islands[0].lose(candidate)

    def forget_pending(self) -> None:
        """Give up points in flight: their generation is over, and those without a verdict may be tried again."""
        for island in self._islands:
            island.forget_pending()

    def _home(self, judged: Judged, generation: int) -> Population:
        """Where a new program will live: on the island of its generation, first programs on each in turn."""
        if generation > 0:
            return self._turn(generation)
        self._founders += judged.verdict.passed
        return self._islands[(self._founders - 1) % len(self._islands)]

    def _migrate(self, generation: int) -> None:
        """Before the first verdict of a generation that is due, bring the champion of each island to the next."""
        moves = generation // self._migration
        if moves > self._moves:
            self._moves = moves
            champions = [island.ranked[:1] for island in self._islands]
            for number, guests in enumerate(champions, start=1):
                for guest in guests:
                    self._islands[number % len(self._islands)].welcome(guest)

    def _turn(self, generation: int) -> Population:
        return self._islands[generation % len(self._islands)]

    # ----------------------------------------------------------------------------------------------------- choosing

    def tunable(self) -> list[tuple[Member, Tunables]]:
        """Programs whose tunables are not searched yet, fastest first, each once, with the next tunables to try."""
        found: dict[str, tuple[Member, Tunables]] = {}
        for island in self._islands:
            for member, point in island.tunable():
                found.setdefault(member.key, (member, point))
        return sorted(found.values(), key=lambda each: each[0].seconds)

    def inhabited(self, count: int, generation: int) -> bool:
        """Whether any island has so many programs that could be parents together."""
        return self._island_for(count, generation) is not None

    def parents(self, count: int, generation: int, chance: random.Random) -> tuple[Judged, ...]:
        """Draw different programs of one island, that of the generation or the next that has enough of them.

        Raises IndexError where none has.
        """
        self._migrate(generation)
        island = self._island_for(count, generation)
        return (island or self._turn(generation)).parents(count, generation, chance)

    def _island_for(self, count: int, generation: int) -> Population | None:
        turns = (self._turn(generation + later) for later in range(len(self._islands)))
        return next((island for island in turns if len(island.ranked) >= count), None)
