"""Does the judge measure the same thing twice? One candidate of each kernel, judged in many fresh processes.

    python benchmarks/judge_repeatability.py [--processes 20] [--blocks 8]

Every process has a judge, a runner and a context of its own and judges each kernel once. How far the medians of the
processes lie apart (largest over smallest, less 1; standard deviation over mean) is what a reported time is worth, and
`covered` is the share of processes whose own 95 % interval holds the median of all.

Then the A/A comparison: in one process the same candidate is judged over and over as A, B, B, A, A, B, B, A ...;
`judge.statistics.compare` should find a ratio near 1 and no gain.

Kernels are the built-in author's defaults, from a few microseconds to a millisecond. Writes
benchmarks/results/judge_repeatability.json with clocks, temperatures and throttle reasons. About three minutes.
`--simulate` tries this script on tiny sizes without a GPU: estimates repeat exactly, and no file is written.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import torch
from judge_speed import machine, save, task_file

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.cluster.worker import read_task, write_task
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.judge import Judge
from warpsmith.judge.statistics import LEAST_BLOCKS, compare
from warpsmith.program import Builder
from warpsmith.records import Candidate, GpuState, Lineage, Timing
from warpsmith.task import load_task

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kernel:
    """A module as an expression over inputs of given shapes; `tiny` shapes serve to try the script."""

    name: str
    expression: str
    shapes: Shapes
    tiny: Shapes


KERNELS = (
    Kernel("gelu_small", "torch.nn.functional.gelu(x)", {"x": (256, 1024)}, {"x": (8, 64)}),
    Kernel("softmax_large", "torch.softmax(x, 1)", {"x": (4096, 8192)}, {"x": (16, 64)}),
    Kernel(
        "matmul",
        "torch.matmul(a, b)",
        {"a": (1536, 1536), "b": (1536, 1536)},
        {"a": (32, 32), "b": (32, 32)},
    ),
)


@dataclass(frozen=True)
class Case:
    """A candidate and the file that its task was written to."""

    name: str
    task_file: str
    candidate: Candidate


@dataclass(frozen=True)
class Run:
    """One judgement: how it ended where it failed, else the timing; the seconds it took."""

    name: str
    problem: str
    timing: Timing | None
    seconds: float


def cases(folder: Path, choice: Choice) -> list[Case]:
    """Write the tasks and have the built-in author write its default program for each."""
    found = []
    for kernel in KERNELS:
        shapes = kernel.shapes if choice.measures else kernel.tiny
        task = load_task(task_file(folder, kernel.name, kernel.expression, shapes))
        proposal = anyio.run(BuiltinAuthor().propose, Context(task, choice.spec, "create", (), 0))
        assert proposal is not None, "the operator `create` needs no parents"
        candidate = Candidate(task.key, proposal.program, proposal.tunables, Lineage("builtin", "create"))
        written = folder / f"{kernel.name}.task"
        write_task(task, written)
        found.append(Case(kernel.name, str(written), candidate))
    return found


def judged(cases: Sequence[Case], cache: str, simulate: bool, times: int = 1) -> list[Run]:
    """Judge each case some times in this process, each case with a judge and a runner of its own."""
    torch.set_num_threads(1)
    runs = []
    for case in cases:
        with Builder(cache) as builder:
            device = choose(AUTO, simulate=simulate).device(builder)
            try:
                judge = Judge(read_task(Path(case.task_file)), device, builder)
                runs += [_run(judge, case) for _ in range(times)]
            finally:
                if isinstance(device, CudaDevice):
                    device.close()
    return runs


def _run(judge: Judge, case: Case) -> Run:
    began = time.perf_counter()
    verdict = judge.judge(case.candidate)
    problem = f"{verdict.failure.reason}: {verdict.failure.message}" if verdict.failure is not None else ""
    return Run(case.name, problem, verdict.timing, time.perf_counter() - began)


def in_a_fresh_process(cases: Sequence[Case], cache: str, simulate: bool, times: int = 1) -> list[Run]:
    """Call `judged` in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(judged, cases, cache, simulate, times).result()


def spread(runs: Sequence[Run]) -> dict[str, Any]:
    """Say how far the medians of several processes lie apart."""
    timings = [run.timing for run in runs if run.timing is not None]
    problems = sorted({run.problem for run in runs if run.problem})
    if len(timings) < 2:
        return {"runs": len(timings), "problems": problems}
    medians = [timing.median for timing in timings]
    middle = statistics.median(medians)
    return {
        "runs": len(timings),
        "problems": problems,
        "median": middle,
        "medians": medians,
        "range": max(medians) / min(medians) - 1.0,
        "deviation": statistics.stdev(medians) / statistics.fmean(medians),
        "covered": sum(t.interval[0] <= middle <= t.interval[1] for t in timings) / len(timings),
        "samples": statistics.median(len(timing.samples) for timing in timings),
        "judgement_seconds": statistics.median(run.seconds for run in runs),
        "clocks_of": {name: statistics.median(values) for name, values in _clocks(timings).items()},
        "gpu": states([state for timing in timings for state in timing.states]),
    }


def _clocks(timings: Sequence[Timing]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for timing in timings:
        for name, seconds in timing.clocks_of:
            found.setdefault(name, []).append(seconds)
    return found


def states(seen: Sequence[GpuState]) -> dict[str, Any]:
    """Sum up what the driver said: least, median and largest of each figure, and every reason to throttle."""
    if not seen:
        return {}
    figures: dict[str, list[float]] = {
        "sm_clock_mhz": [state.sm_clock for state in seen],
        "memory_clock_mhz": [state.memory_clock for state in seen],
        "temperature_c": [state.temperature for state in seen],
        "power_w": [state.power for state in seen],
    }
    summary: dict[str, Any] = {name: [min(v), statistics.median(v), max(v)] for name, v in figures.items()}
    throttled = [state for state in seen if state.throttle]
    summary["throttle"] = sorted({reason for state in throttled for reason in state.throttle})
    summary["throttled_share"] = len(throttled) / len(seen)
    return summary


def itself(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare a candidate with itself: runs 0, 3, 4, 7, 8 ... are A, the others B."""
    medians = [run.timing.median for run in runs if run.timing is not None]
    if len(medians) < len(runs):
        return {"problems": sorted({run.problem for run in runs if run.problem})}
    ours = [median for number, median in enumerate(medians) if number % 4 in (0, 3)]
    theirs = [median for number, median in enumerate(medians) if number % 4 in (1, 2)]
    comparison = compare("itself", ours, theirs)
    return asdict(comparison) | {"gain": comparison.gain}


def show(name: str, row: dict[str, Any]) -> None:
    """Print one kernel's results in a few lines."""
    apart, same = row["processes"], row["itself"]
    if "median" in apart:
        print(
            f"{name:14} {apart['median'] * 1e6:9.2f} µs in {apart['runs']} processes: range {apart['range']:.2%}, "
            f"deviation {apart['deviation']:.2%}, own interval covers the median in {apart['covered']:.0%}; "
            f"{apart['judgement_seconds']:.2f} s a judgement"
        )
    if "ratio" in same:
        low, high = same["interval"]
        print(
            f"{'':14} against itself {same['ratio']:.4f} ({low:.4f} to {high:.4f}), "
            f"spread {same['spread']:.4f}, {'A GAIN, WHICH IS WRONG' if same['gain'] else 'no gain'}"
        )
    for problem in sorted({*apart["problems"], *same.get("problems", ())}):
        print(f"{name:14} {problem}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Does the judge measure the same thing twice?")
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=8, help=f"of A and of B, at least {LEAST_BLOCKS}, even")
    parser.add_argument("--simulate", action="store_true", help="try this script without a GPU, on tiny sizes")
    options = parser.parse_args()
    if options.blocks < LEAST_BLOCKS or options.blocks % 2:
        parser.error(f"--blocks must be even and at least {LEAST_BLOCKS}")
    if options.processes < 2:
        parser.error("--processes must be at least 2")
    choice = choose(AUTO, simulate=options.simulate)
    if not choice.measures and not options.simulate:
        print("There is no NVIDIA GPU here that can be used, so there is nothing to measure.")
        return
    with tempfile.TemporaryDirectory(prefix="warpsmith-repeat-") as folder:
        cache = str(Path(folder) / "builds")
        found = cases(Path(folder), choice)
        runs: list[Run] = []
        for number in range(options.processes):
            began = time.perf_counter()
            runs += in_a_fresh_process(found, cache, options.simulate)
            print(f"process {number + 1} of {options.processes}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        again = in_a_fresh_process(found, cache, options.simulate, 2 * options.blocks)
    rows = {
        case.name: {
            "processes": spread([run for run in runs if run.name == case.name]),
            "itself": itself([run for run in again if run.name == case.name]),
        }
        for case in found
    }
    for name, row in rows.items():
        show(name, row)
    save("judge_repeatability", choice, {**machine(choice), "processes": options.processes, "kernels": rows})


if __name__ == "__main__":
    main()
