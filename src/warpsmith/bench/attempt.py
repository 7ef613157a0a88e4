"""One task in a process of its own, from outside: whatever happens in there, what comes back is a row."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from warpsmith import wire
from warpsmith.bench.interrupts import Interrupts, Wish
from warpsmith.bench.order import Order, empty_row, encode_order, now
from warpsmith.bench.row import NOT_COMPARED, Row, decode_row
from warpsmith.bench.tree import Tree
from warpsmith.child import KEPT_ENVIRONMENT, Child, Start, fresh, interpreter
from warpsmith.errors import UserError
from warpsmith.explore.words import amount
from warpsmith.settings import Settings

WORKER_MODULE = "warpsmith.bench.work"
WORKER = interpreter(WORKER_MODULE)
_POLL = 0.25
_WIND_DOWN = 30.0
"""Seconds that a process has to answer with what it found, after it was told to stop."""
_TIDY_UP = 5.0

Reason = Literal["time", "user"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one task may take: `seconds` in all, `memory` in bytes for its processes together (None: any)."""

    seconds: float
    memory: int | None = None
    wind_down: float = _WIND_DOWN


def authors_environment(settings: Settings) -> dict[str, str]:
    """Return what the process of a task sees of the environment beside what any child does.

    Where it asks models or an agent that is all of it: keys, proxies, and what else their libraries read.
    """
    if not settings.models and not settings.agent_command:
        return {}
    return {name: value for name, value in os.environ.items() if name not in KEPT_ENVIRONMENT}


def attempt(
    order: Order,
    device: str,
    limits: Limits,
    tell: Callable[[str], None],
    interrupts: Interrupts,
    worker: Sequence[str] = WORKER,
    environment: Mapping[str, str] | None = None,
    start: Start = fresh,
) -> Row | None:
    """Do an order and return its row; None where the user ended it before anything passed, or the run is over.

    When its time is over the process is told to stop, answers with what it found, and is killed where it does not. The
    same where `interrupts` wishes it to stop; once the run is over it is killed at once. In any case nothing of it is
    left running. `environment` is added to that of the process, `start` is how it comes to be.
    """
    with interrupts.task() as wish, Child(worker, extra=environment, start=start) as child:
        watch = _Attempt(order, device, limits, tell, child, interrupts, wish)
        try:
            return watch.outcome()
        finally:
            watch.end()


class _Attempt:
    """A process that is being waited for."""

    def __init__(
        self,
        order: Order,
        device: str,
        limits: Limits,
        tell: Callable[[str], None],
        child: Child,
        interrupts: Interrupts,
        wish: Wish,
    ) -> None:
        self._order, self._device, self._limits, self._tell, self._child = order, device, limits, tell, child
        self._interrupts, self._wish = interrupts, wish
        self._began = time.monotonic()
        self._deadline = self._began + limits.seconds
        self._reason: Reason | None = None
        self._row: Row | None = None
        self._told_all = False
        self._messages: queue.Queue[wire.Message | str] = queue.Queue()
        self._tree = Tree(child.pid)
        self._tree.look()
        with contextlib.suppress(wire.Closed):  # it died at once; the reader will see
            child.send({"order": encode_order(order)})
        # A thread, since a message must not be cut in two by looking at the clock.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def outcome(self) -> Row | None:
        """Wait for the end, whatever it is."""
        while not self._interrupts.over:
            if self._wish.stop and self._reason != "user":
                self._stop("user")
            problem = self._step()
            if problem is not None:
                return self._finished(problem)
        return None

    def end(self) -> None:
        """Kill everything that is left. One that has said its last word may tidy up first."""
        if self._told_all:
            self._child.wait(_TIDY_UP)
        self._tree.kill()
        self._reader.join(5.0)

    def _step(self) -> str | None:
        """Take one message, or look around. Return how it ended, nothing (an empty text) where it ended well."""
        try:
            message = self._messages.get(timeout=_POLL)
        except queue.Empty:
            return self._look()
        if isinstance(message, str):
            return message
        if "note" in message:
            self._tell(str(message["note"]))
        if "row" in message:
            try:
                self._row = self._own(decode_row(str(message["row"])))
            except UserError as error:
                return f"answered nonsense: {error}"
        self._told_all = bool(message.get("last"))
        return "" if self._told_all else self._look()

    def _look(self) -> str | None:
        held = self._tree.look()
        if self._limits.memory is not None and held > self._limits.memory:
            return f"its processes held {amount(held, 'B')} of memory; {amount(self._limits.memory, 'B')} are allowed"
        if time.monotonic() < self._deadline:
            return None
        if self._reason is None:
            self._stop("time")
            return None
        return f"did not stop within {self._limits.wind_down:g} s"

    def _stop(self, reason: Reason) -> None:
        """Ask for what was found so far."""
        self._reason = reason
        self._deadline = time.monotonic() + self._limits.wind_down
        self._tell("stopping" if reason == "time" else "stopping; Ctrl-C again ends the run")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, signal.SIGINT)

    def _own(self, row: Row) -> Row:
        """Whose row it is, is not for the process to say."""
        order = self._order
        return replace(
            row,
            name=order.name,
            source_hash=order.source_hash,
            fingerprint=order.fingerprint,
            level=order.level,
            number=order.number,
            device=row.device if row.passed else self._device,
        )

    def _finished(self, problem: str) -> Row | None:
        """Make the row of what came, and of how it ended."""
        spent = time.monotonic() - self._began
        row = self._row
        if row is not None and row.passed:
            if self._reason is not None:
                mark = "stopped at the time limit" if self._reason == "time" else "ended early by Ctrl-C"
                row = replace(row, marks=(*row.marks, mark))
            if problem:
                missing = () if NOT_COMPARED in row.marks or row.timing == "estimated" else (NOT_COMPARED,)
                row = replace(row, message=f"passed; then its process {problem}", marks=(*row.marks, *missing))
            return replace(row, spent=spent, finished=now())
        if self._reason == "user":
            return None
        if self._reason == "time":
            what = f"not done after {self._limits.seconds:g} s" + (f"; {problem}" if problem else "")
            late = row if row is not None else empty_row(self._order, self._device, "timeout", what, spent)
            return replace(late, spent=spent, message=f"{what}; {row.message}" if row is not None else what)
        if row is not None and not problem:
            return replace(row, spent=spent)
        return empty_row(self._order, self._device, "crashed", problem or "ended without a row", spent)

    def _read(self) -> None:
        """Hand every message on; at the end, say how it ended."""
        while True:
            try:
                message, _ = self._child.receive(self._limits.seconds + 10 * self._limits.wind_down, max_blob=0)
            except wire.Closed:
                self._messages.put(_last_line_first(self._child.epitaph()))
                return
            except wire.Late:
                self._messages.put("said nothing for too long")
                return
            except wire.Nonsense as error:
                self._messages.put(f"sent {error}")
                return
            self._messages.put(message)
            if message.get("last"):
                return


def _last_line_first(epitaph: str) -> str:
    """Put the last line of what a process printed before the rest of it: of a traceback it says the most."""
    how, _, printed = epitaph.partition(": ")
    lines = printed.splitlines()
    return f"{how}: {lines[-1]}\n{printed}" if len(lines) > 1 else epitaph
