"""Library calls come into a search only where it was asked for: not by an author, not from an earlier search."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.evolve.test_pipeline import settings
from tests.evolve.worlds import GPU, Bench, Hill
from warpsmith.archive import Archive
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.protocol import Context, Proposal
from warpsmith.optimize import Result
from warpsmith.pipeline import Pursuit, blocking
from warpsmith.records import Call, View
from warpsmith.task import task_from_module

CALL = Call("aten.mm", (View("x"), View("x")), View("out"))


class Tempted(Hill):
    """Calls a library in every other program."""

    async def propose(self, context: Context) -> Proposal | None:
        proposal = await super().propose(context)
        if proposal is None or context.seed % 2:
            return proposal
        plan = replace(proposal.program.plan, calls=(CALL,))
        return replace(proposal, program=replace(proposal.program, plan=plan))


def search(folder: Path, **values: Any) -> Result:
    module, x = torch.nn.ReLU(), torch.randn(4)
    chosen = settings(folder, max_candidates=24, **values)
    return blocking(Pursuit(module, x, chosen, [Tempted()], None, lambda *_: Bench()))


def kinds(result: Result) -> set[bool]:
    return {judged.candidate.program.plan.pure for judged in result.history}


def test_a_pure_search_has_no_hybrid_program_even_after_a_hybrid_one_on_the_same_archive(tmp_path: Path) -> None:
    assert kinds(search(tmp_path, hybrid=True)) == {True, False}
    pure = search(tmp_path, seed=4)
    assert kinds(pure) == {True} and pure.best.candidate.program.plan.pure
    assert all(judged.candidate.program.plan.pure for judged in pure.lineage)
    with Archive.open(pure.archive) as archive:
        kept = archive.judged(pure.task.key)
    assert not all(judged.candidate.program.plan.pure for judged in kept), "what was found must stay in the archive"
    assert kinds(search(tmp_path, hybrid=True, seed=5)) == {True, False}


class Product(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(a @ b)


def test_the_built_in_author_calls_a_library_only_where_it_is_hybrid() -> None:
    task = task_from_module(Product(), (torch.randn(64, 48), torch.randn(48, 32)))

    def calls(author: BuiltinAuthor) -> list[int]:
        contexts = [Context(task, GPU, operator, (), seed) for operator in ("create", "random") for seed in range(8)]
        proposals = [asyncio.run(author.propose(context)) for context in contexts]
        return [len(proposal.program.plan.calls) for proposal in proposals if proposal is not None]

    pure, hybrid = calls(BuiltinAuthor()), calls(BuiltinAuthor(hybrid=True))
    assert set(pure) == {0} and set(hybrid) == {0, 1}
    assert hybrid[0] == 0, "the defaults are our own kernels"
