"""When to stop: small conditions that compose.

A condition looks at how the search stands and returns the reason to stop, one line for people, or None to go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_ROUNDING = 1e-9
"""Ten answers of a tenth of the limit fit, whatever their sum in binary is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the search stands when the next candidate is about to be asked for.

    `elapsed` in seconds since the run began; `candidates` and `usd` count what is in flight as well as what is
    settled, in this run; `stale` is the number of generations since the best improved; `barren` the number of
    generations in a row that brought no new candidate; `best` the best time of one call and `bound` the least
    possible, both in seconds (infinite and 0 where unknown). `price` is the least that anything still to be done
    costs, in US dollars: 0 where an author is free, or tunables are left to search.
    """

    elapsed: float = 0.0
    candidates: int = 0
    usd: float = 0.0
    stale: int = 0
    barren: int = 0
    best: float = math.inf
    bound: float = 0.0
    price: float = 0.0


StopCondition = Callable[[Standing], str | None]


def seconds(limit: float) -> StopCondition:
    """Stop once `limit` seconds have passed since the run began."""
    return lambda now: f"time is up ({limit:g} s)" if now.elapsed >= limit else None


def candidates(limit: int) -> StopCondition:
    """Stop once `limit` candidates have been given to the judge in this run."""
    return lambda now: f"{limit} candidates judged" if now.candidates >= limit else None


def money(limit_usd: float) -> StopCondition:
    """Stop once nothing is left to do that fits into `limit_usd` US dollars: what is in flight counts as spent.

    What is free goes on without money.
    """

    def check(now: Standing) -> str | None:
        return None if fits(now.price, now.usd, limit_usd) else f"money is spent ({limit_usd:g} USD)"

    return check


def fits(price: float, spent: float, limit_usd: float) -> bool:
    """Whether an answer of this price can be had when so much is spent or committed, all in US dollars."""
    return price <= 0.0 or spent + price <= limit_usd * (1.0 + _ROUNDING)


def no_progress(generations: int) -> StopCondition:
    """Stop once the best has not improved for this many generations."""
    return lambda now: f"no progress in {generations} generations" if now.stale >= generations else None


def exhausted(generations: int) -> StopCondition:
    """Stop once this many generations in a row brought nothing that had not been judged before."""
    return lambda now: "nothing new is proposed any more" if now.barren >= generations else None


def near_bound(fraction: float) -> StopCondition:
    """Stop once the best reaches `fraction` of the speed of light, 0 < fraction <= 1: bound / best >= fraction."""
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction of the bound must lie in (0, 1], not {fraction}")
    return lambda now: f"within {fraction:.0%} of the bound" if now.bound >= fraction * now.best else None


def any_of(*conditions: StopCondition) -> StopCondition:
    """Stop as soon as one condition says so; its reason is given. Without conditions, never stop."""

    def check(now: Standing) -> str | None:
        return next((reason for condition in conditions if (reason := condition(now)) is not None), None)

    return check
