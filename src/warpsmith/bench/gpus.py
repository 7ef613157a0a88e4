"""Which GPU a task gets: each task sees one, the one on which the fewest tasks are under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from warpsmith.device.choose import Choice
from warpsmith.device.cuda.gpus import Present, present_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"


def usable_gpus(choice: Choice, visible: str | None) -> tuple[str, ...]:
    """Return the GPUs that a run may use, as `CUDA_VISIBLE_DEVICES` names them: all of the model that was chosen.

    `visible` is what that variable holds now, None where it is not set. None are returned where nothing is measured.
    """
    if choice.present is None:
        return ()
    return names_of([gpu for gpu in present_gpus() if gpu.name == choice.present.name], visible)


def names_of(gpus: Sequence[Present], visible: str | None) -> tuple[str, ...]:
    """Name GPUs as the variable does that shows them; where it is not set, by their permanent identity.

    CUDA numbers what it shows in the order of the variable, so the number of a GPU is the place of its entry.
    """
    if visible is None:
        return tuple(gpu.uuid for gpu in gpus)
    entries = [entry.strip() for entry in visible.split(",")]
    return tuple(entries[gpu.ordinal] for gpu in gpus)


class Gpus:
    """Hands out GPUs; may be used from several threads."""

    def __init__(self, names: Sequence[str]) -> None:
        self._tasks = dict.fromkeys(names, 0)
        self._turn = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[dict[str, str]]:
        """Have the GPU with the fewest tasks, of several the first: what the environment of a task must say."""
        if not self._tasks:
            yield {}
            return
        with self._turn:
            name = min(self._tasks, key=self._tasks.__getitem__)
            self._tasks[name] += 1
        try:
            yield {VISIBLE: name}
        finally:
            with self._turn:
                self._tasks[name] -= 1
