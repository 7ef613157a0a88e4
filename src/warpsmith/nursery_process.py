"""The warm process that others are forked from: `python -P -m warpsmith.nursery_process MODULE SOCKET`.

It imports the module, lets it warm up, says `ready`, and waits for requests. Each is a JSON object with `environment`
and `cwd`, and comes with four descriptors: to read, to write, to print, and the lifeline. On the lifeline the fork says
its `pid` once it is ready to run `main` in a session of its own, and this process says the `code` with which it ended.
A fork that has ended stays a zombie, so that its number means nobody else, until its lifeline is closed at the other
end; one that has not ended is killed then. When the socket closes this process kills all forks and ends; when it ends
in another way, the kernel kills them.

In a fork, everything up to `main` is left by way of returning, so that the interpreter ends as it does in a process
that was started: exit handlers run, an exception is printed, an exit code counts.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_REQUEST = 1 << 18
_DESCRIPTORS = 4
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Warm up and serve; in a fork, become the process that was asked for."""
    name, descriptor = sys.argv[1], int(sys.argv[2])
    module = importlib.import_module(name)
    wake: Callable[[], None] = getattr(module, "warm_up", _nothing)() or _nothing
    gc.collect()
    gc.freeze()  # What all forks share is never walked again, so that its pages stay shared.
    with socket.socket(fileno=descriptor) as control:
        control.send(json.dumps({"ready": True}).encode())
        birth = _Warm(control).serve()
    if birth is not None:
        sys.argv = [str(module.__file__), str(birth.reads), str(birth.writes)]
        wake()
        with birth.lifeline:
            _tell(birth.lifeline, {"pid": os.getpid()})
        module.main()


def _nothing() -> None:
    """Nothing is to be done first."""


@dataclass(frozen=True, slots=True)
class _Birth:
    """What a fork is to be."""

    environment: dict[str, str]
    cwd: str
    reads: int
    writes: int
    printed: int
    lifeline: socket.socket

    def close(self) -> None:
        """Close what is the fork's alone."""
        for descriptor in (self.reads, self.writes, self.printed):
            os.close(descriptor)


@dataclass
class _Warm:
    """The process that forks. `born` are the forks that somebody holds, by number; `dying` those that were let go."""

    control: socket.socket
    born: dict[int, socket.socket] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    dying: set[int] = field(default_factory=set)

    def serve(self) -> _Birth | None:
        """Serve until the socket closes and return None; in a fork, return what it is."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(False)
            signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)  # Only so that it wakes the poll.
            while True:
                ready = self._await(ours)
                if self.control.fileno() in ready:
                    birth = self._request()
                    if birth is None:
                        self._kill_all()
                        return None
                    if self._fork(birth):
                        return birth
                self._bury(ready)
                self._tell_ends()

    def _await(self, wakes: socket.socket) -> set[int]:
        """Wait until something is to be done, and return the descriptors on which something came."""
        poll = select.poll()
        for end in (self.control, wakes, *self.born.values()):
            poll.register(end, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        with contextlib.suppress(BlockingIOError):
            while wakes.recv(_REQUEST):
                pass
        return ready

    def _request(self) -> _Birth | None:
        # Not `recv_fds`: a program that a fork starts must not get these as well.
        room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _, _ = self.control.recvmsg(_REQUEST, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        descriptors = array.array("i")
        for _, _, held in ancillary:
            descriptors.frombytes(held)
        request: dict[str, Any] = json.loads(data)
        reads, writes, printed, lifeline = descriptors
        end = socket.socket(fileno=lifeline)
        return _Birth(request["environment"], request["cwd"], reads, writes, printed, end)

    def _fork(self, birth: _Birth) -> bool:
        """Fork, and return whether this is the fork."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            birth.close()
            with birth.lifeline:
                _tell(birth.lifeline, {"error": str(error)})
            return False
        if pid:
            birth.close()
            self.born[pid] = birth.lifeline
            return False
        self._become(birth, parent)
        return True

    def _become(self, birth: _Birth, parent: int) -> None:
        """Turn this fork into a process like one that was started."""
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close()
        for lifeline in self.born.values():
            lifeline.close()
        os.dup2(birth.printed, 1)
        os.dup2(birth.printed, 2)
        os.close(birth.printed)
        os.environ.clear()
        os.environ.update(birth.environment)
        os.chdir(birth.cwd)
        tempfile.tempdir = None  # It was looked up in another environment.

    def _tell_ends(self) -> None:
        """Say how forks ended, without freeing their numbers."""
        for pid, lifeline in self.born.items():
            if pid in self.ended:
                continue
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                self.ended.add(pid)
                exited = found.si_code == os.CLD_EXITED
                _tell(lifeline, {"code": found.si_status if exited else -found.si_status})

    def _bury(self, ready: set[int]) -> None:
        """Kill forks that were let go, with their groups, and free the numbers of those that have ended."""
        for pid in [pid for pid, lifeline in self.born.items() if lifeline.fileno() in ready]:
            _kill(pid)
            self.born.pop(pid).close()
            self.ended.discard(pid)
            self.dying.add(pid)
        # Not waited for: a process that the driver of a GPU holds up must not hold up all.
        self.dying -= {pid for pid in self.dying if os.waitpid(pid, os.WNOHANG)[0]}

    def _kill_all(self) -> None:
        for pid in (*self.born, *self.dying):
            _kill(pid)


def _kill(pid: int) -> None:
    """End a fork that has not been waited for, and its group, where it has one already."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _tell(lifeline: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # Whoever wanted it is gone, which the lifeline says as well.
        lifeline.send(json.dumps(message).encode())


if __name__ == "__main__":
    main()
