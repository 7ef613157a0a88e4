"""What can be asked of whom, and how an answer becomes a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio

from warpsmith.author.protocol import REPAIR, Author, Proposal, Refusal
from warpsmith.errors import MachineError
from warpsmith.evolve.bandit import Arm
from warpsmith.evolve.tune import Tunables
from warpsmith.records import Candidate, Judged, Lineage, Verdict, digest

SEARCH = Arm("search", "tune", 1)
"""The search over tunables, which needs no author: it works on programs of any of them."""

INHERITED = Arm("archive", "inherit", 1)
"""What the archive knows of similar tasks: candidates that stand ready when the search begins, so nobody is asked."""

PENDING = Arm("archive", "pending", 0)
"""What was asked for in an earlier run and never judged: candidates that stand ready as well."""

BLIND = frozenset({"random"})
"""Operators that draw without looking; they exist to be compared with, and evolution does not ask them."""


@dataclass(eq=False)
class Slot:
    """One place in a generation: what is asked, and what has come of it so far.

    A slot of the search over tunables, or of what was inherited, holds its candidate from the start and has no author.
    `due` tells that the ledger holds a reservation for an answer, `begun` that its author has been asked. `answered` is
    set once the candidate, or that there is none, is known; `done` once it is judged or lost to `error`; `folded` once
    it was handed on. `cost_usd` and `seconds` are what asking has cost so far; a `refusal` is an answer without a
    program.
    """

    arm: Arm
    parents: tuple[Judged, ...]
    seed: int
    author: Author | None = None
    candidate: Candidate | None = None
    verdict: Verdict | None = None
    error: MachineError | None = None
    cached: bool = False
    due: bool = False
    begun: bool = False
    refusal: Refusal | None = None
    cost_usd: float = 0.0
    seconds: float = 0.0
    answered: anyio.Event = field(default_factory=anyio.Event)
    done: bool = False
    folded: bool = False


def arms_of(authors: Sequence[Author], *, without: frozenset[str] = BLIND) -> tuple[Arm, ...]:
    """Return every operator on offer, in a fixed order. Raises ValueError where two authors share a name."""
    names = [author.name for author in authors]
    taken = {SEARCH.author, INHERITED.author}
    if len(set(names)) != len(names) or taken & set(names):
        raise ValueError(f"authors need names of their own, other than {' and '.join(sorted(taken))}: {names}")
    return tuple(
        sorted(
            Arm(author.name, operator, parents)
            for author in authors
            for operator, parents in author.operators.items()
            if operator not in without
        )
    )


def deliberates(author: Author) -> bool:
    """Whether an author takes its time, or money: one that reads verdicts, as a model does, rather than computes."""
    return author.expected_usd > 0.0 or REPAIR in author.operators


def asked_for(lineage: Lineage) -> bool:
    """Whether a candidate came as an answer to a prompt, or for money: it cannot be had again for nothing."""
    return lineage.cost_usd > 0.0 or lineage.prompt is not None or lineage.reply is not None


def seed_of(*parts: int) -> int:
    """Return a seed of 63 bits that depends on all parts: run, generation, slot, attempt."""
    return int(digest("seed", *(str(part) for part in parts)), 16) >> 1


def candidate_of(slot: Slot, proposal: Proposal, task_key: str, generation: int, seconds: float) -> Candidate:
    """Return the candidate that a proposal amounts to, which took its author `seconds`."""
    lineage = Lineage(
        author=slot.arm.author,
        operator=slot.arm.operator,
        parents=tuple(parent.candidate.key for parent in slot.parents),
        generation=generation,
        recipe=proposal.recipe,
        prompt=proposal.prompt,
        reply=proposal.reply,
        note=proposal.note,
        cost_usd=proposal.cost_usd,
        seconds=seconds,
    )
    return Candidate(task_key, proposal.program, proposal.tunables, lineage)


def ready_slot(arm: Arm, parents: tuple[Judged, ...], candidate: Candidate) -> Slot:
    """Return a slot whose candidate is known already, so that nobody is asked."""
    slot = Slot(arm, parents, seed=0, candidate=candidate)
    slot.answered.set()
    return slot


def tuned_candidate(parent: Judged, tunables: Tunables, generation: int) -> Candidate:
    """Return the parent's program with other tunables. It keeps the parent's recipe: the idea is the same."""
    before = dict(parent.candidate.tunables)
    changed = ", ".join(f"{name} {before[name]} -> {value}" for name, value in tunables if before[name] != value)
    lineage = Lineage(
        author=SEARCH.author,
        operator=SEARCH.operator,
        parents=(parent.candidate.key,),
        generation=generation,
        recipe=parent.candidate.lineage.recipe,
        note=changed,
    )
    return Candidate(parent.candidate.task_key, parent.candidate.program, tunables, lineage)
