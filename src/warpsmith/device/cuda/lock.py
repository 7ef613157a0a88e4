"""One lock for each GPU, across processes: who verifies or times holds it, so that nobody disturbs anybody's clock."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def gpu_lock(uuid: str) -> FileLock:
    """Return the lock of the GPU with this identity. It can be taken again by the process that holds it."""
    folder = Path(tempfile.gettempdir()) / f"warpsmith-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return FileLock(folder / f"{uuid}.lock", is_singleton=True)


@contextmanager
def turn(lock: FileLock, waits: Callable[[bool], None]) -> Iterator[None]:
    """Hold a lock. Where another process has it, `waits` is called with True before waiting and False after it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits(True)
        lock.acquire()
        waits(False)
    try:
        yield
    finally:
        lock.release()
