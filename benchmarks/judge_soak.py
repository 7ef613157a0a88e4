"""Does the judge stay right and whole while candidates kill its runners by the hundred?

    python benchmarks/judge_soak.py [--candidates 2000] [--workers 8] [--kills 10] [--seconds 480]

One small task, several workers, one GPU. Half of the candidates are right, a sixth give wrong values, a third do what
kills or corrupts: illegal and misaligned addresses, traps, endless loops, writes into guards and inputs, more scratch
than there is memory, recursion without end. What each one is, is known, so every verdict is right or wrong. Now and
then a runner, at work or in reserve, is killed from outside; a candidate that this hits is judged again, unless it is
one that kills. There may be no more such deaths than kills.

Every worker first judges a right candidate, which is not counted; then the clock starts. After every hundred
candidates, with nothing in flight: GPU memory in use, processes, open files and resident memory of the parent and the
workers. What grows from candidate 200 on is a leak. At the end no process may be left.

Writes benchmarks/results/judge_soak.json after every hundred candidates; ends with 1 where a verdict is wrong, a death
has no cause or a process is left. What was cut off, or ended by `--seconds`, goes on with the same command, but with
new workers. Five to eight minutes. `--simulate` tries this script without a GPU, with few candidates (say 20), no
kills, and without the two kinds that the simulator cannot run; it writes a file only with `--into`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
from judge_speed import task_file
from results_file import Results, begin, card
from soak_kernels import LOOP, PLAIN, Kind, candidate_of, kinds
from soak_processes import Process, descendants, growth, kill_a_runner, left_over, sample, used_gpu_bytes

from warpsmith.cluster import LocalExecutor
from warpsmith.device.choose import AUTO, Choice
from warpsmith.errors import MachineError
from warpsmith.records import Candidate, Task, Verdict
from warpsmith.settings import usable_cores
from warpsmith.task import load_task

BATCH = 100
ATTEMPTS = 3
TELL_SECONDS = 5.0


@dataclass
class Tally:
    """What has been seen, in this run of the script and those before it that were cut off. Goes into the file.

    `judged` candidates, the first of all, are done; `seconds` is what that took without start-up.
    """

    judged: int = 0
    seconds: float = 0.0
    wrong: list[dict[str, str]] = field(default_factory=list)
    kills: int = 0
    deaths: list[str] = field(default_factory=list)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)

    def record(self, kind: Kind, candidate: Candidate, verdict: Verdict | None, name: str) -> None:
        """Count a verdict; none is as wrong as a wrong one."""
        failure = verdict.failure if verdict is not None else None
        outcome = "no verdict" if verdict is None else "passed" if failure is None else failure.reason
        counts = self.outcomes.setdefault(f"{kind.truth}: {name}", {})
        counts[outcome] = counts.get(outcome, 0) + 1
        if verdict is None or verdict.passed != (kind.truth == "right"):
            message = failure.message if failure is not None else outcome
            self.wrong.append({"kind": kind.name, "candidate": candidate.key, "outcome": outcome, "message": message})

    @property
    def unexplained(self) -> int:
        """Deaths of runners that nobody killed."""
        return max(0, len(self.deaths) - self.kills)

    @property
    def left_over(self) -> list[str]:
        """Processes that outlived a run; nobody knows of a run that was killed."""
        return [command for run in self.runs for command in run["left_over"] or ()]


@dataclass
class Soak:
    """A run in progress: who judges, until when, and what has been seen."""

    executor: LocalExecutor
    choice: Choice
    workers: int
    seconds: float
    tally: Tally
    results: Results
    chance: random.Random
    seen: set[Process] = field(default_factory=set)
    start: int = 0
    before: float = 0.0
    began: float = 0.0

    async def run(self, first: Sequence[Candidate], candidates: Sequence[tuple[Kind, Candidate]], kills: int) -> None:
        """Judge those of the candidates that are left, until all are judged or the time is over.

        The clock starts when every worker has judged one of the `first`.
        """
        started = time.monotonic()
        async with anyio.create_task_group() as group:
            for candidate in first:
                group.start_soon(self._judge, PLAIN, candidate, "first of a worker")
        print(f"{len(first)} workers have started after {time.monotonic() - started:.0f} s")
        self.start, self.before, self.began = self.tally.judged, self.tally.seconds, time.monotonic()
        start_up = self.began - started
        self.tally.runs.append(
            {"start": self.start, "start_up": start_up, "card": card(self.choice), "left_over": None}
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell, len(candidates))
            await self._batches(candidates, kills)
            group.cancel_scope.cancel()

    async def _batches(self, candidates: Sequence[tuple[Kind, Candidate]], kills: int) -> None:
        """Judge a batch at a time, and look around and write the file after each. Kills are spread over all."""
        tally, total = self.tally, len(candidates)
        while tally.judged < total and not self._over():
            stop = min(total, (tally.judged // BATCH + 1) * BATCH)
            await self._batch(candidates[tally.judged : stop], max(0, stop * kills // total - tally.kills))
            # Spares are being started; what they take is not known before they are ready.
            await anyio.sleep(1.0)
            family = descendants()
            self.seen.update(family)
            seen = sample(tally.judged, self.start, self._clock(), self.choice, family)
            tally.samples.append(asdict(seen))
            self.keep()
            gpu = "no GPU" if seen.gpu_bytes is None else f"GPU {seen.gpu_bytes / 1e9:.2f} GB"
            print(
                f"{seen.judged:6} judged: {gpu}, {seen.processes} processes ({seen.runners} runners), files "
                f"{seen.files} and {seen.worker_files}, resident {seen.resident_bytes / 1e6:.0f} and "
                f"{seen.worker_resident_bytes / 1e6:.0f} MB"
            )

    def keep(self) -> None:
        """Write the file."""
        self.tally.seconds = self.before + self._clock()
        self.results.document["soak"] = asdict(self.tally)
        self.results.save()

    def _clock(self) -> float:
        return time.monotonic() - self.began

    def _over(self) -> bool:
        return self._clock() > self.seconds

    async def _tell(self, total: int) -> None:
        """Print every few seconds how far this is."""
        while True:
            await anyio.sleep(TELL_SECONDS)
            tally, clock = self.tally, self._clock()
            rate, left = (tally.judged - self.start) / clock, total - tally.judged
            ahead = f"{left} to go in about {left / rate:.0f} s" if rate else f"{left} to go"
            print(
                f"{tally.judged:6} judged, {rate:.2f}/s: {len(tally.wrong)} wrong, {tally.kills} kills, "
                f"{len(tally.deaths)} deaths; {ahead}, time is over in {max(0.0, self.seconds - clock):.0f} s"
            )

    async def _batch(self, batch: Sequence[tuple[Kind, Candidate]], kills: int) -> None:
        # Not more at once than there are workers and a few that wait, so that little is left when the time is over.
        # Turns are given in order: when the time is over, those that were judged are the first ones of the batch.
        turns = anyio.Semaphore(self.workers + 2)
        # In the first half of the batch, so that there is work for the runners to be killed at.
        marks = sorted(self.tally.judged + self.chance.randrange(1 + len(batch) // 2) for _ in range(kills))

        async def one(kind: Kind, candidate: Candidate) -> None:
            async with turns:
                if self._over():
                    return
                if marks and self.tally.judged >= marks[0]:
                    marks.pop(0)
                    await anyio.sleep(self.chance.uniform(0.0, 0.5))
                    self._kill()
                await self._judge(kind, candidate, kind.name)
                self.tally.judged += 1

        async with anyio.create_task_group() as group:
            for kind, candidate in batch:
                group.start_soon(one, kind, candidate)

    async def _judge(self, kind: Kind, candidate: Candidate, name: str) -> None:
        """Judge a candidate; again where its runner died and the candidate cannot be why."""
        verdict: Verdict | None = None
        for _ in range(ATTEMPTS):
            try:
                verdict = await self.executor.judge(candidate)
            except MachineError as error:
                self.tally.deaths.append(f"{kind.name}: {error}")
                continue
            if kind.truth == "fatal" or not _runner_died(verdict):
                break
            assert verdict.failure is not None
            self.tally.deaths.append(f"{kind.name}: {verdict.failure.message}")
        self.tally.record(kind, candidate, verdict, name)

    def _kill(self) -> None:
        victim = kill_a_runner(self.chance)
        if victim is not None:
            self.seen.add(victim)
            self.tally.kills += 1


def _runner_died(verdict: Verdict) -> bool:
    """Whether a candidate failed because its runner was gone. A fault of the driver is another matter."""
    failure = verdict.failure
    if failure is None:
        return False
    return failure.reason == "runner_died" or (failure.reason == "fault_when_timed" and ": died " in failure.message)


def soak(task: Task, choice: Choice, options: argparse.Namespace, tally: Tally, results: Results) -> None:
    """Run it, and write what is left over when all is closed."""
    drawn, memory = kinds(options.candidates, options.seed, options.simulate), choice.spec.memory_bytes
    candidates = [(kind, candidate_of(kind, number, task, memory)) for number, kind in enumerate(drawn)]
    first = [candidate_of(PLAIN, -1 - number, task, memory) for number in range(options.workers)]
    loops = sum(kind is LOOP for kind in drawn)
    print(
        f"{len(drawn)} candidates, {loops} of them endless loops, {tally.judged} judged already; "
        f"at most {options.seconds:g} s from when the workers have started"
    )
    chance = random.Random(f"{options.seed} {tally.judged}")
    with (
        tempfile.TemporaryDirectory(prefix="warpsmith-soak-") as cache,
        LocalExecutor(task, AUTO, options.workers, cache_dir=cache, simulate=options.simulate) as executor,
    ):
        state = Soak(executor, choice, options.workers, options.seconds, tally, results, chance)
        anyio.run(state.run, first, candidates, 0 if options.simulate else options.kills)
        state.seen.update(descendants())
    tally.runs[-1] |= {"left_over": left_over(state.seen), "gpu_bytes_after": used_gpu_bytes(choice)}
    results.document["soak"] = asdict(tally)


def report(tally: Tally, asked_for: int) -> None:
    """Print what has been seen."""
    for name, counts in sorted(tally.outcomes.items()):
        print(f"{name:32} {counts}")
    for name, row in growth(tally.samples).items():
        print(f"{name:24} {row['first']:.0f} -> {row['last']:.0f}, {row['per_1000']:+.1f} per 1000 candidates")
    print(
        f"{tally.judged} of {asked_for} judged in {tally.seconds:.0f} s: {len(tally.wrong)} wrong verdicts; "
        f"{tally.kills} kills, {len(tally.deaths)} deaths noticed; {len(tally.left_over)} processes left over"
    )
    if tally.judged < asked_for:
        print("the same command goes on from here")


def main() -> None:
    parser = argparse.ArgumentParser(description="Many candidates, a third of which kill.")
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=min(usable_cores(), 8))
    parser.add_argument("--kills", type=int, default=10, help="runners to kill from outside")
    parser.add_argument("--seconds", type=float, default=480.0, help="from when all workers have started")
    parser.add_argument("--seed", type=int, default=0, help="which candidate is what, and when runners are killed")
    options, choice = begin(parser)
    asked = {name: getattr(options, name) for name in ("candidates", "workers", "kills", "seed")}
    results = Results("judge_soak", choice, asked, options.into, ("soak",) if options.anew else ())
    tally = Tally(**results.document.get("soak", {}))
    if tally.judged < options.candidates:
        with tempfile.TemporaryDirectory(prefix="warpsmith-soak-") as folder:
            shape = (64, 384) if choice.measures else (8, 256)
            task = load_task(task_file(Path(folder), "softmax", "torch.softmax(x, 1)", {"x": shape}))
            soak(task, choice, options, tally, results)
    else:
        print("all judged already; --anew judges them again")
    report(tally, options.candidates)
    results.document |= {"growth": growth(tally.samples), "unexplained_deaths": tally.unexplained}
    results.save()
    results.finish()
    sys.exit(1 if tally.wrong or tally.unexplained or tally.left_over else 0)


if __name__ == "__main__":
    main()
