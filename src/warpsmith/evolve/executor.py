"""Where candidates are judged, as far as evolution is concerned: somewhere else, later."""

from __future__ import annotations

from typing import Protocol

from warpsmith.records import Candidate, Verdict


class Executor(Protocol):
    """Judges candidates of one task. This machine's worker processes are one; a cluster may be another.

    Evolution sees judging only through these two methods, so it never needs to know the judge.
    """

    async def judge(self, candidate: Candidate) -> Verdict:
        """Return the verdict on a candidate; may run concurrently. Raises MachineError where there can be none."""
        ...

    def close(self) -> None:
        """Release workers. Judgements in flight are abandoned."""
        ...
