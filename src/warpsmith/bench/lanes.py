"""Several tasks under way at the same time: lanes, each of which takes the next task when it has done one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from warpsmith.bench.interrupts import Interrupts

T = TypeVar("T")


def run_in_lanes(tasks: Iterable[T], lanes: int, do: Callable[[T], None], interrupts: Interrupts) -> None:
    """Call `do` with each task, in `lanes` threads; tasks begin in their order. Return when all are done.

    The threads are for waiting: what computes is a process. Ctrl-C arrives here, in the thread that calls, and is
    told to `interrupts`. When that says that the run is over, KeyboardInterrupt is raised; when `do` raises, so is what
    it raised. In any case no lane is at work any more: `do` is to return soon once `interrupts.over` is set.
    """
    waiting, turn = iter(tasks), threading.Lock()

    def lane() -> None:
        while not interrupts.over:
            with turn:
                task = next(waiting, _NONE)
            if isinstance(task, _Nothing):
                return
            do(task)

    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        at_work: list[Future[None]] = []
        try:
            at_work += [pool.submit(lane) for _ in range(lanes)]
            _await(at_work, interrupts)
        finally:
            # Also where another Ctrl-C arrived outside of the wait.
            interrupts.over = True
            _await_end(at_work)


class _Nothing:
    """Stands for the end, since a task may be anything."""


_NONE = _Nothing()


def _await(at_work: list[Future[None]], interrupts: Interrupts) -> None:
    """Wait for all lanes, and raise what one of them raised; count every Ctrl-C meanwhile."""
    while True:
        try:
            ended, others = wait(at_work, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            interrupts.pressed()
            if interrupts.over:
                raise
            continue
        for future in ended:
            future.result()
        if not others:
            return


def _await_end(at_work: list[Future[None]]) -> None:
    """Wait until the lanes have killed their processes; to be impatient with that would leave some behind."""
    while True:
        try:
            wait(at_work)
        except KeyboardInterrupt:
            continue
        return
