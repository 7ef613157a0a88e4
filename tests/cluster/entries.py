"""Worker processes that misbehave, each in one way. `cache_dir` is a folder to leave marks in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from warpsmith.cluster import worker
from warpsmith.cluster.worker import Ready, Refused, Waits, WorkerSetup
from warpsmith.errors import SettingsError, SimulatorError
from warpsmith.records import Candidate, Failure, Stage, Verdict


def verdict_of(candidate: Candidate) -> Verdict:
    """A verdict that says which process gave it."""
    failure = Failure(Stage.SCREEN, "test", str(os.getpid()))
    return Verdict(candidate.key, candidate.task_key, Stage.SCREEN, failure, None)


def _folder(setup: WorkerSetup) -> Path:
    assert setup.cache_dir is not None
    return Path(setup.cache_dir)


def answers(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    _answer(pipe)


def _answer(pipe: Connection) -> None:
    while True:
        try:
            candidate = pipe.recv()
        except EOFError:
            return
        pipe.send(verdict_of(candidate))


def dies_once(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    candidate = pipe.recv()
    mark = _folder(setup) / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 11)
    pipe.send(verdict_of(candidate))
    _answer(pipe)


def dies(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    pipe.recv()
    os._exit(7)


class Broken:
    """A judge whose GPU has failed."""

    def judge(self, candidate: Candidate) -> Verdict:
        raise RuntimeError("CUDA error:\nan illegal memory access was encountered")


def falls(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    worker._answer(pipe, Broken())  # type: ignore[arg-type]


def waits_for_the_gpu(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    candidate = pipe.recv()
    for waiting in (True, False):
        pipe.send(Waits(waiting))
        time.sleep(1.0 if waiting else 0.0)
    pipe.send(verdict_of(candidate))


def hangs_with_a_child(pipe: Connection, setup: WorkerSetup) -> None:
    """Starts a child in its own group, then answers nothing."""
    os.setpgid(0, 0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (_folder(setup) / "pids").write_text(f"{os.getpid()} {child.pid}")
    pipe.send(Ready())
    pipe.recv()
    time.sleep(600)


def hangs_on_the_first(pipe: Connection, setup: WorkerSetup) -> None:
    mark = _folder(setup) / "hung"
    pipe.send(Ready())
    if not mark.exists():
        candidate = pipe.recv()
        mark.touch()
        time.sleep(600)
        pipe.send(verdict_of(candidate))
    pipe.send(verdict_of(pipe.recv()))
    _answer(pipe)


def slow(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    while True:
        candidate = pipe.recv()
        time.sleep(0.7)
        pipe.send(verdict_of(candidate))


def meets_unknown_instruction(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    pipe.recv()
    pipe.send(SimulatorError("mma.sync is not simulated"))
    _answer(pipe)


def refuses(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Refused(SettingsError("unknown GPU 'abacus'")))


def talks_nonsense(pipe: Connection, setup: WorkerSetup) -> None:
    pipe.send(Ready())
    pipe.recv()
    pipe.send({"passed": True})
    _answer(pipe)
