"""Decides on a whole generation before it begins: who is asked for what, and what of that is worked on.

All chance comes from the seed, the generation and how many answers are known, so the same seed on the same archive
makes the same choices. Before an author is asked its price is committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from warpsmith.author.protocol import REPAIR, Author, rest_of
from warpsmith.evolve.bandit import Arm, Bandit
from warpsmith.evolve.islands import Islands
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.operators import (
    INHERITED,
    PENDING,
    SEARCH,
    Slot,
    asked_for,
    deliberates,
    ready_slot,
    seed_of,
    tuned_candidate,
)
from warpsmith.evolve.population import draw_by_rank
from warpsmith.evolve.repair import Failures
from warpsmith.records import Candidate, Judged

TUNING_SHARE = 3
"""One slot in so many is kept for tunables while any program is owed a trial; the bandit decides on the others."""

INHERITED_SHARE = 2
"""At most one slot in so many of a generation goes to what was inherited."""

Room = Callable[[Sequence[Slot]], bool]
"""Whether one more slot may be decided on besides these."""


class Chooser:
    """Fills generations of `size` slots, as long as there is `room`.

    `pending` and `inherited` are candidates that stand ready. `unjudged` counts answers that were heard and have no
    verdict, in earlier runs as well: with them, no question is ever put in the same way again.
    """

    def __init__(
        self,
        authors: Sequence[Author],
        arms: Sequence[Arm],
        population: Islands,
        bandit: Bandit,
        ledger: Ledger,
        size: int,
        room: Room,
        *,
        seed: int,
        max_usd: float | None,
    ) -> None:
        self.failures = Failures()
        self.pending: list[Candidate] = []
        self.inherited: list[Candidate] = []
        self.unjudged = 0
        self._authors = {author.name: author for author in authors}
        self._arms = tuple(arms)
        self._population = population
        self._bandit = bandit
        self._ledger = ledger
        self._size = size
        self._room = room
        self._seed = seed
        self._max_usd = max_usd

    # ---------------------------------------------------------------------------------------------- whole generations

    def first(self) -> list[Slot]:
        """First programs, from all authors in turn. Seed 0 asks each for what it thinks best before it strays.

        The most promising of what was inherited comes before, the rest of it after the first answer of each author.
        Where nothing passed in a first round, failures are repaired, and the authors come before what is inherited.
        """
        anew = not self._known
        ready = self._pending_slots()
        heirs = self._inherited_slots(ready)
        ready += self._repair_slots([*ready, *heirs])
        slots: list[Slot] = []
        while self._room([*ready, *heirs, *slots]) and (creators := self._creators):
            slots.append(self._question(creators[len(slots) % len(creators)], (), 0, len(slots)))
        authors = len(self._creating)
        if anew:
            for slot in slots[:authors]:
                slot.seed = 0
        lead = 1 if anew else 0
        return _quick_first([*ready, *heirs[:lead], *slots[:authors], *heirs[lead:], *slots[authors:]])

    def next(self, generation: int) -> list[Slot]:
        """What to try next: what stands ready, tunables that are owed a trial, and what the bandit thinks will pay."""
        chance = random.Random(seed_of(self._seed, generation, self._known))
        slots = self._pending_slots()
        slots += self._inherited_slots(slots)
        while self._room(slots) and (arms := [arm for arm in self._arms if self._possible(arm, generation)]):
            tuning_is_due = SEARCH in arms and len(slots) < self._size // TUNING_SHARE
            arm = SEARCH if tuning_is_due else self._bandit.choose(arms, chance)
            if arm == SEARCH:
                slots.append(self._tuning_slot(generation, chance))
            else:
                slots.append(self._question(arm, self._parents(arm, generation, chance), generation, len(slots)))
        return _quick_first(slots)

    def take_back(self, slots: Sequence[Slot], begun: Collection[str]) -> None:
        """Keep for the next generation what stood ready, or came too late, and was not `begun`, by its key."""
        waiting = [(slot.arm, slot.candidate) for slot in slots if slot.candidate and slot.candidate.key not in begun]
        self.inherited[:0] = [candidate for arm, candidate in waiting if arm == INHERITED]
        self.pending[:0] = [
            candidate for arm, candidate in waiting if arm != INHERITED and asked_for(candidate.lineage)
        ]

    # ------------------------------------------------------------------------------------------------ what is possible

    @property
    def price(self) -> float:
        """US dollars that the cheapest thing still to be done costs; 0 where there is anything free."""
        ready = self.pending or self.inherited or (SEARCH in self._arms and self._population.tunable())
        prices = [self._ledger.price(arm.author) for arm in self._arms if arm != SEARCH]
        return 0.0 if ready else min(prices, default=0.0)

    @property
    def persists(self) -> bool:
        """Whether translation goes on: someone who reads verdicts can still be asked for a first program."""
        thinking = [arm for arm in self._arms if arm.author in self._authors and deliberates(self._authors[arm.author])]
        return any(self._affordable(arm) for arm in thinking if arm.parents == 0 or arm.operator == REPAIR)

    @property
    def rest_s(self) -> float:
        """Seconds until the first author can be asked again; 0 where one can be asked now, or nobody at all."""
        names = {arm.author for arm in self._arms if arm != SEARCH and self._affordable(arm)}
        return min((rest_of(self._authors[name]) for name in names), default=0.0)

    def _possible(self, arm: Arm, generation: int) -> bool:
        """Whether there is anything that this operator could work on, money for it, and somebody to ask."""
        if arm == SEARCH:
            return bool(self._population.tunable())
        if not self._askable(arm):
            return False
        if arm.operator == REPAIR:
            return bool(self.failures.ranked)
        return self._population.inhabited(arm.parents, generation)

    def _affordable(self, arm: Arm) -> bool:
        return self._ledger.affords(arm.author, self._max_usd)

    def _askable(self, arm: Arm) -> bool:
        return self._affordable(arm) and not rest_of(self._authors[arm.author])

    @property
    def _creating(self) -> list[Arm]:
        return [arm for arm in self._arms if arm.parents == 0]

    @property
    def _creators(self) -> list[Arm]:
        """Those who can write a first program now."""
        return [arm for arm in self._creating if self._askable(arm)]

    @property
    def _known(self) -> int:
        """Answers that are known, with or without a verdict: it only grows, and seeds depend on it."""
        return len(self._population) + self.unjudged

    # --------------------------------------------------------------------------------------------------- single slots

    def _pending_slots(self) -> list[Slot]:
        """What an earlier run asked for and did not come to judge."""
        slots: list[Slot] = []
        while self.pending and self._room(slots):
            slots.append(ready_slot(PENDING, (), self.pending.pop(0)))
        return slots

    def _inherited_slots(self, slots: Sequence[Slot]) -> list[Slot]:
        """The next of what was inherited, besides the slots that are decided on."""
        heirs: list[Slot] = []
        most = max(1, self._size // INHERITED_SHARE)
        while self.inherited and len(heirs) < most and self._room([*slots, *heirs]):
            heirs.append(ready_slot(INHERITED, (), self.inherited.pop(0)))
        return heirs

    def _repair_slots(self, slots: Sequence[Slot]) -> list[Slot]:
        """Repairs of what failed, by its author where that repairs, leaving a slot for every author's fresh start."""
        repairs: list[Slot] = []
        most = self._size - len(slots) - len(self._creators)
        for failed in self.failures.ranked[: max(0, most)]:
            menders = [arm for arm in self._arms if arm.operator == REPAIR and self._askable(arm)]
            if not menders or not self._room([*slots, *repairs]):
                break
            own = [arm for arm in menders if arm.author == failed.candidate.lineage.author]
            arm = (own or menders)[len(repairs) % len(own or menders)]
            self.failures.begin(failed.candidate.key)
            repairs.append(self._question(arm, (failed,), 0, len(slots) + len(repairs), 1))
        return repairs

    def _parents(self, arm: Arm, generation: int, chance: random.Random) -> tuple[Judged, ...]:
        if arm.operator != REPAIR:
            return self._population.parents(arm.parents, generation, chance)
        failed = self.failures.draw(chance)
        self.failures.begin(failed.candidate.key)
        return (failed,)

    def _tuning_slot(self, generation: int, chance: random.Random) -> Slot:
        """The next tunables of a program that is owed a trial, the faster the likelier."""
        member, point = draw_by_rank(self._population.tunable(), chance)
        member.pending.add(point)
        return ready_slot(SEARCH, (member.best,), tuned_candidate(member.best, point, generation))

    def _question(self, arm: Arm, parents: tuple[Judged, ...], generation: int, index: int, *salt: int) -> Slot:
        """A question to an author. Its price is committed here, before it is asked."""
        self._ledger.reserve(arm.author)
        seed = seed_of(self._seed, generation, self._known, index, *salt)
        return Slot(arm, parents, seed, author=self._authors[arm.author], due=True)


def _quick_first(slots: Sequence[Slot]) -> list[Slot]:
    """Let those who compute answer first, so that the judge has work while the others think."""
    return sorted(slots, key=lambda slot: slot.author is not None and deliberates(slot.author))
