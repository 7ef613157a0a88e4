"""Judging on this machine's cores: worker processes, each with a judge, a simulator and a compiler of its own.

A worker that dies, or that takes longer than its time, is killed with its whole process group and replaced. A
candidate that was being judged when a worker died is judged once more; a second death is `WorkerDied`. One that takes
too long is a verdict, since the program is at fault.

Workers are our own code and the simulator runs no native code of a candidate, so messages are pickled both ways.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import anyio
import anyio.to_thread

from warpsmith.cluster.worker import Fallen, Ready, Refused, Waits, WorkerSetup, serve, write_task
from warpsmith.errors import MachineError, WarpsmithError, WorkerDied
from warpsmith.records import Candidate, Failure, Stage, Task, Verdict

_START_SECONDS = 120.0
_PRELOADED = "warpsmith.cluster.worker"
"""What the process that workers are forked from has imported: PyTorch takes seconds, and uses no GPU by that."""
_POLL = 0.2
_ATTEMPTS = 2


class _Died(Exception):
    """The worker ended without an answer."""


class _Late(Exception):
    """The worker did not answer in time."""


class LocalExecutor:
    """Judges candidates in `workers` processes. Safe to use from several tasks at once.

    `judgement_seconds` limits one judgement; what takes longer in the simulator gets a verdict with the reason
    `timeout`. On a GPU it raises MachineError, and waiting for others that use the GPU does not count. Start-up of a
    worker has its own limit. With `simulate` false, candidates are judged on the GPU called `gpu_name` if it is
    here; the workers take turns on it. Cancelling `judge` abandons the judgement; its worker finishes it and is then
    free again. `thorough` is for candidates that are to be kept.
    """

    def __init__(
        self,
        task: Task,
        gpu_name: str,
        workers: int,
        *,
        cache_dir: str | Path | None = None,
        seed: int = 0,
        judgement_seconds: float = 120.0,
        simulate: bool = True,
        thorough: bool = False,
        entry: Callable[[Connection, WorkerSetup], None] = serve,
    ) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers cannot judge anything")
        if not (0.0 < judgement_seconds < math.inf):
            raise ValueError(f"a judgement cannot be limited to {judgement_seconds} seconds")
        self.workers = workers
        self._task_key = task.key
        self._seconds = judgement_seconds
        self._simulate = simulate
        self._closing = threading.Event()
        self._limiter: anyio.CapacityLimiter | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="warpsmith-task-")
        task_file = Path(self._folder.name) / "task"
        write_task(task, task_file)
        folder = str(cache_dir) if cache_dir is not None else None
        setup = WorkerSetup(str(task_file), gpu_name, folder, seed, simulate, workers, thorough)
        self._slots = [_Slot(setup, entry) for _ in range(workers)]
        self._free: queue.Queue[_Slot] = queue.Queue()
        for slot in self._slots:
            slot.start()
            self._free.put(slot)

    async def judge(self, candidate: Candidate) -> Verdict:
        """Judge a candidate in the next free worker.

        Raises `WorkerDied` where two workers in a row died over it, and whatever `WarpsmithError` a worker met.
        """
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(4 * self.workers)
        return await anyio.to_thread.run_sync(
            partial(self._judge, candidate), abandon_on_cancel=True, limiter=self._limiter
        )

    def close(self) -> None:
        """End all workers. Judgements in flight raise `WorkerDied`."""
        self._closing.set()
        for slot in self._slots:
            slot.end()
        self._folder.cleanup()

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, candidate: Candidate) -> Verdict:
        slot = self._next_free()
        try:
            return self._attempts(slot, candidate)
        finally:
            self._free.put(slot)

    def _next_free(self) -> _Slot:
        while True:
            self._refuse_when_closed()
            try:
                return self._free.get(timeout=0.1)
            except queue.Empty:
                continue

    def _attempts(self, slot: _Slot, candidate: Candidate) -> Verdict:
        last = ""
        for _ in range(_ATTEMPTS):
            self._refuse_when_closed()
            try:
                return slot.ask(candidate, self._seconds)
            except _Late:
                slot.kill()
                return self._timed_out(candidate)
            except _Died as error:
                last = str(error)
                slot.kill()
        self._refuse_when_closed()
        raise WorkerDied(f"{last}, twice, while judging candidate {candidate.key}")

    def _refuse_when_closed(self) -> None:
        if self._closing.is_set():
            raise WorkerDied("the executor is closed")

    def _timed_out(self, candidate: Candidate) -> Verdict:
        if not self._simulate:
            # On a GPU every call and every build has a limit of its own, so the candidate cannot be why.
            raise MachineError(f"judging took longer than {self._seconds:g} s beside the waits for the GPU")
        message = f"Judging took longer than {self._seconds:g} s; the program is too slow to judge or does not end."
        failure = Failure(Stage.RUN, "timeout", message)
        return Verdict(candidate.key, self._task_key, Stage.RUN, failure, None, seconds=(("run", self._seconds),))


class _Slot:
    """The place of one worker: starts it, asks it, kills it. One thread at a time uses it; any may end it."""

    def __init__(self, setup: WorkerSetup, entry: Callable[[Connection, WorkerSetup], None]) -> None:
        self._setup = setup
        self._entry = entry
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None
        self._ready = False

    def start(self) -> None:
        """Start a worker without waiting for it."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_PRELOADED])
        ours, theirs = context.Pipe()
        process = context.Process(target=self._entry, args=(theirs, self._setup), daemon=True)
        with _without_main():
            process.start()
        theirs.close()
        self._process, self._pipe, self._ready = process, ours, False

    def ask(self, candidate: Candidate, seconds: float) -> Verdict:
        """Have a candidate judged. Raises `_Died`, `_Late`, or the error that the worker met."""
        if self._process is None:
            self.start()
        if not self._ready:
            self._await_start()
        self._send(candidate)
        answer = self._receive(seconds)
        if isinstance(answer, WarpsmithError):
            raise answer
        if isinstance(answer, Fallen):
            raise _Died(f"a worker met {answer.text}")
        if not isinstance(answer, Verdict):
            raise _Died("a worker answered nonsense")
        return answer

    def kill(self) -> None:
        """End the worker and forget it; the next question starts another."""
        self.end()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def end(self) -> None:
        """Kill the worker with its process group. Whoever waits for its answer sees the pipe close."""
        process = self._process
        if process is not None:
            _kill_group(process.pid)
            process.join()

    def _await_start(self) -> None:
        try:
            answer = self._receive(_START_SECONDS)
        except _Late as error:
            raise _Died(f"a worker did not start within {_START_SECONDS:g} s") from error
        if isinstance(answer, Refused):
            raise answer.error
        if not isinstance(answer, Ready):
            raise _Died("a worker started with nonsense")
        self._ready = True

    def _send(self, candidate: Candidate) -> None:
        try:
            self._connection().send(candidate)
        except OSError as error:
            raise _Died(self._obituary()) from error

    def _receive(self, seconds: float) -> object:
        """Wait for an answer. While the worker waits for a GPU that others use, its clock stands still."""
        pipe = self._connection()
        last, waiting = time.monotonic(), False
        try:
            while True:
                arrived = pipe.poll(_POLL)
                now = time.monotonic()
                seconds -= 0.0 if waiting else now - last
                last = now
                answer = pipe.recv() if arrived else None
                if isinstance(answer, Waits):
                    waiting = answer.waiting
                elif arrived:
                    return answer
                elif seconds < 0.0:
                    raise _Late
        except (EOFError, OSError) as error:
            raise _Died(self._obituary()) from error

    def _connection(self) -> Connection:
        if self._pipe is None:
            raise _Died("a worker was ended")
        return self._pipe

    def _obituary(self) -> str:
        process = self._process
        if process is None:
            return "a worker was ended"
        process.join(1.0)
        code = process.exitcode
        how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with code {code}"
        return f"worker {process.pid} ended {how}"


def _kill_group(pid: int | None) -> None:
    if pid is None:
        return
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


_STARTING = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide which script is running: a worker needs nothing of it, and to import it would be to run it again."""
    main = sys.modules["__main__"]
    with _STARTING:
        hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
        try:
            for name in hidden:
                setattr(main, name, None)
            yield
        finally:
            for name, value in hidden.items():
                setattr(main, name, value)
