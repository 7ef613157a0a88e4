"""A process with everything that it started: how much memory they hold together, and how to end all of them.

A process group does not do: the compiler, the judge's workers and the runner of a GPU live in groups and sessions of
their own, so that each can be killed by itself. So the tree is read from the kernel, again and again, and what was seen
once is remembered, since the children of a process that crashed belong to nobody. A process that was started and
orphaned between two looks escapes; ours end by themselves when their pipe closes.

Where there is no `/proc`, a tree is its root alone, and holds no memory that could be read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_ROUNDS = 50
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class _Process:
    """A process; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    started: int
    alive: bool


class Tree:
    """The processes below and including `root`, whose number must not be free yet: that of a `Child` before `kill`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[int, int] = {}

    def look(self) -> int:
        """Find out which processes there are; return the bytes of memory of their own that they hold together.

        Pages that belong to files, such as libraries, do not count, and neither does memory shared between processes.
        """
        return sum(_anonymous_bytes(process.pid) for process in self._members())

    def kill(self) -> None:
        """End all of them. One that is just being started is found in a later round."""
        for _ in range(_ROUNDS):
            alive = [process for process in self._members() if process.alive]
            if not alive:
                return
            for process in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(_PAUSE)

    def _members(self) -> list[_Process]:
        """Everything below the root, and below whatever was seen before and still is the same process."""
        everything = _everything() or {self._root: _Process(self._root, 0, 0, _exists(self._root))}
        members = {
            pid: everything[pid]
            for pid in {self._root, *self._seen}
            if pid in everything and self._seen.get(pid, everything[pid].started) == everything[pid].started
        }
        children: dict[int, list[_Process]] = {}
        for process in everything.values():
            children.setdefault(process.parent, []).append(process)
        frontier = list(members)
        while frontier:
            for process in children.get(frontier.pop(), []):
                if process.pid not in members:
                    members[process.pid] = process
                    frontier.append(process.pid)
        self._seen |= {process.pid: process.started for process in members.values()}
        return list(members.values())


def _everything() -> dict[int, _Process]:
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has just ended
        # The name stands in brackets and may hold anything, also brackets.
        fields = text.rpartition(")")[2].split()
        found[int(folder.name)] = _Process(int(folder.name), int(fields[1]), int(fields[19]), fields[0] not in "ZX")
    return found


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def default_memory() -> int:
    """Return four fifths of the memory that this process may use, in bytes: the machine's, or its container's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(file).read_text(encoding="ascii")))
    return total * 4 // 5
