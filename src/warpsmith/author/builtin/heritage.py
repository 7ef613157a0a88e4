"""What can be learnt from programs for other tasks: recipes carried over, the most promising first.

A precedent counts by its likeness to the task (see `likeness`) times how near its GPU is. What comes of it is a
candidate like any other. Nothing but the recipe is taken over: no verdict, no time. Where several precedents each know
most about another part of the task, what they know is put together first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from warpsmith.archive import Precedent
from warpsmith.author.builtin.compile import compile_graph
from warpsmith.author.builtin.composition import compose
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.author.builtin.transplant import Transplant, transplant
from warpsmith.device.catalog import GPUS
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import Candidate, GpuSpec, Lineage, Task, frozen

INHERIT = "inherit"
"""The operator in the lineage of what was carried over. Its parent is a candidate for another task."""

LEAST = 0.3
"""What counts less is not worth a judgement: such as a sixth of every extent in another dtype."""

PER_TASK = 2
"""Candidates from one task on one GPU at most, so that a single precedent does not fill the generation."""

NODES = 3000
"""Nodes of precedents' graphs that are lowered at most, some tens of microseconds to a millisecond each."""

_LONGEST_NOTE = 400
"""Characters; a network of a hundred layers would fill a page."""

_SAME_ARCHITECTURE, _OTHER, _UNKNOWN = 0.9, 0.7, 0.5


def nearness_to(gpu: GpuSpec) -> Callable[[str], float]:
    """Return how much what is fast on a GPU of some name says about this one, between 0 and 1.

    All on the same GPU, nine tenths on one of the same compute capability, less on any other.
    """

    def nearness(name: str) -> float:
        if name == gpu.name:
            return 1.0
        other = GPUS.get(name)
        if other is None:
            return _UNKNOWN
        return _SAME_ARCHITECTURE if other.compute_capability == gpu.compute_capability else _OTHER

    return nearness


def inherit(
    task: Task, gpu: GpuSpec, precedents: Sequence[Precedent], count: int, known: Collection[str] = ()
) -> tuple[Candidate, ...]:
    """Return up to `count` candidates from precedents, the most promising first, none of them `known` by its key.

    The same precedents in the same order give the same candidates. Empty where no precedent is like the task, or the
    task cannot be lowered.
    """
    try:
        cuttable = compile_graph(task.graph, Recipe(), gpu).cuttable
    except UnsupportedOperator:
        return ()
    nearness = nearness_to(gpu)
    weighed = [
        (-round(carried.likeness * nearness(precedent.device), 6), number, precedent, carried)
        for number, (precedent, carried) in enumerate(_carried(task, precedents, cuttable))
    ]
    found: dict[str, Candidate] = {}
    composed = _composed(task, gpu, [(precedent, carried) for _, _, precedent, carried in weighed])
    if composed is not None and composed.key not in known and count:
        found[composed.key] = composed
    taken: Counter[tuple[str, str]] = Counter()
    for score, _, precedent, carried in sorted(weighed, key=lambda each: each[:2]):
        origin = (precedent.task_key, precedent.device)
        if -score < LEAST or len(found) == count:
            break
        if taken[origin] < PER_TASK:
            candidate = _candidate(task, gpu, precedent, carried)
            if candidate.key not in known and candidate.key not in found:
                found[candidate.key] = candidate
                taken[origin] += 1
    return tuple(found.values())


def _carried(
    task: Task, precedents: Sequence[Precedent], cuttable: Collection[str]
) -> Iterator[tuple[Precedent, Transplant]]:
    """Carry over what can be; a precedent with another author's recipe, or a graph that is not understood, cannot."""
    nodes = 0
    for precedent in precedents:
        nodes += len(precedent.graph.nodes) + len(task.graph.nodes)
        if nodes > NODES:
            return
        recipe = _recipe(precedent)
        if recipe is None:
            continue
        try:
            carried = transplant(precedent.graph, recipe, task.graph, cuttable)
        except UnsupportedOperator:
            continue
        if carried is not None:
            yield precedent, carried


def _recipe(precedent: Precedent) -> Recipe | None:
    """The precedent's recipe with the tunables that it was judged with, or None where it is none of this author."""
    try:
        recipe = Recipe.from_json(precedent.recipe)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return replace(recipe, tunables=frozen(dict(precedent.tunables)))


def _candidate(task: Task, gpu: GpuSpec, precedent: Precedent, carried: Transplant) -> Candidate:
    compiled = compile_graph(task.graph, carried.recipe, gpu)
    origin = f"{precedent.task_name} {precedent.task_key[:8]} on {precedent.device}"
    note = f"from {origin}: likeness {carried.likeness:.2f}, {carried.carried} of {len(carried.found)} regions"
    lineage = Lineage(
        "builtin", INHERIT, parents=(precedent.candidate_key,), recipe=compiled.recipe.to_json(), note=note
    )
    return Candidate(task.key, compiled.program, compiled.tunables, lineage)


def _composed(task: Task, gpu: GpuSpec, parts: Sequence[tuple[Precedent, Transplant]]) -> Candidate | None:
    """The program put together from what is known of the task's parts, if several precedents have something to say."""
    nearness = nearness_to(gpu)
    composition = compose([(carried, nearness(precedent.device)) for precedent, carried in parts])
    if composition is None or composition.likeness < LEAST:
        return None
    compiled = compile_graph(task.graph, composition.recipe, gpu)
    donors = {region: parts[number][0] for region, number in composition.donors.items()}
    names = ", ".join(f"{region} from {donor.task_name} {donor.task_key[:8]}" for region, donor in donors.items())
    lineage = Lineage(
        "builtin",
        INHERIT,
        parents=tuple(dict.fromkeys(donor.candidate_key for donor in donors.values())),
        recipe=compiled.recipe.to_json(),
        note=f"composed, likeness {composition.likeness:.2f}: {names}"[:_LONGEST_NOTE],
    )
    return Candidate(task.key, compiled.program, compiled.tunables, lineage)
