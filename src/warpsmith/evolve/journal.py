"""The archive, as far as evolution is concerned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from warpsmith.records import Candidate, Judged, Verdict


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
