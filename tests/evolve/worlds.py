"""Synthetic worlds to search: a landscape of times, authors who write points of it, a judge and an archive in memory."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from warpsmith.archive.past import BILLED
from warpsmith.author.protocol import Context, Explanation, Proposal, Refusal
from warpsmith.errors import MachineError
from warpsmith.evolve.generation import Problem
from warpsmith.evolve.loop import Evolution
from warpsmith.records import (
    Bound,
    Candidate,
    Failure,
    GpuSpec,
    Graph,
    Judged,
    Launch,
    Lineage,
    Plan,
    Program,
    Ref,
    Stage,
    Task,
    TensorSpec,
    Timing,
    Verdict,
)

GPU = GpuSpec(
    name="Testbed",
    compute_capability=(9, 0),
    sm_count=4,
    clock=1e9,
    memory_bytes=1 << 30,
    memory_bandwidth=1e12,
    l2_bytes=1 << 20,
    l2_bandwidth=4e12,
    fp32_flops=1e12,
    tf32_flops=2e12,
    half_flops=4e12,
    fp64_flops=5e11,
    shared_per_sm=1 << 16,
    shared_per_block=1 << 16,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source="made up",
)

X = TensorSpec("x", (4,), "float32")
TASK = Task(
    name="synthetic",
    origin="tests",
    source="",
    functional_source="",
    graph=Graph((X,), (), (), (), (), ((TensorSpec("out", (4,), "float32"), Ref("x")),)),
    state={},
    examples={},
    module_inputs=False,
)
BLOCKS = (64, 32, 128, 256, 512)
VECTORS = (1, 2, 4)

Landscape = Callable[[dict[str, int], Mapping[str, int]], float]
"""Seconds of genes and tunables; infinite where the program is wrong."""


def problem(bound: float = 1e-6) -> Problem:
    return Problem(TASK, GPU, Bound(32, 16, 4, GPU.name, bound, "memory"), judge_version="test")


def program(genes: Mapping[str, int], tunables: Mapping[str, tuple[int, ...]] | None = None) -> Program:
    declared = {"BLOCK": BLOCKS, "VEC": VECTORS} if tunables is None else tunables
    launch = Launch("kernel", ("1",), ("32",), ("x", "out"))
    return Program(json.dumps(dict(genes), sort_keys=True), Plan((), tuple(declared.items()), (), (launch,)))


def smooth(genes: dict[str, int], tunables: Mapping[str, int]) -> float:
    """A separable bowl: the best is a = 7, b = 3, BLOCK = 256, VEC = 2."""
    distance = (genes["a"] - 7) ** 2 + (genes["b"] - 3) ** 2
    block = abs(math.log2(tunables["BLOCK"] / 256))
    vector = abs(math.log2(tunables["VEC"] / 2))
    return 1e-5 * (1 + 0.1 * distance + 0.15 * block + 0.1 * vector)


class Hill:
    """An author over two genes from 0 to 9. `mutate` steps to a neighbour, `cross` mixes, `random` draws blindly."""

    def __init__(
        self, name: str = "hill", operators: tuple[str, ...] = ("create", "mutate", "cross"), cost: float = 0.0
    ):
        self.name = name
        self.operators = {op: {"create": 0, "random": 0, "mutate": 1, "worsen": 1, "cross": 2}[op] for op in operators}
        self.cost = cost
        self.expected_usd = cost
        self.asked: list[str] = []

    async def propose(self, context: Context) -> Proposal | None:
        self.asked.append(context.operator)
        chance = random.Random(context.seed)
        await anyio.sleep(0)
        genes = self._genes(
            context, [json.loads(parent.candidate.program.source) for parent in context.parents], chance
        )
        written = program(genes)
        recipe = json.dumps({"idea": f"a{genes['a'] % 2}", **genes})
        return Proposal(written, tuple(written.plan.defaults.items()), recipe=recipe, cost_usd=self.cost)

    def _genes(self, context: Context, parents: list[dict[str, int]], chance: random.Random) -> dict[str, int]:
        if context.operator in ("create", "random"):
            return {"a": chance.randrange(10), "b": chance.randrange(10)}
        if context.operator == "cross":
            return {gene: chance.choice(parents)[gene] for gene in ("a", "b")}
        gene = chance.choice(["a", "b"])
        if context.operator == "worsen":
            target = 0 if parents[0][gene] < {"a": 7, "b": 3}[gene] else 9
            return {**parents[0], gene: target}
        return {**parents[0], gene: min(9, max(0, parents[0][gene] + chance.choice([-1, 1])))}


def verdict_of(candidate: Candidate, landscape: Landscape) -> Verdict:
    seconds = landscape(json.loads(candidate.program.source), dict(candidate.tunables))
    if math.isinf(seconds):
        failure = Failure(Stage.NUMERICS, "wrong_value", "made up to be wrong")
        return Verdict(candidate.key, candidate.task_key, Stage.NUMERICS, failure, None)
    timing = Timing((seconds,), seconds, (seconds, seconds), "estimated", GPU.name)
    return Verdict(candidate.key, candidate.task_key, Stage.PROFILE, None, timing)


class Bench:
    """An executor that reads the landscape. `delay` says how long a judgement takes, `broken` when the machine fails."""

    def __init__(
        self,
        landscape: Landscape = smooth,
        delay: Callable[[int], float] = lambda index: 0.0,
        broken: Callable[[int], bool] = lambda index: False,
    ):
        self.landscape = landscape
        self.delay = delay
        self.broken = broken
        self.keys: list[str] = []
        self.busy = 0
        self.busiest = 0

    async def judge(self, candidate: Candidate) -> Verdict:
        index = len(self.keys)
        self.keys.append(candidate.key)
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await anyio.sleep(self.delay(index))
        finally:
            self.busy -= 1
        if self.broken(index):
            raise MachineError(f"the machine failed on judgement {index}")
        return verdict_of(candidate, self.landscape)

    def close(self) -> None:
        self.busy = 0


class Notebook:
    """An archive in memory."""

    def __init__(self) -> None:
        self.proposals: list[Candidate] = []
        self.candidates: dict[str, Candidate] = {}
        self.verdicts: list[tuple[Verdict, str, str]] = []
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def add_candidate(self, run: int, candidate: Candidate) -> None:
        self.proposals.append(candidate)
        self.candidates.setdefault(candidate.key, candidate)

    def add_verdict(self, run: int, verdict: Verdict, *, judge_version: str, device: str) -> None:
        assert verdict.candidate_key in self.candidates, "a verdict without its candidate"
        self.verdicts.append((verdict, judge_version, device))

    def add_event(self, run: int, kind: str, data: Mapping[str, Any]) -> None:
        self.events.append((kind, data))

    def judged(self, task_key: str, *, judge_version: str | None = None, device: str | None = None) -> list[Judged]:
        return [
            Judged(self.candidates[verdict.candidate_key], verdict)
            for verdict, version, name in self.verdicts
            if judge_version in (None, version) and device in (None, name) and verdict.task_key == task_key
        ]

    def verdict(self, candidate_key: str, judge_version: str, device: str) -> Verdict | None:
        return next(
            (
                v
                for v, ver, name in self.verdicts
                if (v.candidate_key, ver, name) == (candidate_key, judge_version, device)
            ),
            None,
        )

    def pending(
        self, task_key: str, *, judge_version: str, device: str, wanted: Callable[[Lineage], bool]
    ) -> list[Candidate]:
        judged = {v.candidate_key for v, version, name in self.verdicts if (version, name) == (judge_version, device)}
        return [each for key, each in self.candidates.items() if key not in judged and wanted(each.lineage)]

    def spent(self, task_key: str) -> float:
        billed = [data for kind, data in self.events if kind in BILLED]
        return sum(each.lineage.cost_usd for each in self.proposals) + sum(data["cost_usd"] for data in billed)

    def told(self, task_key: str, kind: str) -> list[Mapping[str, Any]]:
        return [data for name, data in self.events if name == kind]

    def copy(self) -> Notebook:
        other = Notebook()
        other.candidates, other.verdicts = dict(self.candidates), list(self.verdicts)
        other.proposals, other.events = list(self.proposals), list(self.events)
        return other


Script = Callable[[Context], Proposal | Refusal | None]


def answer(genes: Mapping[str, int], *, cost: float = 0.0, note: str = "", source: str | None = None) -> Proposal:
    """What a model answers: a program without a recipe, with the prompt and the reply."""
    written = program(genes) if source is None else dataclasses.replace(program(genes), source=source)
    return Proposal(written, tuple(written.plan.defaults.items()), None, "prompt", f"reply {genes}", note, cost)


class Model:
    """An author that reads: `script` answers each context. It notes what it was asked."""

    def __init__(
        self, script: Script, name: str = "model", cost: float = 0.0, operators: tuple[str, ...] | None = None
    ) -> None:
        every = {"translate": 0, "repair": 1, "rewrite": 1, "cross": 2}
        self.name = name
        self.operators = {name: every[name] for name in (every if operators is None else operators)}
        self.expected_usd = cost
        self.script = script
        self.contexts: list[Context] = []

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        self.contexts.append(context)
        await anyio.sleep(0)
        return self.script(context)

    @property
    def asked(self) -> list[str]:
        return [context.operator for context in self.contexts]


class Tutor(Model):
    """A model that explains changes as well. It notes which."""

    def __init__(
        self, script: Script, lesson: Callable[[], Explanation | Refusal | None], name: str = "tutor", cost: float = 0.0
    ) -> None:
        super().__init__(script, name, cost)
        self.lesson = lesson
        self.explained: list[tuple[Judged, Judged]] = []

    async def explain(self, parent: Judged, child: Judged, context: Context) -> Explanation | Refusal | None:
        self.explained.append((parent, child))
        await anyio.sleep(0)
        return self.lesson()


def genes_of(each: Judged | Candidate | Program) -> dict[str, int]:
    candidate = each.candidate if isinstance(each, Judged) else each
    written = candidate.program if isinstance(candidate, Candidate) else candidate
    genes: dict[str, int] = json.loads(written.source)
    return genes


def drawn(context: Context, *, cost: float = 0.0) -> Proposal:
    """An answer that the seed decides, among a million programs."""
    chance = random.Random(context.seed)
    return answer({"a": chance.randrange(1000), "b": chance.randrange(1000)}, cost=cost)


def searched(evolution: Evolution) -> Evolution:
    """Go on from what the archive knows, and search to the end."""

    async def main() -> None:
        evolution.resume()
        await evolution.translate()
        await evolution.run()

    anyio.run(main)
    return evolution
