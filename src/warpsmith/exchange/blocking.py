"""Runs asynchronous code to its end, also where an event loop is running already, as in a notebook."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.from_thread

P = ParamSpec("P")
Result = TypeVar("Result")


def run_to_end(function: Callable[P, Awaitable[Result]], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call an asynchronous function and return what it returns."""
    call = partial(function, *args, **kwargs)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(call)
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(call)
