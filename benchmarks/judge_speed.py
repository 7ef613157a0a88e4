"""How many candidates a second does the judge judge on a GPU, and how long does the usual way take?

    python benchmarks/judge_speed.py [--workers 8] [--candidates 60] [--large 12] [--repeats 3] [--part small ...]

Every candidate is new and the folder of builds is empty, so each is compiled, run on all input families, probed,
sanitized, timed and profiled. What is measured:

small    examples/softmax.py: random recipes of the built-in author, in several worker processes
large    GELU of 0.5 GB into 0.5 GB, likewise, in two workers
alone    a hand-written softmax in one worker: seconds of each stage without waiting for others
usual    the same softmax as a PyTorch extension (benchmarks/usual_way.py), one process each; left out without nvcc

The first candidate of each worker waits for the worker to start and for the references of all input families; these
are given apart. Seconds of stages are medians, and hold the time that a worker waits for its turn on the GPU.
Writes benchmarks/results/judge_speed.json after each part and each repeat of the usual way. What the file holds for
the same options, kind of machine and sources is not measured again, so a run that was cut off goes on with the same
command; --anew measures the parts chosen again. About 90 s on a datacentre GPU, and a minute for each repeat of the
usual way. `--simulate` tries this script on tiny sizes without a GPU: its numbers mean nothing, and it writes a file
only with `--into`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import usual_way
from results_file import Results, begin, card

from warpsmith.author import Context
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.cluster import LocalExecutor
from warpsmith.device.choose import AUTO, Choice
from warpsmith.program import parse_plan
from warpsmith.records import Candidate, GpuSpec, Lineage, Program, Task, Verdict
from warpsmith.settings import usable_cores
from warpsmith.task import load_task

HERE = Path(__file__).parent
PARTS = ("small", "alone", "large", "usual")
SOFTMAX = HERE.parent / "examples" / "softmax.py"
LARGE_SHAPE, TINY_SHAPE = (8192, 16384), (16, 64)
LARGE_WORKERS = 2
LARGE_BYTES = 60 * 10**9
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


def task_file(folder: Path, name: str, expression: str, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a task file for an expression over normally distributed inputs of the given names and shapes."""
    path = folder / f"{name}.py"
    inputs = ", ".join(f"torch.randn{shape}" for shape in shapes.values())
    path.write_text(MODULE.format(title=name, names=", ".join(shapes), expression=expression, inputs=inputs))
    return path


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


@contextmanager
def executing(task: Task, workers: int, choice: Choice) -> Iterator[LocalExecutor]:
    """Judge in several worker processes, with no build known from before."""
    with (
        tempfile.TemporaryDirectory(prefix="warpsmith-builds-") as cache,
        LocalExecutor(
            task,
            AUTO,
            workers,
            cache_dir=cache,
            judgement_seconds=_JUDGEMENT_SECONDS,
            simulate=not choice.measures,
        ) as executor,
    ):
        yield executor


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
    with executing(task, workers, choice) as executor:

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


def report(name: str, found: Rate) -> dict[str, Any]:
    """Print a rate, and return it for the file."""
    print(
        f"{name}: {found.task}, {found.workers} workers: {found.per_second:.2f} candidates/s "
        f"({found.judged} in {found.seconds:.1f} s, {found.passed} passed {found.failures or ''}); "
        f"first of each worker after {min(found.first):.1f} to {max(found.first):.1f} s"
    )
    print("  " + "  ".join(f"{stage} {seconds * 1e3:.0f} ms" for stage, seconds in found.stages.items()))
    return asdict(found) | {"candidates_per_second": found.per_second}


def measured(part: str, options: argparse.Namespace, choice: Choice, folder: Path) -> dict[str, Any]:
    """Measure `small`, `alone` or `large`."""
    tiny = {"x": TINY_SHAPE}
    if part == "large":
        shapes = {"x": LARGE_SHAPE} if choice.measures else tiny
        task = load_task(task_file(folder, "gelu_large", "torch.nn.functional.gelu(x)", shapes))
    else:
        task = load_task(SOFTMAX if choice.measures else task_file(folder, "tiny", "torch.softmax(x, 1)", tiny))
    asked = asked_of(part, options, choice)
    workers, count = asked["workers"], asked["workers"] + asked["candidates"]
    candidates = by_hand(task, count) if part == "alone" else drawn(task, choice.spec, count)
    return {**report(part, rate(task, candidates, workers, choice)), "asked": asked, "card": card(choice)}


def asked_of(part: str, options: argparse.Namespace, choice: Choice) -> dict[str, int]:
    """Return what a part's numbers depend on: workers, and candidates after the first of each."""
    if part == "small":
        return {"workers": options.workers, "candidates": options.candidates}
    if part == "alone":
        return {"workers": 1, "candidates": min(ALONE, options.candidates)}
    # References of one worker take some 40 GB for a moment.
    workers = max(1, min(options.workers, LARGE_WORKERS, choice.spec.memory_bytes // LARGE_BYTES))
    return {"workers": workers, "candidates": options.large}


def usual(results: Results, repeats: int, choice: Choice) -> None:
    """Try the usual way until there are so many repeats, and keep each. Prints why where it cannot be tried."""
    home = usual_way.toolkit() if choice.measures else None
    found = results.document.setdefault("usual", {"repeats": []})
    while len(found["repeats"]) < repeats:
        if home is None:
            print("usual way: left out, since there is no GPU or no nvcc here")
            break
        answer = usual_way.in_a_process(f"usual_softmax_{len(found['repeats'])}", home)
        if isinstance(answer, str):
            print(f"usual way: left out, since its process {answer}")
            break
        print(f"usual way: {answer.total:.1f} s, of which {answer.build:.1f} s to build; right: {answer.right}")
        found["repeats"].append(asdict(answer) | {"card": card(choice)})
        results.save()
        found = results.document["usual"]
    if not found["repeats"]:
        del results.document["usual"]


def set_beside(document: dict[str, Any]) -> None:
    """Set the usual way beside the judge with one worker, where both are measured."""
    beside, alone = document.get("usual"), document.get("alone")
    if not beside or not alone:
        return
    ours = alone["seconds"] / alone["judged"]
    seconds = statistics.median(one["total"] for one in beside["repeats"])
    without = statistics.median(one["total"] - one["start"] for one in beside["repeats"])
    beside |= {"seconds_per_candidate": seconds, "judge_seconds_per_candidate": ours}
    beside |= {"ratio": seconds / ours, "ratio_without_start": without / ours}
    print(f"usual way / judge: {seconds / ours:.0f}, without starting a process {without / ours:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast is the judge on a GPU?")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part only; may be repeated")
    parser.add_argument("--workers", type=int, default=min(usable_cores(), 8))
    parser.add_argument("--candidates", type=int, default=60, help="of the small task, after warm-up")
    parser.add_argument("--large", type=int, default=12, help="candidates of the large task, after warm-up")
    parser.add_argument("--repeats", type=int, default=3, help="of the usual way")
    options, choice = begin(parser)
    chosen = options.part or PARTS
    results = Results("judge_speed", choice, {}, options.into, chosen if options.anew else ())
    for part in (part for part in PARTS if part in chosen and part != "usual"):
        if results.document.get(part, {}).get("asked") == asked_of(part, options, choice):
            print(f"{part}: measured already; --anew measures it again")
            continue
        with tempfile.TemporaryDirectory(prefix="warpsmith-speed-") as folder:
            results.document[part] = measured(part, options, choice, Path(folder))
        results.save()
    if "usual" in chosen:
        usual(results, options.repeats, choice)
    set_beside(results.document)
    results.save()
    results.finish()


if __name__ == "__main__":
    main()
