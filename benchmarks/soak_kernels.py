"""The candidates of benchmarks/judge_soak.py: one row softmax, and edits of it that are right, wrong or fatal."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from usual_way import DEVICE_CODE, PLAN

from warpsmith.program import parse_plan
from warpsmith.records import Candidate, Lineage, Program, Task

Truth = Literal["right", "wrong", "fatal"]

SHARES: dict[Truth, float] = {"right": 0.5, "wrong": 1 / 6, "fatal": 1 / 3}
LOOPS = 0.01
"""Share of endless loops: each holds the GPU for the time limit of a call."""

_END, _DIVIDED = "// the end", "expf(in[c] - most) / sum"
_DEEP = r"""
__device__ __noinline__ float deep(int n, const float* x) {
    volatile float kept[16];
    kept[n % 16] = x[n % 16];
    return n > 0 ? deep(n - 1, x) + kept[n % 16] : 0.0f;
}
"""
SOURCE = _DEEP + DEVICE_CODE.replace("float* out, ", "float* out, SCRATCH ").replace(
    f"{_DIVIDED};\n}}", f"{_DIVIDED};\n    {_END}\n}}"
)
"""A right kernel. Every kind is an edit of it; `deep` is compiled only where it is called."""


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
PLAIN = KINDS[0]
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
