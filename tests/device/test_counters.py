"""Counters are what one works out by hand, and estimates order programs as hardware does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.device.kit import GPU, build, compile_ptx, launch, run, run_ptx, spec
from warpsmith.device.catalog import GPUS
from warpsmith.device.simulator import Simulator, explain
from warpsmith.records import BoundPlan, KernelResources


def counted(body: str, *, grid=4, block=128, size=65536, shared: int = 0):
    source = (
        'extern "C" __global__ void k(const float* __restrict__ x, float* __restrict__ out) {'
        "int i = blockIdx.x * blockDim.x + threadIdx.x;" + body + "}"
    )
    execution = run(
        source, launch("k", grid, block, ["x", "out"], shared), {"x": torch.randn(size)}, [spec("out", size)]
    )
    assert not execution.findings
    return execution.counters[0]


def test_contiguous_accesses_take_a_sector_for_every_eight_floats():
    got = counted("out[i] = x[i];")
    assert (got.global_load_requests, got.global_load_sectors) == (16, 64)
    assert (got.global_store_requests, got.global_store_sectors) == (16, 64)
    assert (got.unique_load_bytes, got.unique_store_bytes) == (2048, 2048)


@pytest.mark.parametrize(
    ("index", "sectors", "unique"),
    [
        ("i * 8", 512, 2048),
        ("i * 2", 128, 2048),
        ("i ^ 5", 64, 2048),
        ("i / 32", 16, 64),
        ("i + 1", 80, 2048),
        ("(i * 37) % 512", 0, 2048),
        ("0", 16, 4),
        ("blockIdx.x", 16, 16),
    ],
)
def test_sectors_of_other_patterns(index, sectors, unique):
    got = counted(f"out[i] = x[{index}];")
    threads = np.arange(512).reshape(16, 32)
    if not sectors:
        sectors = sum(len(set((row * 37 % 512) // 8)) for row in threads)
    assert (got.global_load_sectors, got.unique_load_bytes) == (sectors, unique)


def test_vectors_move_more_in_one_request():
    got = counted("((float4*)out)[i] = ((const float4*)x)[i];")
    assert (got.global_load_requests, got.global_load_sectors, got.unique_load_bytes) == (16, 256, 8192)


@pytest.mark.parametrize(
    ("index", "conflicts"),
    [("t", 1), ("t * 2", 2), ("t * 32 % 1024", 32), ("t * 33 % 1056", 1), ("0", 1), ("t / 2 * 32 % 1024", 16)],
)
def test_bank_conflicts(index, conflicts):
    body = f"__shared__ float s[1056]; int t = threadIdx.x; for (int j = t; j < 1056; j += 32) s[j] = j; __syncthreads(); out[i] = s[{index}];"
    got = counted(body, grid=1, block=32)
    base = counted(body.replace(f"s[{index}];", "1;"), grid=1, block=32)
    writes = 33
    assert base.shared_wavefronts in (0, writes)
    assert got.shared_wavefronts - writes == conflicts


def test_vectors_in_shared_memory_take_a_pass_for_every_128_bytes():
    body = "__shared__ float4 s[32]; s[threadIdx.x] = ((const float4*)x)[i]; __syncthreads(); ((float4*)out)[i] = s[threadIdx.x ^ 1];"
    got = counted(body, grid=1, block=32)
    assert (got.shared_requests, got.shared_wavefronts) == (2, 8)


def test_instructions_are_counted_by_class_and_divergence_by_warp():
    got = counted(
        "float v = x[i]; if (i % 32 < 8) { v = v * v + 3.f; v = sqrtf(v); out[i + 1000] = v; } out[i] = v + 1.f;"
    )
    threads, issued = dict(got.instructions), dict(got.issued)
    assert threads["fp32"] == 512 + 128 and issued["fp32"] == 32
    assert threads["special"] == 128 and issued["special"] == 16
    assert threads["global"] == 1024 + 128 and issued["global"] == 48
    assert (got.branches, got.divergent_branches) == (16, 16)
    assert got.thread_instructions == sum(threads.values())


def test_many_blocks_are_sampled_without_changing_the_result():
    small, large = (counted("out[i] = x[(i * 3) % 4096];", grid=grid) for grid in (4, 400))
    assert large.global_load_requests == 100 * small.global_load_requests
    assert large.global_load_sectors == pytest.approx(100 * small.global_load_sectors, rel=0.05)


def test_atomics_count_as_loads_and_stores_of_bytes():
    got = counted("out[i] = 0; __syncthreads(); atomicAdd(out + threadIdx.x / 32, 1.f);")
    assert dict(got.instructions)["atomic"] == 512
    assert got.unique_load_bytes == 16


# ---------------------------------------------------------------------------------------------------------- estimates

COPY = """
extern "C" __global__ void narrow(const float* __restrict__ x, float* __restrict__ out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) out[i] = x[i] * 2.f;
}
extern "C" __global__ void strided(const float* __restrict__ x, float* __restrict__ out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x; int j = i % 1024 * (n / 1024) + i / 1024; if (i < n) out[j] = x[j] * 2.f;
}
extern "C" __global__ void wasteful(const float* __restrict__ x, float* __restrict__ out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= n) return;
    float v = x[i]; for (int j = 0; j < 250; j++) v = v * 1.01f + 0.5f; out[i] = v;
}
"""


def estimated(kernel: str, n: int = 1 << 20, block: int = 256, grid: int | None = None, registers: int = 32, gpu=GPU):
    ptx = compile_ptx(COPY)
    one = launch(kernel, grid or -(-n // block), block, ["x", "out", n])
    execution = run_ptx(ptx, [one], {"x": torch.randn(n)}, [spec("out", n)], budget=None)
    assert not execution.findings
    resources = tuple(KernelResources(name, registers, 0, 0, 0, 0) for name in ("narrow", "strided", "wasteful"))
    built = replace(build(ptx), resources=resources)
    plan = BoundPlan((), (one,))
    timing = Simulator(gpu).time(built, plan, execution.counters)
    (launched,) = explain(built, plan, execution.counters, gpu)
    assert timing.source == "estimated" and timing.device == gpu.name
    assert timing.median == pytest.approx(launched.seconds)
    return launched


def test_estimates_rank_and_name_what_binds():
    narrow, strided, wasteful = (estimated(kernel) for kernel in ("narrow", "strided", "wasteful"))
    assert narrow.binding == "dram"
    assert strided.seconds > 1.3 * narrow.seconds and strided.binding in ("l2", "l1")
    assert wasteful.seconds > 1.5 * narrow.seconds and wasteful.binding in ("issue", "fp32", "latency")


def test_no_estimate_beats_the_memory():
    for gpu in GPUS.values():
        got = estimated("narrow", 1 << 18, gpu=gpu)
        assert got.seconds > 2 * 4 * (1 << 18) / gpu.memory_bandwidth


def test_registers_limit_occupancy_and_too_few_blocks_cost_time():
    roomy, tight = estimated("narrow"), estimated("narrow", registers=255)
    assert roomy.occupancy == 1.0
    assert tight.occupancy == pytest.approx(256 / 2048) and tight.occupancy_limit == "registers"
    assert tight.seconds >= roomy.seconds
    few = estimated("wasteful", 1 << 14, block=1024)
    many = estimated("wasteful", 1 << 14, block=64)
    assert few.seconds > many.seconds
