"""The judge's end of a sandbox with a solution in it: asks it, watches it from outside, ends it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO, Any

from warpsmith import wire
from warpsmith.child import interpreter, kept_environment
from warpsmith.errors import MachineError
from warpsmith.judge.sandbox import Limits, admitted, specification

_MODULE = "warpsmith.judge.foreign.template"
_START_SECONDS = 120.0
_EPITAPH = 2000
_PROCESSES = 3
"""The outer one, init and the worker: where fewer are seen, the kernel does not show who is whose child."""
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""Has the C library keep memory that a call frees for the next one, as PyTorch does on a GPU. Else what a call takes on
a CPU depends on which memory happened to go back to the kernel: the same call took 1.4 ms or 6 ms."""
_TICK = 1.0 / os.sysconf("SC_CLK_TCK")


class Fault(Exception):
    """A solution did not answer in order. `reason` is a code such as `timeout`, `died`, `raised`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Template:
    """The warm process. `spawn` gives a sandbox with a fresh driver in it within milliseconds."""

    def __init__(self, limits: Limits, *, devices: bool, unsandboxed: bool) -> None:
        self.limits = limits
        self._unsandboxed = unsandboxed
        self._stage = tempfile.TemporaryDirectory(prefix="warpsmith-stage-")
        self._spec = asdict(specification(self._stage.name, limits, devices=devices))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*interpreter(_MODULE), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=kept_environment() | _ALLOCATOR | {"OMP_WAIT_POLICY": "passive"},
            )
        self._socket = ours
        self._socket.settimeout(_START_SECONDS)
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def spawn(self) -> Solution:
        """Return a new sandbox. Raises MachineError where this machine refuses a part that is required."""
        read, theirs_out = os.pipe()
        theirs_in, write = os.pipe()
        printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the solution
        try:
            answer = self._ask({"do": "spawn", "spec": self._spec}, [theirs_in, theirs_out, printed.fileno()])
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        solution = Solution(self, answer["pid"], read, write, printed)
        try:
            entered, _ = wire.receive(read, _START_SECONDS, max_blob=0)
            solution.capabilities = admitted(entered, unsandboxed=self._unsandboxed)
        except (wire.Closed, wire.Late, wire.Nonsense) as error:
            why = solution.epitaph()
            solution.kill()
            raise MachineError(f"the sandbox does not start: it {why}") from error
        except MachineError:
            solution.kill()
            raise
        return solution

    def reap(self, pid: int) -> dict[str, int]:
        """Wait for a killed sandbox, and say how it ended."""
        return self._ask({"do": "reap", "pid": pid}, [])

    def close(self) -> None:
        """End the warm process, and every sandbox that it made."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._stage.cleanup()

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, int]:
        with self._lock:
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                answer = self._socket.recv(1 << 12)
            except OSError as error:
                raise MachineError(f"the process that sandboxes are made from is gone: {error}") from error
        if not answer:
            raise MachineError("the process that sandboxes are made from has ended")
        found: dict[str, int] = json.loads(answer)
        return found


@cache
def _shared(limits: Limits, devices: bool, unsandboxed: bool) -> list[Template]:
    return []


def template(limits: Limits, *, devices: bool, unsandboxed: bool) -> Template:
    """Return the warm process for such sandboxes, which all judgements of this process share."""
    held = _shared(limits, devices, unsandboxed)
    if held and not held[0].alive:
        held.pop().close()
    if not held:
        held.append(Template(limits, devices=devices, unsandboxed=unsandboxed))
        atexit.register(held[0].close)
    return held[0]


class Solution:
    """One sandbox, for one solution. Use as a context manager, or call `kill`.

    `wall` is how many seconds the last answer took to come.
    """

    def __init__(self, source: Template, pid: int, read: int, write: int, printed: IO[bytes]) -> None:
        self.pid = pid
        self.capabilities: tuple[str, ...] = ()
        self.wall = 0.0
        self._template = source
        self._read, self._write = read, write
        self._printed = printed
        self._ended: dict[str, int] | None = None

    def __enter__(self) -> Solution:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(
        self, do: str, message: wire.Message, *blobs: bytes, seconds: float, max_blob: int = 0
    ) -> tuple[wire.Message, list[bytes]]:
        """Ask for one thing. Raises Fault where the answer is an error, is none, or is not to this question."""
        number = secrets.token_hex(8)
        end = time.monotonic() + seconds
        watchdog = threading.Timer(seconds, self._signal)  # A process that does not read would block us for ever.
        watchdog.start()
        try:
            start = time.perf_counter()
            wire.send(self._write, {**message, "do": do, "id": number}, *blobs)
            answer, data = wire.receive(self._read, seconds, max_blob=max_blob)
            self.wall = time.perf_counter() - start
        except wire.Late:
            raise self._fault("timeout", f"no answer within {seconds:.3g} s") from None
        except wire.Closed:
            if time.monotonic() >= end:
                raise self._fault("timeout", f"no answer within {seconds:.3g} s") from None
            raise self._fault("died", f"The solution's process {self.epitaph()}") from None
        except wire.Nonsense as error:
            raise self._fault("nonsense", f"The solution's process sent {error}") from None
        finally:
            watchdog.cancel()
        if answer.get("id") != number:
            raise self._fault("forged_answer", "The solution's process sent something that it was not asked for.")
        if "error" in answer:
            line = f" (line {answer['line']})" if answer.get("line") else ""
            raise Fault(str(answer["error"])[:40], str(answer.get("message", ""))[:_EPITAPH] + line)
        return answer, data

    def cpu_seconds(self) -> float | None:
        """Return the processor time of everything in the sandbox so far; None where the kernel does not tell."""
        total = 0.0
        tree = list(self._tree())
        if len(tree) < _PROCESSES:
            return None
        for pid in tree:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += (int(fields[13]) + int(fields[14])) * _TICK  # children that were waited for
                try:
                    # The number of a process's own clock, as the kernel makes it: finer than the ticks of `stat`.
                    total += time.clock_gettime((~pid << 3) | 2)
                except OSError:
                    return None
        return total

    def _tree(self) -> Iterator[int]:
        waiting = [self.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                        waiting += map(int, (thread / "children").read_text().split())

    def kill(self) -> None:
        """End the sandbox and everything in it. Safe to call again."""
        self._finish()
        for descriptor in (self._read, self._write):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self._write = -1
        self._printed.close()

    def epitaph(self) -> str:
        """Say how it ended and what it printed last; it is ended for that."""
        end = time.monotonic() + 1.0  # A process that closed its pipe is about to end by itself.
        while self._ended is None and time.monotonic() < end and not self._is_over():
            time.sleep(0.005)
        ended = self._finish()
        how = f"ended with code {ended['code']}" if "code" in ended else f"was ended by signal {ended.get('signal')}"
        self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, self._printed.tell() - _EPITAPH))
        text = self._printed.read(_EPITAPH).decode(errors="replace").strip()
        return f"{how}: {text}" if text else how

    def _is_over(self) -> bool:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def _fault(self, reason: str, message: str) -> Fault:
        self._finish()
        return Fault(reason, message)

    def _finish(self) -> dict[str, int]:
        if self._ended is None:
            self._signal()
            self._ended = self._template.reap(self.pid)
        return self._ended

    def _signal(self) -> None:
        if self._ended is None:
            for send in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    send(self.pid, signal.SIGKILL)
