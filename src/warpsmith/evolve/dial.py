"""One dial sets the rest: how a budget in seconds becomes the size and depth of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dial:
    """The sizes of a search.

    `size` candidates are asked for per generation, `capacity` programs kept, each tried with up to `depth` sets of
    tunables; the search gives up after `patience` generations without progress or `candidates` candidates. After
    `seconds` nothing new is given to the judge; what is in flight then has `grace` seconds to finish. A search in which
    nothing has passed yet is not ended by the clock before its first candidates have had `first` seconds.

    The programs live on `islands`, which share the capacity; every `migration` generations the fastest program of each
    comes to the next one as well.
    """

    size: int
    capacity: int
    depth: int
    patience: int
    candidates: int
    seconds: float = math.inf
    grace: float = math.inf
    first: float = 0.0
    islands: int = 1
    migration: int = 1

    def __post_init__(self) -> None:
        sizes = (self.size, self.capacity, self.depth, self.patience, self.candidates, self.islands, self.migration)
        if min(sizes) < 1:
            raise ValueError(f"every size of a search must be at least 1: {self}")
        if not (self.seconds > 0 and self.grace >= 0 and self.first >= 0):
            raise ValueError(f"a search needs time: {self}")


FIRST_SECONDS = 300.0
"""A judge may take a minute to start and to work out what is due, and longer where others use the GPU; a small budget
shall buy a program all the same."""

ISLAND_SECONDS = 1800.0
"""A second island is worth having from twice this budget, and one more for every doubling: see `turn`."""

MOST_ISLANDS = 4

TURNS = 4
"""Turns that every island has between two migrations, enough to try what came last before the next comes."""


def turn(budget: float, candidates: int | None = None) -> Dial:
    """Return the sizes for a budget of `budget` seconds, and at most `candidates` candidates if given.

    A judgement on the simulator takes about half a second and two run at once, so a minute buys one to two hundred.
    A longer search gets larger generations and more of them in equal measure: both grow with the square root of the
    budget. A twentieth of the budget is kept for judgements in flight, a tenth for starting up and writing the results.

    Below an hour there is one island: a search that ends after some dozens of generations wins more by following its
    best programs than by keeping others apart. From an hour on it is two, three from two hours, four from four.
    """
    scale = math.sqrt(budget / 60.0)
    islands = max(1, min(MOST_ISLANDS, math.floor(math.log2(budget / ISLAND_SECONDS)) + 1))
    size = max(4, min(64, round(8 * scale)))
    return Dial(
        size=size,
        capacity=max(8, 3 * size),
        depth=max(6, min(64, round(12 * scale))),
        patience=max(6, round(10 * scale)),
        candidates=candidates if candidates is not None else max(48, math.ceil(5 * budget)),
        seconds=0.85 * budget,
        grace=0.05 * budget,
        first=FIRST_SECONDS,
        islands=islands,
        migration=TURNS * islands,
    )
