"""Which questions a generation asks: an operator and parents for every slot, from what the archive knows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpsmith.author.protocol import REPAIR
from warpsmith.evolve.population import draw_by_rank
from warpsmith.evolve.repair import Failures
from warpsmith.exchange.standing import fastest_programs
from warpsmith.records import Candidate, Judged

TRANSLATE, REWRITE, CROSS = "translate", "rewrite", "cross"

TRIED = 6
"""Programs made of the same parents that are shown at most."""

_ROUND = (REWRITE, CROSS, REPAIR, REWRITE)
"""What slots ask for in turn once something has passed; where there is nothing to cross or to repair, a rewrite."""


@dataclass(frozen=True, slots=True)
class Question:
    """One slot: apply `operator` to `parents`. `start` is a program for whoever has no parents that were judged.

    `tried` is what was made of the parents before: of each program its best candidate, the fastest first.
    """

    operator: str
    parents: tuple[Judged, ...] = ()
    start: Candidate | None = None
    tried: tuple[Judged, ...] = ()

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
    of a failure; later rewrites draw their parent by rank, of those that no slot asks to rewrite yet while there are
    any. Before that, failures are repaired and the other slots ask for a translation; the first of them all is given
    `start`, to improve on.
    """
    ranked = fastest_programs(history)
    failed = Failures.of(history).ranked
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
            taken = {question.parents for question in questions if question.operator == REWRITE}
            free = [each for each in ranked if (each,) not in taken]
            parent = draw_by_rank(free or ranked, chance) if questions else ranked[0]
            questions.append(Question(REWRITE, (parent,)))
    return tuple(replace(question, tried=tried_from(question.parents, history)) for question in questions)


def tried_from(parents: Sequence[Judged], history: Sequence[Judged]) -> tuple[Judged, ...]:
    """Return what became of earlier answers to the same question: the fastest that passed, then the latest that failed.

    Other tunables of a parent's own program are no answer.
    """
    keys = {parent.candidate.key for parent in parents}
    own = {parent.candidate.program.key for parent in parents}
    best: dict[str, Judged] = {}
    for judged in reversed(history):
        program = judged.candidate.program.key
        if set(judged.candidate.lineage.parents) == keys and keys and program not in own:
            known = best.get(program)
            if known is None or judged.seconds < known.seconds:
                best[program] = judged
    return tuple(sorted(best.values(), key=lambda judged: judged.seconds)[:TRIED])
