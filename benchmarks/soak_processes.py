"""What a soak takes from the machine: processes, open files, memory, and whether they grow.

Processes are looked up in /proc: the script itself, the workers of its executor, and their runners.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warpsmith.device.choose import Choice

SETTLED = 200
"""Candidates after which every worker has its references, its spare runner and its caches."""
_RUNNER, _WORKER = "warpsmith.device.cuda.runner", "spawn_main"
"""What the command lines of runners and of workers hold."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it. With `started`, in ticks since boot, `pid` names it for good."""

    pid: int
    parent: int
    started: int
    command: str

    @property
    def files(self) -> int:
        """Open descriptors; 0 where it has just ended."""
        try:
            return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        except OSError:
            return 0

    @property
    def resident(self) -> int:
        """Resident memory in bytes; 0 where it has just ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except OSError:
            return 0


def process(pid: int) -> Process | None:
    """Return a process, or None where there is none or it has ended and only waits to be reaped."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), int(fields[19]), command)


def descendants() -> list[Process]:
    """Return the processes that descend from this one, in no order."""
    alive = [process(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    children: dict[int, list[Process]] = {}
    for each in alive:
        if each is not None:
            children.setdefault(each.parent, []).append(each)
    found, frontier = [], [os.getpid()]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += [each.pid for each in below]
    return found


def used_gpu_bytes(choice: Choice) -> int | None:
    """Return the memory in use on the GPU, by whomever, as a process of its own sees it."""
    if choice.present is None:
        return None
    script = (
        "from cuda.bindings import driver as cu; from warpsmith.device.cuda.driver import checked, start; "
        f"start({choice.present.ordinal}); free, total = checked(cu.cuMemGetInfo()); print(total - free)"
    )
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return int(asked.stdout)


def kill_a_runner(chance: random.Random) -> Process | None:
    """Kill one of our workers' runners from outside, whatever it is doing. Returns which, or None if there was none."""
    runners = [each for each in descendants() if _RUNNER in each.command]
    if not runners:
        return None
    victim = chance.choice(runners)
    if process(victim.pid) != victim:
        return None
    os.kill(victim.pid, signal.SIGKILL)
    return victim


@dataclass(frozen=True)
class Sample:
    """What is in use after so many candidates, while nothing is judged. Bytes; `files` and `processes` are counts.

    `start` is how many had been judged when this run of the script began, `seconds` are those since its clock started.
    """

    judged: int
    start: int
    seconds: float
    gpu_bytes: int | None
    processes: int
    runners: int
    files: int
    worker_files: int
    resident_bytes: int
    worker_resident_bytes: int


def sample(judged: int, start: int, seconds: float, choice: Choice, family: Sequence[Process]) -> Sample:
    """Look at this process and its family; figures of workers are those of all of them together."""
    own = process(os.getpid())
    assert own is not None
    workers = [each for each in family if each.parent == own.pid and _WORKER in each.command]
    return Sample(
        judged=judged,
        start=start,
        seconds=seconds,
        gpu_bytes=used_gpu_bytes(choice),
        processes=len(family),
        runners=sum(_RUNNER in each.command for each in family),
        files=own.files,
        worker_files=sum(each.files for each in workers),
        resident_bytes=own.resident,
        worker_resident_bytes=sum(each.resident for each in workers),
    )


def growth(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return for each figure what it was first and last since things settled, and its slope per 1000 candidates.

    `samples` are those of `Sample` as dictionaries. A soak that was cut off and went on has new processes each time,
    so only the longest stretch counts.
    """
    stretches: dict[int, list[Mapping[str, Any]]] = {}
    for one in samples:
        stretches.setdefault(one["start"], []).append(one)
    longest = max(stretches.values(), key=len, default=[])
    settled = [one for one in longest if one["judged"] - one["start"] >= SETTLED] or longest
    rows: dict[str, Any] = {}
    for name in ("gpu_bytes", "processes", "files", "worker_files", "resident_bytes", "worker_resident_bytes"):
        points = [(float(one["judged"]), float(one[name])) for one in settled if one[name] is not None]
        if len(points) < 2:
            continue
        xs, ys = zip(*points)
        slope = statistics.linear_regression(xs, ys).slope
        rows[name] = {"first": ys[0], "last": ys[-1], "largest": max(ys), "per_1000": 1000 * slope}
    return rows


def left_over(seen: set[Process], seconds: float = 15.0) -> list[str]:
    """Return the commands of processes that are still there, some seconds after the executor was closed."""
    end = time.monotonic() + seconds
    while True:
        alive = [each for each in seen if (now := process(each.pid)) is not None and now.started == each.started]
        alive = [each for each in alive if "resource_tracker" not in each.command]
        if not alive or time.monotonic() > end:
            return [each.command for each in alive]
        time.sleep(0.2)
