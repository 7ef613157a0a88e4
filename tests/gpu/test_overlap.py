"""Launches that begin early on a real GPU: the judge passes the same program with and without, and refuses haste."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.gpu.bench import GPUS, call, judge_for, launch, needs_gpu
from warpsmith.author.builtin import Recipe, compile_graph
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.records import Candidate, Lineage, Task, TensorSpec
from warpsmith.task import task_from_module

pytestmark = [
    *needs_gpu,
    pytest.mark.skipif(bool(GPUS) and GPUS[0].spec.compute_capability < (9, 0), reason="needs compute capability 9.0"),
]

CHAIN = """
extern "C" __global__ void step(const float* x, float* out, int rounds) {
    asm volatile("griddepcontrol.launch_dependents;");
    WAIT
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = x[i];
    for (int round = 0; round < rounds; ++round) value = value * 0.5f + 1.0f;
    out[i] = value;
}
"""
WAIT = 'asm volatile("griddepcontrol.wait;" ::: "memory");'


def layered() -> Task:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 512), nn.Softmax(-1), nn.Linear(512, 256), nn.LayerNorm(256))
    return task_from_module(module, torch.randn(512, 256))


def test_the_same_program_passes_with_and_without_overlap() -> None:
    task = layered()
    judge = judge_for(task)
    # Every value stored, so that there are several launches: else these layers might become one.
    cuts = frozenset(compile_graph(task.graph, Recipe(), GPUS[0].spec).cuttable)
    keys = set()
    for overlap in (False, True):
        compiled = compile_graph(task.graph, Recipe(cuts, overlap=overlap), GPUS[0].spec)
        assert any(launch.overlap for launch in compiled.program.plan.launches) is overlap
        candidate = Candidate(task.key, compiled.program, compiled.tunables, Lineage("builtin", "create"))
        verdict = judge.judge(candidate)
        assert verdict.failure is None, verdict.failure.message
        assert verdict.timing is not None and verdict.timing.source == "measured"
        keys.add(candidate.key)
    assert len(keys) == 2


def chained(device: CudaDevice, source: str, links: int = 9):
    """A long chain in which each link needs all of the one before: whoever reads too early reads poison."""
    n = 1 << 18
    names = ["x", *(f"part{number}" for number in range(links - 1)), "out"]
    steps = [
        launch("step", names[number], names[number + 1], 2000, grid=n // 256, block=256, overlap=number > 0)
        for number in range(links)
    ]
    scratch = [TensorSpec(name, (n,), "float32") for name in names[1:-1]]
    x = torch.full((n,), 2.0)
    return x, call(device, source, steps, {"x": x}, [TensorSpec("out", (n,), "float32")], scratch=scratch)


def test_a_chain_of_launches_that_wait_is_right(device: CudaDevice) -> None:
    x, execution = chained(device, CHAIN.replace("WAIT", WAIT))
    assert execution.findings == () and torch.equal(execution.outputs["out"].cpu(), x)


def test_a_chain_that_does_not_wait_is_refused_before_it_runs(device: CudaDevice) -> None:
    _, execution = chained(device, CHAIN.replace("WAIT", ""))
    assert [finding.kind for finding in execution.findings] == ["global_race"] and not execution.outputs
