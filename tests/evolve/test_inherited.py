"""What similar tasks taught: tried early, judged like anything else, and never a reason to find less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from tests.evolve.worlds import GPU, TASK, Bench, Hill, Model, Notebook, drawn, problem, program, smooth
from warpsmith.archive import Archive, Step
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.protocol import Context, Proposal
from warpsmith.device.catalog import gpu
from warpsmith.errors import NothingPassed
from warpsmith.evolve import events
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.heirs import Relative, as_they_are
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.operators import INHERITED, arms_of
from warpsmith.optimize import Result
from warpsmith.pipeline import Pursuit, blocking
from warpsmith.records import Candidate, Launch, Lineage, Plan, Program, Stage, Timing, Verdict
from warpsmith.settings import load_settings
from warpsmith.task import task_from_module

DIAL = Dial(size=8, capacity=16, depth=8, patience=12, candidates=80)
BEST = {"a": 7, "b": 3}


def seed(genes: Mapping[str, int], block: int = 256) -> Candidate:
    lineage = Lineage("builtin", "inherit", parents=("elsewhere",), recipe='{"idea": "a1"}')
    return Candidate(TASK.key, program(genes), (("BLOCK", block), ("VEC", 2)), lineage)


def search(
    seeds: Sequence[Candidate], bench: Bench | None = None, book: Notebook | None = None, **options: Any
) -> tuple[Evolution, Bench]:
    bench = bench or Bench()
    given: dict[str, Any] = {"dial": DIAL, "authors": [Hill()]} | options
    evolution = Evolution(
        problem(), given.pop("authors"), bench, book if book is not None else Notebook(), 1, given.pop("dial"), **given
    )

    async def main() -> None:
        evolution.resume()
        evolution.inherit(seeds)
        await evolution.translate()
        await evolution.run()

    anyio.run(main)
    return evolution, bench


def keys(evolution: Evolution) -> list[str]:
    return [judged.candidate.key for judged in evolution.population.history]


def test_the_first_seed_is_judged_first_and_the_author_is_heard_next() -> None:
    seeds = [seed(BEST), seed({"a": 7, "b": 4}), seed({"a": 1, "b": 1})]
    evolution, _ = search(seeds)
    order = keys(evolution)
    assert order[0] == seeds[0].key
    assert evolution.population.history[1].candidate.lineage.author == "hill"
    assert order[2:4] == [each.key for each in seeds[1:]]
    assert evolution.population.best is not None and evolution.population.best.seconds == pytest.approx(1e-5)


def test_a_seed_is_judged_and_a_wrong_one_is_worth_nothing() -> None:
    def landscape(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
        return math.inf if genes == BEST else smooth(genes, tunables)

    wrong = seed(BEST)
    evolution, bench = search([wrong], Bench(landscape))
    assert wrong.key in bench.keys
    assert [j.verdict.passed for j in evolution.population.history if j.candidate.key == wrong.key] == [False]
    best = evolution.population.best
    assert best is not None and best.candidate.program.key != wrong.program.key


def test_without_seeds_nothing_changes() -> None:
    plain, _ = search([])
    other = Evolution(problem(), [Hill()], Bench(), Notebook(), 1, DIAL)

    async def main() -> None:
        other.resume()
        await other.translate()
        await other.run()

    anyio.run(main)
    assert keys(plain) == keys(other)


def test_seeds_make_the_same_choices_every_time() -> None:
    seeds = [seed(BEST), seed({"a": 2, "b": 8})]
    alone, _ = search(seeds, judging=1)
    spread, _ = search(seeds, Bench(delay=lambda index: 0.002 * (index % 3)), judging=4)
    assert keys(alone) == keys(spread)


def test_at_most_half_of_a_generation_is_inherited_and_the_rest_of_it_later() -> None:
    seeds = [seed({"a": a, "b": b}) for a in range(3) for b in range(2)]
    generations: list[list[str]] = []

    def watch(event: events.Event) -> None:
        if isinstance(event, events.GenerationStarted):
            generations.append([])
        if isinstance(event, events.CandidateJudged):
            generations[-1].append(event.judged.candidate.lineage.operator)

    search(seeds, observer=watch)
    assert [each.count("inherit") for each in generations[:3]] == [4, 2, 0]


def test_what_was_judged_before_is_not_judged_again() -> None:
    book = Notebook()
    first, _ = search([seed(BEST)], book=book)
    assert seed(BEST).key in keys(first)
    _, bench = search([seed(BEST), seed({"a": 0, "b": 9})], book=book)
    assert seed(BEST).key not in bench.keys
    assert seed({"a": 0, "b": 9}).key in bench.keys, "what is new is tried though the task is known"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_seed_leaves_time_for_the_author_however_small_the_budget(workers: int) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 0.5
            return self.now

    def landscape(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
        return math.inf if genes == BEST else smooth(genes, tunables)

    tiny = dataclasses.replace(DIAL, seconds=0.1, grace=0.0, first=60.0)
    evolution, _ = search([seed(BEST)], Bench(landscape), dial=tiny, clock=Clock(), judging=workers)
    assert [judged.verdict.passed for judged in evolution.population.history] == [False, True]
    assert evolution.population.history[1].candidate.lineage.author == "hill"
    evolution, _ = search([seed(BEST)], dial=tiny, clock=Clock(), judging=workers)
    assert keys(evolution) == [seed(BEST).key], "where the seed passes the time is up"


@pytest.mark.parametrize(("slow", "waited"), [(0.1, True), (30.0, False)])
def test_a_seed_that_is_nearly_done_is_not_abandoned_for_what_was_quicker(slow: float, waited: bool) -> None:
    """Both are begun within the time; the clock jumps past the end of it before either has passed."""

    class Clock:
        bench: Bench

        def __call__(self) -> float:
            return 10.0 if len(self.bench.keys) >= 2 else 0.0

    bench = Bench(delay=lambda index: slow if index == 0 else 0.02)
    clock = Clock()
    clock.bench = bench
    brief = dataclasses.replace(DIAL, seconds=5.0, grace=0.0, first=60.0)
    evolution, _ = search([seed(BEST)], bench, dial=brief, clock=clock, judging=2)
    assert (seed(BEST).key in keys(evolution)) == waited
    assert evolution.population.best is not None


def test_seeds_for_which_there_was_no_time_wait_for_the_next_round() -> None:
    def landscape(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
        return smooth(genes, tunables) if genes["a"] == 5 else math.inf

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 0.5
            return self.now

    class Silent(Hill):
        async def propose(self, context: Any) -> None:
            return None

    tiny = dataclasses.replace(DIAL, seconds=0.1, grace=0.0, first=60.0)
    seeds = [seed({"a": 1, "b": 1}), seed({"a": 5, "b": 3})]
    evolution, _ = search(seeds, Bench(landscape), dial=tiny, clock=Clock(), authors=[Silent()])
    assert keys(evolution) == [each.key for each in seeds]


def test_answers_that_came_too_late_are_judged_before_anyone_is_asked_again() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 0.5
            return self.now

    def landscape(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
        return math.inf if genes == BEST else 1e-5

    model = Model(lambda context: drawn(context, cost=0.1), cost=0.1)
    tiny = dataclasses.replace(DIAL, seconds=0.1, grace=0.0, first=60.0)
    evolution, _ = search([seed(BEST)], Bench(landscape), dial=tiny, clock=Clock(), authors=[model])
    assert [judged.candidate.lineage.author for judged in evolution.population.history] == ["builtin", "model"]
    assert len(model.asked) <= DIAL.size, "the answers of the first round were forgotten"


def test_where_seeds_and_authors_fail_nothing_has_passed() -> None:
    with pytest.raises(NothingPassed):
        search([seed(BEST)], Bench(lambda genes, tunables: math.inf))


def test_seeds_do_not_count_as_an_operator_that_pays() -> None:
    evolution, _ = search([seed(BEST)], dial=dataclasses.replace(DIAL, candidates=8))
    assert (INHERITED.author, INHERITED.operator) not in evolution.bandit._weight
    assert ("builtin", "inherit") not in evolution.bandit._weight


def test_no_author_may_take_the_name_of_the_archive() -> None:
    with pytest.raises(ValueError, match="archive"):
        arms_of([Hill("archive")])


# ------------------------------------------------------------------------------------------------- through all stages


class Judge:
    """Every program passes; the fast one is that whose recipe keeps a row in shared memory with one pass over it."""

    def __init__(self) -> None:
        self.recipes: list[str] = []
        self.keys: list[str] = []

    async def judge(self, candidate: Candidate) -> Verdict:
        self.keys.append(candidate.key)
        self.recipes.append(candidate.lineage.operator)
        recipe = candidate.lineage.recipe or ""
        seconds = 1e-5 / (1 + ('"one"' in recipe) + ('"shared"' in recipe))
        timing = Timing((seconds,), seconds, (seconds, seconds), "estimated", GPU.name)
        return Verdict(candidate.key, candidate.task_key, Stage.PROFILE, None, timing)

    def close(self) -> None:
        pass


def optimize(
    folder: Path, size: int, judge: Judge, authors: Any = None, module: Any = None, candidates: int = 40
) -> Result:
    settings = load_settings(
        archive=str(folder / "archive.db"), max_candidates=candidates, workers=1, device="H100", seed=3
    )
    make: Callable[..., Any] = lambda task, choice, chosen, thorough: judge  # noqa: E731
    x = torch.randn(32, size)
    return blocking(Pursuit(module or torch.nn.Softmax(-1), x, settings, authors, None, make))


def test_a_recipe_found_for_one_size_is_tried_first_for_another(tmp_path: Path) -> None:
    small = optimize(tmp_path, 256, Judge())
    best = small.best.seconds
    judge = Judge()
    large = optimize(tmp_path, 1024, judge)
    assert judge.recipes[0] == "inherit"
    assert large.history[0].seconds == best, "the recipe that is fast for 256 is as fast for 1024 in this world"
    parent = large.history[0].candidate.lineage.parents[0]
    with Archive.open(tmp_path / "archive.db") as archive:
        assert archive.candidate(parent).task_key == small.task.key
        (told,) = [event for event in archive.events(large.run) if event.kind == "inherited"]
        first = told.data["candidates"][0]
        assert first["candidate"] == large.history[0].candidate.key
        assert small.task.key[:8] in first["note"]
        lineage = archive.lineage(large.best.candidate.key)
    assert {each.candidate.task_key for each in lineage} == {large.task.key}
    assert all(judged.candidate.key in judge.keys for judged in large.history), "a verdict was taken over"


def test_an_archive_without_similar_tasks_changes_nothing(tmp_path: Path) -> None:
    alone = optimize(tmp_path / "alone", 256, Judge())
    optimize(tmp_path / "other", 64, Judge(), module=torch.nn.Tanh(), candidates=8)
    after = optimize(tmp_path / "other", 256, Judge())
    assert [j.candidate.key for j in after.history] == [j.candidate.key for j in alone.history]
    with Archive.open(tmp_path / "other" / "archive.db") as archive:
        assert not [event for event in archive.events(after.run) if event.kind == "inherited"]


def test_whoever_replaces_the_author_replaces_what_it_learnt(tmp_path: Path) -> None:
    optimize(tmp_path, 256, Judge(), candidates=8)

    class Other(BuiltinAuthor):
        name = "other"

    class Plain:
        name = "plain"
        operators = {"create": 0}  # noqa: RUF012
        expected_usd = 0.0

        async def propose(self, context: Any) -> Any:
            return await BuiltinAuthor().propose(context)

    judge = Judge()
    optimize(tmp_path, 1024, judge, [Plain()], candidates=6)
    assert "inherit" not in judge.recipes
    judge = Judge()
    optimize(tmp_path, 2048, judge, [Other()], candidates=6)
    assert "inherit" in judge.recipes


def test_the_result_tells_the_course_of_all_runs(tmp_path: Path) -> None:
    first = optimize(tmp_path, 256, Judge(), candidates=3)
    second = optimize(tmp_path, 256, Judge(), candidates=40)
    assert first.course[-1].seconds == first.best.seconds
    assert second.course[: len(first.course)] == first.course
    assert second.course[-1].seconds == second.best.seconds
    assert all(a.spent <= b.spent and a.seconds > b.seconds for a, b in zip(second.course, second.course[1:]))
    assert second.outcome.course == second.course
    assert isinstance(second.course[0], Step)


# ------------------------------------------------------------------------------------------- programs without a recipe

SOURCE = """
extern "C" __global__ void scale(const float* x, float* out, int count) {
    const int index = blockIdx.x * BLOCK + threadIdx.x;
    if (index < count) out[index] = x[index];
}
"""
LAUNCH = Launch("scale", ("ceil_div(count, BLOCK)",), ("BLOCK",), ("input", "out", "count"))
PLAN = Plan((("count", "input.shape[0] * input.shape[1]"),), (("BLOCK", (256, 128)),), (), (LAUNCH,))


class Writer:
    """Writes one program, without a recipe."""

    name = "writer"
    operators = {"write": 0}  # noqa: RUF012
    expected_usd = 0.0

    async def propose(self, context: Context) -> Proposal:
        return Proposal(Program(SOURCE, PLAN), (("BLOCK", 128),), note="by hand")


def test_a_program_without_a_recipe_is_tried_as_it_is_for_another_size(tmp_path: Path) -> None:
    small = optimize(tmp_path, 256, Judge(), [Writer()])
    judge = Judge()
    large = optimize(tmp_path, 1024, judge, [BuiltinAuthor()])
    (carried,) = [j for j in large.history if j.candidate.lineage.note.startswith("as it is")]
    assert carried.candidate.lineage.parents == (small.best.candidate.key,)
    assert carried.candidate.lineage.operator == "inherit" and carried.candidate.key in judge.keys
    assert dict(carried.candidate.tunables) == dict(small.best.candidate.tunables)
    with Archive.open(tmp_path / "archive.db") as archive:
        (told,) = [event for event in archive.events(large.run) if event.kind == "inherited"]
    assert carried.candidate.key in [each["candidate"] for each in told.data["candidates"]]


def test_what_does_not_fit_or_has_a_recipe_is_not_tried_as_it_is() -> None:
    task = task_from_module(torch.nn.Softmax(-1), torch.randn(32, 64))
    fits = Candidate("elsewhere", Program(SOURCE, PLAN), (("BLOCK", 128),), Lineage("writer", "write"))
    elsewhere = dataclasses.replace(LAUNCH, args=("y", "out", "count"))
    misfit = dataclasses.replace(
        fits, program=Program(SOURCE, dataclasses.replace(PLAN, launches=(elsewhere,), symbols=(("count", "9"),)))
    )
    compiled = dataclasses.replace(fits, lineage=Lineage("builtin", "create", recipe="{}"))
    own = dataclasses.replace(fits, task_key=task.key)
    relatives = [Relative(each, "a task") for each in (misfit, compiled, own, fits)]
    (found,) = as_they_are(task, gpu("H100"), relatives, 3)
    assert (found.task_key, found.program, found.lineage.parents) == (task.key, fits.program, (fits.key,))
    assert as_they_are(task, gpu("H100"), relatives, 3, known={found.key}) == ()
    assert as_they_are(task, gpu("H100"), relatives, 0) == ()
