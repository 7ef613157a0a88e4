"""When a request may be sent: not too many at once or in a minute, and none while a failing provider is left alone."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from warpsmith.author.llm.limits import Limits

Clock = Callable[[], float]
"""Reads seconds that only go forward."""

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""

PATIENCE = 2
"""Refusals in a row after which a provider is left alone."""

LONGEST_REST = 600.0
"""Seconds that one rest may last, unless the provider itself asks for more."""


class Pace:
    """Lets requests through one by one, evenly spaced, and so many at a time."""

    def __init__(self, limits: Limits, clock: Clock, sleep: Sleep) -> None:
        self._places = anyio.Semaphore(limits.concurrent)
        self._gap = 60.0 / limits.requests_per_minute
        self._next = 0.0
        self._clock = clock
        self._sleep = sleep

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold one of the places while the request is under way."""
        async with self._places:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._gap
            if start > now:
                await self._sleep(start - now)
            yield


class Rest:
    """Leaves a provider alone that keeps failing, each time for twice as long, so that nothing waits for it."""

    def __init__(self, rest_s: float, clock: Clock) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._lasting = False

    @property
    def left(self) -> float:
        """Seconds for which the provider is still left alone: 0 where it may be asked, infinite where it is no use."""
        left = max(0.0, self._until - self._clock())
        return math.inf if left and self._lasting else left

    @property
    def now(self) -> bool:
        """Whether the provider is being left alone."""
        return self.left > 0.0

    def failed(self, wait_s: float = 0.0, *, lasting: bool = False) -> None:
        """Take in that a question was not answered. `wait_s` is how long the provider asked to be left alone.

        `lasting` says that it will answer none, such as for a wrong key. It is asked again all the same, but is not
        worth waiting for. Questions that were under way when the rest began, and fail as well, do not make it longer.
        """
        now = self._clock()
        self._lasting = lasting
        pause = 0.0
        if now >= self._until:
            self._failures += 1
            doublings = self._failures - PATIENCE
            pause = min(LONGEST_REST, self._rest_s * 2.0 ** min(doublings, 64)) if doublings >= 0 else 0.0
        self._until = max(self._until, now + max(pause, wait_s))

    def worked(self) -> None:
        """Take in that a question was answered."""
        self._failures = 0
        self._until = 0.0
