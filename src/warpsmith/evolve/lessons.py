"""What went wrong, counted: by whom, doing what, for which reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from warpsmith.records import Judged


@dataclass(frozen=True, order=True, slots=True)
class Lesson:
    """A way to fail: an operator of an author, the judge's stage by name, and its reason code."""

    author: str
    operator: str
    stage: str
    reason: str


class Lessons:
    """Counts failures by lesson."""

    def __init__(self) -> None:
        self._counts: Counter[Lesson] = Counter()

    def learn(self, judged: Judged) -> None:
        """Count a verdict, if it is a failure."""
        failure = judged.verdict.failure
        if failure is not None:
            lineage = judged.candidate.lineage
            self._counts[Lesson(lineage.author, lineage.operator, failure.stage.name, failure.reason)] += 1

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
