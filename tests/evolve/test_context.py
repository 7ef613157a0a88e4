"""What authors that read are told: the bound, the best, lessons, and programs for similar tasks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.evolve.test_inherited import Judge
from tests.evolve.test_parts import judged
from tests.evolve.worlds import Bench, Hill, Model, Notebook, answer, genes_of, problem, program, searched, smooth
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.protocol import Context, Example, Proposal
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.lessons import TOLD, Lessons
from warpsmith.evolve.loop import Evolution
from warpsmith.optimize import Result
from warpsmith.pipeline import Pursuit, blocking
from warpsmith.records import Judged
from warpsmith.settings import load_settings

DIAL = Dial(size=6, capacity=16, depth=1, patience=20, candidates=60)
EXAMPLE = Example("another", "Testbed", 1e-6, program({"a": 1}), (("BLOCK", 64), ("VEC", 1)), "similar")


def search(model: Model, bench: Bench, **options: Any) -> Evolution:
    evolution = Evolution(problem(), [model, Hill()], bench, Notebook(), 1, DIAL, **options)
    return searched(evolution)


def script(context: Context) -> Proposal:
    """First programs as the seed has it; a rewrite sets one gene to what is best."""
    if context.operator == "rewrite":
        genes = {**genes_of(context.parents[0]), "b": 3}
        return answer(genes, note=f"moved to {genes}")
    genes = {"a": context.seed % 10, "b": context.seed // 10 % 10}
    return answer(genes, note=f"moved to {genes}")


def half_wrong(genes: dict[str, int], tunables: Any) -> float:
    return smooth(genes, tunables) if genes["a"] % 2 else math.inf


def test_authors_are_told_the_bound_the_best_and_examples() -> None:
    model = Model(script)
    search(model, Bench(half_wrong), examples=[EXAMPLE])
    assert {context.bound for context in model.contexts} == {problem().bound}
    assert {context.examples for context in model.contexts} == {(EXAMPLE,)}
    assert model.contexts[0].best is None
    bests = [context.best.seconds for context in model.contexts if context.best is not None]
    assert bests and bests == sorted(bests, reverse=True) and len(set(bests)) > 1


def test_authors_are_told_what_helped_and_what_failed_on_this_task_then_what_others_learnt() -> None:
    model = Model(script)
    search(model, Bench(half_wrong), lessons=["elsewhere: think of shared memory"])
    assert model.contexts[0].lessons == ("elsewhere: think of shared memory",)
    last = model.contexts[-1].lessons
    assert last[-1] == "elsewhere: think of shared memory"
    assert any("wrong value" in sentence for sentence in last)
    assert any("times as fast" in sentence and "moved to" in sentence for sentence in last)


def test_lessons_are_sentences_the_most_telling_first_and_not_too_many() -> None:
    lessons = Lessons()
    for a in range(3):
        lessons.learn(judged(a, seconds=math.inf))
    lessons.learn(with_note(judged(4, seconds=1.0), "too little to be told"), reference=1.01)
    lessons.learn(with_note(judged(5, seconds=1.0), "BLOCK 32 -> 64", author="search"), reference=2.0)
    assert lessons.sentences == ("3 x wrong value at the stage numerics after mutate by hill",)
    for ratio in range(2, 20):
        lessons.learn(with_note(judged(ratio, seconds=1.0), f"change {ratio}"), reference=float(ratio))
    assert lessons.sentences[0] == "19.00 times as fast as before by mutate by hill: change 19"
    assert len(lessons.sentences) <= TOLD
    assert lessons.sentences[-1].startswith("3 x wrong value"), "failures keep their place beside what helped"


def with_note(each: Judged, note: str, author: str = "hill") -> Judged:
    candidate = each.candidate
    return replace(each, candidate=replace(candidate, lineage=replace(candidate.lineage, note=note, author=author)))


# ------------------------------------------------------------------------------------------------- through all stages


class Reader(BuiltinAuthor):
    """Computes its programs, and notes what it was told."""

    name = "reader"

    def __init__(self) -> None:
        super().__init__()
        self.contexts: list[Context] = []

    async def propose(self, context: Context) -> Proposal | None:
        self.contexts.append(context)
        return await super().propose(context)


def optimize(folder: Path, size: int, author: Any, candidates: int = 24, **options: Any) -> Result:
    settings = load_settings(
        archive=str(folder / "archive.db"), max_candidates=candidates, workers=1, device="H100", seed=3
    )
    module, x = torch.nn.Softmax(-1), torch.randn(32, size)
    return blocking(Pursuit(module, x, settings, [author], None, lambda *_: Judge(), **options))


def test_the_best_programs_and_lessons_of_similar_tasks_come_into_the_context(tmp_path: Path) -> None:
    first = Reader()
    small = optimize(tmp_path, 256, first)
    assert first.contexts[0].examples == () == first.contexts[0].lessons
    second = Reader()
    optimize(tmp_path, 1024, second)
    (example,) = second.contexts[0].examples
    assert example.program == small.best.candidate.program and example.seconds == small.best.seconds
    assert (example.task, example.device) == (small.task.name, "H100")
    told = second.contexts[0].lessons
    assert told and all(sentence.startswith(f"{small.task.name}: ") for sentence in told)


def test_retrieval_can_be_left_out_for_comparisons(tmp_path: Path) -> None:
    optimize(tmp_path, 256, Reader())
    alone = Reader()
    result = optimize(tmp_path, 1024, alone, retrieve=False)
    assert all(context.examples == () for context in alone.contexts)
    assert not any(sentence.startswith("Softmax: ") for context in alone.contexts for sentence in context.lessons)
    assert all(judged.candidate.lineage.operator != "inherit" for judged in result.history)


def test_operators_can_be_left_out_for_comparisons(tmp_path: Path) -> None:
    everything, some = Reader(), Reader()
    optimize(tmp_path / "one", 256, everything, candidates=60)
    optimize(tmp_path / "other", 256, some, candidates=60, without={"cross"})
    assert "cross" in {context.operator for context in everything.contexts}
    assert {"create", "mutate"} <= {context.operator for context in some.contexts} - {"cross"}
    assert "cross" not in {context.operator for context in some.contexts}


def test_the_limit_of_money_comes_from_the_settings(tmp_path: Path) -> None:
    class Dear(Reader):
        name = "dear"
        expected_usd = 0.5

        async def propose(self, context: Context) -> Proposal | None:
            proposal = await super().propose(context)
            return proposal and replace(proposal, cost_usd=0.5)

    settings = load_settings(
        archive=str(tmp_path / "archive.db"), max_candidates=40, workers=1, device="H100", max_usd=2.0
    )
    dear = Dear()
    module, x = torch.nn.Softmax(-1), torch.randn(32, 64)
    blocking(Pursuit(module, x, settings, [dear], None, lambda *_: Judge()))
    assert len(dear.contexts) == 4
