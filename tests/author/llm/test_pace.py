"""Limits make sense, requests are spaced out, and a failing provider is left alone for longer and longer."""

from __future__ import annotations

import math

import anyio
import pytest

from warpsmith.author.llm.limits import Limits
from warpsmith.author.llm.pace import LONGEST_REST, PATIENCE, Pace, Rest
from warpsmith.errors import SettingsError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout_s", 0.0),
        ("timeout_s", math.inf),
        ("timeout_s", math.nan),
        ("attempts", 0),
        ("requests_per_minute", 0.0),
        ("concurrent", 0),
        ("concurrent", -1),
        ("max_prompt_tokens", 0),
        ("max_reply_tokens", 0),
        ("backoff_s", -1.0),
        ("rest_s", math.inf),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_no_pauses_and_no_rate_are_limits_as_well() -> None:
    assert Limits(backoff_s=0.0, rest_s=0.0, requests_per_minute=math.inf).backoff_s == 0.0


def test_requests_are_evenly_spaced() -> None:
    now, waits = [0.0], []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    async def send(count: int) -> list[float]:
        pace = Pace(Limits(requests_per_minute=30), lambda: now[0], sleep)
        began = []
        for _ in range(count):
            async with pace.turn():
                began.append(now[0])
        return began

    assert anyio.run(send, 4) == [0.0, 2.0, 4.0, 6.0]
    assert waits == [2.0, 2.0, 2.0]


def test_no_more_requests_at_once_than_allowed() -> None:
    inside, most = [0], [0]

    async def request(pace: Pace) -> None:
        async with pace.turn():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await anyio.wait_all_tasks_blocked()
            inside[0] -= 1

    async def all_at_once() -> None:
        pace = Pace(Limits(concurrent=2, requests_per_minute=math.inf), lambda: 0.0, anyio.sleep)
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(request, pace)

    anyio.run(all_at_once)
    assert most == [2]


def test_a_rest_begins_after_some_failures_doubles_and_ends() -> None:
    now = [0.0]
    rest = Rest(10.0, lambda: now[0])
    for _ in range(PATIENCE - 1):
        rest.failed()
        assert not rest.now
    lengths = []
    for _ in range(12):
        rest.failed()
        began = now[0]
        while rest.now:
            now[0] += 5.0
        lengths.append(now[0] - began)
    rest.failed(lasting=True)
    assert rest.left == math.inf, "it is worth waiting for a wrong key"
    now[0] += LONGEST_REST
    assert rest.left == 0.0, "a provider that may have been mended is never asked again"
    assert lengths[:4] == [10.0, 20.0, 40.0, 80.0]
    assert lengths[-1] == LONGEST_REST
    rest.failed()
    rest.worked()
    assert not rest.now
    rest.failed(wait_s=2 * LONGEST_REST)
    now[0] += 2 * LONGEST_REST - 1
    assert rest.now


def test_questions_that_fail_together_make_one_rest() -> None:
    now = [0.0]
    rest = Rest(10.0, lambda: now[0])
    for _ in range(PATIENCE + 6):
        rest.failed()
    now[0] = 10.0
    assert not rest.now
