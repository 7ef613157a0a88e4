"""The table must not say more than the searches did."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from rich.console import Console

from tests.contest.stories import contest, trial
from warpsmith.bench.row import GOES_ON
from warpsmith.contest import Contest, Gain, Trial, figures, operator_figures, outcome, render_contest, write_contest


def shown(of: Contest, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(render_contest(of))
    return captured.get()


def drawn(ratio: float, tasks: int = 12, repeats: int = 3, seed: int = 0) -> Contest:
    """The other arm is `ratio` times as fast, give or take 20 % by task and 10 % by seed."""
    chance = random.Random(seed)
    trials = []
    for task in range(tasks):
        own = ratio * math.exp(chance.gauss(0, 0.2))
        for repeat in range(repeats):
            seconds = 10 ** chance.uniform(-6, -3)
            found = seconds / (own * math.exp(chance.gauss(0, 0.1)))
            trials += [trial("a", f"t{task}", repeat, seconds), trial("b", f"t{task}", repeat, found)]
    return contest(["a", "b"], trials)


def test_intervals_cover_the_ratio_that_is_there() -> None:
    covered = 0
    for seed in range(20):
        _, other = figures(drawn(1.3, seed=seed))
        assert other.interval is not None and other.mean is not None
        assert other.interval[0] <= other.mean <= other.interval[1]
        assert 1.0 < other.interval[1] / other.interval[0] < 1.6, "tasks of any size must not blow it up"
        covered += other.interval[0] < 1.3 < other.interval[1]
    assert covered >= 16


def test_the_mean_counts_every_task_once_however_many_seeds_it_has() -> None:
    found = [trial("a", "x", repeat) for repeat in range(4)] + [trial("a", "y")]
    found += [trial("b", "x", repeat, 0.5e-6) for repeat in range(4)] + [trial("b", "y", 0, 8e-6)]
    reference, other = figures(contest(["a", "b"], found))
    assert (reference.mean, reference.interval, reference.pairs, reference.wins) == (None, None, 0, 0)
    assert other.mean == pytest.approx(math.sqrt(2 / 8)) and other.pairs == 5
    assert (other.wins, other.ties, other.losses) == (4, 0, 1)


def test_pairs_are_of_one_task_and_one_seed() -> None:
    found = [trial("a", "x", 0, 1e-6), trial("a", "x", 1, 4e-6), trial("b", "x", 1, 2e-6)]
    _, other = figures(contest(["a", "b"], found))
    assert (other.mean, other.pairs, other.interval) == (pytest.approx(2.0), 1, None), "one pair has no interval"


@pytest.mark.parametrize(
    ("ours", "theirs", "how"),
    [
        (trial("b", "x", seconds=0.98e-6), trial("a", "x"), "win"),
        (trial("b", "x", seconds=1.02e-6), trial("a", "x"), "loss"),
        (trial("b", "x", seconds=1.009e-6), trial("a", "x"), "tie"),
        (trial("b", "x", seconds=2e-6, best="k"), trial("a", "x", best="k"), "tie"),
        (trial("b", "x", seconds=2e-6), trial("a", "x"), "loss"),
        (trial("b", "x", seconds=1.03e-6, timing="measured"), trial("a", "x", timing="measured"), "tie"),
        (trial("b", "x"), trial("a", "x", seconds=None), "win"),
        (trial("b", "x", seconds=None), trial("a", "x"), "loss"),
        (trial("b", "x", seconds=None), trial("a", "x", seconds=None), None),
    ],
)
def test_a_difference_within_noise_is_a_tie(ours: Trial, theirs: Trial, how: str | None) -> None:
    assert outcome(theirs, ours) == how


def test_a_task_without_a_program_is_lost_and_in_no_mean() -> None:
    found = [trial("a", "x"), trial("b", "x", seconds=None), trial("a", "y"), trial("b", "y", seconds=0.5e-6)]
    _, other = figures(contest(["a", "b"], found))
    assert (other.tasks, other.solved, other.wins, other.losses) == (2, 1, 1, 1)
    assert (other.mean, other.pairs) == (pytest.approx(2.0), 1)
    assert "brought no program: 1" in shown(contest(["a", "b"], found))


def test_what_goes_on_from_an_earlier_search_is_not_compared() -> None:
    found = [trial("a", "x"), trial("b", "x", seconds=0.1e-6, marks=(GOES_ON,))]
    _, other = figures(contest(["a", "b"], found))
    assert (other.mean, other.wins, other.solved) == (None, 0, 1)
    assert "the very same task: x" in shown(contest(["a", "b"], found))


def test_estimates_and_measurements_are_never_in_one_table() -> None:
    mixed = contest(["a", "b"], [trial("a", "x"), trial("b", "x", timing="measured")])
    with pytest.raises(ValueError, match="measured and estimated"):
        figures(mixed)


def test_operators_are_summed_up_for_each_arm() -> None:
    tune = Gain("search", "tune", 10, 9, 2, math.log(1.5) + math.log(2.0))
    more = Gain("search", "tune", 5, 1, 1, math.log(3.0))
    create = Gain("builtin", "create", 4, 4, 0, 0.0)
    found = [trial("a", "x", gains=(create, tune)), trial("a", "y", gains=(more,)), trial("b", "x", gains=(tune,))]
    first, second, third = operator_figures(contest(["a", "b"], found))
    assert (first.arm, first.operator, first.proposals, first.passed, first.improved) == ("a", "tune", 15, 10, 3)
    assert first.mean == pytest.approx(9.0 ** (1 / 3))
    assert (second.operator, second.mean) == ("create", None)
    assert (third.arm, third.proposals) == ("b", 10)


def test_the_table_says_what_it_is_about() -> None:
    gains = (Gain("builtin", "mutate", 20, 15, 3, 3 * math.log(1.25)),)
    trials = [trial(arm, f"t{n}", 0, s, gains=gains, usd=u) for n in range(6) for arm, s, u in PAIR]
    text = shown(contest(["builtin", "both"], trials))
    assert "2 arms, 6 tasks, 1 seed; times estimated for H100; ratios against builtin" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["builtin"][:5] == ["builtin", "builtin", "mutate", "120", "75%"], "the operators come last"
    (row,) = [line.split() for line in text.splitlines() if line.startswith("both ") and "6 of 6" in line]
    assert row == ["both", "6", "of", "6", "2.000×", "2.000–2.000", "6/0/0"]
    assert ["both", "6", "60", "6:00", "3.0000"] in [line.split() for line in text.splitlines()]
    assert "too narrow" not in text and "no program" not in text
    assert "times measured on H100" in shown(contest(["a", "b"], [trial("a", "x", timing="measured")], "measured"))


PAIR = (("builtin", 2e-6, 0.0), ("both", 1e-6, 0.5))


def test_few_tasks_and_unequal_progress_are_told() -> None:
    text = shown(contest(["a", "b"], [trial("a", "x"), trial("b", "x"), trial("a", "y")]))
    assert "fewer than 6 tasks are too narrow" in text
    assert "Not all arms have done the same searches yet" in text
    assert "no search has come to an end" in shown(contest(["a", "b"], []))


def test_the_figures_are_there_for_programs_too(tmp_path: Path) -> None:
    found = contest(["a", "b"], [trial("a", "x", best="k1"), trial("b", "x", seconds=None)])
    document = json.loads(write_contest(found, tmp_path).read_text(encoding="utf-8"))
    assert [(row["task"], row["arm"], row["seconds"], row["status"], row["best"]) for row in document["rows"]] == [
        ("x", "a", 1e-6, "passed", "k1"),
        ("x", "b", None, "wrong", None),
    ]
    assert [arm["losses"] for arm in document["arms"]] == [0, 1]
    assert document["settings"] == {"timing": "estimated", "seed": "7"}
    assert "suites" not in json.dumps(document), "it can be given to others"


def test_names_of_models_are_shown_as_they_are() -> None:
    name = "openai@http://[::1]:8000/v1:m"
    assert name in shown(contest(["a", name], [trial("a", "x"), trial(name, "x")]))
