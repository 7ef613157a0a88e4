"""What a recipe for one task is worth for another: carried over where there is a place for it, left out where not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.author.conftest import GPU, Checker
from warpsmith.archive import Precedent
from warpsmith.author.builtin import BuiltinAuthor, Recipe, compile_graph
from warpsmith.author.builtin.compile import usual_cuts
from warpsmith.author.builtin.heritage import INHERIT, PER_TASK, nearness_to
from warpsmith.author.builtin.likeness import Portrait, likeness
from warpsmith.author.builtin.transplant import corresponding, transplant
from warpsmith.device.catalog import gpu
from warpsmith.records import Candidate, Task, digest
from warpsmith.task import task_from_module


class Mlp(torch.nn.Module):
    """Two linear layers and a softmax: three regions."""

    def __init__(self, inner: int, act: Any = torch.nn.functional.gelu, norm: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.act = torch.nn.Linear(48, inner), torch.nn.Linear(inner, 40), act
        self.norm = torch.nn.LayerNorm(48) if norm else torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.second(self.act(self.first(self.norm(x)))), -1)


@cache
def softmax(rows: int, cols: int, dtype: torch.dtype = torch.float32) -> Task:
    return task_from_module(torch.nn.Softmax(-1), (torch.randn(rows, cols, dtype=dtype),))


@cache
def mlp(rows: int, inner: int, norm: bool = False) -> Task:
    return task_from_module(Mlp(inner, norm=norm), (torch.randn(rows, 48),))


def precedent(task: Task, recipe: Recipe, device: str = GPU.name, seconds: float = 1e-6) -> Precedent:
    compiled = compile_graph(task.graph, recipe, GPU)
    text = compiled.recipe.to_json()
    key = digest("donor", task.key, text, device)
    return Precedent(task.key, task.name, task.graph, key, device, seconds, text, compiled.tunables)


def unusual(task: Task) -> Recipe:
    """A recipe that has the last choice of every gene and tunable."""
    cuts = usual_cuts(task.graph)
    offered = compile_graph(task.graph, Recipe(cuts), GPU).genes
    genes = {region: {gene.name: gene.choices[-1] for gene in choices} for region, choices in offered.items()}
    tunables = compile_graph(task.graph, Recipe(cuts, genes=genes), GPU).program.plan.tunables
    return Recipe(cuts, genes=genes, tunables={name: values[-1] for name, values in tunables})


def inherited(task: Task, *precedents: Precedent, count: int = 4) -> tuple[Candidate, ...]:
    return BuiltinAuthor().inherit(task, GPU, precedents, count)


def recipe_of(candidate: Candidate) -> Recipe:
    return Recipe.from_json(candidate.lineage.recipe or "")


def test_a_recipe_for_one_size_serves_another(checker: Checker) -> None:
    genes = {"softmax.softmax": {"algorithm": "warp", "stage": "reload", "passes": "one", "math": "fast"}}
    donor = precedent(softmax(64, 96), Recipe(genes=genes, tunables={"ROWS_PER_BLOCK": 2, "UNROLL": 2}))
    task = softmax(30, 200)
    (child,) = inherited(task, donor)
    chosen = recipe_of(child).genes["softmax.softmax"]
    assert {name: chosen[name] for name in genes["softmax.softmax"]} == genes["softmax.softmax"]
    assert dict(child.tunables) | donor_values(donor, child) == dict(child.tunables)
    assert child.lineage.operator == INHERIT and child.lineage.parents == (donor.candidate_key,)
    assert task.key != donor.task_key == softmax(64, 96).key
    assert f"{donor.task_name} {donor.task_key[:8]} on {GPU.name}" in child.lineage.note
    compiled = compile_graph(task.graph, recipe_of(child), GPU)
    assert compiled.program == child.program, "the recipe in the lineage must give the program again"
    assert checker.largest_error(task, compiled) < 1e-5


def donor_values(donor: Precedent, child: Candidate) -> dict[str, int]:
    """The donor's values of tunables that the child has, and may have, as well."""
    allowed = dict(child.program.plan.tunables)
    return {name: value for name, value in donor.tunables if value in allowed.get(name, ())}


def test_every_region_learns_from_its_like_under_its_own_name(checker: Checker) -> None:
    old, new = mlp(32, 64), mlp(24, 96, norm=True)
    donor = precedent(old, unusual(old))
    (child,) = inherited(new, donor)
    theirs, ours = Recipe.from_json(donor.recipe), recipe_of(child)
    assert ours.cuts >= {"gelu"}
    carried = dict(theirs.genes["softmax.softmax"])
    assert {name: ours.genes["softmax.softmax"][name] for name in ("math", "passes", "stage")} == {
        name: carried[name] for name in ("math", "passes", "stage")
    }
    assert "layer_norm.moments" in ours.genes, "what has no donor takes its defaults"
    assert checker.largest_error(new, compile_graph(new.graph, ours, GPU)) < 1e-4


def test_tunables_find_the_regions_that_they_belong_to() -> None:
    old = mlp(32, 64)
    compiled = compile_graph(old.graph, Recipe(usual_cuts(old.graph)), GPU)
    numbered = {name: 100 + number for number, (name, _) in enumerate(compiled.program.plan.tunables)}
    donor = Recipe(compiled.recipe.cuts, genes=compiled.recipe.genes, tunables=numbered)
    same = transplant(old.graph, donor, mlp(16, 32).graph, compiled.cuttable)
    assert same is not None and same.recipe.tunables == numbered
    single = transplant(old.graph, donor, softmax(16, 32).graph, ())
    assert single is not None and single.carried == 1
    assert single.recipe.tunables == {
        name.removeprefix("SOFTMAX_"): value for name, value in numbered.items() if name.startswith("SOFTMAX_")
    }


def test_unknown_genes_regions_nodes_and_tunables_are_dropped() -> None:
    task = softmax(30, 200)
    strange = Recipe(
        cuts=frozenset({"nowhere"}),
        unfused=frozenset({"nobody.sum"}),
        genes={"softmax.softmax": {"algorithm": "by magic", "colour": "blue", "vec": 3}, "nobody.sum": {"vec": 4}},
        tunables={"BLOCK": 7, "WISHES": 3},
    )
    other = softmax(64, 96)
    donor = replace(precedent(other, Recipe()), recipe=strange.to_json(), tunables=(("BLOCK", 7), ("WISHES", 3)))
    (child,) = inherited(task, donor)
    defaults = compile_graph(task.graph, Recipe(), GPU)
    assert (child.program, child.tunables) == (defaults.program, defaults.tunables)
    assert recipe_of(child) == defaults.recipe
    assert child.task_key == task.key


@pytest.mark.parametrize(
    "text", ["{}", "not a recipe", "[1, 2]", '{"cuts": 3, "unfused": [], "genes": {}, "tunables": {}}']
)
def test_recipes_of_other_authors_are_passed_over(text: str) -> None:
    donor = replace(precedent(softmax(64, 96), Recipe()), recipe=text)
    assert inherited(softmax(30, 200), donor) == ()


def test_a_task_of_another_kind_teaches_nothing() -> None:
    product = task_from_module(torch.nn.Linear(32, 32, bias=False), (torch.randn(16, 32),))
    assert inherited(softmax(30, 200), precedent(product, Recipe())) == ()
    assert inherited(softmax(30, 200)) == ()


def test_the_likest_come_first_and_no_task_fills_the_list() -> None:
    near, far = softmax(32, 256), softmax(1024, 8192)
    recipes = [
        Recipe(genes={"softmax.softmax": {"passes": passes, "vec": vec}}) for passes in ("one", "two") for vec in (1, 2)
    ]
    donors = [precedent(task, recipe) for task in (far, near) for recipe in recipes]
    found = inherited(softmax(30, 200), *donors, count=10)
    parents = [each.lineage.parents[0] for each in found]
    assert parents[:PER_TASK] == [donor.candidate_key for donor in donors[4 : 4 + PER_TASK]]
    assert len(found) <= 2 * PER_TASK
    assert len({each.key for each in found}) == len(found)
    assert inherited(softmax(30, 200), *donors, count=1) == found[:1]
    assert inherited(softmax(30, 200), *donors, count=10) == found, "the same precedents give the same candidates"


def test_what_is_known_already_is_not_offered_again() -> None:
    donors = [precedent(softmax(32, 256), Recipe(genes={"softmax.softmax": {"vec": vec}})) for vec in (1, 2)]
    first, second = inherited(softmax(30, 200), *donors)
    task = softmax(30, 200)
    assert BuiltinAuthor().inherit(task, GPU, donors, 4, known={first.key}) == (second,)


def test_a_nearer_device_counts_more() -> None:
    nearness = nearness_to(gpu("H200"))
    assert nearness("H200") > nearness("H100") > nearness("A100") > nearness("a GPU of tomorrow") > 0.0
    here, there = Recipe(genes={"softmax.softmax": {"vec": 1}}), Recipe(genes={"softmax.softmax": {"vec": 2}})
    donors = [precedent(softmax(32, 256), there, "A100"), precedent(softmax(32, 256), here, "H200")]
    found = inherited(softmax(30, 200), *donors)
    assert [each.lineage.parents[0] for each in found] == [donors[1].candidate_key, donors[0].candidate_key]


def test_a_program_for_the_task_itself_is_taken_as_it_is() -> None:
    task = mlp(32, 64)
    recipe = unusual(task)
    donor = precedent(task, recipe, "H100")
    (child,) = inherited(task, donor)
    compiled = compile_graph(task.graph, recipe, GPU)
    assert (child.program, child.tunables) == (compiled.program, compiled.tunables)


def test_likeness_is_one_for_equals_and_falls_with_every_difference() -> None:
    one = Portrait("rows", (64, 1024), "float32", ("Reduction max_sumexp",))
    assert likeness(one, one) == 1.0
    assert likeness(one, replace(one, kind="scan")) == 0.0
    for other in (
        replace(one, extents=(64, 2048)),
        replace(one, dtype="float16"),
        replace(one, producers=("Reduction sum",)),
    ):
        assert 0.0 < likeness(one, other) < 1.0
        assert likeness(one, other) == likeness(other, one)
    assert likeness(one, replace(one, extents=(1024, 16384))) == pytest.approx(0.5)


def test_nodes_correspond_by_their_operators_in_order() -> None:
    old, new = mlp(32, 64).graph, mlp(24, 96, norm=True).graph
    found = corresponding(old, new)
    by_name = {node.name: node.op for node in (*old.nodes, *new.nodes)}
    assert all(by_name[a] == by_name[b] for a, b in found.items() if a in by_name)
    assert {"linear", "gelu", "linear_1", "softmax"} <= set(found)
    assert json.dumps(sorted(found.items())) == json.dumps(sorted(corresponding(old, new).items()))


class Linear(torch.nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(48, inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.layer(x))


def test_a_program_is_composed_from_those_for_its_parts(checker: Checker) -> None:
    part = task_from_module(Linear(64), (torch.randn(32, 48),))
    layer, norm = precedent(part, unusual(part)), precedent(softmax(32, 40), unusual(softmax(32, 40)))
    whole = mlp(32, 64)
    first = inherited(whole, layer, norm)[0]
    chosen, donors = recipe_of(first).genes, (recipe_from(layer).genes, recipe_from(norm).genes)
    assert first.lineage.note.startswith("composed")
    assert set(first.lineage.parents) == {layer.candidate_key, norm.candidate_key}
    softmax_region = next(name for name in chosen if "softmax" in name)
    linear_region = next(name for name in chosen if name.startswith("linear."))
    assert dict(chosen[softmax_region]) == dict(donors[1]["softmax.softmax"])
    algorithm = next(iter(donors[0].values()))["algorithm"]
    assert chosen[linear_region]["algorithm"] == algorithm
    assert checker.largest_error(whole, compile_graph(whole.graph, recipe_of(first), GPU), sanitize=True) <= 1e-5


def test_nothing_is_composed_where_one_program_knows_most_about_every_part() -> None:
    whole = mlp(32, 64)
    itself = precedent(whole, unusual(whole))
    notes = [each.lineage.note for each in inherited(whole, itself, precedent(softmax(64, 96), Recipe()))]
    assert notes and not any(note.startswith("composed") for note in notes)


def recipe_from(donor: Precedent) -> Recipe:
    return Recipe.from_json(donor.recipe)
