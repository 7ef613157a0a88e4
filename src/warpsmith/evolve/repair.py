"""What failed and may be repaired: which failure is worth a question, and which has been asked about often enough."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from warpsmith.author.protocol import REPAIR
from warpsmith.evolve.operators import asked_for
from warpsmith.evolve.population import draw_by_rank
from warpsmith.records import Candidate, Judged

TRIES = 2
"""Repairs of one program at most: a third question about the same failure rarely brings what the first two did not."""

CHAIN = 4
"""Repairs in a row at most. A program that still fails then is better written anew."""

RECENT = 32
"""Failed programs that are looked at, the latest ones: older ones have been left behind."""


class Failures:
    """Programs of which nothing has passed yet, the latest `RECENT` of them."""

    def __init__(self) -> None:
        self._failed: dict[str, Judged] = {}
        self._passed: set[str] = set()
        self._tries: Counter[str] = Counter()
        self._chain: dict[str, int] = {}

    @classmethod
    def of(cls, history: Iterable[Judged]) -> Failures:
        """Return the failures of a history, in which each repair counts as a question about its parent."""
        failures = cls()
        for judged in history:
            failures.remember(judged.candidate)
            failures.learn(judged)
        return failures

    def learn(self, judged: Judged) -> None:
        """Take in a verdict. A program that passes with any tunables needs no repair."""
        candidate = judged.candidate
        program = candidate.program.key
        if candidate.lineage.operator == REPAIR:
            before = max((self._chain.get(parent, 0) for parent in candidate.lineage.parents), default=0)
            self._chain[candidate.key] = before + 1
        if judged.verdict.passed:
            self._passed.add(program)
            self._failed.pop(program, None)
        elif program not in self._passed and program not in self._failed:
            self._failed[program] = judged
            if len(self._failed) > RECENT:
                oldest = next(iter(self._failed))
                # What is computed for nothing fails for nothing: it must not push out what was asked for.
                computed = (key for key, each in self._failed.items() if not asked_for(each.candidate.lineage))
                del self._failed[next(computed, oldest)]

    def begin(self, candidate_key: str) -> None:
        """Count a question about this candidate, whatever comes of it."""
        self._tries[candidate_key] += 1

    def remember(self, answer: Candidate) -> None:
        """Count the question that an answer of an earlier run was given to."""
        if answer.lineage.operator == REPAIR:
            self._tries.update(answer.lineage.parents)

    @property
    def ranked(self) -> list[Judged]:
        """What may be repaired. What was asked for comes first, then what got furthest with the judge, then the latest.

        A program that was paid for is worth more than one that its author computes again for nothing.
        """
        due = [each for each in self._failed.values() if self._due(each.candidate.key)]
        order = sorted(
            enumerate(due), key=lambda item: (asked_for(item[1].candidate.lineage), item[1].verdict.stage, item[0])
        )
        return [judged for _, judged in reversed(order)]

    def draw(self, chance: random.Random) -> Judged:
        """Draw one to be repaired, by rank. Raises IndexError where there is none."""
        return draw_by_rank(self.ranked, chance)

    def _due(self, key: str) -> bool:
        return self._tries[key] < TRIES and self._chain.get(key, 0) < CHAIN
