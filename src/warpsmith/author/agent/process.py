"""Runs the program of an agent: a clean environment, no shell, and an end to all of it.

What is covered: the program, and everything that it starts, is killed when it ends, takes too long, prints too much or
fills its folder. What is not covered: a process that leaves the group of the program on purpose lives on; and the
program runs as the user, so that it can read and write what the user can. Whoever does not trust an agent starts it in
a container: `command` may name one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

from warpsmith.author.agent.limits import AgentLimits

_POLL = 0.1
"""Seconds between two looks at whether the program has ended."""
_WEIGH = 1.0
"""Seconds between two looks at how much it has written."""
_TAIL = 20_000
"""Bytes that are kept of what it prints."""
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: `code`, or why it was `stopped`; and the end of what it printed."""

    code: int
    stopped: str
    printed: str


async def run(command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: AgentLimits) -> Ending:
    """Run a program in `folder` until it ends or is over a limit, then kill whatever is left of it.

    `environment` is all that it sees. Raises OSError where it cannot be started.
    """
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            stopped = await _watch(process.pid, folder, printed, limits)
        finally:
            code = _end(process)
        return Ending(code, stopped, _tail(printed))


async def _watch(pid: int, folder: Path, printed: IO[bytes], limits: AgentLimits) -> str:
    """Return once the program has ended, with an empty text; or why it must be stopped."""
    end = time.monotonic() + limits.seconds
    weighed = -_WEIGH
    while not _ended(pid):
        now = time.monotonic()
        if now >= end:
            return f"it took longer than {limits.seconds:g} s"
        if os.fstat(printed.fileno()).st_size > limits.printed_bytes:
            return f"it printed more than {limits.printed_bytes} bytes"
        if now - weighed >= _WEIGH:
            weighed = now
            if await anyio.to_thread.run_sync(_weight, folder) > limits.folder_bytes:
                return f"it wrote more than {limits.folder_bytes} bytes"
        await anyio.sleep(_POLL)
    return ""


def _ended(pid: int) -> bool:
    """Whether it has ended. It is left unburied, so that its number, by which its group is killed, is nobody else's."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _weight(folder: Path) -> int:
    """Return the bytes that a folder takes on disk. Links are not followed; what vanishes meanwhile does not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_blocks * _BLOCK
    return total


def _tail(printed: IO[bytes]) -> str:
    size = os.fstat(printed.fileno()).st_size
    printed.seek(max(0, size - _TAIL))
    return printed.read(_TAIL).decode("utf-8", "replace").strip()
