"""The built-in author answers as an author should: same context, same answer; operators do what their names say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from tests.author.conftest import GPU, Checker
from warpsmith.author import Context, Proposal
from warpsmith.author.builtin import BuiltinAuthor, Recipe
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import Candidate, Judged, Lineage, Stage, Task, Timing, Verdict
from warpsmith.task import load_task, task_from_module

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def softmax() -> Task:
    return load_task(Path(__file__).parents[2] / "examples" / "softmax.py")


def propose(task: Task, operator: str, seed: int, *parents: Judged) -> Proposal | None:
    return asyncio.run(BuiltinAuthor().propose(Context(task, GPU, operator, parents, seed)))


def judged(task: Task, proposal: Proposal | None, recipe: bool = True) -> Judged:
    assert proposal is not None
    lineage = Lineage("builtin", "create", recipe=proposal.recipe if recipe else None)
    candidate = Candidate(task.key, proposal.program, proposal.tunables, lineage)
    timing = Timing((1e-6,), 1e-6, (1e-6, 1e-6), "estimated", "H200")
    return Judged(candidate, Verdict(candidate.key, task.key, Stage.PROFILE, None, timing))


def test_the_same_context_gives_the_same_proposal(softmax: Task) -> None:
    for operator in ("create", "random"):
        assert propose(softmax, operator, 5) == propose(softmax, operator, 5)


def test_other_seeds_give_other_programs(softmax: Task) -> None:
    keys = {(p.program.key, p.tunables) for s in range(20) if (p := propose(softmax, "random", s))}
    assert len(keys) >= 15


def test_tuning_changes_tunables_and_not_the_program(softmax: Task) -> None:
    parent = judged(softmax, propose(softmax, "create", 0))
    child = propose(softmax, "tune", 3, parent)
    assert child is not None
    assert child.program == parent.candidate.program
    assert dict(child.tunables) != dict(parent.candidate.tunables)


def test_a_mutation_differs_from_its_parent(softmax: Task) -> None:
    parent = judged(softmax, propose(softmax, "create", 0))
    for seed in range(12):
        child = propose(softmax, "mutate", seed, parent)
        assert child is not None
        assert (child.program.key, child.tunables) != (parent.candidate.program.key, parent.candidate.tunables)


def test_crossing_takes_every_region_from_a_parent() -> None:
    task = load_task(Path(__file__).parents[2] / "examples" / "residual_block.py")
    first, second = judged(task, propose(task, "create", 0)), judged(task, propose(task, "random", 4))
    genes = [Recipe.from_json(j.candidate.lineage.recipe or "").genes for j in (first, second)]
    children = [propose(task, "cross", seed, first, second) for seed in range(8)]
    mixed = 0
    for child in filter(None, children):
        recipe = Recipe.from_json(child.recipe or "")
        donors = set()
        for region, chosen in recipe.genes.items():
            matching = {n for n, g in enumerate(genes) if dict(g.get(region, {})) == dict(chosen)}
            if region in genes[0] and region in genes[1] and len(matching) == 1:
                donors |= matching
        mixed += donors == {0, 1}
    assert mixed, "no child mixes regions of both parents"


def test_a_parent_without_a_recipe_is_no_parent_for_recipe_operators(softmax: Task) -> None:
    stranger = judged(softmax, propose(softmax, "create", 0), recipe=False)
    assert propose(softmax, "mutate", 1, stranger) is None


def test_recipes_survive_their_text_form(softmax: Task) -> None:
    proposal = propose(softmax, "random", 8)
    assert proposal is not None and proposal.recipe is not None
    assert Recipe.from_json(proposal.recipe).to_json() == proposal.recipe


def test_an_operator_without_a_lowering_is_named() -> None:
    class Sort(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sort().values

    task = task_from_module(Sort(), (torch.randn(8),))
    with pytest.raises(UnsupportedOperator, match=r"aten\.sort"):
        propose(task, "create", 0)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_random_recipes_of_the_examples_compute_the_task(checker: Checker, example: Path) -> None:
    task = load_task(example)
    # Convolutions may use TF32.
    limit = 2e-3 if any("conv" in node.op for node in task.graph.nodes) else 1e-5
    for seed in range(4):
        proposal = propose(task, "random" if seed else "create", seed)
        assert proposal is not None and proposal.recipe is not None
        compiled = checker.compile(task, Recipe.from_json(proposal.recipe))
        assert compiled.program == proposal.program
        assert checker.largest_error(task, compiled) < limit


def test_a_program_reads_its_index_arithmetic_once_and_names_its_extents(softmax: Task) -> None:
    proposal = propose(softmax, "create", 0)
    assert proposal is not None
    source = proposal.program.source
    assert "constexpr int ROWS = 128" in source
    assert all(len(line) <= 160 for line in source.splitlines())
