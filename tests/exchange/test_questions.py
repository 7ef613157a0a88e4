"""What a generation asks: the best is improved, failures are mended, and the same archive asks the same."""

from __future__ import annotations

import random

import pytest

from tests.samples import candidate, failed, passed
from warpsmith.exchange.questions import Question, choose_questions, repairable
from warpsmith.records import Judged, Stage


def good(variant: int, seconds: float = 1e-6) -> Judged:
    return Judged(candidate(variant), passed(candidate(variant), seconds))


def bad(variant: int, stage: Stage = Stage.NUMERICS, **lineage: object) -> Judged:
    drawn = candidate(variant, **lineage)  # type: ignore[arg-type]
    return Judged(drawn, failed(drawn, stage=stage))


def asked(history: list[Judged], slots: int, seed: int = 0, **start: object) -> tuple[Question, ...]:
    return choose_questions(history, slots, random.Random(seed), **start)  # type: ignore[arg-type]


def test_the_first_slot_asks_for_a_better_best() -> None:
    first = asked([good(1, 3e-6), good(2, 1e-6), good(3, 2e-6)], 4)[0]
    assert (first.operator, first.parent_keys) == ("rewrite", (candidate(2).key,))


def test_two_different_good_programs_are_crossed_and_a_failure_is_repaired() -> None:
    questions = asked([good(1), bad(2), good(3)], 4)
    assert [question.operator for question in questions] == ["rewrite", "cross", "repair", "rewrite"]
    assert set(questions[1].parent_keys) == {candidate(1).key, candidate(3).key}
    assert questions[2].parent_keys == (candidate(2).key,)


def test_with_one_good_program_and_no_failure_all_slots_ask_for_a_rewrite() -> None:
    questions = asked([good(1)], 5)
    assert {(question.operator, question.parent_keys) for question in questions} == {("rewrite", (candidate(1).key,))}


def test_where_nothing_passed_failures_are_repaired_and_the_rest_is_translation() -> None:
    questions = asked([bad(1), bad(2)], 4)
    assert [question.operator for question in questions] == ["repair", "repair", "translate", "translate"]


def test_who_knows_nothing_is_given_a_start() -> None:
    questions = asked([], 2, start=candidate(7))
    assert [(question.operator, question.parent_keys) for question in questions] == [
        ("rewrite", (candidate(7).key,)),
        ("translate", ()),
    ]
    assert questions[0].programs == (candidate(7),)


def test_the_same_seed_asks_the_same_and_another_one_something_else() -> None:
    history = [good(variant, 1e-6 * variant) for variant in range(1, 9)]
    assert asked(history, 12, seed=4) == asked(history, 12, seed=4)
    assert len({asked(history, 12, seed=seed) for seed in range(5)}) > 1


def test_what_got_furthest_is_repaired_first() -> None:
    history = [bad(1, Stage.NUMERICS), bad(2, Stage.SANITIZE), bad(3, Stage.NUMERICS), bad(4, Stage.BUILD)]
    assert [judged.candidate.key for judged in repairable(history)] == [candidate(v).key for v in (2, 3, 1, 4)]


def test_nobody_is_asked_twice_to_repair_the_same() -> None:
    child = bad(2, operator="repair", parents=(candidate(1).key,))
    assert [judged.candidate.key for judged in repairable([bad(1), child])] == [child.candidate.key]


def test_a_program_that_passes_with_other_tunables_needs_no_repair() -> None:
    assert repairable([bad(1), Judged(candidate(1), passed(candidate(1)))]) == []


@pytest.mark.parametrize("history", [[], [bad(1)], [good(1)], [good(1), good(2), bad(3)]])
def test_every_slot_gets_a_question(history: list[Judged]) -> None:
    assert len(asked(history, 9)) == 9
