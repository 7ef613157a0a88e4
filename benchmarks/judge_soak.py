"""Does the judge stay right and whole while candidates kill its runners by the hundred?

    python benchmarks/judge_soak.py [--candidates 2000] [--workers 8] [--kills 10] [--seconds 480]

One small task, several workers, one GPU. Half of the candidates are right, a sixth give wrong values, a third do what
kills or corrupts: illegal and misaligned addresses, traps, endless loops, writes into guards and inputs, more scratch
than there is memory, recursion without end. What each one is, is known, so every verdict is right or wrong. Now and
then a runner, at work or in reserve, is killed from outside; a candidate that this hits is judged again, unless it is
one that kills. There may be no more such deaths than kills.

After every hundred candidates, with nothing in flight: GPU memory in use, processes, open files and resident memory of
the parent and the workers. What grows from candidate 200 on is a leak. At the end no process may be left.
Writes benchmarks/results/judge_soak.json; ends with 1 where a verdict is wrong, a death has no cause or a process is
left. Five to eight minutes. `--simulate` tries this script without a GPU, with few candidates (say 20), no kills, and
without the two kinds that the simulator cannot run; it writes no file.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import anyio
from judge_speed import machine, save, task_file

from warpsmith.cluster import LocalExecutor
from warpsmith.device.choose import AUTO, Choice, choose
from warpsmith.device.cuda.device import BASE_SECONDS
from warpsmith.errors import MachineError
from warpsmith.program import parse_plan
from warpsmith.records import Candidate, Lineage, Program, Task, Verdict
from warpsmith.settings import usable_cores
from warpsmith.task import load_task

Truth = Literal["right", "wrong", "fatal"]

BATCH = 100
SETTLED = 200
"""Candidates after which every worker has its references, its spare runner and its caches."""
ATTEMPTS = 3
SHARES: dict[Truth, float] = {"right": 0.5, "wrong": 1 / 6, "fatal": 1 / 3}
LOOPS = 0.01
"""Share of endless loops: each holds the GPU for the time limit of a call."""
SECONDS_EACH, LOOP_OVERHEAD, BATCH_OVERHEAD, START_SECONDS = 0.15, 1.5, 2.5, 20.0
"""Guesses for the forecast: the GPU's time for a judgement, to end a runner that hangs, to look around after a batch,
until the first verdict."""
_RUNNER, _WORKER = "warpsmith.device.cuda.runner", "spawn_main"
"""What the command lines of runners and of workers hold."""
_PAGE = os.sysconf("SC_PAGE_SIZE")

SOURCE = r"""
__device__ __noinline__ float deep(int n, const float* x) {
    volatile float kept[16];
    kept[n % 16] = x[n % 16];
    return n > 0 ? deep(n - 1, x) + kept[n % 16] : 0.0f;
}
extern "C" __global__ void row_softmax(const float* x, float* out, SCRATCH int rows, int cols) {
    __shared__ float partial[BLOCK];
    const int t = threadIdx.x;
    const float* in = x + blockIdx.x * cols;
    float* to = out + blockIdx.x * cols;
    float most = -INFINITY;
    for (int c = t; c < cols; c += BLOCK) most = fmaxf(most, in[c]);
    partial[t] = most;
    __syncthreads();
    for (int s = BLOCK / 2; s > 0; s /= 2) {
        if (t < s) partial[t] = fmaxf(partial[t], partial[t + s]);
        __syncthreads();
    }
    most = partial[0];
    __syncthreads();
    float sum = 0.0f;
    for (int c = t; c < cols; c += BLOCK) sum += expf(in[c] - most);
    partial[t] = sum;
    __syncthreads();
    for (int s = BLOCK / 2; s > 0; s /= 2) {
        if (t < s) partial[t] += partial[t + s];
        __syncthreads();
    }
    sum = partial[0];
    for (int c = t; c < cols; c += BLOCK) to[c] = expf(in[c] - most) / sum;
    // the end
}
"""
"""A right kernel. Every kind is an edit of it; `deep` is compiled only where it is called."""

PLAN = """
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"
[tunables]
BLOCK = [128, 64, 256]
[[launch]]
kernel = "row_softmax"
grid = ["rows"]
block = ["BLOCK"]
args = ["x", "out", "rows", "cols"]
"""
_END, _DIVIDED = "// the end", "expf(in[c] - most) / sum"


@dataclass(frozen=True)
class Kind:
    """A way to be right or bad: an edit of the kernel. `simulated` is false where the simulator cannot run it."""

    name: str
    truth: Truth
    old: str
    new: str
    scratch: bool = False
    simulated: bool = True


KINDS = (
    Kind("plain", "right", _END, _END),
    Kind("bounded", "right", "__global__ void", "__global__ void __launch_bounds__(BLOCK)"),
    Kind("reciprocal", "right", _DIVIDED, "expf(in[c] - most) * (1.0f / sum)"),
    Kind("off by a thousandth", "wrong", _DIVIDED, f"1.001f * {_DIVIDED}"),
    Kind("last column unwritten", "wrong", "c < cols; c += BLOCK) to[c]", "c < cols - 1; c += BLOCK) to[c]"),
    Kind("largest not subtracted", "wrong", "most = partial[0];", "most = 0.0f;"),
    Kind("last row unwritten", "wrong", "sum = partial[0];", "sum = partial[0]; if (blockIdx.x == rows - 1) return;"),
    Kind("illegal address", "fatal", _END, "*reinterpret_cast<volatile float*>(64ull) = 1.0f;"),
    Kind(
        "misaligned address",
        "fatal",
        _END,
        "*reinterpret_cast<volatile double*>(reinterpret_cast<char*>(to) + 4) = 1.0;",
    ),
    Kind("trap", "fatal", _END, "__trap();"),
    Kind("guard written", "fatal", _END, "out[-1 - (int)blockIdx.x] = 0.0f;"),
    Kind("input written", "fatal", _END, "const_cast<float*>(in)[0] += 1.0f;"),
    Kind("huge scratch", "fatal", _END, "if (t == 0) scratch[blockIdx.x] = 1;", scratch=True, simulated=False),
    Kind("endless recursion", "fatal", _END, "to[0] = deep(1 << 20, x);", simulated=False),
)
LOOP = Kind("endless loop", "fatal", _END, "for (volatile float* spot = to;;) spot[t] = spot[t] + 1.0f;")


def kinds(count: int, seed: int, simulate: bool) -> list[Kind]:
    """Draw what each candidate is."""
    chance = random.Random(seed)
    offered = [kind for kind in KINDS if kind.simulated or not simulate]
    of = {truth: [kind for kind in offered if kind.truth == truth] for truth in SHARES}
    drawn = []
    for _ in range(count):
        truth = chance.choices(list(SHARES), list(SHARES.values()))[0]
        loops = truth == "fatal" and chance.random() < LOOPS / SHARES["fatal"]
        drawn.append(LOOP if loops else chance.choice(of[truth]))
    return drawn


def candidate_of(kind: Kind, number: int, task: Task, memory_bytes: int) -> Candidate:
    """Write a candidate, each with a text of its own so that all are built."""
    assert SOURCE.count(kind.old) == 1, kind.name
    source, plan = SOURCE.replace(kind.old, kind.new), PLAN
    if kind.scratch:
        # Less than the GPU has, so that the plan is in order, and more than is free beside any context.
        plan = f'{PLAN}\n[buffers.scratch]\nshape = [{memory_bytes - (64 << 20)}]\ndtype = "uint8"\n'
        plan = plan.replace('"out", ', '"out", "scratch", ')
    source = source.replace("SCRATCH", "unsigned char* scratch," if kind.scratch else "")
    program = Program(f"// candidate {number}: {kind.name}\n{source}", parse_plan(plan))
    blocks = dict(program.plan.tunables)["BLOCK"]
    tunables = (("BLOCK", blocks[number % len(blocks)]),)
    return Candidate(task.key, program, tunables, Lineage("person", "write", note=kind.name))


# ------------------------------------------------------------------------------------------------------------ processes


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


@dataclass(frozen=True)
class Sample:
    """What is in use after so many candidates, while nothing is judged. Bytes; `files` and `processes` are counts."""

    judged: int
    seconds: float
    gpu_bytes: int | None
    processes: int
    runners: int
    files: int
    worker_files: int
    resident_bytes: int
    worker_resident_bytes: int


def sample(judged: int, seconds: float, choice: Choice, family: Sequence[Process]) -> Sample:
    """Look at this process and its family; figures of workers are those of all of them together."""
    own = process(os.getpid())
    assert own is not None
    workers = [each for each in family if each.parent == own.pid and _WORKER in each.command]
    return Sample(
        judged=judged,
        seconds=seconds,
        gpu_bytes=used_gpu_bytes(choice),
        processes=len(family),
        runners=sum(_RUNNER in each.command for each in family),
        files=own.files,
        worker_files=sum(each.files for each in workers),
        resident_bytes=own.resident,
        worker_resident_bytes=sum(each.resident for each in workers),
    )


def growth(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return for each figure what it was first and last since things settled, and its slope per 1000 candidates."""
    settled = [one for one in samples if one.judged >= SETTLED] or list(samples)
    rows: dict[str, Any] = {}
    for name in ("gpu_bytes", "processes", "files", "worker_files", "resident_bytes", "worker_resident_bytes"):
        points = [(float(one.judged), float(getattr(one, name))) for one in settled if getattr(one, name) is not None]
        if len(points) < 2:
            continue
        xs, ys = zip(*points)
        slope = statistics.linear_regression(xs, ys).slope
        rows[name] = {"first": ys[0], "last": ys[-1], "largest": max(ys), "per_1000": 1000 * slope}
    return rows


# ----------------------------------------------------------------------------------------------------------------- soak


@dataclass
class Soak:
    """A run in progress: what is judged where, and what has been seen."""

    executor: LocalExecutor
    choice: Choice
    workers: int
    end: float
    chance: random.Random
    judged: int = 0
    wrong: list[dict[str, str]] = field(default_factory=list)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    kills: int = 0
    deaths: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seen: set[Process] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    async def run(self, candidates: Sequence[tuple[Kind, Candidate]], kills: int) -> None:
        """Judge all, a batch at a time, until the time is over. The kills are spread over the batches."""
        batches = [candidates[start : start + BATCH] for start in range(0, len(candidates), BATCH)]
        for number, batch in enumerate(batches):
            if time.monotonic() > self.end:
                return
            due = (number + 1) * kills // len(batches) - number * kills // len(batches)
            await self._batch(batch, due)
            # Spares are being started; what they take is not known before they are ready.
            await anyio.sleep(1.0)
            family = descendants()
            self.seen.update(family)
            self.samples.append(sample(self.judged, time.monotonic() - self.began, self.choice, family))
            self._tell(self.samples[-1])

    def _tell(self, one: Sample) -> None:
        gpu = "no GPU" if one.gpu_bytes is None else f"GPU {one.gpu_bytes / 1e9:.2f} GB"
        print(
            f"{one.judged:6} judged, {one.seconds:5.0f} s: {len(self.wrong)} wrong, {self.kills} kills, "
            f"{len(self.deaths)} deaths; {gpu}, {one.processes} processes ({one.runners} runners), files {one.files} "
            f"and {one.worker_files}, resident {one.resident_bytes / 1e6:.0f} and "
            f"{one.worker_resident_bytes / 1e6:.0f} MB",
            flush=True,
        )

    async def _batch(self, batch: Sequence[tuple[Kind, Candidate]], kills: int) -> None:
        # Not more at once than there are workers and a few that wait, so that little is left when the time is over.
        turns = anyio.Semaphore(self.workers + 2)
        # In the first half of the batch, so that there is work for the runners to be killed at.
        marks = sorted(self.judged + self.chance.randrange(1 + len(batch) // 2) for _ in range(kills))

        async def one(kind: Kind, candidate: Candidate) -> None:
            async with turns:
                if time.monotonic() > self.end:
                    return
                if marks and self.judged >= marks[0]:
                    marks.pop(0)
                    await anyio.sleep(self.chance.uniform(0.0, 0.5))
                    self._kill_a_runner()
                await self._judge(kind, candidate)

        async with anyio.create_task_group() as group:
            for kind, candidate in batch:
                group.start_soon(one, kind, candidate)

    async def _judge(self, kind: Kind, candidate: Candidate) -> None:
        """Judge a candidate; again where its runner died and the candidate cannot be why."""
        verdict: Verdict | None = None
        for _ in range(ATTEMPTS):
            try:
                verdict = await self.executor.judge(candidate)
            except MachineError as error:
                self.deaths.append(f"{kind.name}: {error}")
                continue
            if kind.truth == "fatal" or not _runner_died(verdict):
                break
            assert verdict.failure is not None
            self.deaths.append(f"{kind.name}: {verdict.failure.message}")
        self.judged += 1
        failure = verdict.failure if verdict is not None else None
        outcome = "no verdict" if verdict is None else "passed" if failure is None else failure.reason
        self.reasons.setdefault(f"{kind.truth}: {kind.name}", Counter())[outcome] += 1
        if verdict is None or verdict.passed != (kind.truth == "right"):
            message = failure.message if failure is not None else outcome
            self.wrong.append({"kind": kind.name, "candidate": candidate.key, "outcome": outcome, "message": message})

    def _kill_a_runner(self) -> None:
        """Kill one of our workers' runners from outside, whatever it is doing."""
        runners = [each for each in descendants() if _RUNNER in each.command]
        if not runners:
            return
        victim = self.chance.choice(runners)
        self.seen.add(victim)
        if process(victim.pid) == victim:
            os.kill(victim.pid, signal.SIGKILL)
            self.kills += 1


def _runner_died(verdict: Verdict) -> bool:
    """Whether a candidate failed because its runner was gone. A fault of the driver is another matter."""
    failure = verdict.failure
    if failure is None:
        return False
    return failure.reason == "runner_died" or (failure.reason == "fault_when_timed" and ": died " in failure.message)


def left_over(seen: set[Process], seconds: float = 15.0) -> list[str]:
    """Return the commands of processes that are still there, some seconds after the executor was closed."""
    end = time.monotonic() + seconds
    while True:
        alive = [each for each in seen if (now := process(each.pid)) is not None and now.started == each.started]
        alive = [each for each in alive if "resource_tracker" not in each.command]
        if not alive or time.monotonic() > end:
            return [each.command for each in alive]
        time.sleep(0.2)


def soak(task: Task, choice: Choice, options: argparse.Namespace) -> dict[str, Any]:
    """Run it; return what goes into the file."""
    drawn = kinds(options.candidates, options.seed, options.simulate)
    memory = choice.spec.memory_bytes
    candidates = [(kind, candidate_of(kind, number, task, memory)) for number, kind in enumerate(drawn)]
    loops = sum(kind is LOOP for kind in drawn)
    expected = START_SECONDS + len(drawn) * SECONDS_EACH + len(drawn) / BATCH * BATCH_OVERHEAD
    expected += loops * (BASE_SECONDS + LOOP_OVERHEAD)
    print(
        f"{len(drawn)} candidates, {loops} of them endless loops: about {expected:.0f} s, at most {options.seconds:g}"
    )
    with (
        tempfile.TemporaryDirectory(prefix="warpsmith-soak-") as cache,
        LocalExecutor(task, AUTO, options.workers, cache_dir=cache, simulate=options.simulate) as executor,
    ):
        end = time.monotonic() + options.seconds
        state = Soak(executor, choice, options.workers, end, random.Random(options.seed))
        anyio.run(state.run, candidates, 0 if options.simulate else options.kills)
        seconds = time.monotonic() - state.began
        state.seen.update(descendants())
    remaining = left_over(state.seen)
    return {
        "workers": options.workers,
        "asked_for": len(drawn),
        "judged": state.judged,
        "seconds": seconds,
        "wrong": state.wrong,
        "kills": state.kills,
        "deaths": state.deaths,
        "left_over": remaining,
        "gpu_bytes_after": used_gpu_bytes(choice),
        "growth": growth(state.samples),
        "outcomes": {name: dict(counter) for name, counter in sorted(state.reasons.items())},
        "samples": [asdict(one) for one in state.samples],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Many candidates, a third of which kill.")
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=min(usable_cores(), 8))
    parser.add_argument("--kills", type=int, default=10, help="runners to kill from outside")
    parser.add_argument("--seconds", type=float, default=480.0, help="stop after this time, in good order")
    parser.add_argument("--seed", type=int, default=0, help="which candidate is what, and when runners are killed")
    parser.add_argument("--simulate", action="store_true", help="try this script without a GPU")
    options = parser.parse_args()
    choice = choose(AUTO, simulate=options.simulate)
    if not choice.measures and not options.simulate:
        print("There is no NVIDIA GPU here that can be used, so there is nothing to soak.")
        return
    with tempfile.TemporaryDirectory(prefix="warpsmith-soak-") as folder:
        shape = (64, 384) if choice.measures else (8, 256)
        task = load_task(task_file(Path(folder), "softmax", "torch.softmax(x, 1)", {"x": shape}))
        found = soak(task, choice, options)
    for name, counts in found["outcomes"].items():
        print(f"{name:32} {counts}")
    for name, row in found["growth"].items():
        print(f"{name:24} {row['first']:.0f} -> {row['last']:.0f}, {row['per_1000']:+.1f} per 1000 candidates")
    unexplained = max(0, len(found["deaths"]) - found["kills"])
    print(
        f"{found['judged']} judged in {found['seconds']:.0f} s: {len(found['wrong'])} wrong verdicts; {found['kills']} "
        f"kills, {len(found['deaths'])} deaths noticed; {len(found['left_over'])} processes left over"
    )
    save("judge_soak", choice, {**machine(choice), **found, "unexplained_deaths": unexplained})
    sys.exit(1 if found["wrong"] or unexplained or found["left_over"] else 0)


if __name__ == "__main__":
    main()
