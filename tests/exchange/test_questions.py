"""What a generation asks: the best is improved, failures are mended, and the same archive asks the same."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.samples import candidate, failed, passed
from warpsmith.evolve.repair import TRIES
from warpsmith.exchange.questions import TRIED, Question, choose_questions
from warpsmith.records import Judged, Lineage, Stage


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


def repaired(history: list[Judged], slots: int) -> list[str]:
    return [question.parent_keys[0] for question in asked(history, slots) if question.operator == "repair"]


def test_what_got_furthest_is_repaired_first() -> None:
    history = [bad(1, Stage.NUMERICS), bad(2, Stage.SANITIZE), bad(3, Stage.NUMERICS), bad(4, Stage.BUILD)]
    assert repaired(history, 4) == [candidate(v).key for v in (2, 3, 1, 4)]


def test_a_failure_that_was_repaired_in_vain_is_left_alone() -> None:
    vain = [bad(v, operator="repair", parents=(candidate(1).key,)) for v in range(2, 2 + TRIES)]
    assert set(repaired([bad(1), *vain], 9)) == {each.candidate.key for each in vain}


def test_a_program_that_passes_with_other_tunables_needs_no_repair() -> None:
    assert repaired([bad(1), Judged(candidate(1), passed(candidate(1)))], 9) == []


@pytest.mark.parametrize("history", [[], [bad(1)], [good(1)], [good(1), good(2), bad(3)]])
def test_every_slot_gets_a_question(history: list[Judged]) -> None:
    assert len(asked(history, 9)) == 9


def test_no_two_slots_ask_to_rewrite_the_same_while_there_are_others() -> None:
    questions = asked([good(variant, 1e-6 * variant) for variant in range(1, 5)], 6)
    parents = [question.parent_keys for question in questions if question.operator == "rewrite"]
    assert len(parents) == len(set(parents)) == 4
    assert [question.operator for question in asked([good(1), good(2)], 8)].count("rewrite") == 6


def made_of(variant: int, *parents: int, seconds: float | None = None) -> Judged:
    drawn = candidate(variant, parents=tuple(candidate(parent).key for parent in parents), operator="rewrite")
    return Judged(drawn, passed(drawn, seconds) if seconds else failed(drawn))


def test_a_question_shows_what_its_parents_were_made_into_before() -> None:
    history = [good(1, 1e-6), made_of(2, 1), made_of(3, 1, seconds=4e-6), made_of(4, 1, seconds=3e-6), made_of(5, 3)]
    rewrite = asked(history, 1)[0]
    assert [judged.candidate.key for judged in rewrite.tried] == [candidate(v).key for v in (4, 3, 2)]
    many = [made_of(variant, 1, seconds=1e-5) for variant in range(10, 20)]
    assert len(asked([good(1), *many], 1)[0].tried) == TRIED


def test_other_tunables_of_a_program_are_no_answer_to_a_question_about_it() -> None:
    tuned = replace(candidate(1), tunables=(("BLOCK", 512),), lineage=Lineage("search", "tune", (candidate(1).key,), 1))
    history = [good(1, 1e-6), Judged(tuned, passed(tuned, 2e-6))]
    assert asked(history, 1)[0].tried == ()
