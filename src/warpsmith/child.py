"""A child process that answers messages of `wire`, in a session of its own so that all of it can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from warpsmith import wire

KEPT_ENVIRONMENT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "OMP_NUM_THREADS",
    "HOME",
    "TMPDIR",
)
_EPITAPH = 2000


def interpreter(module: str) -> tuple[str, ...]:
    """Return the command that runs a module in an interpreter of its own, whatever lies in the working directory."""
    return (sys.executable, "-P", "-m", module)


class Process(Protocol):
    """A process that leads a session of its own. Its number is nobody else's before `release`."""

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""

    def poll(self) -> int | None:
        """Return the code that it ended with, the negative number of the signal that ended it, or None."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the same once it has ended. Raises subprocess.TimeoutExpired after so many seconds."""

    def release(self) -> None:
        """Have done with it; it has been waited for."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a process is to begin: with nothing to read from a terminal, and printing to `printed`, a descriptor.

    `reads` and `writes` are the descriptors for messages, which become the last two arguments of the command.
    `environment` is all that it sees.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    reads: int
    writes: int
    printed: int


Start = Callable[[Beginning], Process]
"""Starts a process. Raises OSError where the machine cannot."""


class _Fresh(subprocess.Popen[bytes]):
    """A process that was started from its command."""

    def release(self) -> None:
        """Have done with it. To wait for it was all there is to do."""


def fresh(beginning: Beginning) -> Process:
    """Start a process from its command, with a new interpreter and whatever it imports."""
    return _Fresh(
        [*beginning.command, str(beginning.reads), str(beginning.writes)],
        stdin=subprocess.DEVNULL,
        stdout=beginning.printed,
        stderr=subprocess.STDOUT,
        pass_fds=(beginning.reads, beginning.writes),
        cwd=beginning.cwd,
        env=dict(beginning.environment),
        start_new_session=True,
    )


def kept_environment() -> dict[str, str]:
    """Return what a child sees of the environment: no keys and passwords."""
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    if "PYTHONPATH" in environment:
        # What is relative here would mean another folder there.
        folders = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders if folder)
    return environment | {"PYTHONUNBUFFERED": "1"}


class Child:
    """One process. Its last two arguments are the descriptors to read from and to answer on; what it prints is kept.

    `extra` is added to its environment, `start` is how it comes to be. Not thread-safe. Use as a context manager, or
    call `kill`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        extra: Mapping[str, str] | None = None,
        cwd: str = "/",
        start: Start = fresh,
    ) -> None:
        environment = kept_environment() | dict(extra or {})
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        try:
            self._process = start(
                Beginning(tuple(command), environment, cwd, theirs_in, theirs_out, self._printed.fileno())
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process number, which is also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, message: wire.Message, *blobs: bytes, seconds: float | None = None) -> None:
        """Send a message. Raises wire.Closed where the child is gone, wire.Late where it does not read."""
        wire.send(self._write, message, *blobs, seconds=seconds)

    def receive(self, seconds: float, *, max_blob: int = wire.MAX_BLOB) -> tuple[wire.Message, list[bytes]]:
        """Await one message. Raises wire.Closed, wire.Late or wire.Nonsense."""
        return wire.receive(self._read, seconds, max_blob=max_blob)

    def ask(
        self, message: wire.Message, *blobs: bytes, seconds: float, max_blob: int = wire.MAX_BLOB
    ) -> tuple[wire.Message, list[bytes]]:
        """Send a message and await the answer."""
        self.send(message, *blobs, seconds=seconds)
        return self.receive(seconds, max_blob=max_blob)

    def close(self) -> None:
        """Tell the child that there will be no more messages."""
        os.close(self._write)
        self._write = -1

    def wait(self, seconds: float) -> None:
        """Wait until the process has ended, or until the time is over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """End the process and everything that it started. Safe to call again."""
        if self._printed.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.release()
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1
        self._printed.close()

    def epitaph(self) -> str:
        """Say how it ended and what it printed last. Waits a moment for a process that is just ending."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        if code is None:
            how = "does not answer"
        elif code < 0:
            known = -code in {each.value for each in signal.Signals}
            how = f"was ended by {signal.Signals(-code).name if known else f'signal {-code}'}"
        else:
            how = f"ended with code {code}"
        self._printed.seek(0)
        printed = self._printed.read()[-_EPITAPH:].decode(errors="replace").strip()
        return f"{how}: {printed}" if printed else how
