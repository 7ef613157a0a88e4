"""The archive, as far as evolution is concerned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from warpsmith.records import Candidate, Judged, Lineage, Verdict

REFUSED = "refused"
"""The event that an author's answer held no program: `author`, `operator`, `parents`, `generation`, `note`,
`cost_usd`, `seconds`, `prompt`, `reply`."""

PASSED_OVER = "passed_over"
"""The event that a candidate is too much like others to be judged: `candidate`, `generation`, `like`, `why`."""

ABANDONED = "abandoned"
"""The event that an answer was given up while it was due, and may be billed all the same: `author`, `operator`,
`expected_usd`."""

EXPLAINED = "explained"
"""The event that an author was asked what can be learnt from a change: `author`, `parent`, `candidate`, `generation`,
`lesson` (empty where it had none to give, and `note` says why), `cost_usd`, `seconds`, `prompt`, `reply`."""

STOPPED = "stopped"
"""The event that a run ended: `reason`, `generation`, `lessons`, `told` (sentences for later runs), `usd`."""

LOST = "lost"
"""The event that the machine failed on a candidate: `candidate`, `error`."""


class Journal(Protocol):
    """Where everything is written down the moment it is known. `warpsmith.archive.Archive` is one."""

    def add_candidate(self, run: int, candidate: Candidate) -> None:
        """Write down that `run` came up with a candidate."""
        ...

    def add_verdict(self, run: int, verdict: Verdict, *, judge_version: str, device: str) -> None:
        """Write down what a version of the judge said on a device."""
        ...

    def add_event(self, run: int, kind: str, data: Mapping[str, Any]) -> None:
        """Write down something else that happened."""
        ...

    def judged(self, task_key: str, *, judge_version: str | None = None, device: str | None = None) -> list[Judged]:
        """Return every verdict on a task, in order, of this judge and device."""
        ...

    def verdict(self, candidate_key: str, judge_version: str, device: str) -> Verdict | None:
        """Return the latest verdict on a candidate of this judge and device, or None."""
        ...

    def pending(
        self, task_key: str, *, judge_version: str, device: str, wanted: Callable[[Lineage], bool]
    ) -> list[Candidate]:
        """Return the candidates for a task without a verdict of this judge on this device, the first proposed first.

        Only those whose first proposal is `wanted`.
        """
        ...

    def spent(self, task_key: str) -> float:
        """Return what all answers to questions about a task have cost, in US dollars, refusals and lessons included."""
        ...

    def told(self, task_key: str, kind: str) -> list[Mapping[str, Any]]:
        """Return the data of all events of this kind in the runs on a task, in order."""
        ...
