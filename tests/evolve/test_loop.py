from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import anyio
import pytest

from tests.evolve.worlds import Bench, Hill, Notebook, problem, smooth, verdict_of
from warpsmith.errors import MachineError, NothingPassed
from warpsmith.evolve import events
from warpsmith.evolve.bandit import Arm
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import LOSSES, Evolution
from warpsmith.records import Candidate

DIAL = Dial(size=8, capacity=16, depth=8, patience=12, candidates=120)


def search(
    bench: Bench | None = None, book: Notebook | None = None, authors: Any = None, dial: Dial = DIAL, **options: Any
) -> tuple[Evolution, str]:
    evolution = Evolution(
        problem(), authors or [Hill()], bench or Bench(), book if book is not None else Notebook(), 1, dial, **options
    )

    async def main() -> str:
        evolution.resume()
        await evolution.translate()
        return await evolution.run()

    return evolution, anyio.run(main)


def keys(evolution: Evolution) -> list[str]:
    return [judged.candidate.key for judged in evolution.population.history]


def test_the_best_of_a_smooth_landscape_is_found() -> None:
    evolution, _ = search(dial=dataclasses.replace(DIAL, candidates=400, patience=40))
    assert evolution.population.best is not None
    assert evolution.population.best.seconds == pytest.approx(1e-5)


def test_the_same_seed_makes_the_same_choices_however_the_judging_is_spread() -> None:
    alone, _ = search(Bench(), judging=1, seed=5)
    for delay in (lambda index: 0.002 * (index % 3), lambda index: 0.003 if index % 2 else 0.0):
        spread, _ = search(Bench(delay=delay), judging=4, seed=5)
        assert keys(spread) == keys(alone)


def test_another_seed_makes_other_choices() -> None:
    assert keys(search(seed=1)[0]) != keys(search(seed=2)[0])


def test_events_come_in_one_order_whoever_is_quicker() -> None:
    def told(bench: Bench, judging: int) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []

        def observe(event: events.Event) -> None:
            if isinstance(event, events.CandidateJudged | events.BestImproved):
                seen.append((type(event).__name__, event.judged.candidate.key))

        search(bench, judging=judging, observer=observe)
        return seen

    assert told(Bench(), 1) == told(Bench(delay=lambda index: 0.004 / (1 + index % 4)), 3)


def test_no_more_are_judged_at_once_than_there_are_workers() -> None:
    bench = Bench(delay=lambda index: 0.001)
    search(bench, judging=3)
    assert bench.busiest == 3


def test_nothing_is_judged_twice_in_a_run() -> None:
    bench = Bench()
    evolution, _ = search(bench, dial=dataclasses.replace(DIAL, candidates=300, patience=30))
    assert len(bench.keys) == len(set(bench.keys)) == len(evolution.population)


def test_what_the_archive_knows_is_not_judged_again() -> None:
    book = Notebook()
    first = Bench()
    search(first, book)
    second = Bench()
    seen: list[events.Event] = []
    evolution, _ = search(second, book, observer=seen.append)
    cached = [event for event in seen if isinstance(event, events.CandidateJudged) and event.cached]
    assert len(cached) == len(first.keys)
    assert not set(first.keys) & set(second.keys)
    assert len(evolution.population) == len(first.keys) + len(second.keys)


def test_a_verdict_that_another_process_archived_meanwhile_is_used() -> None:
    book, bench = Notebook(), Bench()
    other = Bench()
    finished, _ = search(other)
    for judged in finished.population.history[:40]:
        book.candidates[judged.candidate.key] = judged.candidate
        book.verdicts.append((judged.verdict, "test", "Testbed"))
    evolution = Evolution(problem(), [Hill()], bench, book, 1, DIAL)
    anyio.run(evolution.translate)  # without `resume`, so that it has to look each candidate up
    assert bench.keys == []
    assert evolution.population.best is not None
    assert evolution.ledger.submitted == 0


def test_verdicts_of_another_judge_are_not_mixed_in() -> None:
    book = Notebook()
    search(book=book)
    book.verdicts = [(verdict, "older", device) for verdict, _, device in book.verdicts]
    evolution = Evolution(problem(), [Hill()], Bench(), book, 1, DIAL)
    assert evolution.resume() == 0


def test_the_same_archive_and_seed_go_on_in_the_same_way() -> None:
    book = Notebook()
    search(book=book, dial=dataclasses.replace(DIAL, candidates=30))
    one, _ = search(book=book.copy(), dial=dataclasses.replace(DIAL, candidates=30))
    two, _ = search(
        Bench(delay=lambda index: 0.001 * (index % 2)),
        book.copy(),
        dial=dataclasses.replace(DIAL, candidates=30),
        judging=2,
    )
    assert keys(one) == keys(two)
    assert len(keys(one)) == 60


def test_generations_are_numbered_on_after_a_resume() -> None:
    book = Notebook()
    before, _ = search(book=book, dial=dataclasses.replace(DIAL, candidates=40))
    after, _ = search(book=book, dial=dataclasses.replace(DIAL, candidates=16))
    assert after.generation > before.generation
    assert max(judged.candidate.lineage.generation for judged in after.population.history) == after.generation


def test_cancellation_loses_no_verdict() -> None:
    book, seen = Notebook(), []
    bench = Bench(delay=lambda index: 0.2 if index in (10, 20) else 0.001)
    evolution = Evolution(
        problem(), [Hill()], bench, book, 1, DIAL, judging=2, observer=lambda event: seen.append(event)
    )

    async def main() -> None:
        with anyio.move_on_after(0.1):
            await evolution.translate()
            await evolution.run()

    anyio.run(main)
    assert len(evolution.population) == len(book.verdicts) > 5
    assert len(bench.keys) - len(book.verdicts) <= 2, "more was lost than was in flight"
    assert evolution.ledger.asked == 0, "a reservation outlived the run"
    resumed, _ = search(Bench(), book)
    assert {v.candidate_key for v, _, _ in book.verdicts} <= set(keys(resumed))


def test_time_runs_out_in_the_middle_of_a_generation() -> None:
    now = [0.0]

    class Slow(Bench):
        async def judge(self, candidate: Candidate) -> Any:
            now[0] += 1.0
            return await super().judge(candidate)

    bench = Slow()
    dial = dataclasses.replace(DIAL, seconds=20.5)
    _, reason = search(bench, dial=dial, clock=lambda: now[0])
    assert reason == "time is up (20.5 s)"
    assert len(bench.keys) == 21


def test_judgements_in_flight_get_their_grace_and_no_more() -> None:
    bench = Bench(delay=lambda index: 60.0 if index == 9 else 0.001)
    dial = dataclasses.replace(DIAL, seconds=0.2, grace=0.1)
    with anyio.from_thread.start_blocking_portal() as portal:
        evolution = Evolution(problem(), [Hill()], bench, Notebook(), 1, dial, judging=2)

        async def main() -> str:
            await evolution.translate()
            with anyio.fail_after(10):
                return await evolution.run()

        assert portal.call(main).startswith("time is up")
    assert bench.keys[9] not in keys(evolution)


def translate_within(dial: Any, delay: float, started: float | None = None) -> Evolution:
    evolution = Evolution(problem(), [Hill()], Bench(delay=lambda _: delay), Notebook(), 1, dial, started=started)

    async def main() -> None:
        with anyio.fail_after(10):
            await evolution.translate()

    anyio.run(main)
    return evolution


def test_a_budget_below_what_a_first_judgement_takes_buys_one_program_all_the_same() -> None:
    tight = dataclasses.replace(DIAL, seconds=0.05, grace=0.0, first=5.0)
    evolution = translate_within(tight, delay=0.3)
    assert len(evolution.population) == 1, "the clock ended the search at once when something had passed"


def test_a_task_that_took_longer_to_load_than_the_budget_gets_one_program() -> None:
    tight = dataclasses.replace(DIAL, seconds=1.0, grace=0.0, first=5.0)
    evolution = translate_within(tight, delay=0.01, started=time.monotonic() - 100.0)
    assert len(evolution.population) == 1


def test_first_candidates_that_hang_are_given_up() -> None:
    tight = dataclasses.replace(DIAL, seconds=0.05, grace=0.0, first=0.2)
    with pytest.raises(NothingPassed, match="time is up"):
        translate_within(tight, delay=60.0)


def test_the_limit_of_candidates_is_kept_exactly() -> None:
    bench = Bench()
    _, reason = search(bench, dial=dataclasses.replace(DIAL, candidates=37))
    assert reason == "37 candidates judged"
    assert len(bench.keys) == 37


def test_money_in_flight_is_committed_before_it_is_spent() -> None:
    dear = Hill("dear", cost=0.10)
    evolution, reason = search(authors=[dear], max_usd=1.25)
    assert reason == "money is spent (1.25 USD)"
    assert evolution.ledger.spent == pytest.approx(1.20), "one more answer did not fit into what was left"
    assert len(dear.asked) == 12


def test_an_author_that_charges_is_not_asked_again_for_a_duplicate() -> None:
    class Stuck(Hill):
        def _genes(self, context: Any, parents: Any, chance: Any) -> dict[str, int]:
            return {"a": 1, "b": 1}

    free, dear = Stuck("free"), Stuck("dear", cost=0.01)
    only_create = (Arm("free", "create", 0),)
    search(authors=[free], arms=only_create, dial=dataclasses.replace(DIAL, size=4))
    search(authors=[dear], arms=(Arm("dear", "create", 0),), dial=dataclasses.replace(DIAL, size=4))
    assert len(free.asked) > len(dear.asked)
    assert len(dear.asked) == 4 * 4, "four slots, in the translation and in three barren generations"


def test_a_search_without_anything_new_ends() -> None:
    _, reason = search(
        authors=[Hill(operators=("create",))], dial=dataclasses.replace(DIAL, candidates=10**6, patience=10**6)
    )
    assert reason == "nothing new is proposed any more"


def test_tunables_are_searched_by_the_loop_itself() -> None:
    """An author who never touches tunables still gets the best of them."""
    only_create = Hill(operators=("create",))
    evolution, _ = search(authors=[only_create], dial=dataclasses.replace(DIAL, candidates=300, patience=50, depth=15))
    best = evolution.population.best
    assert best is not None
    assert dict(best.candidate.tunables) == {"BLOCK": 256, "VEC": 2}
    assert best.candidate.lineage.author == "search"


def test_translation_goes_on_until_a_program_passes() -> None:
    def mostly_wrong(genes: dict[str, int], tunables: Any) -> float:
        return smooth(genes, tunables) if genes["a"] == 7 else math.inf

    bench = Bench(mostly_wrong)
    evolution = Evolution(problem(), [Hill()], bench, Notebook(), 1, DIAL, seed=11)
    anyio.run(evolution.translate)
    assert len(bench.keys) > DIAL.size, "the seed was chosen so that the first round brings nothing"
    best = evolution.population.best
    assert best is not None and '"a": 7' in best.candidate.program.source


def test_where_nothing_passes_the_reasons_are_named() -> None:
    with pytest.raises(
        NothingPassed, match=r"none of \d+ programs for synthetic passed the judge: wrong_value \(\d+\)"
    ):
        search(Bench(lambda genes, tunables: math.inf))


def test_a_candidate_that_kills_its_worker_does_not_end_the_search() -> None:
    book, seen = Notebook(), []
    bench = Bench(broken=lambda index: index in (3, 12, 30))
    _, reason = search(bench, book, observer=seen.append)
    lost = [event for event in seen if isinstance(event, events.CandidateLost)]
    assert len(lost) == 3
    assert [kind for kind, _ in book.events].count("lost") == 3
    assert len(bench.keys) == len(set(bench.keys)), "a lost candidate was tried again"
    assert reason == "120 candidates judged"


def test_a_machine_that_fails_on_everything_ends_the_search() -> None:
    bench = Bench(broken=lambda index: index >= 20)
    with pytest.raises(MachineError, match="the machine failed"):
        search(bench)
    assert 20 + LOSSES <= len(bench.keys) <= 20 + LOSSES + 1, "one more may have begun by then"


def test_a_broken_author_is_reported_as_itself() -> None:
    class Broken(Hill):
        async def propose(self, context: Any) -> Any:
            raise MachineError("no answer")

    with pytest.raises(MachineError, match=r"^no answer$"):
        search(authors=[Broken()])


def test_the_ledger_agrees_with_the_archive() -> None:
    book = Notebook()
    evolution, _ = search(book=book)
    assert evolution.ledger.submitted == evolution.ledger.judged == len(book.verdicts) == 120
    assert all(verdict == verdict_of(book.candidates[verdict.candidate_key], smooth) for verdict, _, _ in book.verdicts)
