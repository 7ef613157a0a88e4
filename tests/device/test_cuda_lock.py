"""The lock of a GPU keeps other processes out, and is free again when its holder is gone, however it went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from warpsmith.device.cuda.lock import gpu_lock, turn

HOLDER = """
import sys
from warpsmith.device.cuda.lock import gpu_lock
with gpu_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks lie in the folder for temporary files, also those of the processes started here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def holder(uuid: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDER, uuid], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stdout.readline() == "held\n"
    return started


def test_another_process_waits_until_the_holder_lets_go() -> None:
    with holder("GPU-1") as other:
        with pytest.raises(Timeout):
            gpu_lock("GPU-1").acquire(timeout=0.05)
        with gpu_lock("GPU-2").acquire(timeout=0.05):
            pass  # Another GPU is free.
        other.communicate("\n", timeout=30)
        with gpu_lock("GPU-1").acquire(timeout=10):
            pass


def test_a_holder_that_is_killed_holds_nothing() -> None:
    with holder("GPU-1") as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait(30)
        with gpu_lock("GPU-1").acquire(timeout=10):
            pass


def test_a_device_that_holds_the_gpu_can_take_it_again() -> None:
    lock = gpu_lock("GPU-1")
    with lock, lock.acquire(timeout=0.05):
        pass
    with gpu_lock("GPU-1").acquire(timeout=10):
        pass


def test_two_devices_of_one_process_share_the_lock() -> None:
    with gpu_lock("GPU-1"), gpu_lock("GPU-1").acquire(timeout=0.05):
        pass


def test_the_locks_are_nobody_elses() -> None:
    path = Path(gpu_lock("GPU-1").lock_file).parent
    assert path.stat().st_mode & 0o777 == 0o700


def test_who_waits_for_the_gpu_says_so_and_who_does_not_says_nothing() -> None:
    told: list[bool] = []
    with holder("GPU-1") as other:
        assert other.stdin is not None

        def waits(waiting: bool) -> None:
            told.append(waiting)
            if waiting:
                other.stdin.write("\n")  # type: ignore[union-attr]
                other.stdin.flush()  # type: ignore[union-attr]

        with turn(gpu_lock("GPU-1"), waits):
            assert told == [True, False]
    with turn(gpu_lock("GPU-1"), waits):
        assert told == [True, False]
