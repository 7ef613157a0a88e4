"""The programs that are alive: who is fit, who may have children, who is dropped.

A program stands for all its candidates; its fitness is that of its best tunables. The population is a pure fold of
the verdicts it was shown, in order, so an archive that is read again gives the same population.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from warpsmith.evolve.niches import niche
from warpsmith.evolve.tune import Tunables, next_point, ordered
from warpsmith.records import Candidate, Judged

RANK_DECAY = 0.65
"""Each rank is chosen this much less often than the one above it."""

REACH = 2.0
"""A program up to this many times slower than the best is tuned to full depth; one behind gets `GLANCE` trials."""

GLANCE = 3
"""Trials of a program out of reach: enough to see whether its default tunables were only unlucky."""

LONGEST_REST = 8
"""Generations that a parent sits out at most, however often its children failed."""

Item = TypeVar("Item")


@dataclass(eq=False)
class Member:
    """A program that passed with at least one set of tunables."""

    best: Judged
    niche: str
    points: dict[Tunables, float] = field(default_factory=dict)
    pending: set[Tunables] = field(default_factory=set)
    failures: int = 0
    rests_until: int = 0

    @property
    def seconds(self) -> float:
        """Time of the best tunables known."""
        return self.best.seconds

    @property
    def key(self) -> str:
        """Key of the program."""
        return self.best.candidate.program.key

    @property
    def untried(self) -> Tunables | None:
        """The next tunables to try, or None where the program is settled."""
        return next_point(self.best.candidate.program.plan.tunables, self.points, self.pending)


class Records:
    """What was judged, whoever lives: candidates by key, and the seconds of all tunables of each program."""

    def __init__(self) -> None:
        self.judged: dict[str, Judged] = {}
        self.points: dict[str, dict[Tunables, float]] = {}


class Recorded:
    """What is known of everything that was judged, whoever lives."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def __contains__(self, candidate_key: str) -> bool:
        """Whether this candidate has been judged."""
        return candidate_key in self._records.judged

    def __len__(self) -> int:
        """Number of candidates judged, passed or not."""
        return len(self._records.judged)

    @property
    def history(self) -> tuple[Judged, ...]:
        """Everything judged, in order."""
        return tuple(self._records.judged.values())


class Population(Recorded):
    """Elites in niches. `capacity` programs are kept, at most half of them in one niche.

    A program is dropped only once its tunables are searched: settled, or tried `depth` times. Several populations may
    share their `records`.
    """

    def __init__(self, capacity: int, depth: int, records: Records | None = None) -> None:
        super().__init__(records or Records())
        self.capacity = capacity
        self.depth = depth
        self._members: dict[str, Member] = {}
        self._dropped: dict[str, Member] = {}

    # ------------------------------------------------------------------------------------------------------ reading

    def holds(self, program_key: str) -> bool:
        """Whether this program lives here, or lived here until it was dropped."""
        return program_key in self._members or program_key in self._dropped

    @property
    def ranked(self) -> list[Member]:
        """The programs alive, fastest first; the older one first in a tie."""
        return sorted(self._members.values(), key=lambda member: member.seconds)

    @property
    def best(self) -> Judged | None:
        """The fastest candidate that passed."""
        return min((member.best for member in self._members.values()), key=lambda best: best.seconds, default=None)

    def reference(self, candidate: Candidate) -> float:
        """Seconds that a candidate has to beat: its fastest parent's, or the best of all where none of them passed.

        What is repaired counts for what it adds to the best: passing alone is no merit once something has passed.
        """
        parent = self.parent_of(candidate) or self.best
        return parent.seconds if parent else math.inf

    def parent_of(self, candidate: Candidate) -> Judged | None:
        """Return the fastest of a candidate's parents that passed, or None where there is none."""
        known = self._records.judged
        parents = [known[key] for key in candidate.lineage.parents if key in known]
        return min((each for each in parents if each.verdict.passed), key=lambda each: each.seconds, default=None)

    # ------------------------------------------------------------------------------------------------------ folding

    def fold(self, judged: Judged, generation: int) -> bool:
        """Take in a verdict; return whether it is the best so far."""
        before = self.best.seconds if self.best else math.inf
        candidate = judged.candidate
        program = candidate.program
        self._records.judged[candidate.key] = judged
        points = self._records.points.setdefault(program.key, {})
        point = ordered(program.plan.tunables, dict(candidate.tunables))
        points[point] = judged.seconds
        self._remember_children(judged, generation)
        member = self._members.get(program.key) or self._dropped.get(program.key)
        if member is None and judged.verdict.passed:
            member = Member(judged, niche(candidate), points)
        if member is not None:
            member.pending.discard(point)
            if judged.seconds < member.seconds:
                member.best = judged
            self._dropped.pop(program.key, None)
            self._members[program.key] = member
            self._drop()
        return judged.seconds < before

    def welcome(self, guest: Member) -> None:
        """Take in a program that lives elsewhere as well, with what is known of it."""
        if not self.holds(guest.key):
            self._members[guest.key] = Member(guest.best, guest.niche, self._records.points.setdefault(guest.key, {}))
            self._drop()

    def lose(self, candidate: Candidate) -> None:
        """Take in that the machine failed on a candidate: its tunables count as tried."""
        plan = candidate.program.plan
        points = self._records.points.setdefault(candidate.program.key, {})
        points[ordered(plan.tunables, dict(candidate.tunables))] = math.inf

    def forget_pending(self) -> None:
        """Give up points in flight: their generation is over, and those without a verdict may be tried again."""
        for member in self._members.values():
            member.pending.clear()

    def _remember_children(self, judged: Judged, generation: int) -> None:
        """A parent whose children fail sits out as many generations as failed in a row.

        Its own program under other tunables is no child: where those fail, the tunables are to blame.
        """
        for key in judged.candidate.lineage.parents:
            parent = self._records.judged.get(key)
            if parent is None or parent.candidate.program.key == judged.candidate.program.key:
                continue
            member = self._members.get(parent.candidate.program.key)
            if member is None:
                continue
            member.failures = 0 if judged.verdict.passed else member.failures + 1
            member.rests_until = generation + 1 + min(member.failures, LONGEST_REST) if member.failures else 0

    def _drop(self) -> None:
        """Drop the slowest programs over capacity, from crowded niches first; never the best."""
        while len(self._members) > self.capacity:
            ranked = self.ranked
            crowded = self._crowded(ranked)
            droppable = [member for member in ranked[1:] if not member.pending and self.due(member) is None]
            if not droppable:
                return
            victim = max(droppable, key=lambda member: (member in crowded, member.seconds))
            self._dropped[victim.key] = self._members.pop(victim.key)

    def _crowded(self, ranked: Sequence[Member]) -> list[Member]:
        """Members beyond their niche's share of half the capacity."""
        seen: dict[str, int] = {}
        crowded = []
        for member in ranked:
            seen[member.niche] = seen.get(member.niche, 0) + 1
            if seen[member.niche] > max(1, self.capacity // 2):
                crowded.append(member)
        return crowded

    # ------------------------------------------------------------------------------------------------------- choosing

    def due(self, member: Member) -> Tunables | None:
        """The tunables that this program is still owed a trial of, or None where it has been searched enough."""
        best = self.best
        near = best is None or member.seconds <= REACH * best.seconds
        trials = len(member.points) + len(member.pending)
        return member.untried if trials < (self.depth if near else min(self.depth, GLANCE)) else None

    def tunable(self) -> list[tuple[Member, Tunables]]:
        """Programs whose tunables are not searched yet, fastest first, each with the next tunables to try."""
        return [(member, point) for member in self.ranked if (point := self.due(member)) is not None]

    def parents(self, count: int, generation: int, chance: random.Random) -> tuple[Judged, ...]:
        """Draw `count` different programs, each by its best candidate. Raises IndexError where there are too few.

        First a niche is drawn by the rank of its champion, then a program of it by rank; a second parent comes from
        another niche where there is one. Parents that sit out are passed over unless nobody else is left.
        """
        ranked = self.ranked
        chosen: list[Member] = []
        for _ in range(count):
            others = [member for member in ranked if member not in chosen]
            awake = [member for member in others if member.rests_until <= generation] or others
            elsewhere = [member for member in awake if all(member.niche != one.niche for one in chosen)] or awake
            niches = group_by(elsewhere, lambda member: member.niche)
            chosen.append(draw_by_rank(niches[draw_by_rank(list(niches), chance)], chance))
        return tuple(member.best for member in chosen)


def group_by(members: Iterable[Item], name: Callable[[Item], str]) -> Mapping[str, list[Item]]:
    """Group in order of first appearance."""
    groups: dict[str, list[Item]] = {}
    for member in members:
        groups.setdefault(name(member), []).append(member)
    return groups


def draw_by_rank(ranked: Iterable[Item], chance: random.Random) -> Item:
    """Draw one, each rank `RANK_DECAY` times as likely as the one before it."""
    items = list(ranked)
    return chance.choices(items, weights=[RANK_DECAY**rank for rank in range(len(items))])[0]
