"""Several populations that share what they know and seldom mix."""

from __future__ import annotations

import dataclasses
import random

import pytest

from tests.evolve.test_parts import judged
from tests.evolve.worlds import Bench, Hill, Notebook, problem, searched
from warpsmith.evolve.dial import Dial, turn
from warpsmith.evolve.islands import Islands
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.population import Population
from warpsmith.records import Judged

DIAL = Dial(size=6, capacity=32, depth=4, patience=50, candidates=150, islands=3, migration=4)


def seconds_on(islands: Islands) -> list[list[float]]:
    return [[member.seconds for member in island.ranked] for island in islands.islands]


def search(book: Notebook, dial: Dial = DIAL, judging: int = 1) -> Evolution:
    bench = Bench(delay=lambda index: 0.001 * (index % 3) if judging > 1 else 0.0)
    evolution = Evolution(problem(), [Hill()], bench, book, 1, dial, judging=judging)
    return searched(evolution)


def keys(evolution: Evolution) -> list[str]:
    return [each.candidate.key for each in evolution.population.history]


def test_one_island_is_a_population_choice_for_choice() -> None:
    islands, population = Islands(6, 3), Population(6, 3)
    one, other = random.Random(4), random.Random(4)
    for a in range(40):
        each = judged(a, seconds=1.0 + (a * 7) % 11, idea=str(a % 3))
        assert islands.fold(each, a) == population.fold(each, a)
        assert islands.parents(1, a, one) == population.parents(1, a, other)
        assert islands.tunable() == population.tunable() or [m.key for m, _ in islands.tunable()] == [
            m.key for m, _ in population.tunable()
        ]
    assert islands.history == population.history


def test_first_programs_settle_on_all_islands() -> None:
    islands = Islands(24, 1, count=3, migration=100)
    for a in range(6):
        islands.fold(judged(a, seconds=1.0 + a), 0)
    assert seconds_on(islands) == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]


def test_parents_of_a_generation_come_from_one_island_and_its_children_stay() -> None:
    islands, chance = Islands(24, 1, count=2, migration=100), random.Random(0)
    for a in range(8):
        islands.fold(judged(a, seconds=1.0 + a, idea=str(a)), 0)
    homes = [{member.best.candidate.key for member in island.ranked} for island in islands.islands]
    for generation in range(1, 9):
        for _ in range(10):
            drawn = {parent.candidate.key for parent in islands.parents(2, generation, chance)}
            assert drawn <= homes[generation % 2]
    islands.fold(judged(50, seconds=0.5), 3)
    assert seconds_on(islands)[1][0] == 0.5 and seconds_on(islands)[0][0] == 1.0


def test_the_champion_of_each_island_comes_to_the_next_when_it_is_time() -> None:
    islands = Islands(24, 1, count=2, migration=4)
    for a in range(4):
        islands.fold(judged(a, seconds=1.0 + a), 0)
    assert seconds_on(islands) == [[1.0, 3.0], [2.0, 4.0]]
    islands.parents(1, 3, random.Random(0))
    assert seconds_on(islands) == [[1.0, 3.0], [2.0, 4.0]]
    islands.parents(1, 4, random.Random(0))
    assert seconds_on(islands) == [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]


def test_a_program_on_two_islands_is_tuned_once_for_both() -> None:
    islands = Islands(24, 8, count=2, migration=1)
    islands.fold(judged(1, seconds=1.0), 0)
    islands.parents(1, 1, random.Random(0))
    owed = islands.tunable()
    assert [member.best.candidate.program.source for member, _ in owed] == [judged(1).candidate.program.source]
    assert islands.fold(judged(1, block=256, seconds=0.5), 1)
    assert seconds_on(islands) == [[0.5], [0.5]]


def test_where_an_island_has_too_few_parents_the_next_lends_its_own() -> None:
    islands = Islands(24, 1, count=2, migration=100)
    islands.fold(judged(1, seconds=1.0), 0)
    assert islands.inhabited(1, 1) and not islands.inhabited(2, 1)
    assert islands.parents(1, 1, random.Random(0)) == (judged(1, seconds=1.0),)
    with pytest.raises(IndexError):
        islands.parents(2, 1, random.Random(0))


def test_islands_keep_ideas_apart() -> None:
    """One idea that is faster than all others fills half of a population; it does not come to the other island."""
    islands = Islands(16, 1, count=2, migration=1000)
    for a in range(40):
        islands.fold(judged(a, seconds=1.0 + 0.01 * a, idea="fast"), 2)
        islands.fold(judged(100 + a, seconds=9.0 + 0.01 * a, idea="slow"), 3)
    assert all(seconds > 8.0 for seconds in seconds_on(islands)[1])


def test_the_same_seed_makes_the_same_choices_on_islands_however_the_judging_is_spread() -> None:
    assert keys(search(Notebook())) == keys(search(Notebook(), judging=4))


def test_islands_change_the_choices_of_a_search() -> None:
    assert keys(search(Notebook())) != keys(search(Notebook(), dataclasses.replace(DIAL, islands=1)))


def test_an_archive_that_is_read_again_gives_the_same_islands() -> None:
    book = Notebook()
    before = search(book)
    after = Evolution(problem(), [Hill()], Bench(), book, 1, DIAL)
    after.resume()

    def living(evolution: Evolution) -> list[list[Judged]]:
        return [[member.best for member in island.ranked] for island in evolution.population.islands]

    assert living(before) == living(after)
    assert all(living(after))


def test_only_long_searches_have_islands() -> None:
    assert [turn(budget).islands for budget in (15, 60, 600, 3599)] == [1, 1, 1, 1]
    assert [turn(budget).islands for budget in (3600, 7200, 14400, 86400)] == [2, 3, 4, 4]
    assert turn(14400).migration == 4 * turn(3600).migration / 2
