"""Where an agent has programs judged while it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from warpsmith.records import Candidate, GpuSpec, Task


class Desk(Protocol):
    """Judges programs for one task, and tells whoever asks nothing but verdicts."""

    @property
    def command(self) -> Sequence[str]:
        """What the agent starts to speak MCP with it, over standard input and output."""
        ...

    @property
    def best(self) -> Candidate | None:
        """The fastest program that passed here so far, or None."""
        ...


OpenDesk = Callable[[Task, GpuSpec], AbstractAsyncContextManager[Desk]]
"""Opens a desk for as long as one question takes."""
