"""How many candidates a second does the judge judge on a GPU, and how long does the usual way take?

    python benchmarks/judge_speed.py [--workers 8] [--candidates 60] [--large 12] [--repeats 3]

Every candidate is new and the folder of builds is empty, so each is compiled, run on all input families, probed,
sanitized, timed and profiled. What is measured:

small    examples/softmax.py: random recipes of the built-in author, in several worker processes
large    GELU of 0.5 GB into 0.5 GB, likewise, in two workers
alone    a hand-written softmax in one worker: seconds of each stage without waiting for others
usual    the same softmax as a PyTorch extension (benchmarks/usual_way.py), one process each; left out without nvcc

The first candidate of each worker waits for the worker to start and for the references of all input families; these
are given apart. Seconds of stages are medians, and hold the time that a worker waits for its turn on the GPU.
Writes benchmarks/results/judge_speed.json. About 90 s on a datacentre GPU, and a minute for each repeat of the usual
way. `--simulate` tries this script on tiny sizes without a GPU: it writes no file, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import torch
import usual_way

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.cluster import LocalExecutor
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.judge import JUDGE_VERSION
from warpsmith.program import parse_plan
from warpsmith.records import Candidate, GpuSpec, Lineage, Program, Task, Verdict
from warpsmith.settings import usable_cores
from warpsmith.task import load_task

HERE = Path(__file__).parent
SOFTMAX = HERE.parent / "examples" / "softmax.py"
LARGE_SHAPE, TINY_SHAPE = (8192, 16384), (16, 64)
LARGE_WORKERS = 2
"""One uses the GPU while the other compiles; each holds some gigabytes of it."""
ALONE = 12
_JUDGEMENT_SECONDS = 300.0

MODULE = '''"""{title}"""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, {names}):
        return {expression}


def get_inputs():
    return [{inputs}]
'''


@dataclass(frozen=True)
class Rate:
    """How fast candidates of one task were judged. Times in seconds; `first` holds those of each worker's first."""

    task: str
    workers: int
    first: tuple[float, ...]
    judged: int
    seconds: float
    passed: int
    failures: dict[str, int]
    stages: dict[str, float]

    @property
    def per_second(self) -> float:
        """Candidates judged in a second after warm-up, by all workers together."""
        return self.judged / self.seconds


def task_file(folder: Path, name: str, expression: str, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Write a task file for an expression over normally distributed inputs of the given names and shapes."""
    path = folder / f"{name}.py"
    inputs = ", ".join(f"torch.randn{shape}" for shape in shapes.values())
    path.write_text(MODULE.format(title=name, names=", ".join(shapes), expression=expression, inputs=inputs))
    return path


def machine(choice: Choice) -> dict[str, Any]:
    """What the numbers were measured on and with."""
    return {
        "device": choice.spec.name,
        "judge": JUDGE_VERSION,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cores": usable_cores(),
    }


def save(name: str, choice: Choice, document: dict[str, Any]) -> None:
    """Write results as JSON beside those of the other benchmarks. What was only simulated is no result."""
    document = rounded(document)
    if not choice.measures:
        print(json.dumps(document, indent=1))
        return
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written to {path}")


def rounded(value: Any) -> Any:
    """Return the value with every number in it cut to six digits: more say nothing."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def numbered(program: Program, number: int) -> Program:
    """Return the program with another text, so that no build is known."""
    return Program(f"// candidate {number}\n{program.source}", program.plan)


def drawn(task: Task, spec: GpuSpec, count: int) -> list[Candidate]:
    """Return random recipes of the built-in author, each with a text of its own."""
    author, found = BuiltinAuthor(), []
    for number in range(count):
        proposal = anyio.run(author.propose, Context(task, spec, "random", (), number))
        assert proposal is not None, "the operator `random` needs no parents"
        lineage = Lineage(author.name, "random", recipe=proposal.recipe)
        found.append(Candidate(task.key, numbered(proposal.program, number), proposal.tunables, lineage))
    return found


def by_hand(task: Task, count: int) -> list[Candidate]:
    """Return the hand-written softmax of the usual way, each with a text of its own."""
    program = Program(usual_way.DEVICE_CODE, parse_plan(usual_way.PLAN))
    tunables = tuple(program.plan.defaults.items())
    lineage = Lineage("person", "write")
    return [Candidate(task.key, numbered(program, number), tunables, lineage) for number in range(count)]


async def judge_all(executor: LocalExecutor, candidates: Sequence[Candidate]) -> list[tuple[Verdict, float]]:
    """Judge all at once; return the verdicts with the seconds after which each was there, in that order."""
    done: list[tuple[Verdict, float]] = []
    began = time.perf_counter()

    async def one(candidate: Candidate) -> None:
        verdict = await executor.judge(candidate)
        done.append((verdict, time.perf_counter() - began))

    async with anyio.create_task_group() as group:
        for candidate in candidates:
            group.start_soon(one, candidate)
    return done


def rate(task: Task, candidates: Sequence[Candidate], workers: int, choice: Choice) -> Rate:
    """Judge the first `workers` candidates, one in each worker, then the others by the clock."""
    with (
        tempfile.TemporaryDirectory(prefix="warpsmith-speed-") as cache,
        LocalExecutor(
            task,
            AUTO,
            workers,
            cache_dir=cache,
            judgement_seconds=_JUDGEMENT_SECONDS,
            simulate=not choice.measures,
        ) as executor,
    ):

        async def both() -> tuple[list[tuple[Verdict, float]], list[tuple[Verdict, float]]]:
            return await judge_all(executor, candidates[:workers]), await judge_all(executor, candidates[workers:])

        first, others = anyio.run(both)
    verdicts = [verdict for verdict, _ in others]
    return Rate(
        task=task.name,
        workers=workers,
        first=tuple(seconds for _, seconds in first),
        judged=len(verdicts),
        seconds=max(seconds for _, seconds in others),
        passed=sum(verdict.passed for verdict in verdicts),
        failures=dict(Counter(verdict.failure.reason for verdict in verdicts if verdict.failure is not None)),
        stages=stage_medians(verdicts),
    )


def stage_medians(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return the median seconds of each stage and of a whole judgement, over the candidates that passed."""
    passed = [dict(verdict.seconds) for verdict in verdicts if verdict.passed]
    if not passed:
        return {}
    medians = {stage: statistics.median(one[stage] for one in passed) for stage in passed[0]}
    return {**medians, "all": statistics.median(sum(one.values()) for one in passed)}


def usual(repeats: int, alone: Rate) -> dict[str, Any] | None:
    """Try the usual way some times and set it beside the judge with one worker; None where it cannot be tried."""
    home = usual_way.toolkit()
    if home is None:
        print("usual way: left out, since nvcc is not installed here")
        return None
    found = []
    for number in range(repeats):
        answer = usual_way.in_a_process(f"usual_softmax_{number}", home)
        if isinstance(answer, str):
            print(f"usual way: left out, since its process {answer}")
            return None
        print(f"usual way: {answer.total:.1f} s, of which {answer.build:.1f} s to build; right: {answer.right}")
        found.append(answer)
    seconds, ours = statistics.median(one.total for one in found), alone.seconds / alone.judged
    return {
        "repeats": [asdict(one) for one in found],
        "seconds_per_candidate": seconds,
        "judge_seconds_per_candidate": ours,
        "ratio": seconds / ours,
        "ratio_without_start": statistics.median(one.total - one.start for one in found) / ours,
    }


def report(name: str, found: Rate) -> dict[str, Any]:
    """Print a rate, and return it for the file."""
    print(
        f"{name}: {found.task}, {found.workers} workers: {found.per_second:.2f} candidates/s "
        f"({found.judged} in {found.seconds:.1f} s, {found.passed} passed {found.failures or ''}); "
        f"first of each worker after {min(found.first):.1f} to {max(found.first):.1f} s"
    )
    print("  " + "  ".join(f"{stage} {seconds * 1e3:.0f} ms" for stage, seconds in found.stages.items()))
    return asdict(found) | {"candidates_per_second": found.per_second}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast is the judge on a GPU?")
    parser.add_argument("--workers", type=int, default=min(usable_cores(), 8))
    parser.add_argument("--candidates", type=int, default=60, help="of the small task, after warm-up")
    parser.add_argument("--large", type=int, default=12, help="candidates of the large task, after warm-up")
    parser.add_argument("--repeats", type=int, default=3, help="of the usual way")
    parser.add_argument("--simulate", action="store_true", help="try this script without a GPU, on tiny sizes")
    options = parser.parse_args()
    choice = choose(AUTO, simulate=options.simulate)
    if not choice.measures and not options.simulate:
        print("There is no NVIDIA GPU here that can be used, so there is nothing to measure.")
        return
    document = machine(choice)
    with tempfile.TemporaryDirectory(prefix="warpsmith-speed-") as folder:
        small = load_task(
            SOFTMAX if choice.measures else task_file(Path(folder), "tiny", "torch.softmax(x, 1)", {"x": TINY_SHAPE})
        )
        found = rate(small, drawn(small, choice.spec, options.workers + options.candidates), options.workers, choice)
        document["small"] = report("small", found)
        alone = rate(small, by_hand(small, 1 + min(ALONE, options.candidates)), 1, choice)
        document["alone"] = report("alone", alone)
        shape = LARGE_SHAPE if choice.measures else TINY_SHAPE
        large = load_task(task_file(Path(folder), "gelu_large", "torch.nn.functional.gelu(x)", {"x": shape}))
        workers = min(options.workers, LARGE_WORKERS)
        found = rate(large, drawn(large, choice.spec, workers + options.large), workers, choice)
        document["large"] = report("large", found)
    beside = usual(options.repeats, alone) if choice.measures else None
    if beside is not None:
        print(
            f"usual way / judge: {beside['ratio']:.0f}, without starting a process {beside['ratio_without_start']:.0f}"
        )
        document["usual"] = beside
    save("judge_speed", choice, document)


if __name__ == "__main__":
    main()
