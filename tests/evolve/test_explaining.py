"""Lessons that are asked for: of changes that mattered, once, for money that counts, and for whoever comes later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest

from tests.evolve.worlds import (
    TASK,
    Bench,
    Hill,
    Model,
    Notebook,
    Tutor,
    answer,
    problem,
    program,
    searched,
    verdict_of,
)
from warpsmith.author.protocol import Context, Explanation, Proposal, Refusal
from warpsmith.evolve import events
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.explaining import GAIN, LOSS, QUIET, Change, Explaining
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import TOLD, Lessons
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.pure import PureAuthor, pure
from warpsmith.records import Candidate, Failure, Judged, Lineage, Stage, Verdict

DIAL = Dial(size=4, capacity=16, depth=1, patience=20, candidates=24)
PRICE = 0.05
TEXT = "Four loads at once kept the memory busy."


def lesson() -> Explanation:
    return Explanation(TEXT, "the prompt", "the reply", PRICE)


def steps(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
    """Each step of `a` halves the time."""
    return 1e-3 / 2 ** genes["a"]


def climbing(context: Context) -> Proposal:
    """First programs have a = 0; every rewrite adds one step. What differs besides is only there to be new."""
    steps = [int(each.candidate.program.source.split('"a": ')[1].split(",")[0]) for each in context.parents]
    return answer({"a": max(steps, default=-1) + 1, "b": context.seed}, cost=0.01)


def search(
    author: Any, book: Notebook | None = None, others: tuple[Any, ...] = (), bench: Bench | None = None, **options: Any
) -> Evolution:
    dial = options.pop("dial", DIAL)
    evolution = Evolution(
        problem(0.0), [author, *others], bench or Bench(steps), book or Notebook(), 1, dial, **options
    )
    return searched(evolution)


def explained(book: Notebook) -> list[Mapping[str, Any]]:
    return [data for kind, data in book.events if kind == "explained"]


# ----------------------------------------------------------------------------------------------------- whole searches


def test_a_gain_is_explained_once_stored_told_and_shown_to_whoever_is_asked_next() -> None:
    book, seen = Notebook(), []
    tutor = Tutor(climbing, lesson, cost=0.01)
    search(tutor, book, observer=seen.append)
    about = [child.candidate.key for _, child in tutor.explained]
    assert about and len(set(about)) == len(about)
    assert all(parent.seconds >= GAIN * child.seconds for parent, child in tutor.explained)
    stored = explained(book)
    assert [data["candidate"] for data in stored] == about
    operator = tutor.explained[0][1].candidate.lineage.operator
    assert stored[0]["lesson"] == f"2.00 times as fast as before by {operator} by tutor: {TEXT}"
    assert (stored[0]["prompt"], stored[0]["reply"], stored[0]["cost_usd"]) == ("the prompt", "the reply", PRICE)
    told = [event for event in seen if isinstance(event, events.LessonLearnt)]
    assert [event.lesson for event in told] == [data["lesson"] for data in stored]
    assert any(stored[0]["lesson"] in context.lessons for context in tutor.contexts)
    assert len({data["generation"] for data in stored}) == len(stored), "more than one question in a generation"


def test_a_lesson_is_paid_for_like_an_answer() -> None:
    book, seen = Notebook(), []
    tutor = Tutor(climbing, lesson, cost=0.01)
    evolution = search(tutor, book, observer=seen.append)
    paid = PRICE * len(tutor.explained) + 0.01 * len(tutor.asked)
    assert evolution.ledger.spent == pytest.approx(paid) == pytest.approx(book.spent(""))
    assert max(event.usd for event in seen if isinstance(event, events.Progress)) == pytest.approx(paid)
    later = search(Tutor(climbing, lesson), book)
    assert later.usd_before == pytest.approx(paid)


def test_without_money_nothing_is_explained() -> None:
    tutor = Tutor(climbing, lambda: replace(lesson(), cost_usd=10.0), cost=0.01)
    evolution = search(tutor, max_usd=0.5)
    assert len(tutor.explained) == 1, "a price that does not fit into what is left was paid again"
    assert evolution.ledger.asked == 0


@pytest.mark.parametrize("said", [Refusal("no lesson", "the prompt", "the reply", PRICE), None])
def test_a_refused_lesson_costs_its_price_and_no_more(said: Refusal | None) -> None:
    book = Notebook()
    tutor = Tutor(climbing, lambda: said, cost=0.01)
    evolution = search(tutor, book)
    price = said.cost_usd if said else 0.0
    assert tutor.explained and evolution.ledger.judged == DIAL.candidates
    assert evolution.ledger.spent == pytest.approx(price * len(tutor.explained) + 0.01 * len(tutor.asked))
    assert [data["note"] for data in explained(book)] == (["no lesson"] * len(tutor.explained) if said else [])
    assert not any(": no lesson" in sentence for sentence in evolution.lessons.sentences)


def test_nothing_is_asked_twice_after_a_resume_and_lessons_are_remembered() -> None:
    book = Notebook()
    first = Tutor(climbing, lesson, cost=0.01)
    search(first, book)
    second = Tutor(climbing, lesson, cost=0.01)
    search(second, book)
    about = [child.candidate.key for _, child in (*first.explained, *second.explained)]
    assert len(set(about)) == len(about) == len(explained(book))
    assert any(TEXT in sentence for sentence in second.contexts[0].lessons)


def test_where_nobody_explains_nothing_is_asked() -> None:
    book = Notebook()
    search(Model(climbing), book, (Hill("other", operators=()),))
    assert explained(book) == []


def test_a_lesson_that_stalls_is_given_up_with_the_search_and_noted() -> None:
    class Stalling(Tutor):
        async def explain(self, *about: Any) -> None:
            self.explained.append(about[:2])
            await anyio.sleep(60)

    book = Notebook()
    tutor = Stalling(climbing, lesson, cost=0.01)
    evolution = search(tutor, book, dial=replace(DIAL, seconds=0.3, grace=0.1))
    assert len(tutor.explained) == 1
    assert [data for kind, data in book.events if kind == "abandoned"][-1].items() >= {"operator": "explain"}.items()
    assert evolution.ledger.asked == 0, "a reservation outlived the run"


def test_a_search_for_pure_programs_has_its_lessons_as_well() -> None:
    tutor, hill = pure(Tutor(climbing, lesson)), pure(Hill())
    assert not hasattr(hill, "explain") and isinstance(tutor, PureAuthor)
    book = Notebook()
    search(tutor, book)
    assert explained(book)


# ----------------------------------------------------------------------------------------------------- which changes


def judged(a: int, seconds: float | None, *parents: Judged, author: str = "tutor", stage: Stage = Stage.RUN) -> Judged:
    keys = tuple(parent.candidate.key for parent in parents)
    lineage = Lineage(author, "rewrite", keys, prompt="prompt")
    candidate = Candidate(TASK.key, program({"a": a}), (("BLOCK", 64), ("VEC", 1)), lineage)
    if seconds is not None:
        return Judged(candidate, verdict_of(candidate, lambda genes, tunables: seconds))
    failure = Failure(stage, "wrong_value", "made up to be wrong")
    return Judged(candidate, Verdict(candidate.key, TASK.key, stage, failure, None))


def explaining(*authors: Any, max_usd: float | None = None) -> Explaining:
    tutors = authors or (Tutor(climbing, lesson),)
    return Explaining(problem(), tutors, Notebook(), 1, Ledger(), Lessons(), max_usd, lambda: 0.0, lambda lesson: None)


PARENT = judged(1, 1.0)


def test_of_several_gains_the_greatest_is_asked_about_and_the_others_never() -> None:
    asking = explaining()
    for a, seconds in ((2, 0.7), (3, 0.5), (4, 0.6)):
        asking.consider(judged(a, seconds, PARENT), PARENT, PARENT)
    inquiry = asking.choose(1)
    assert inquiry is not None and inquiry.change.gain == 2.0
    assert asking.choose(2) is None


@pytest.mark.parametrize(
    "why",
    ["too little", "not the fastest", "tunables", "no parent"],
)
def test_what_is_no_notable_gain_is_not_asked_about(why: str) -> None:
    child = judged(
        2, 0.99 / GAIN + 0.02 if why == "too little" else 0.5, PARENT, author="search" if why == "tunables" else "tutor"
    )
    best = judged(5, 0.4) if why == "not the fastest" else PARENT
    asking = explaining()
    asking.consider(child, None if why == "no parent" else PARENT, best)
    assert asking.choose(1) is None


@pytest.mark.parametrize("child", [judged(2, LOSS, PARENT), judged(2, None, PARENT)])
def test_a_loss_is_asked_about_after_some_quiet(child: Judged) -> None:
    asking = explaining()
    for number in range(1, 2 * QUIET):
        asking.consider(child, PARENT, PARENT)
        assert (asking.choose(number) is not None) == (number == QUIET)


@pytest.mark.parametrize("child", [judged(2, LOSS - 0.1, PARENT), judged(2, None, PARENT, stage=Stage.BUILD)])
def test_what_is_no_notable_loss_is_not_asked_about(child: Judged) -> None:
    asking = explaining()
    asking.consider(child, PARENT, PARENT)
    asking.consider(judged(3, 2 * LOSS, PARENT), PARENT, judged(5, 0.4))
    assert asking.choose(QUIET) is None


def test_whoever_made_the_change_explains_it_or_else_who_can() -> None:
    one, two = Tutor(climbing, lesson, "one"), Tutor(climbing, lesson, "two")
    for maker, asked in (("two", "two"), ("builtin", "one")):
        asking = explaining(one, two)
        asking.consider(judged(2, 0.5, PARENT, author=maker), PARENT, PARENT)
        inquiry = asking.choose(1)
        assert inquiry is not None and inquiry.author.name == asked


def test_what_came_of_a_change_is_said_in_words() -> None:
    faster, slower, wrong = (Change(PARENT, judged(2, seconds, PARENT)) for seconds in (0.5, 2.0, None))
    assert faster.summary == "2.00 times as fast as before by rewrite by tutor"
    assert slower.summary == "2.00 times as long as before after rewrite by tutor"
    assert wrong.summary == "wrong value after rewrite by tutor" and wrong.gain == 0.0


def test_a_lesson_takes_the_place_of_its_note_and_leaves_room_for_failures() -> None:
    lessons = Lessons()
    noted = judged(2, 1.0)
    noted = replace(noted, candidate=replace(noted.candidate, lineage=Lineage("tutor", "rewrite", note="a note")))
    lessons.learn(noted, 2.0)
    lessons.learn(judged(3, None), math.inf)
    lessons.explain(noted.candidate.key, "what it teaches")
    assert lessons.sentences == (
        "what it teaches",
        "1 x wrong value at the stage run after rewrite by tutor",
    )
    for number in range(TOLD):
        lessons.explain(f"key {number}", f"lesson {number}")
    assert lessons.sentences[0] == f"lesson {TOLD - 1}" and "wrong value" in lessons.sentences[-1]
