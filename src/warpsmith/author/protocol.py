"""What an author is: whoever proposes programs. A compiler, a language model, an agent or a person."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from warpsmith.records import Bound, GpuSpec, Judged, Program, Task

REPAIR = "repair"
"""An operator of this name is given one candidate that failed; all others are given candidates that passed."""

OPERATORS: Final = MappingProxyType({"translate": 0, REPAIR: 1, "rewrite": 1, "cross": 2})
"""What authors that read are asked for, and how many parents each takes; a crossing is shown more if there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A program that passed for a similar task: that task's name, the GPU, seconds of one call, and why it is here."""

    task: str
    device: str
    seconds: float
    program: Program
    tunables: tuple[tuple[str, int], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What an author is asked: apply `operator` to `parents` for this task and GPU.

    `seed` is the only source of chance: the same context gives the same proposal from an author that computes. The rest
    is there to be read by whoever can: the speed of light, the fastest candidate so far, what was learnt on this task
    and on similar ones (a sentence each, the most telling first), and programs for similar tasks, the likest first.
    """

    task: Task
    gpu: GpuSpec
    operator: str
    parents: tuple[Judged, ...]
    seed: int
    bound: Bound | None = None
    best: Judged | None = None
    lessons: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that holds no program, which may have cost money all the same. `note` says in a line what was wrong."""

    note: str
    prompt: str | None = None
    reply: str | None = None
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What can be learnt from a change, in a sentence or two on one line, and what it cost."""

    text: str
    prompt: str | None = None
    reply: str | None = None
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

    @property
    def expected_usd(self) -> float:
        """US dollars that an answer is taken to cost before the first bill; 0 for an author that is free."""
        ...

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        """Answer with a proposal, or None where the operator has nothing new to offer on these parents.

        An answer that came, but holds no program, is a Refusal.
        """
        ...


@runtime_checkable
class Explains(Author, Protocol):
    """An author that also says what can be learnt from a change."""

    async def explain(self, parent: Judged, child: Judged, context: Context) -> Explanation | Refusal | None:
        """Say what the change from `parent` to `child` teaches, or None where it cannot be asked now.

        An answer that came, but holds no lesson, is a Refusal.
        """
        ...


@runtime_checkable
class Rests(Protocol):
    """What an author may be besides: one that cannot be asked at times, such as while its provider is left alone."""

    @property
    def rest_s(self) -> float:
        """Seconds for which it is no use to ask: 0 where it can be asked now, infinite where waiting is no use."""
        ...


def rest_of(author: Author) -> float:
    """Return the seconds for which it is no use to ask an author; 0 for one that never rests."""
    return author.rest_s if isinstance(author, Rests) else 0.0
