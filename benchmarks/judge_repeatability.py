"""Does the judge measure the same thing twice? One candidate of each kernel, judged in many fresh processes.

    python benchmarks/judge_repeatability.py [--processes 20] [--blocks 8] [--ahead 2] [--kernel NAME ...]

Every process has a judge, a runner and a context of its own and judges each kernel once. How far the medians of the
processes lie apart (largest over smallest, less 1; standard deviation over mean) is what a reported time is worth, and
`covered` is the share of processes whose own 95 % interval holds the median of all.

Then the A/A comparison: in one process for each kernel the same candidate is judged over and over as A, B, B, A, A, B,
B, A ...; `judge.statistics.compare` should find a ratio near 1 and no gain.

Most of a process's life is start-up, so `--ahead` of them are under way at once and divide the GPU's memory: while one
verifies and times, which it does alone, holding the lock of the GPU, others load PyTorch and make their contexts.
Contexts are made outside of the lock; `--ahead 1` tells whether that matters. Seconds of a judgement hold the wait for
the lock.

Kernels are the built-in author's defaults, from a few microseconds to a millisecond. Writes
benchmarks/results/judge_repeatability.json after each process, with clocks, temperatures and throttle reasons. The same
command on the same card goes on where it was cut off, and judges only the kernels and processes that are missing.
`--simulate` tries this script on tiny sizes without a GPU: estimates repeat exactly, and it writes a file only with
`--into`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import torch
from judge_speed import task_file
from repeatability_figures import Run, conditions, itself, show, spread
from results_file import Results, begin, card, rounded

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.cluster.worker import read_task, write_task
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.errors import MachineError
from warpsmith.judge import Judge
from warpsmith.judge.statistics import LEAST_BLOCKS
from warpsmith.program import Builder
from warpsmith.records import Candidate, Lineage
from warpsmith.task import load_task

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kernel:
    """A module as an expression over inputs of given shapes; `tiny` shapes serve to try the script."""

    name: str
    expression: str
    shapes: Shapes
    tiny: Shapes


_GELU, _SOFTMAX = "torch.nn.functional.gelu(x)", "torch.softmax(x, 1)"
KERNELS = (
    Kernel("gelu_small", _GELU, {"x": (256, 1024)}, {"x": (8, 64)}),
    Kernel("softmax_small", _SOFTMAX, {"x": (128, 1000)}, {"x": (4, 100)}),
    Kernel("gelu_large", _GELU, {"x": (4096, 8192)}, {"x": (16, 64)}),
    Kernel("softmax_large", _SOFTMAX, {"x": (4096, 8192)}, {"x": (16, 64)}),
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
class Job:
    """What one process does: judge each case `times` times. It is one of the `--processes`, or number 0 for A/A."""

    number: int
    cases: tuple[Case, ...]
    times: int = 1


# ----------------------------------------------------------------------------------------------------- in the processes


def case_of(kernel: Kernel, folder: Path, choice: Choice) -> Case:
    """Write the task, and have the built-in author write its default program."""
    task = load_task(
        task_file(folder, kernel.name, kernel.expression, kernel.shapes if choice.measures else kernel.tiny)
    )
    proposal = anyio.run(BuiltinAuthor().propose, Context(task, choice.spec, "create", (), 0))
    assert proposal is not None, "the operator `create` needs no parents"
    written = folder / f"{kernel.name}.task"
    write_task(task, written)
    candidate = Candidate(task.key, proposal.program, proposal.tunables, Lineage("builtin", "create"))
    return Case(kernel.name, str(written), candidate)


def judged(job: Job, cache: str, simulate: bool, shares: int) -> dict[str, list[Run]]:
    """Do a job in this process, each case with a judge and a runner of its own. Returns the runs by kernel."""
    torch.set_num_threads(1)
    runs: dict[str, list[Run]] = {}
    for case in job.cases:
        with Builder(cache) as builder:
            device = choose(AUTO, simulate=simulate).device(builder, shares=shares)
            try:
                judge = Judge(read_task(Path(case.task_file)), device, builder)
                runs[case.name] = [{"process": job.number, **_run(judge, case)} for _ in range(job.times)]
            finally:
                if isinstance(device, CudaDevice):
                    device.close()
    return runs


def _run(judge: Judge, case: Case) -> Run:
    began = time.perf_counter()
    verdict = judge.judge(case.candidate)
    run: Run = {"seconds": time.perf_counter() - began, "problem": ""}
    if verdict.failure is not None:
        return run | {"problem": f"{verdict.failure.reason}: {verdict.failure.message}"}
    timing = verdict.timing
    assert timing is not None
    run |= {"median": timing.median, "interval": timing.interval, "samples": len(timing.samples)}
    run |= {"clocks_of": dict(timing.clocks_of), "gpu": conditions(timing.states)}
    return run


def _answer(pipe: Connection, job: Job, cache: str, simulate: bool, shares: int) -> None:
    pipe.send(rounded(judged(job, cache, simulate, shares)))


def in_a_fresh_process(job: Job, cache: str, simulate: bool, shares: int) -> tuple[dict[str, list[Run]], float]:
    """Do a job in a process that does nothing else and then ends, even if this one is killed meanwhile.

    Returns its runs by kernel, and the seconds from start to end. Raises MachineError where it ends without an answer.
    """
    began, context = time.perf_counter(), multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, job, cache, simulate, shares), daemon=True)
    process.start()
    theirs.close()
    try:
        runs: dict[str, list[Run]] = ours.recv()
    except EOFError as error:
        process.join()
        raise MachineError(f"a judging process ended with code {process.exitcode} and no answer") from error
    process.join()
    return runs, time.perf_counter() - began


# ------------------------------------------------------------------------------------------------------------- the plan


def missing(rows: dict[str, Any], cases: Sequence[Case], processes: int, blocks: int) -> list[Job]:
    """Return the jobs that are left: of each process the kernels that it lacks, then the comparisons."""
    jobs = []
    for number in range(1, processes + 1):
        lacking = [case for case in cases if all(run["process"] != number for run in rows[case.name]["runs"])]
        if lacking:
            jobs.append(Job(number, tuple(lacking)))
    again = [case for case in cases if rows[case.name].get("itself", {}).get("of_each") != blocks]
    return jobs + [Job(0, (case,), 2 * blocks) for case in again]


def keep(results: Results, job: Job, runs: dict[str, list[Run]]) -> None:
    """Put what a process found into the file."""
    for name, found in runs.items():
        row = results.document["kernels"][name]
        if job.number == 0:
            row["itself"] = itself(found)
        else:
            row["runs"] = sorted([*row["runs"], *found], key=lambda run: int(run["process"]))
            row["processes"] = spread(row["runs"])
    results.save()


def work(results: Results, cases: Sequence[Case], options: argparse.Namespace, cache: str) -> None:
    """Do all jobs that are left, some at a time; keep the results of each as soon as they are there."""
    jobs = missing(results.document["kernels"], cases, options.processes, options.blocks)
    if not jobs:
        print("all measured already; --anew measures it again")
    began = time.perf_counter()
    with ThreadPoolExecutor(options.ahead) as pool:
        waiting = {pool.submit(in_a_fresh_process, job, cache, options.simulate, options.ahead): job for job in jobs}
        try:
            for number, done in enumerate(as_completed(waiting), 1):
                job, (runs, seconds) = waiting[done], done.result()
                keep(results, job, runs)
                what = f"process {job.number} of {options.processes}" if job.number else f"{job.cases[0].name} A/A"
                so_far = time.perf_counter() - began
                left = so_far / number * (len(jobs) - number)
                print(f"{what}: {seconds:.1f} s; {number} of {len(jobs)} in {so_far:.0f} s, {left:.0f} s to go")
        finally:
            # Where one failed, those that have not begun are not begun.
            pool.shutdown(wait=False, cancel_futures=True)


def main() -> None:
    names = [kernel.name for kernel in KERNELS]
    parser = argparse.ArgumentParser(description="Does the judge measure the same thing twice?")
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=8, help=f"of A and of B, at least {LEAST_BLOCKS}, even")
    parser.add_argument("--ahead", type=int, default=2, help="processes under way at once; only one of them times")
    parser.add_argument("--kernel", action="append", choices=names, help="judge this one only; may be repeated")
    options, choice = begin(parser)
    if options.blocks < LEAST_BLOCKS or options.blocks % 2:
        parser.error(f"--blocks must be even and at least {LEAST_BLOCKS}")
    if options.processes < 2 or options.ahead < 1:
        parser.error("--processes must be at least 2, --ahead at least 1")
    chosen = [kernel for kernel in KERNELS if kernel.name in (options.kernel or names)]
    results = Results("judge_repeatability", choice, {"ahead": options.ahead, "card": card(choice)}, options.into)
    rows = results.document.setdefault("kernels", {})
    for kernel in chosen:
        if options.anew or kernel.name not in rows:
            rows[kernel.name] = {"runs": [], "processes": spread([])}
    with tempfile.TemporaryDirectory(prefix="warpsmith-repeat-") as folder:
        cases = [case_of(kernel, Path(folder), choice) for kernel in chosen]
        work(results, cases, options, str(Path(folder) / "builds"))
    for kernel in chosen:
        show(kernel.name, results.document["kernels"][kernel.name])
    results.finish()


if __name__ == "__main__":
    main()
