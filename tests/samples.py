"""Small, valid records to test with: one task, programs for it, candidates, verdicts."""

from __future__ import annotations

from dataclasses import replace

import torch

from warpsmith.records import (
    Bound,
    Candidate,
    Counters,
    Failure,
    FamilyResult,
    Finding,
    Graph,
    KernelResources,
    Launch,
    Lineage,
    Mismatch,
    Node,
    Plan,
    Profile,
    Program,
    Ref,
    Stage,
    Task,
    TensorSpec,
    Timing,
    Verdict,
)

X = TensorSpec("x", (64, 128), "float32")
OUT = TensorSpec("out", (64, 128), "float32")

TASK = Task(
    name="relu",
    origin="examples/relu.py",
    source="class Model(nn.Module): ...\n",
    functional_source="def relu(x: Tensor) -> Tensor:\n    return aten.relu(x)\n",
    graph=Graph((X,), (), (), (), (Node("relu", "aten.relu.default", (Ref("x"),), (), (OUT,)),), ((OUT, Ref("relu")),)),
    state={},
    examples={"x": torch.zeros(64, 128)},
    module_inputs=True,
)

MASK = TensorSpec("mask", (64, 128), "bool")
DROPPING = replace(TASK, graph=replace(TASK.graph, inputs=(X, MASK), masks=(("mask", 0.75),)))
"""A task whose module draws a mask."""

BOUND = Bound(32768, 32768, 8192, "H200", 1.4e-8, "memory")

SOURCE = """// One thread per element.
extern "C" __global__ void relu(const float* __restrict__ x, float* __restrict__ out, int count) {
    const int index = blockIdx.x * BLOCK + threadIdx.x;
    if (index < count) out[index] = fmaxf(x[index], 0.0f);
}
"""


def program(variant: int = 0) -> Program:
    """A program; each variant has a text, and so a key, of its own."""
    plan = Plan(
        symbols=(("count", "x.shape[0] * x.shape[1]"),),
        tunables=(("BLOCK", (256, 128, 512)),),
        buffers=(),
        launches=(Launch("relu", ("ceil_div(count, BLOCK)",), ("BLOCK",), ("x", "out", "count")),),
    )
    return Program(SOURCE + (f"// variant {variant}\n" if variant else ""), plan)


def candidate(
    variant: int = 0, *, parents: tuple[str, ...] = (), operator: str = "create", generation: int = 0
) -> Candidate:
    """A candidate for TASK."""
    lineage = Lineage("builtin", operator, parents, generation, note=f"variant {variant}")
    return Candidate(TASK.key, program(variant), (("BLOCK", 256),), lineage)


def passed(of: Candidate, seconds: float = 2e-6) -> Verdict:
    """A verdict that passed with an estimated time."""
    return Verdict(
        of.key,
        of.task_key,
        Stage.PROFILE,
        None,
        Timing((seconds,), seconds, (seconds, seconds), "estimated", "H200"),
        families=(FamilyResult("nominal", 1, 0.0, 0.0, 1.0), FamilyResult("normal", 2, 0.25, 0.5, 1.5)),
        resources=(KernelResources("relu", 16, 0, 0, 0, 0),),
        counters=(counters(),),
        profile=Profile((("dram_fraction", 0.61),), "memory", "Each thread loads 4 bytes. Load 16 with one float4."),
        seconds=(("build", 0.05), ("run", 0.01)),
    )


def counters() -> Counters:
    """Counters of one launch of `program`."""
    return Counters(
        "relu", (32, 1, 1), (256, 1, 1), 0, (("fp32", 8192),), (("fp32", 256),), 1024, 1024, 256, 256, 32768, 32768, 0, 0, 0, 0, 256
    )  # fmt: skip


def failed(of: Candidate, reason: str = "wrong_value", stage: Stage = Stage.NUMERICS) -> Verdict:
    """A verdict that failed."""
    failure = Failure(
        stage,
        reason,
        "3 of 8192 elements of out are wrong",
        family="normal",
        seed=7,
        mismatch=Mismatch("out", (0, 5), 0.5, float("inf"), 3, 8192),
        finding=Finding("out_of_bounds", "relu", 4, "reads 4 bytes past the end of x"),
    )
    return Verdict(of.key, of.task_key, stage, failure, None)
