"""A recipe put together from several programs: each region as in the program that knows most about one like it.

A module whose parts were optimized as tasks of their own begins with what was found for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpsmith.author.builtin.likeness import Match, overall
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.author.builtin.transplant import Transplant
from warpsmith.records import frozen


@dataclass(frozen=True)
class Composition:
    """A recipe, the places in the given sequence of those that it learnt from by region, and its likeness to them."""

    recipe: Recipe
    donors: dict[str, int]
    likeness: float


def compose(parts: Sequence[tuple[Transplant, float]]) -> Composition | None:
    """Put the best of every part together; None where a single one is the best for every region.

    Each part comes with a weight between 0 and 1: how much its times say about the GPU in question. Cuts, and what is
    fused or overlaps, are those of the part that is likest as a whole.
    """
    if not parts:
        return None
    base = max(range(len(parts)), key=lambda number: (parts[number][0].likeness * parts[number][1], -number))
    donors: dict[str, int] = {}
    found: list[Match] = []
    for match in parts[base][0].found:
        known = [
            (other.likeness * weight, number == base, -number)
            for number, (part, weight) in enumerate(parts)
            for other in part.found
            if other.name == match.name and other.other is not None
        ]
        share, _, place = max(known, default=(0.0, True, -base))
        if known:
            donors[match.name] = -place
        found.append(replace(match, likeness=share))
    if set(donors.values()) <= {base}:
        return None
    recipe = parts[base][0].recipe
    genes = {
        region: parts[number][0].recipe.genes[region]
        for region, number in donors.items()
        if region in parts[number][0].recipe.genes
    }
    tunables = {
        name: value
        for region, number in donors.items()
        for name, value in parts[number][0].tunables.get(region, {}).items()
    }
    composed = Recipe(recipe.cuts, recipe.unfused, frozen(genes), frozen(tunables), recipe.overlap)
    return Composition(composed, donors, overall(found))
