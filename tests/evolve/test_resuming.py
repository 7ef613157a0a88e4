"""What an earlier run asked for and did not come to judge: judged first, and never paid for again."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.evolve.killed import DIAL, PRICE, lesson_bills, paid_author, passing, run, search_until_killed
from tests.evolve.worlds import TASK, Bench, Hill, Model, Notebook, drawn, problem, searched
from warpsmith.archive import Archive
from warpsmith.author.protocol import Context, Refusal
from warpsmith.errors import MachineError, NothingPassed
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.past import LOSSES
from warpsmith.records import Candidate, Lineage

LINEAGE = Lineage("model", "translate")
COMPUTED = Lineage("hill", "create", recipe="{}")

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.evolve.killed"])


@pytest.mark.parametrize("judged", [0, 2, 15])
def test_a_killed_search_pays_for_no_question_twice_and_judges_every_answer(tmp_path: Path, judged: int) -> None:
    """Killed in the first generation before and after a verdict, and in one after a lesson was paid for."""
    path, bills = tmp_path / "archive.db", tmp_path / "bills"
    heard, told = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=search_until_killed, args=(path, bills, judged, told))
    process.start()
    told.close()
    assert heard.poll(120) and heard.recv() == "hanging"
    process.kill()
    process.join()
    paid_before = bills.read_text().splitlines()
    lessons = lesson_bills(bills)
    lessons_before = lessons.read_text().splitlines() if lessons.exists() else []
    assert bool(lessons_before) == (judged == 15)
    with Archive.open(path, create=False) as archive:
        before = {each.candidate.key for each in archive.judged(TASK.key)}
        waiting = [key for line in paid_before if (key := line.rpartition(" ")[2]) not in before]
        assert len(before) == judged
        assert waiting, "no answer was waiting for the judge when the process was killed"
        bench = Bench(passing)
        evolution = run(archive, paid_author(bills), bench)
        verdicts = {each.candidate.key for each in archive.judged(TASK.key)}
        paid_lessons = lessons.read_text().splitlines()
        paid = len(bills.read_text().splitlines()) + len(paid_lessons)
        assert archive.spent(TASK.key) == pytest.approx(PRICE * paid)
        assert [data["candidate"] for data in archive.told(TASK.key, "explained")] == paid_lessons
    questions = [line.rpartition(" ") for line in bills.read_text().splitlines()]
    assert len({question for question, _, _ in questions}) == len(questions), "a question was paid for twice"
    assert {key for _, _, key in questions} <= verdicts, "an answer that was paid for has no verdict"
    assert len(set(paid_lessons)) == len(paid_lessons) > len(lessons_before), "a lesson was paid for twice"
    assert evolution.usd_before == pytest.approx(PRICE * (len(paid_before) + len(lessons_before)))
    assert bench.keys[: len(waiting)] == waiting, "what was waiting is judged first"


def start(authors: Any, book: Notebook, bench: Bench, **options: Any) -> Evolution:
    evolution = Evolution(problem(), authors, bench, book, 1, options.pop("dial", DIAL), **options)
    return searched(evolution)


def left_behind(book: Notebook, count: int, generation: int = 0) -> list[str]:
    """Put answers into the archive that nobody judged."""
    keys = []
    for number in range(count):
        proposal = drawn(Context(TASK, problem().gpu, "translate", (), 1000 + number))
        lineage = dataclasses.replace(LINEAGE, generation=generation, prompt="prompt", reply="reply", cost_usd=PRICE)
        candidate = Candidate(TASK.key, proposal.program, proposal.tunables, lineage)
        book.add_candidate(1, candidate)
        keys.append(candidate.key)
    return keys


def test_what_waits_is_judged_before_anything_new_and_in_order() -> None:
    book, bench = Notebook(), Bench(passing)
    waiting = left_behind(book, 9)
    start([Hill()], book, bench)
    assert bench.keys[:9] == waiting
    assert len(book.proposals) == len({each.key for each in book.proposals}), "nothing was written down twice"


def test_generations_are_numbered_on_after_what_waits() -> None:
    book = Notebook()
    waiting = left_behind(book, 2, generation=7)
    evolution = start([Hill()], book, Bench(passing))
    numbers = {
        judged.candidate.lineage.generation
        for judged in evolution.population.history
        if judged.candidate.key not in waiting and judged.candidate.lineage.operator != "create"
    }
    assert min(numbers) > 7


def test_the_limits_hold_for_what_waits_as_well() -> None:
    book, bench = Notebook(), Bench(passing)
    waiting = left_behind(book, 9)
    start([Hill()], book, bench, dial=dataclasses.replace(DIAL, candidates=5))
    assert bench.keys == waiting[:5]
    later = Bench(passing)
    start([Hill()], book, later, dial=dataclasses.replace(DIAL, candidates=5))
    assert later.keys[:4] == waiting[5:]


def test_what_authors_compute_is_not_judged_for_having_been_left_behind() -> None:
    book = Notebook()
    proposal = drawn(Context(TASK, problem().gpu, "create", (), 5))
    computed = Candidate(TASK.key, proposal.program, proposal.tunables, COMPUTED)
    book.add_candidate(1, computed)
    bench = Bench(passing)
    start([Hill()], book, bench)
    assert computed.key not in bench.keys


def test_a_candidate_that_breaks_the_machine_again_and_again_does_not_stop_every_run() -> None:
    book = Notebook()
    poison = set(left_behind(book, 3))

    class Poisoned(Bench):
        async def judge(self, candidate: Candidate) -> Any:
            verdict = await super().judge(candidate)
            if candidate.key in poison:
                raise MachineError("the machine failed")
            return verdict

    for _ in range(LOSSES):
        with pytest.raises(MachineError):
            start([Hill()], book, Poisoned(passing))
    bench = Poisoned(passing)
    start([Hill()], book, bench)
    assert not poison & set(bench.keys) and len(bench.keys) == DIAL.candidates


def test_refused_questions_are_not_asked_again_after_a_resume() -> None:
    book = Notebook()

    def run_once() -> Model:
        model = Model(lambda context: Refusal("no program", "prompt", "reply", PRICE), cost=PRICE)
        with pytest.raises(NothingPassed):
            start([model], book, Bench(passing))
        return model

    first, second = run_once(), run_once()
    asked = [(context.operator, context.seed) for context in (*first.contexts, *second.contexts)]
    assert len(first.contexts) and len(second.contexts)
    assert len(asked) == len(set(asked))


def test_what_was_answered_with_a_known_program_is_not_asked_in_the_same_way_again() -> None:
    same = drawn(Context(TASK, problem().gpu, "translate", (), 1), cost=PRICE)
    book = Notebook()

    def run_once() -> Model:
        model = Model(lambda context: same, cost=PRICE)
        with pytest.raises(NothingPassed):
            start([model], book, Bench(lambda genes, tunables: math.inf))
        return model

    first, second = run_once(), run_once()
    asked = [(context.operator, context.seed) for context in (*first.contexts, *second.contexts)]
    assert len(asked) == len(set(asked)) > DIAL.size


def test_a_repetition_does_not_keep_what_it_repeats_from_being_judged() -> None:
    book = Notebook()
    (waiting,) = left_behind(book, 1)
    book.add_event(1, "passed_over", {"candidate": waiting, "like": waiting, "generation": 0, "why": "the same"})
    bench = Bench(passing)
    start([Hill()], book, bench)
    assert bench.keys[0] == waiting


def test_the_same_archive_with_answers_that_wait_makes_the_same_choices() -> None:
    book = Notebook()
    left_behind(book, 4)

    def keys(judging: int) -> list[str]:
        bench = Bench(passing, delay=lambda index: 0.001 * (index % 3) if judging > 1 else 0.0)
        evolution = start([Model(drawn), Hill()], book.copy(), bench, judging=judging)
        return [judged.candidate.key for judged in evolution.population.history]

    assert keys(1) == keys(4)
