"""The parts of the search, each alone."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evolve.worlds import BLOCKS, TASK, VECTORS, program, smooth, verdict_of
from warpsmith.evolve import stop
from warpsmith.evolve.bandit import USD_PER_HALVING, Arm, Bandit, reward
from warpsmith.evolve.dial import Dial, turn
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import Lesson, Lessons
from warpsmith.evolve.niches import niche
from warpsmith.evolve.operators import arms_of, seed_of
from warpsmith.evolve.population import GLANCE, REACH, Population
from warpsmith.evolve.stop import Standing
from warpsmith.evolve.tune import Tunables, next_point
from warpsmith.records import Candidate, Judged, Lineage

WRONG = math.inf


def judged(
    a: int, b: int = 0, *, block: int = 64, seconds: float | None = None, idea: str = "x", parents: tuple[str, ...] = ()
) -> Judged:
    """A verdict on the program with genes a and b; `seconds` infinite for a failure."""
    written = program({"a": a, "b": b})
    lineage = Lineage("hill", "mutate", parents, recipe=json.dumps({"idea": idea, "a": a, "b": b}))
    candidate = Candidate(TASK.key, written, (("BLOCK", block), ("VEC", 1)), lineage)
    return Judged(
        candidate,
        verdict_of(candidate, lambda genes, tunables: smooth(genes, tunables) if seconds is None else seconds),
    )


# --------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize(
    ("condition", "before", "at"),
    [
        (stop.seconds(5), Standing(elapsed=4.9), Standing(elapsed=5.0)),
        (stop.candidates(3), Standing(candidates=2), Standing(candidates=3)),
        (stop.money(1.0), Standing(usd=0.75, price=0.25), Standing(usd=0.76, price=0.25)),
        (stop.no_progress(4), Standing(stale=3), Standing(stale=4)),
        (stop.exhausted(2), Standing(barren=1), Standing(barren=2)),
        (stop.near_bound(0.5), Standing(best=2.1, bound=1.0), Standing(best=2.0, bound=1.0)),
    ],
)
def test_a_condition_stops_exactly_at_its_limit(condition: stop.StopCondition, before: Standing, at: Standing) -> None:
    assert condition(before) is None
    assert condition(at)


def test_near_bound_goes_on_while_nothing_passed() -> None:
    assert stop.near_bound(0.5)(Standing(bound=1.0)) is None


def test_the_first_condition_that_holds_gives_the_reason() -> None:
    both = stop.any_of(stop.candidates(10), stop.seconds(1), stop.money(1))
    assert both(Standing(candidates=1)) is None
    assert both(Standing(elapsed=2, usd=2, price=1)) == "time is up (1 s)"
    assert stop.any_of()(Standing(elapsed=1e9)) is None


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, math.nan])
def test_a_fraction_of_the_bound_that_cannot_be_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        stop.near_bound(fraction)


# ------------------------------------------------------------------------------------------------------------- money


def test_what_is_in_flight_counts_at_the_mean_of_that_authors_bills() -> None:
    ledger = Ledger()
    for cost in (0.10, 0.30):
        ledger.reserve("model")
        ledger.settle("model", cost)
    ledger.reserve("model")
    ledger.reserve("model")
    ledger.reserve("compiler")
    assert ledger.spent == pytest.approx(0.40)
    assert ledger.committed == pytest.approx(0.40 + 2 * 0.20)
    ledger.release("model")
    assert ledger.committed == pytest.approx(0.60)


def test_an_expected_price_counts_until_the_first_bill() -> None:
    ledger = Ledger({"model": 0.50})
    ledger.reserve("model")
    assert ledger.committed == 0.50
    ledger.settle("model", 0.02)
    ledger.reserve("model")
    assert ledger.committed == pytest.approx(0.04)


def test_a_bill_that_nobody_ordered_is_an_error() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="nothing is due"):
        ledger.settle("model", 1.0)
    with pytest.raises(ValueError, match="nothing is due"):
        ledger.release("model")


# ------------------------------------------------------------------------------------------------------------ tuning


def tuned(declared: Mapping[str, tuple[int, ...]], landscape: Mapping[Tunables, float]) -> tuple[Tunables, int]:
    """Tune to the end; return the best point and how many were judged."""
    tried: dict[Tunables, float] = {}
    while (point := next_point(tuple(declared.items()), tried)) is not None:
        assert point not in tried
        tried[point] = landscape[point]
    return min(tried, key=lambda point: tried[point]), len(tried)


def points(declared: Mapping[str, tuple[int, ...]]) -> list[Tunables]:
    return [tuple(zip(declared, values, strict=True)) for values in itertools.product(*declared.values())]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=3))
def test_tuning_finds_the_best_where_tunables_do_not_interact(axes: list[list[int]]) -> None:
    declared = {f"T{i}": tuple(range(10, 10 + len(axis))) for i, axis in enumerate(axes)}
    landscape = {
        point: float(sum(axis[value - 10] for axis, (_, value) in zip(axes, point, strict=True)))
        for point in points(declared)
    }
    best, _ = tuned(declared, landscape)
    assert landscape[best] == min(landscape.values())


def test_tuning_needs_far_fewer_trials_than_there_are_points() -> None:
    declared = {"BLOCK": BLOCKS, "VEC": VECTORS, "UNROLL": (1, 2, 4, 8), "ROWS": (1, 2, 4, 8)}
    landscape = {
        point: 1 + sum(abs(math.log2(value) - best) for (_, value), best in zip(point, (8, 1, 2, 0), strict=True))
        for point in points(declared)
    }
    best, trials = tuned(declared, landscape)
    assert landscape[best] == 1
    assert trials <= 20 < len(landscape) == 240


def test_tuning_walks_around_failures() -> None:
    declared = {"BLOCK": (64, 128, 256, 512)}
    landscape = dict(zip(points(declared), (4.0, WRONG, 2.0, WRONG), strict=True))
    assert tuned(declared, landscape)[0] == (("BLOCK", 256),)


def test_tuning_begins_with_the_default_and_waits_for_what_is_in_flight() -> None:
    declared = (("BLOCK", (256, 64, 128)),)
    default = (("BLOCK", 256),)
    assert next_point(declared, {}) == default
    assert next_point(declared, {}, pending=[default]) is None
    assert next_point(declared, {default: 1.0}) == (("BLOCK", 128),), "the nearest value, not the next in the list"
    assert next_point(declared, {default: 1.0}, pending=[(("BLOCK", 128),), (("BLOCK", 64),)]) is None


def test_a_program_without_tunables_is_settled_at_once() -> None:
    assert next_point((), {(): 1.0}) is None


# ----------------------------------------------------------------------------------------------------------- bandit

GOOD, BAD, DEAR = Arm("one", "good", 1), Arm("one", "bad", 1), Arm("two", "dear", 1)


def pulls(bandit: Bandit, arms: list[Arm], payoff: Mapping[Arm, float], rounds: int, seed: int = 0) -> dict[Arm, int]:
    chance = random.Random(seed)
    counts = dict.fromkeys(arms, 0)
    for _ in range(rounds):
        arm = bandit.choose(arms, chance)
        counts[arm] += 1
        bandit.learn(arm.author, arm.operator, payoff[arm] * chance.random())
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_the_better_operator_is_asked_more(seed: int) -> None:
    counts = pulls(Bandit(), [GOOD, BAD], {GOOD: 0.2, BAD: 0.02}, 200, seed)
    assert counts[GOOD] > 3 * counts[BAD] > 0


def test_an_operator_that_stops_paying_loses_its_lead() -> None:
    bandit = Bandit()
    pulls(bandit, [GOOD, BAD], {GOOD: 0.3, BAD: 0.05}, 150)
    counts = pulls(bandit, [GOOD, BAD], {GOOD: 0.0, BAD: 0.05}, 300)
    assert counts[BAD] > counts[GOOD]


def test_a_batch_of_choices_without_answers_is_mixed() -> None:
    chance = random.Random(1)
    assert len({Bandit().choose([GOOD, BAD, DEAR], chance) for _ in range(30)}) == 3


def test_the_order_of_arms_changes_nothing() -> None:
    first = [Bandit().choose([GOOD, BAD, DEAR], random.Random(seed)) for seed in range(20)]
    assert first == [Bandit().choose([DEAR, BAD, GOOD], random.Random(seed)) for seed in range(20)]


def test_reward_is_improvement_in_halvings_minus_cost() -> None:
    child = judged(1, seconds=1e-5)
    assert reward(child, 2e-5) == 1.0
    assert reward(child, 8e-5) == 1.0, "one lucky jump is not worth more than a halving"
    assert reward(child, 1.2e-5) == pytest.approx(math.log2(1.2))
    assert reward(child, 0.5e-5) == 0.0
    assert reward(child, math.inf) == 1.0
    dear = replace(
        child, candidate=replace(child.candidate, lineage=replace(child.candidate.lineage, cost_usd=USD_PER_HALVING))
    )
    assert reward(dear, 2e-5) == 0.0
    assert reward(judged(1, seconds=WRONG), 2e-5) == 0.0


def test_authors_need_different_names() -> None:
    from tests.evolve.worlds import Hill

    assert [arm.operator for arm in arms_of([Hill(operators=("create", "mutate", "random"))])] == ["create", "mutate"]
    with pytest.raises(ValueError, match="names"):
        arms_of([Hill(), Hill()])
    with pytest.raises(ValueError, match="names"):
        arms_of([Hill("search")])


def test_seeds_depend_on_every_part() -> None:
    assert (
        len({seed_of(run, generation, slot) for run in range(4) for generation in range(9) for slot in range(8)}) == 288
    )
    assert seed_of(1, 23) != seed_of(12, 3)


# ------------------------------------------------------------------------------------------------------- population


def test_a_program_stands_for_its_best_tunables() -> None:
    population = Population(8, 8)
    assert population.fold(judged(1, block=64, seconds=2.0), 1)
    assert population.fold(judged(1, block=128, seconds=1.0), 1)
    assert not population.fold(judged(1, block=256, seconds=3.0), 1)
    [member] = population.ranked
    assert member.seconds == 1.0
    assert len(population) == 3


def test_what_failed_is_remembered_but_not_alive() -> None:
    population = Population(8, 8)
    failed = judged(1, seconds=WRONG)
    assert not population.fold(failed, 1)
    assert failed.candidate.key in population
    assert population.ranked == [] and population.best is None


def test_no_program_is_dropped_before_its_tunables_are_searched() -> None:
    population = Population(2, depth=3)
    for a in range(5):
        population.fold(judged(a, seconds=1.0 + 0.1 * a), 1)
    assert len(population.ranked) == 5, "all are owed trials"
    for a in range(5):
        for block in (32, 128):
            population.fold(judged(a, block=block, seconds=2.0 + a), 2)
    assert len(population.ranked) == 2
    assert population.ranked[0].seconds == 1.0


def test_a_dropped_program_comes_back_when_it_is_faster_after_all() -> None:
    population = Population(1, depth=1)
    for a, seconds in ((1, 2.0), (2, 1.0)):
        population.fold(judged(a, seconds=seconds), 1)
    assert [member.seconds for member in population.ranked] == [1.0]
    population.fold(judged(1, block=128, seconds=9.0), 2)
    assert [member.seconds for member in population.ranked] == [1.0]
    assert population.fold(judged(1, block=256, seconds=0.5), 2)
    [member] = population.ranked
    assert member.seconds == 0.5
    assert sorted(member.points.values()) == [0.5, 2.0, 9.0], "what was known of it before was forgotten"


def test_one_idea_cannot_fill_the_population() -> None:
    population = Population(6, depth=1)
    for b in range(3):
        population.fold(judged(1, b, seconds=5.0 + b, idea="other"), 1)
    for a in range(10):
        population.fold(judged(2 + a, seconds=1.0 + 0.01 * a, idea="first"), 1)
    ideas = [json.loads(member.best.candidate.lineage.recipe or "")["idea"] for member in population.ranked]
    assert ideas.count("other") == 3


def test_programs_out_of_reach_get_only_a_glance() -> None:
    population = Population(8, depth=10)
    population.fold(judged(1, seconds=1.0), 1)
    population.fold(judged(2, seconds=1.01 * REACH), 1)
    for count, block in enumerate((32, 128, 256, 512), start=1):
        owed = {member.best.candidate.program.source for member, _ in population.tunable()}
        assert (judged(2).candidate.program.source in owed) == (count < GLANCE)
        population.fold(judged(2, block=block, seconds=1.01 * REACH), 1)
    assert len(population.tunable()) == 1


def test_a_parent_whose_children_fail_sits_out() -> None:
    population, chance = Population(8, 1), random.Random(0)
    fast, slow = judged(1, seconds=1.0), judged(2, seconds=2.0)
    population.fold(fast, 1)
    population.fold(slow, 1)
    population.fold(judged(3, seconds=WRONG, parents=(fast.candidate.key,)), 5)
    assert {population.parents(1, 6, chance)[0] for _ in range(20)} == {slow}
    assert fast in {population.parents(1, 7, chance)[0] for _ in range(20)}
    population.fold(judged(4, seconds=WRONG, parents=(fast.candidate.key,)), 7)
    assert fast not in {population.parents(1, 9, chance)[0] for _ in range(20)}
    population.fold(judged(5, seconds=1.5, parents=(fast.candidate.key,)), 9)
    assert fast in {population.parents(1, 9, chance)[0] for _ in range(20)}


def test_tunables_that_fail_are_not_the_programs_fault() -> None:
    population = Population(8, 8)
    parent = judged(1, seconds=1.0)
    population.fold(parent, 1)
    population.fold(judged(1, block=512, seconds=WRONG, parents=(parent.candidate.key,)), 2)
    assert population.ranked[0].failures == 0


def test_the_only_parent_is_used_even_when_it_should_rest() -> None:
    population = Population(8, 1)
    parent = judged(1, seconds=1.0)
    population.fold(parent, 1)
    population.fold(judged(2, seconds=WRONG, parents=(parent.candidate.key,)), 2)
    assert population.parents(1, 3, random.Random(0)) == (parent,)


def test_faster_programs_have_more_children_but_not_all() -> None:
    population = Population(8, 1)
    for a in range(4):
        population.fold(judged(a, seconds=1.0 + a), 1)
    chance = random.Random(0)
    drawn = [population.parents(1, 2, chance)[0].seconds for _ in range(400)]
    counts = [drawn.count(1.0 + a) for a in range(4)]
    assert counts == sorted(counts, reverse=True) and counts[-1] > 0


def test_two_parents_come_from_different_niches_where_they_can() -> None:
    population, chance = Population(8, 1), random.Random(0)
    for a in range(3):
        population.fold(judged(a, seconds=1.0 + a, idea="one"), 1)
    population.fold(judged(9, seconds=9.0, idea="two"), 1)
    for _ in range(30):
        pair = population.parents(2, 2, chance)
        assert len({niche(parent.candidate) for parent in pair}) == 2


def test_niches_ignore_sizes_and_nothing_else() -> None:
    one, other, third = judged(1, 2, idea="x"), judged(7, 8, idea="x"), judged(1, 2, idea="y")
    assert niche(one.candidate) == niche(other.candidate) != niche(third.candidate)
    plain = [replace(each.candidate, lineage=replace(each.candidate.lineage, recipe=None)) for each in (one, third)]
    assert niche(plain[0]) == niche(plain[1]), "without a recipe the plan decides, and the plans are alike"


def test_the_reference_is_the_faster_parent_or_else_the_best() -> None:
    population = Population(8, 8)
    fast, slow = judged(1, seconds=1.0), judged(2, seconds=3.0)
    assert population.reference(judged(3).candidate) == math.inf
    population.fold(fast, 1)
    population.fold(slow, 1)
    assert population.reference(judged(3, parents=(slow.candidate.key,)).candidate) == 3.0
    assert population.reference(judged(3, parents=(slow.candidate.key, fast.candidate.key)).candidate) == 1.0
    assert population.reference(judged(3).candidate) == 1.0


# ---------------------------------------------------------------------------------------------------- lessons, dial


def test_lessons_count_who_failed_how() -> None:
    lessons = Lessons()
    for a in range(3):
        lessons.learn(judged(a, seconds=WRONG))
    lessons.learn(judged(4))
    assert lessons.counts == ((Lesson("hill", "mutate", "NUMERICS", "wrong_value"), 3),)
    assert lessons.reasons == (("wrong_value", 3),)


def test_more_budget_means_a_larger_and_deeper_search() -> None:
    dials = [turn(budget) for budget in (15, 60, 600, 3600)]
    for less, more in itertools.pairwise(dials):
        assert (more.size, more.capacity, more.depth, more.candidates) > (
            less.size,
            less.capacity,
            less.depth,
            less.candidates,
        )
        assert more.seconds > less.seconds
    assert turn(60, 17).candidates == 17


def test_a_minute_judges_at_least_forty_before_it_gives_up() -> None:
    dial = turn(60)
    assert dial.size * dial.patience >= 40 and dial.candidates >= 40
    assert dial.seconds + dial.grace < 60


@pytest.mark.parametrize("wrong", [{"size": 0}, {"depth": 0}, {"candidates": 0}, {"seconds": 0.0}, {"grace": -1.0}])
def test_a_search_without_room_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        replace(Dial(8, 16, 8, 6, 100), **wrong)  # type: ignore[arg-type]


def test_every_island_is_counted_in_generations() -> None:
    for wrong in ({"islands": 0}, {"migration": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            replace(Dial(8, 16, 8, 6, 100), **wrong)  # type: ignore[arg-type]


def test_what_is_free_goes_on_without_money() -> None:
    assert stop.money(1.0)(Standing(usd=5.0, price=0.0)) is None
    assert stop.fits(0.1, sum([0.1] * 9), 1.0), "ten tenths fit, whatever their sum in binary is"
    ledger = Ledger({"model": 0.5})
    assert ledger.affords("model", 0.5) and not ledger.affords("model", 0.49) and ledger.affords("model", None)
    ledger.reserve("model")
    assert not ledger.affords("model", 0.9), "what is in flight counts"
    assert ledger.affords("compiler", 0.0)
