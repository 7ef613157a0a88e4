"""Carries a recipe over from one graph to another: other sizes, other names, perhaps other neighbours.

Nodes correspond where their operators do, in order; regions where they are most alike (see `likeness`). What is stored,
what stays unfused, genes and tunables go from each region to those that correspond to it. Whatever has no place in the
new graph is left out, and what the new graph does not offer, such as a tile that does not fit, takes its default when
the recipe is compiled. So a recipe that was carried over is as good as any other: it gives a correct program.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# The names of kernels begin those of tunables.
from warpsmith.author.builtin.compile import labels_of, usual_cuts
from warpsmith.author.builtin.likeness import Match, matches, overall
from warpsmith.author.builtin.lowering import lower
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.author.builtin.regions import Region, cut
from warpsmith.records import Graph, frozen

_STORED = "_stored"


@dataclass(frozen=True)
class Transplant:
    """A recipe for the new graph. `found` says which region of the other program is the donor of each of ours.

    `tunables` are those of the recipe, by the region that they belong to.
    """

    recipe: Recipe
    found: tuple[Match, ...]
    tunables: Mapping[str, Mapping[str, int]]

    @property
    def likeness(self) -> float:
        """How alike the two programs are."""
        return overall(self.found)

    @property
    def carried(self) -> int:
        """Regions with a donor."""
        return sum(match.other is not None for match in self.found)


def transplant(theirs: Graph, recipe: Recipe, ours: Graph, cuttable: Collection[str]) -> Transplant | None:
    """Carry a recipe for the graph `theirs` over to `ours`; None where no two regions are alike.

    `cuttable` are the nodes of our graph that may be stored. Raises UnsupportedOperator where one of the graphs cannot
    be lowered.
    """
    nodes = corresponding(theirs, ours)
    met = set(nodes.values())
    cuts = {nodes[name] for name in recipe.cuts if name in nodes} & set(cuttable)
    cuts |= {name for name in usual_cuts(ours) if name not in met}
    unfused = {host for name in recipe.unfused if (host := _renamed(name, nodes)) is not None}
    old = cut(lower(theirs, recipe.cuts), recipe.unfused).regions
    new = cut(lower(ours, cuts), unfused).regions
    places = {region.name: place for region in old if (place := _renamed(region.name, nodes)) is not None}
    found = matches(new, old, places)
    if not any(match.other for match in found):
        return None
    hosts = {name for region in new for name in region.hosts}
    genes = {match.name: recipe.genes[match.other] for match in found if match.other and match.other in recipe.genes}
    tunables = _tunables(recipe, old, new, found)
    values = frozen({name: value for each in tunables.values() for name, value in each.items()})
    carried = Recipe(frozenset(cuts), frozenset(unfused & hosts), frozen(genes), values, recipe.overlap)
    return Transplant(carried, found, tunables)


def corresponding(theirs: Graph, ours: Graph) -> Mapping[str, str]:
    """Map names of nodes and outputs of one graph to those of the other, by the longest runs of equal operators."""
    blocks = SequenceMatcher(
        None, [node.op for node in theirs.nodes], [node.op for node in ours.nodes], autojunk=False
    ).get_matching_blocks()
    nodes = {
        theirs.nodes[block.a + step].name: ours.nodes[block.b + step].name
        for block in blocks
        for step in range(block.size)
    }
    outputs = zip(theirs.results, ours.results, strict=False)
    return {**{old.name: new.name for old, new in outputs}, **nodes}


def _renamed(region: str, nodes: Mapping[str, str]) -> str | None:
    """The name that a region has at the same place of the other graph, or None where that has no such place."""
    node, dot, part = region.partition(".")
    stored = node.removesuffix(_STORED)
    if node not in nodes and stored in nodes:
        return f"{nodes[stored]}{_STORED}"
    return f"{nodes[node]}{dot}{part}" if node in nodes else None


def _tunables(
    recipe: Recipe, old: Sequence[Region], new: Sequence[Region], found: Sequence[Match]
) -> Mapping[str, Mapping[str, int]]:
    """The tunables of each region's donor, by region, under the names that they have here."""
    theirs, ours = _prefixes(old), _prefixes(new)
    by_region: dict[str, dict[str, int]] = {}
    for name, value in recipe.tunables.items():
        # The longest beginning decides: LINEAR_1_PAD belongs to `linear_1`, not to `linear`.
        owners = [region for region, prefix in theirs.items() if name.startswith(prefix)]
        if owners:
            owner = max(owners, key=lambda region: len(theirs[region]))
            by_region.setdefault(owner, {})[name.removeprefix(theirs[owner])] = value
    return {
        match.name: {f"{ours[match.name]}{name}": value for name, value in by_region.get(match.other, {}).items()}
        for match in found
        if match.other is not None
    }


def _prefixes(regions: Sequence[Region]) -> Mapping[str, str]:
    """What the names of a region's tunables begin with; nothing where a program has one region only."""
    if len(regions) == 1:
        return {regions[0].name: ""}
    return {name: f"{label.removesuffix('_kernel').upper()}_" for name, label in labels_of(regions).items()}
