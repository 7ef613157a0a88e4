"""A child process that answers messages of `wire`, in a session of its own so that all of it can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

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


class Child:
    """One process. Its last two arguments are the descriptors to read from and to answer on; what it prints is kept.

    Not thread-safe. Use as a context manager, or call `kill`.
    """

    def __init__(self, command: Sequence[str], *, extra: Mapping[str, str] | None = None, cwd: str = "/") -> None:
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        if "PYTHONPATH" in environment:
            # What is relative here would mean another folder there.
            folders = environment["PYTHONPATH"].split(os.pathsep)
            environment["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in folders if folder)
        environment |= {"PYTHONUNBUFFERED": "1", **(extra or {})}
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                _with_descriptors(command, theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs_in, theirs_out),
                cwd=cwd,
                env=environment,
                start_new_session=True,
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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1
        self._printed.close()

    def epitaph(self) -> str:
        """Say how it ended and what it printed last. Waits a moment for a process that is just ending."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
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


def _with_descriptors(command: Sequence[str], reads: int, writes: int) -> list[str]:
    """Return the command with the descriptors that it is to use as its last two arguments."""
    return [*command, str(reads), str(writes)]
