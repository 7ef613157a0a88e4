"""What Ctrl-C asks for, where several tasks are under way: first that they come to an end, then that the run does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Wish:
    """What is wanted of one task. `stop`: that it ends with what it has found."""

    def __init__(self) -> None:
        self.stop = False


class Interrupts:
    """Shared by the thread that is interrupted, which calls `pressed`, and those that wait for tasks, which look.

    `over` says that the run ends: every task is to be killed, and none begins any more. It never becomes false again.
    """

    def __init__(self) -> None:
        self.over = False
        self._turn = threading.Lock()
        self._under_way: list[Wish] = []

    def pressed(self) -> None:
        """Ctrl-C: stop the tasks under way; where there is none, or one is being stopped already, the run is over."""
        with self._turn:
            if not self._under_way or any(wish.stop for wish in self._under_way):
                self.over = True
            for wish in self._under_way:
                wish.stop = True

    @contextmanager
    def task(self) -> Iterator[Wish]:
        """Be under way as a task; look at the wish now and then, and at `over`."""
        wish = Wish()
        with self._turn:
            self._under_way.append(wish)
        try:
            yield wish
        finally:
            with self._turn:
                self._under_way.remove(wish)
