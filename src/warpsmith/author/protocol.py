"""What an author is: whoever proposes programs. A compiler, a language model, an agent or a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from warpsmith.records import GpuSpec, Judged, Program, Task


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What an author is asked: apply `operator` to `parents` for this task and GPU.

    `seed` is the only source of chance: the same context gives the same proposal from an author that computes.
    """

    task: Task
    gpu: GpuSpec
    operator: str
    parents: tuple[Judged, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """An author's answer: a program, values for its tunables, and how it came about."""

    program: Program
    tunables: tuple[tuple[str, int], ...]
    recipe: str | None = None
    prompt: str | None = None
    reply: str | None = None
    note: str = ""
    cost_usd: float = 0.0


class Author(Protocol):
    """One method. `operators` maps each operator's name to the number of parents it needs."""

    @property
    def name(self) -> str:
        """Name in lineages."""
        ...

    @property
    def operators(self) -> dict[str, int]:
        """Operators on offer and how many parents each takes."""
        ...

    async def propose(self, context: Context) -> Proposal | None:
        """Answer with a proposal, or None where the operator has nothing new to offer on these parents."""
        ...
