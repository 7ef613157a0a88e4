"""How alike two regions are, and which regions of one program correspond to which of another.

The likeness of two regions lies between 0 and 1 and is a product:

    0                               if they are of different kinds: a softmax teaches nothing about a convolution
    1 / (1 + octaves / 4)           sizes; `octaves` is how far apart they are, the mean of |log2| over their extents
    1/2                             if they compute in different dtypes: vectors and registers count otherwise
    4/5                             if they hold other producers, such as a sum instead of a softmax
    9/10                            if they stand at different places of their graphs

So a program for the same operator at a size 16 times larger in every extent counts half. The factors are judgement, not
measurement; they only order what is tried first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.regions import Region
from warpsmith.author.builtin.values import Contraction

_HALF_AFTER = 4.0
_OTHER_DTYPE, _OTHER_PRODUCERS, _OTHER_PLACE = 0.5, 0.8, 0.9


@dataclass(frozen=True, slots=True)
class Portrait:
    """What counts of a region: its kind, its extents, its dtype, and the names of its producers.

    `extents` are the batch, m, n and depth of a contraction; rows and columns of anything else.
    """

    kind: str
    extents: tuple[int, ...]
    dtype: str
    producers: tuple[str, ...]

    @property
    def work(self) -> int:
        """Elements, or products of a contraction: how much of a program's time a region may take."""
        return math.prod(self.extents)


@dataclass(frozen=True, slots=True)
class Match:
    """A region with the one that is most like it, if there is any: their names, and their likeness."""

    name: str
    other: str | None
    likeness: float
    work: int


def portrait(region: Region) -> Portrait:
    """Return what counts of a region."""
    dtype = region.producers[0].dtype if region.producers else region.outputs[0].dtype
    names = sorted(f"{type(p).__name__} {getattr(p, 'kind', '')}".strip() for p in region.producers)
    return Portrait(region.kind, _extents(region), dtype, tuple(names))


def likeness(one: Portrait, other: Portrait) -> float:
    """Return how alike two regions are, apart from their places."""
    if one.kind != other.kind or len(one.extents) != len(other.extents):
        return 0.0
    pairs = zip(one.extents, other.extents, strict=True)
    octaves = [abs(math.log2(max(1, a) / max(1, b))) for a, b in pairs]
    found = 1.0 / (1.0 + math.fsum(octaves) / len(octaves) / _HALF_AFTER)
    found *= 1.0 if one.dtype == other.dtype else _OTHER_DTYPE
    return found * (1.0 if one.producers == other.producers else _OTHER_PRODUCERS)


def matches(regions: Sequence[Region], others: Sequence[Region], places: Mapping[str, str]) -> tuple[Match, ...]:
    """Find for each region the one among `others` that is most like it, the first of equals.

    `places` maps names of `others` to the names that regions at the same place have here. One of the others may serve
    several regions: all layers of a network can learn from a single one.
    """
    theirs = [(other.name, portrait(other)) for other in others]
    found = []
    for region in regions:
        own = portrait(region)
        best, donor = 0.0, None
        for name, drawn in theirs:
            alike = likeness(own, drawn) * (1.0 if places.get(name) == region.name else _OTHER_PLACE)
            if alike > best:
                best, donor = alike, name
        found.append(Match(region.name, donor, best, own.work))
    return tuple(found)


def overall(found: Sequence[Match]) -> float:
    """Return the likeness of two programs: the mean over regions, weighted with the square root of their work.

    The root because time grows slower than work: a small region still costs a launch.
    """
    weights = [math.sqrt(max(1, match.work)) for match in found]
    return math.fsum(w * match.likeness for w, match in zip(weights, found, strict=True)) / math.fsum(weights)


def _extents(region: Region) -> tuple[int, ...]:
    producer = region.producers[0] if region.producers else None
    if not isinstance(producer, Contraction):
        return region.rows, region.cols
    batch, m, n = (
        math.prod(e for e, role in zip(producer.shape, producer.roles, strict=True) if role == which) for which in "bmn"
    )
    return batch, m, n, producer.depth
