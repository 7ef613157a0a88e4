"""Which questions a generation asks: an operator and parents for every slot, from what the archive knows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.author.protocol import REPAIR
from warpsmith.evolve.population import draw_by_rank
from warpsmith.exchange.standing import fastest_programs
from warpsmith.records import Candidate, Judged

TRANSLATE, REWRITE, CROSS = "translate", "rewrite", "cross"

_ROUND = (REWRITE, CROSS, REPAIR, REWRITE)
"""What slots ask for in turn once something has passed; where there is nothing to cross or to repair, a rewrite."""


@dataclass(frozen=True, slots=True)
class Question:
    """One slot: apply `operator` to `parents`. `start` is a program for whoever has no parents that were judged."""

    operator: str
    parents: tuple[Judged, ...] = ()
    start: Candidate | None = None

    @property
    def parent_keys(self) -> tuple[str, ...]:
        """Keys of what an answer descends from."""
        return tuple(parent.candidate.key for parent in self.parents) or ((self.start.key,) if self.start else ())

    @property
    def programs(self) -> tuple[Candidate, ...]:
        """The programs to show."""
        return tuple(parent.candidate for parent in self.parents) or ((self.start,) if self.start else ())


def choose_questions(
    history: Sequence[Judged], slots: int, chance: random.Random, start: Candidate | None = None
) -> tuple[Question, ...]:
    """Return one question for each slot; the same history and state of `chance` give the same questions.

    Once programs have passed, slots ask in turn for a rewrite of the fastest, a cross of two fast ones and the repair
    of a failure; later rewrites draw their parent by rank. Before that, failures are repaired and the other slots ask
    for a translation; the first of them all is given `start`, to improve on.
    """
    ranked = fastest_programs(history)
    failed = repairable(history)
    questions: list[Question] = [] if ranked or start is None else [Question(REWRITE, start=start)]
    while len(questions) < slots:
        operator = _ROUND[len(questions) % len(_ROUND)] if ranked else REPAIR if failed else TRANSLATE
        if operator == REPAIR and failed:
            questions.append(Question(REPAIR, (failed.pop(0),)))
        elif operator == CROSS and len(ranked) > 1:
            first = draw_by_rank(ranked, chance)
            second = draw_by_rank([each for each in ranked if each is not first], chance)
            questions.append(Question(CROSS, (first, second)))
        elif operator == TRANSLATE:
            questions.append(Question(TRANSLATE))
        else:
            parent = draw_by_rank(ranked, chance) if questions else ranked[0]
            questions.append(Question(REWRITE, (parent,)))
    return tuple(questions)


def repairable(history: Sequence[Judged]) -> list[Judged]:
    """Return failures that nobody was asked to repair yet: those that got furthest first, among them the latest."""
    parents = {key for judged in history for key in judged.candidate.lineage.parents}
    passed = {judged.candidate.program.key for judged in history if judged.verdict.passed}
    failed: dict[str, tuple[int, int, Judged]] = {}
    for number, judged in enumerate(history):
        key = judged.candidate.program.key
        # What passes with other tunables needs no repair.
        if not judged.verdict.passed and key not in passed and judged.candidate.key not in parents:
            failed[key] = (int(judged.verdict.stage), number, judged)
    return [judged for *_, judged in sorted(failed.values(), key=lambda item: item[:2], reverse=True)]
