"""Processes that begin within milliseconds, since they are forked from one that has everything imported.

`Nursery` stands in for `child.fresh` as the start of a `Child`: what it starts behaves as `python -P -m MODULE` would.
The module's `main` takes no arguments and finds the descriptors for messages in `sys.argv`.

It may have a function `warm_up`, called once in the process that others are forked from: it imports and computes what
all of them need, starts no threads that outlive it, touches no GPU, and returns what each fork calls first, so as to
be like a fresh process. `nursery_process.py` is that process.

What a nursery cannot do is done by a fresh process: where the warm one does not start, or where the command is another.
A warm process that was killed takes with it what was forked from it; the next start makes another.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from warpsmith.child import Beginning, Process, fresh, interpreter, kept_environment

_PROCESS = interpreter("warpsmith.nursery_process")
_WARM_SECONDS = 300.0
_FORK_SECONDS = 60.0
_END_SECONDS = 5.0
_TRIES = 2
_ANSWER = 1 << 12
_LAST_WORDS = 2000


class Nursery:
    """Starts processes of one module. The warm process starts with the first of them, or with `prepare`.

    `extra` is added to the environment of the warm process, and to that of no other. `command` is what it can start;
    `trouble` says why the warm process is of no use, and is empty where it is of use. May be used from several threads.
    Use as a context manager, or call `close`, which ends all that was forked.
    """

    def __init__(self, module: str, extra: Mapping[str, str] | None = None) -> None:
        self.command = interpreter(module)
        self.trouble = ""
        self._module = module
        self._extra = dict(extra or {})
        self._turn = threading.Lock()
        self._failures = 0  # in a row
        self._ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._printed: IO[bytes] | None = None

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Start the warm process, and wait until it is ready, or is not going to be: then `trouble` says why."""
        with self._turn:
            while self._failures < _TRIES and self._warm() is None:
                pass

    def start(self, beginning: Beginning) -> Process:
        """Start a process; from another command than `command`, or where there is `trouble`, a fresh one.

        Raises OSError where the machine cannot start a fresh one either.
        """
        while beginning.command == self.command and self._failures < _TRIES:
            forked = self._fork(beginning)
            if forked is not None:
                return forked
        return fresh(beginning)

    def close(self) -> None:
        """End the warm process and everything that was forked from it."""
        with self._turn:
            self._end()

    def _fork(self, beginning: Beginning) -> Process | None:
        request = json.dumps({"environment": dict(beginning.environment), "cwd": beginning.cwd}).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        forked = _Forked(ours)
        with theirs, self._turn:
            control = self._warm()
            if control is None:
                forked.release()
                return None
            # Where this fails the warm process has just ended, and the lifeline says so.
            with contextlib.suppress(OSError):
                descriptors = [beginning.reads, beginning.writes, beginning.printed, theirs.fileno()]
                socket.send_fds(control, [request], descriptors)
        problem = forked.begin(_FORK_SECONDS)
        if not problem:
            with self._turn:
                self._failures, self.trouble = 0, ""
            return forked
        self._failed(control, problem)
        forked.release()  # Should it begin after all, it is ended for that.
        return None

    def _failed(self, control: socket.socket, problem: str) -> None:
        """Count that nothing was forked: once, where a warm process ended for which several waited."""
        with self._turn:
            if self._control is not control or self._process is None:
                return
            self._failures, self.trouble = self._failures + 1, problem
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
                self._end()

    def _warm(self) -> socket.socket | None:
        """Return the socket of a warm process; None where it did not get ready."""
        if self._ready and self._process is not None and self._process.poll() is None:
            return self._control
        self._end()
        try:
            self._ready = _message(self._launch(), _WARM_SECONDS) == {"ready": True}
            problem = "it did not get ready"
        except OSError as error:
            problem = str(error)
        if self._ready:
            return self._control
        said = self._end()
        self._failures, self.trouble = self._failures + 1, said or problem
        return None

    def _launch(self) -> socket.socket:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*_PROCESS, self._module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=kept_environment() | self._extra,
                start_new_session=True,  # Ctrl-C is for whoever has the nursery.
            )
        return self._control

    def _end(self) -> str:
        """End the warm process, if there is one, and return what it printed last."""
        if self._control is not None:
            self._control.close()  # Then it kills what it made, and ends.
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS if self._ready else 0.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        said = ""
        if self._printed is not None:
            self._printed.seek(0)
            said = self._printed.read()[-_LAST_WORDS:].decode(errors="replace").strip()
            self._printed.close()
        self._process = self._control = self._printed = None
        self._ready = False
        return said


class _Forked:
    """A process that was forked; how it goes is heard on its lifeline. Closing that ends it, and frees its number."""

    def __init__(self, lifeline: socket.socket) -> None:
        self.pid = 0
        self._lifeline = lifeline
        self._turn = threading.Lock()
        self._code: int | None = None

    def begin(self, seconds: float) -> str:
        """Wait until the process has begun, and return an empty text, or why it has not."""
        message = _message(self._lifeline, seconds)
        if message is None:
            return "the warm process ended, or did not answer"
        if "pid" not in message:
            return str(message.get("error", "a process that was forked ended before it began"))
        self.pid = int(message["pid"])
        return ""

    def poll(self) -> int | None:
        """Return the code that it ended with, or None; what a signal ended has the negative number of that."""
        self._listen(0.0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return the code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0.0:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self._listen(left)
        return self._code

    def release(self) -> None:
        """Have it ended, if it has not, and its number freed."""
        self._lifeline.close()

    def _listen(self, seconds: float | None) -> None:
        """Wait so long for the message that it has ended."""
        if self._code is not None or not _readable(self._lifeline, seconds):
            return
        with self._turn:
            # Another thread may have taken the message meanwhile.
            if self._code is None and _readable(self._lifeline, 0.0):
                message = _message(self._lifeline, 0.0)
                # Where the warm process is gone the kernel has ended what was forked from it.
                self._code = -signal.SIGKILL if message is None else int(message["code"])


def _readable(end: socket.socket, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return bool(poll.poll(None if seconds is None else 1000 * seconds))


def _message(end: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Return the next message; None where none comes in time, or ever."""
    if not _readable(end, seconds):
        return None
    try:
        data = end.recv(_ANSWER)
    except OSError:
        return None
    message: dict[str, Any] | None = json.loads(data) if data else None
    return message
