"""Answers that cost money: committed before they are spent, shown, kept, and never asked for beyond the limit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import anyio
import pytest

from tests.evolve.worlds import Bench, Hill, Model, Notebook, drawn, problem
from warpsmith.author.protocol import Context, Proposal, Refusal
from warpsmith.errors import NothingPassed
from warpsmith.evolve import events
from warpsmith.evolve.bandit import INSTANT, SECONDS_PER_HALVING, USD_PER_HALVING, cost
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution

DIAL = Dial(size=8, capacity=16, depth=8, patience=20, candidates=80)


def bowl(genes: dict[str, int], tunables: Any) -> float:
    """Every program passes; the best is far from most."""
    return 1e-5 * (1 + abs(genes["a"] - 500) + abs(genes["b"] - 500))


def search(
    authors: Any, book: Notebook | None = None, bench: Bench | None = None, **options: Any
) -> tuple[Evolution, str]:
    dial = options.pop("dial", DIAL)
    evolution = Evolution(problem(), authors, bench or Bench(bowl), book or Notebook(), 1, dial, **options)

    async def main() -> str:
        evolution.resume()
        await evolution.translate()
        return await evolution.run()

    return evolution, anyio.run(main)


def refusing(context: Context) -> Refusal:
    return Refusal("no fenced block", "the prompt", "the reply", 0.05)


def test_a_refusal_is_paid_written_down_and_told() -> None:
    book, seen = Notebook(), []
    model = Model(refusing, cost=0.05)
    evolution, _ = search([Hill(), model], book, observer=seen.append, dial=dataclasses.replace(DIAL, candidates=30))
    refused = [data for kind, data in book.events if kind == "refused"]
    assert len(refused) == len(model.asked) > 0
    assert refused[0].items() >= {"author": "model", "operator": "translate", "note": "no fenced block"}.items()
    assert (refused[0]["prompt"], refused[0]["reply"], refused[0]["cost_usd"]) == ("the prompt", "the reply", 0.05)
    assert evolution.ledger.spent == pytest.approx(0.05 * len(model.asked)) == book.spent("")
    told = [event for event in seen if isinstance(event, events.AnswerRefused)]
    assert len(told) == len(refused) and told[0].note == "no fenced block"


def test_an_operator_that_is_refused_and_paid_for_is_asked_less() -> None:
    dear, free = Model(refusing, "dear"), Hill("hill", operators=("create", "mutate"))
    dial = dataclasses.replace(DIAL, candidates=400, patience=60)
    search([dear, free], dial=dial)
    later = len(dear.asked) - dear.asked.count("translate")
    assert later < free.asked.count("mutate") / 2


def test_a_model_that_only_refuses_ends_with_the_money_and_says_so() -> None:
    model = Model(lambda context: Refusal("nothing", cost_usd=0.25), cost=0.25)
    with pytest.raises(NothingPassed, match="money is spent"):
        search([model], max_usd=1.0)
    assert len(model.asked) == 4


def test_when_the_money_is_gone_free_authors_go_on() -> None:
    model, hill = Model(lambda context: drawn(context, cost=0.25), cost=0.25), Hill()
    evolution, reason = search([model, hill], max_usd=1.0, bench=Bench())
    assert len(model.asked) == 4 and evolution.ledger.spent == pytest.approx(1.0)
    assert reason == "80 candidates judged"


def test_tunables_are_still_searched_when_the_money_is_gone() -> None:
    model = Model(lambda context: drawn(context, cost=0.5), cost=0.5)
    evolution, reason = search([model], max_usd=1.0, dial=dataclasses.replace(DIAL, candidates=400))
    authors = [judged.candidate.lineage.author for judged in evolution.population.history]
    assert authors.count("model") == 2
    assert authors.count("search") > 4
    assert reason.startswith(("money is spent", "no progress"))


def test_no_question_is_asked_that_does_not_fit_into_what_is_left() -> None:
    model = Model(lambda context: drawn(context, cost=0.3), cost=0.3)
    search([model], max_usd=1.0)
    assert len(model.asked) == 3, "a fourth answer would have cost 1.20 USD"
    assert search([Model(refusing, cost=5.0), Hill()], max_usd=1.0)[0].ledger.spent == 0.0


def test_questions_that_were_not_put_make_the_next_answer_no_cheaper() -> None:
    turns = itertools.chain([True, False, False], itertools.repeat(True))

    def sometimes(context: Context) -> Proposal | None:
        return drawn(context, cost=0.3) if next(turns) else None

    evolution, _ = search([Model(sometimes, cost=0.3)], max_usd=1.1)
    assert evolution.ledger.spent == pytest.approx(0.9), "a fourth answer would have cost 1.20 USD"


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_what_is_no_amount_of_money_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="US dollars"):
        Evolution(problem(), [Hill()], Bench(), Notebook(), 1, DIAL, max_usd=wrong)


def test_what_earlier_runs_spent_is_shown_and_does_not_count() -> None:
    book = Notebook()
    search([Model(lambda context: drawn(context, cost=0.25), cost=0.25)], book, max_usd=1.0)
    assert book.spent("") == pytest.approx(1.0)
    again, seen = Model(lambda context: drawn(context, cost=0.25), cost=0.25), []
    search([again], book, max_usd=1.0, observer=seen.append)
    assert len(again.asked) == 4
    progress = [event for event in seen if isinstance(event, events.Progress)][-1]
    assert (progress.usd, progress.usd_limit, progress.usd_before) == (pytest.approx(1.0), 1.0, pytest.approx(1.0))


def test_money_is_shown_as_it_is_spent() -> None:
    seen: list[events.Event] = []
    search([Model(lambda context: drawn(context, cost=0.25), cost=0.25)], max_usd=1.0, observer=seen.append)
    shown = [event.usd for event in seen if isinstance(event, events.Progress)]
    assert shown[:4] == [0.25, 0.5, 0.75, 1.0], "each answer is shown before any of them is judged"


def test_a_paid_duplicate_is_kept_with_its_price_and_earns_nothing() -> None:
    book = Notebook()
    model = Model(lambda context: dataclasses.replace(drawn(context), cost_usd=0.25, program=FIXED.program), cost=0.25)
    evolution, _ = search([model], book, max_usd=2.0)
    assert book.spent("") == pytest.approx(0.25 * len(model.asked)) == pytest.approx(evolution.ledger.spent)
    assert [judged.candidate.lineage.author for judged in evolution.population.history].count("model") == 1


FIXED = drawn(Context(problem().task, problem().gpu, "translate", (), 1))


def test_what_an_answer_costs_counts_in_dollars_and_in_seconds_of_asking() -> None:
    assert cost(USD_PER_HALVING, 0.0) == 1.0 == cost(0.0, SECONDS_PER_HALVING)
    assert cost(0.0, 0.99 * INSTANT) == 0.0, "an author that computes must choose the same on a slow machine"
    assert cost(0.0, 61.0) > cost(0.0, 35.0) > 0.0


def test_an_answer_that_is_paid_for_is_waited_for_when_the_time_is_up() -> None:
    """It comes too late to be judged, but the next run need not pay for it again."""
    now = [0.0]

    class Slow(Model):
        late = 0

        async def propose(self, context: Context) -> Proposal | Refusal | None:
            if context.operator == "translate":
                return await super().propose(context)
            self.late += 1
            await anyio.sleep(0.05 * self.late)
            now[0] = 100.0
            return await super().propose(context)

    book, bench = Notebook(), Bench(bowl)
    model = Slow(lambda context: drawn(context, cost=0.1), cost=0.1)
    dial = dataclasses.replace(DIAL, seconds=50.0, grace=60.0, size=4)
    _, reason = search([model], book, bench, dial=dial, clock=lambda: now[0])
    assert reason.startswith("time is up")
    assert len(book.proposals) > len(book.verdicts), "the last answers were not judged"
    paid = [each for each in book.proposals if each.lineage.cost_usd > 0.0]
    begun = model.late + model.asked.count("translate")
    assert len(paid) == len(model.asked) == begun, "an answer that was paid for is lost"
    later, quick = Bench(bowl), Model(lambda context: drawn(context, cost=0.1), cost=0.1)
    search([quick], book, later, dial=dataclasses.replace(DIAL, candidates=len(paid)))
    assert {each.key for each in paid} <= {*bench.keys, *later.keys}


def test_what_is_given_up_while_it_is_due_is_written_down() -> None:
    class Stalled(Model):
        async def propose(self, context: Context) -> Proposal | Refusal | None:
            if context.operator != "translate":
                await anyio.sleep(60)
            return await super().propose(context)

    book = Notebook()
    model = Stalled(lambda context: drawn(context, cost=0.1), cost=0.1)
    evolution = Evolution(problem(), [model], Bench(bowl), book, 1, dataclasses.replace(DIAL, size=4))

    async def main() -> None:
        await evolution.translate()
        with anyio.move_on_after(0.1):
            await evolution.run()

    anyio.run(main)
    given_up = [data for kind, data in book.events if kind == "abandoned"]
    assert given_up and given_up[0].items() >= {"author": "model"}.items()
    assert given_up[0]["expected_usd"] == pytest.approx(0.1)
    assert evolution.ledger.asked == 0, "a reservation outlived the run"


def test_an_author_that_breaks_loses_no_answer_of_another() -> None:
    class Broken(Model):
        async def propose(self, context: Context) -> Proposal | Refusal | None:
            await anyio.sleep(0.05)
            raise RuntimeError("a bug")

    book = Notebook()
    model = Model(lambda context: drawn(context, cost=0.1), cost=0.1)
    bench = Bench(bowl, delay=lambda index: 60.0)
    with pytest.raises(RuntimeError, match="a bug"):
        search([model, Broken(drawn, "broken", operators=("translate",))], book, bench)
    assert len([each for each in book.proposals if each.lineage.author == "model"]) == len(model.asked) == 4


def test_those_who_compute_are_judged_while_the_others_think() -> None:
    order: list[str] = []

    class Watching(Bench):
        async def judge(self, candidate: Any) -> Any:
            order.append(candidate.lineage.author)
            return await super().judge(candidate)

    search([Model(drawn, "a model"), Hill()], bench=Watching(bowl), dial=dataclasses.replace(DIAL, candidates=8))
    assert order == ["hill"] * 4 + ["a model"] * 4
