"""Programs that fail go back to an author that repairs, until they pass or it is no use any more."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import anyio
import pytest

from tests.evolve.worlds import TASK, Bench, Hill, Model, Notebook, answer, drawn, genes_of, problem, program
from warpsmith.author.protocol import Context, Proposal, Refusal
from warpsmith.errors import NothingPassed
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.population import Population
from warpsmith.evolve.repair import CHAIN, RECENT, TRIES, Failures
from warpsmith.records import Candidate, Failure, Judged, Lineage, Stage, Timing, Verdict

DIAL = Dial(size=4, capacity=16, depth=2, patience=20, candidates=60)


def steps(genes: dict[str, int], tunables: Any) -> float:
    """Only programs with b = 3 pass."""
    return 1e-5 if genes["b"] == 3 else math.inf


def mending(context: Context) -> Proposal:
    """First programs have b = 0; each repair adds one."""
    if context.operator == "repair":
        genes = genes_of(context.parents[0])
        return answer({**genes, "b": genes["b"] + 1})
    if context.operator == "translate":
        return answer({"a": context.seed % 10**6, "b": 0})
    return drawn(context)


def start(model: Any, bench: Bench, book: Notebook | None = None, **options: Any) -> Evolution:
    authors = model if isinstance(model, list) else [model]
    return Evolution(problem(), authors, bench, book or Notebook(), 1, options.pop("dial", DIAL), **options)


def test_translation_repairs_until_a_program_passes() -> None:
    model = Model(mending)
    best = anyio.run(start(model, Bench(steps)).translate)
    assert genes_of(best)["b"] == 3
    assert best.candidate.lineage.operator == "repair"
    repaired = [context for context in model.contexts if context.operator == "repair"]
    assert all(not context.parents[0].verdict.passed for context in repaired)
    assert model.asked[:4] == ["translate"] * 4, "several attempts at once"
    assert len({context.seed for context in model.contexts[:4]}) == 4
    assert {context.operator for context in model.contexts[4:8]} == {"repair", "translate"}, "someone starts anew"


def test_translation_goes_on_until_the_budget_is_gone() -> None:
    model = Model(lambda context: drawn(context, cost=0.1), cost=0.1)
    with pytest.raises(NothingPassed, match="money is spent"):
        anyio.run(start(model, Bench(lambda genes, tunables: math.inf), max_usd=3.0).translate)
    assert len(model.asked) == 30
    with pytest.raises(NothingPassed, match="60 candidates judged"):
        anyio.run(start(Model(drawn), Bench(lambda genes, tunables: math.inf)).translate)


def test_a_model_that_has_nothing_to_say_does_not_hold_up_translation_for_ever() -> None:
    model = Model(lambda context: None)
    with pytest.raises(NothingPassed, match="nothing new is proposed"):
        anyio.run(start(model, Bench(steps)).translate)
    assert len(model.asked) < 20


def test_the_search_repairs_as_well() -> None:
    def sometimes(genes: dict[str, int], tunables: Any) -> float:
        return 1e-5 / (1 + genes["a"] % 7) if genes["b"] in (3, 900) else math.inf

    def script(context: Context) -> Proposal:
        if context.operator == "translate":
            return answer({"a": context.seed % 10**6, "b": 900})
        if context.operator == "repair":
            return answer({**genes_of(context.parents[0]), "b": 3})
        return answer({"a": context.seed % 10**6, "b": 0})

    model = Model(script, operators=("translate", "repair", "rewrite"))
    evolution = start(model, Bench(sometimes))

    async def main() -> None:
        await evolution.translate()
        await evolution.run()

    anyio.run(main)
    repairs = [judged for judged in evolution.population.history if judged.candidate.lineage.operator == "repair"]
    assert repairs and all(judged.verdict.passed for judged in repairs)
    assert all(not context.parents[0].verdict.passed for context in model.contexts if context.operator == "repair")
    assert all(context.parents[0].verdict.passed for context in model.contexts if context.operator == "rewrite")


def test_a_repair_is_worth_what_it_adds_to_the_best() -> None:
    population = Population(8, 8)
    good, bad = judged(1, seconds=1e-5), judged(2)
    population.fold(bad, 1)
    assert population.reference(judged(3, parents=(bad.candidate.key,)).candidate) == math.inf
    population.fold(good, 1)
    assert population.reference(judged(3, parents=(bad.candidate.key,)).candidate) == 1e-5
    assert population.reference(judged(3, parents=(bad.candidate.key, good.candidate.key)).candidate) == 1e-5


# ------------------------------------------------------------------------------------------------------- which failures


def judged(
    a: int,
    *,
    stage: Stage = Stage.NUMERICS,
    seconds: float | None = None,
    paid: bool = True,
    operator: str = "rewrite",
    parents: tuple[str, ...] = (),
    block: int = 64,
) -> Judged:
    lineage = Lineage("model", operator, parents, prompt="prompt" if paid else None)
    candidate = Candidate(TASK.key, program({"a": a}), (("BLOCK", block), ("VEC", 1)), lineage)
    if seconds is None:
        failure = Failure(stage, "wrong_value", "made up to be wrong")
        return Judged(candidate, Verdict(candidate.key, TASK.key, stage, failure, None))
    timing = Timing((seconds,), seconds, (seconds, seconds), "estimated", "Testbed")
    return Judged(candidate, Verdict(candidate.key, TASK.key, Stage.PROFILE, None, timing))


def ranked(*history: Judged) -> list[Judged]:
    failures = Failures()
    for each in history:
        failures.learn(each)
    return failures.ranked


def test_what_was_asked_for_comes_first_then_what_got_furthest_then_the_latest() -> None:
    early, late = judged(1, stage=Stage.BUILD), judged(2, stage=Stage.BUILD)
    far, free = judged(3, stage=Stage.SANITIZE), judged(4, stage=Stage.SANITIZE, paid=False)
    assert ranked(free, early, far, late) == [far, late, early, free]


def test_what_passes_with_other_tunables_needs_no_repair() -> None:
    failed, passed = judged(1), judged(1, block=128, seconds=1e-5)
    assert ranked(failed, passed) == [] == ranked(passed, failed)


def test_one_failure_is_not_asked_about_for_ever() -> None:
    failures, failed = Failures(), judged(1)
    failures.learn(failed)
    for _ in range(TRIES):
        assert failures.ranked == [failed]
        failures.begin(failed.candidate.key)
    assert failures.ranked == []


def test_a_chain_of_repairs_ends() -> None:
    failures, parent = Failures(), judged(0)
    failures.learn(parent)
    for link in range(1, CHAIN + 1):
        assert parent in failures.ranked
        parent = judged(link, operator="repair", parents=(parent.candidate.key,))
        failures.learn(parent)
    assert parent not in failures.ranked
    rewritten = judged(99, operator="rewrite", parents=(parent.candidate.key,))
    failures.learn(rewritten)
    assert rewritten in failures.ranked, "a program that is written anew begins anew"


def test_computed_failures_do_not_push_out_what_was_asked_for() -> None:
    precious = judged(0)
    found = ranked(precious, *(judged(a, paid=False) for a in range(1, 3 * RECENT)))
    assert found[0] == precious and len(found) == RECENT


def test_questions_of_earlier_runs_count() -> None:
    failures, failed = Failures(), judged(1)
    failures.learn(failed)
    for a in range(TRIES):
        failures.remember(judged(10 + a, operator="repair", parents=(failed.candidate.key,)).candidate)
        failures.remember(judged(20 + a, operator="rewrite", parents=(failed.candidate.key,)).candidate)
        assert bool(failures.ranked) == (a < TRIES - 1)


def test_a_failure_that_earlier_runs_repaired_in_vain_is_left_alone() -> None:
    book, failed = Notebook(), judged(1)
    repairs = [judged(10 + a, operator="repair", parents=(failed.candidate.key,)) for a in range(TRIES)]
    for each in (failed, *repairs):
        book.add_candidate(1, each.candidate)
        book.add_verdict(1, each.verdict, judge_version="test", device="Testbed")
    model = Model(drawn, operators=("translate", "repair"))
    dial = dataclasses.replace(DIAL, size=TRIES + 2, candidates=TRIES + 2)
    with pytest.raises(NothingPassed):
        anyio.run(resumed(model, Bench(lambda genes, tunables: math.inf), book, dial))
    parents = {parent.candidate.key for context in model.contexts for parent in context.parents}
    assert parents == {each.candidate.key for each in repairs}


def test_a_failure_whose_repair_was_refused_in_earlier_runs_is_left_alone() -> None:
    def script(context: Context) -> Proposal | Refusal:
        return Refusal("cannot be repaired", "prompt") if context.operator == "repair" else drawn(context)

    book, everything_fails = Notebook(), Bench(lambda genes, tunables: math.inf)
    short = dataclasses.replace(DIAL, candidates=8)
    for _ in range(3):
        with pytest.raises(NothingPassed):
            anyio.run(resumed(Model(script, operators=("translate", "repair")), everything_fails, book, short))
    parents = [key for kind, data in book.events if kind == "refused" for key in data["parents"]]
    assert parents and max(parents.count(key) for key in parents) == TRIES


def resumed(model: Model, bench: Bench, book: Notebook, dial: Dial) -> Any:
    evolution = start(model, bench, book, dial=dial)
    evolution.resume()
    return evolution.translate


def test_another_authors_program_is_repaired_where_its_own_does_not_repair() -> None:
    hill, model = Hill(operators=("create",)), Model(mending, operators=("repair",))
    evolution = start([hill, model], Bench(lambda genes, tunables: math.inf), dial=dataclasses.replace(DIAL, size=8))
    with pytest.raises(NothingPassed):
        anyio.run(evolution.translate)
    first = next(context for context in model.contexts)
    assert first.operator == "repair" and first.parents[0].candidate.lineage.author == "hill"
