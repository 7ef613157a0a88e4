"""Models that are left alone for a while: a search that has nobody else waits for them, any other goes on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import anyio
import pytest

from tests.evolve.worlds import Bench, Hill, Model, Notebook, drawn, problem
from warpsmith.author.protocol import Context, Proposal, Refusal
from warpsmith.errors import NothingPassed
from warpsmith.evolve import events
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution

DIAL = Dial(size=4, capacity=16, depth=1, patience=4, candidates=24, seconds=3600.0)
OUTAGE = (5.0, 1000.0)
"""Seconds between which the provider is down."""


class Time:
    """A clock that only sleeping moves, and each question by a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.sleep(0)


class Tired(Model):
    """A model whose provider fails during an outage, and is left alone after each failure."""

    def __init__(self, time: Time, outage: tuple[float, float] = OUTAGE, *, hopeless: bool = False) -> None:
        super().__init__(drawn)
        self.time = time
        self.outage = outage
        self.hopeless = hopeless
        self.failures = 0
        self.until = 0.0

    @property
    def rest_s(self) -> float:
        left = max(0.0, self.until - self.time.now)
        return math.inf if left and self.hopeless else left

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        if self.rest_s:
            return None
        self.time.now += 1.0
        if self.outage[0] <= self.time.now < self.outage[1]:
            self.failures += 1
            self.until = self.time.now + 200.0
            return Refusal("the provider is down")
        return await super().propose(context)


def bowl(genes: dict[str, int], tunables: Any) -> float:
    return 1e-5 * (1 + abs(genes["a"] - 500) + abs(genes["b"] - 500))


def search(time: Time, *authors: Any, **options: Any) -> tuple[Evolution, str]:
    dial = options.pop("dial", DIAL)
    evolution = Evolution(
        problem(0.0), authors, Bench(bowl), Notebook(), 1, dial, clock=time, sleep=time.sleep, **options
    )

    async def main() -> str:
        await evolution.translate()
        return await evolution.run()

    return evolution, anyio.run(main)


def test_a_search_with_nobody_else_waits_for_a_model_that_rests() -> None:
    time, seen = Time(), []
    _, reason = search(time, Tired(time), observer=seen.append, dial=dataclasses.replace(DIAL, patience=99))
    assert reason == "24 candidates judged"
    assert len(time.slept) > 3 and time.now > OUTAGE[1]
    assert [event.seconds for event in seen if isinstance(event, events.Waiting)] == time.slept


def test_waiting_is_no_lack_of_progress() -> None:
    """There are more waits than generations without progress that a search has patience for."""
    time = Time()
    evolution, reason = search(time, Tired(time, (6.0, 3000.0)))
    assert len(time.slept) > DIAL.patience
    assert time.now > 3000.0 and evolution.ledger.judged > 8, reason


def test_before_anything_passed_it_waits_as_well() -> None:
    time = Time()
    evolution, _ = search(time, Tired(time, (0.0, 500.0)))
    assert time.slept and evolution.ledger.judged > 0


@pytest.mark.parametrize("begins", [0.0, 10.0])
def test_it_waits_no_longer_than_the_time_lasts(begins: float) -> None:
    time = Time()
    tired = Tired(time, (begins, math.inf))
    if begins:
        assert search(time, tired)[1] == "time is up (3600 s)"
    else:
        with pytest.raises(NothingPassed, match="the provider is down"):
            search(time, tired)
    assert time.now <= DIAL.seconds + 10.0


def test_others_go_on_without_it() -> None:
    time = Time()
    evolution, reason = search(time, Tired(time, (0.0, math.inf)), Hill(), dial=dataclasses.replace(DIAL, patience=99))
    assert reason == "24 candidates judged" and time.slept == []
    authors = {judged.candidate.lineage.author for judged in evolution.population.history}
    assert "model" not in authors and "hill" in authors


def test_nobody_is_asked_while_it_rests() -> None:
    """Slots are for those who can answer: a generation is as large as ever."""
    time = Time()
    tired = Tired(time, (0.0, math.inf))
    search(time, tired, Hill())
    assert tired.failures <= DIAL.size


def test_what_will_never_answer_is_not_waited_for() -> None:
    time = Time()
    with pytest.raises(NothingPassed, match="the provider is down"):
        search(time, Tired(time, (0.0, math.inf), hopeless=True))
    assert time.slept == []
