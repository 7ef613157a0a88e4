"""Whom to ask for what: a bandit over (author, operator).

Thompson sampling. The mean reward of each arm has a normal posterior around a prior shared by all arms; a draw from
it decides, so that a batch of choices made before any answer arrives is already mixed. Old rewards fade, because what
helps early is not what helps late.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.records import Judged

FADE = 0.98
"""Weight of each older reward relative to the next one: half is forgotten after 34 answers."""

LEAST_SPREAD = 0.01
"""Rewards closer together than this (1 % of a halving of the time) are not told apart."""

USD_PER_HALVING = 5.0
"""The exchange rate between money and time: a proposal that costs this much and halves the time earns nothing."""

SECONDS_PER_HALVING = 1800.0
"""The exchange rate between waiting and time: so does one for which its author took half an hour."""

INSTANT = 10.0
"""Seconds of asking are charged in whole steps of this many, so that authors that compute are never charged for the
state of the machine, and choose the same on any."""


@dataclass(frozen=True, order=True, slots=True)
class Arm:
    """An operator of an author. `parents` is how many candidates it works on."""

    author: str
    operator: str
    parents: int


def cost(usd: float, seconds: float) -> float:
    """Return what an answer cost, in halvings of the time: its price in US dollars and the seconds that it took."""
    return usd / USD_PER_HALVING + seconds // INSTANT * INSTANT / SECONDS_PER_HALVING


def reward(child: Judged, reference: float) -> float:
    """Return the improvement over `reference` (seconds) minus the cost of the proposal.

    Improvement is in halvings of the time: log2(reference / child), from 0 (no gain, or failed) to 1 (twice as fast
    or better). A child that passes where nothing had passed before, with an infinite reference, earns 1.
    """
    gain = 0.0
    if child.verdict.passed:
        gain = 1.0 if math.isinf(reference) else min(1.0, max(0.0, math.log2(reference / child.seconds)))
    return gain - cost(child.candidate.lineage.cost_usd, child.candidate.lineage.seconds)


class Bandit:
    """Learns which arm pays."""

    def __init__(self) -> None:
        self._weight: dict[tuple[str, str], float] = {}
        self._total: dict[tuple[str, str], float] = {}
        self._square = 0.0

    def choose(self, arms: Sequence[Arm], chance: random.Random) -> Arm:
        """Return one of `arms`, drawn by how likely it is the best. Raises ValueError where there are none."""
        if not arms:
            raise ValueError("no arms to choose from")
        prior, spread = self._pooled()
        draws = []
        for arm in sorted(arms):
            weight = self._weight.get((arm.author, arm.operator), 0.0)
            total = self._total.get((arm.author, arm.operator), 0.0)
            mean = (prior + total) / (1.0 + weight)
            draws.append((chance.gauss(mean, spread / math.sqrt(1.0 + weight)), arm))
        return max(draws)[1]

    def learn(self, author: str, operator: str, value: float) -> None:
        """Fold in a reward."""
        for key in self._weight:
            self._weight[key] *= FADE
            self._total[key] *= FADE
        self._square *= FADE
        key = (author, operator)
        self._weight[key] = self._weight.get(key, 0.0) + 1.0
        self._total[key] = self._total.get(key, 0.0) + value
        self._square += value * value

    def _pooled(self) -> tuple[float, float]:
        """Mean and standard deviation of all rewards: the prior of every arm."""
        weight = sum(self._weight.values())
        if not weight:
            return 0.0, 1.0
        mean = sum(self._total.values()) / weight
        return mean, max(LEAST_SPREAD, math.sqrt(max(0.0, self._square / weight - mean * mean)))
