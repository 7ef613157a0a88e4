"""What was learnt on a task: what went wrong, counted by whom, doing what and why; what helped; what was explained."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from warpsmith.evolve.operators import SEARCH
from warpsmith.records import Judged

TOLD = 8
"""Sentences told to an author: at most half of them say what changes did."""

NOTABLE = 1.05
"""A change that made a program this many times faster is worth a sentence; less may be due to anything."""

NOTE = 200
"""Characters of a note that are told."""


@dataclass(frozen=True, order=True, slots=True)
class Lesson:
    """A way to fail: an operator of an author, the judge's stage by name, and its reason code."""

    author: str
    operator: str
    stage: str
    reason: str


class Lessons:
    """Counts failures by lesson, and remembers the changes that helped most, and those that an author explained."""

    def __init__(self) -> None:
        self._counts: Counter[Lesson] = Counter()
        self._gains: list[tuple[float, str, str]] = []
        self._explained: dict[str, str] = {}

    def learn(self, judged: Judged, reference: float = math.inf) -> None:
        """Count a verdict if it is a failure; if it is not, and faster than `reference` seconds, remember its note.

        What other tunables did is no lesson: they are searched for every program anyway.
        """
        failure, lineage = judged.verdict.failure, judged.candidate.lineage
        if failure is not None:
            self._counts[Lesson(lineage.author, lineage.operator, failure.stage.name, failure.reason)] += 1
        elif lineage.author != SEARCH.author and lineage.note and NOTABLE * judged.seconds <= reference < math.inf:
            what = f"{lineage.operator} by {lineage.author}: {lineage.note}"
            self._gains.append((reference / judged.seconds, judged.candidate.key, what))
            self._gains = sorted(self._gains, key=lambda gain: -gain[0])[: TOLD // 2]

    def explain(self, candidate_key: str, sentence: str) -> None:
        """Remember what can be learnt from the change that led to a candidate, in place of its note."""
        self._explained.pop(candidate_key, None)
        self._explained[candidate_key] = sentence

    @property
    def counts(self) -> tuple[tuple[Lesson, int], ...]:
        """Lessons with how often each was met, the most frequent first."""
        return tuple(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def reasons(self) -> tuple[tuple[str, int], ...]:
        """Reason codes with how often each was met, the most frequent first."""
        totals: Counter[str] = Counter()
        for lesson, count in self._counts.items():
            totals[lesson.reason] += count
        return tuple(sorted(totals.items(), key=lambda item: (-item[1], item[0])))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words, for authors that read.

        First what was explained, the latest first, and what helped most; then what failed most often.
        """
        explained = reversed(self._explained.values())
        helped = [
            f"{ratio:.2f} times as fast as before by {what[:NOTE]}"
            for ratio, key, what in self._gains
            if key not in self._explained
        ]
        failed = [
            f"{count} x {lesson.reason.replace('_', ' ')} at the stage {lesson.stage.lower()} "
            f"after {lesson.operator} by {lesson.author}"
            for lesson, count in self.counts
        ]
        return tuple([*[*explained, *helped][: TOLD // 2], *failed][:TOLD])
