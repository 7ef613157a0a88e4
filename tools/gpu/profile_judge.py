"""Where do the seconds go until the first verdict on a task? In one process, so that a profiler sees all of it.

    PYTHONPATH=src python tools/gpu/profile_judge.py TASK.py [TASK.py ...] [--simulate] [--rows 25]

For each task: seconds to import, to load, to build a judge, for a first judgement of the built-in author's program, and
for a second one of another; then the functions with the most time of their own in the load, the start and the first
judgement. Kernels run on after the call that launched them: their time shows where the judge waits for them.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from warpsmith.author import Context, Proposal
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.judge import Judge
from warpsmith.program import Builder
from warpsmith.records import Candidate, Lineage, Task
from warpsmith.task import load_task

T = TypeVar("T")


def candidates(task: Task, choice: Choice) -> list[Candidate]:
    """The default program, and one that strays from it."""
    author, found = BuiltinAuthor(), []
    for seed in (0, 1):
        proposal = asyncio.run(author.propose(Context(task, choice.spec, "create", (), seed)))
        assert isinstance(proposal, Proposal)
        found.append(Candidate(task.key, proposal.program, proposal.tunables, Lineage("builtin", "create")))
    return found


def profiled(profile: cProfile.Profile, name: str, do: Callable[[], T]) -> T:
    """Do it under the profiler, and print how long it took."""
    began = time.perf_counter()
    found = profile.runcall(do)
    print(f"  {name:18} {time.perf_counter() - began:7.2f} s", flush=True)
    return found


def examine(target: str, choice: Choice, rows: int) -> None:
    """Print the table of one task."""
    print(target)
    profile = cProfile.Profile()
    task = profiled(profile, "load", lambda: load_task(target, alone=choice.exclusive))
    first, second = candidates(task, choice)
    with tempfile.TemporaryDirectory() as folder, Builder(folder) as builder:
        device = profiled(profile, "device", lambda: choice.device(builder))
        try:
            judge = profiled(profile, "judge", lambda: Judge(task, device, builder, seed=0))
            verdict = profiled(profile, "first judgement", lambda: judge.judge(first))
            print(
                "   ", ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in verdict.seconds), verdict.failure or ""
            )
            profiled(cProfile.Profile(), "second judgement", lambda: judge.judge(second))
        finally:
            device.close()
    pstats.Stats(profile).sort_stats("tottime").print_stats(rows)


def main() -> None:
    """Profile every task named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--device", default=AUTO)
    parser.add_argument("--rows", type=int, default=25)
    options = parser.parse_args()
    choice = choose(options.device, simulate=options.simulate)
    for target in options.tasks:
        examine(str(Path(target)), choice, options.rows)


if __name__ == "__main__":
    main()
