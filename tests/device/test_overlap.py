"""A launch that begins early must wait first: what it touches before that is found, and kernels that wait are left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.device.kit import clean, compile_ptx, launch, run, spec
from warpsmith.device.simulator.early import early_accesses
from warpsmith.records import BoundPlan

SOURCE = """
static __device__ __forceinline__ void wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
static __device__ __forceinline__ void begin() { asm volatile("griddepcontrol.launch_dependents;"); }
extern "C" __global__ void first(const float* x, float* y) { begin(); y[threadIdx.x] = x[threadIdx.x] + 1; }
extern "C" __global__ void k(float* y, float* out, int n) {
    __shared__ int turned[64];
    int i = threadIdx.x;
    BODY
}"""
WAITS_FIRST = {
    "at once": "begin(); wait(); out[i] = 2 * y[i];",
    "after arithmetic and shared memory": "turned[63 - i] = i * n; __syncthreads(); int j = turned[63 - i] / n; wait();"
    " out[j] = 2 * y[j];",
    "on both paths": "if (i < n / 2) { wait(); out[i] = 2 * y[i]; } else { begin(); wait(); out[i] = y[i] + y[i]; }",
    "before a loop": "wait(); for (int j = i; j < 64; j += n) out[j] = 2 * y[j];",
}
TOO_EARLY = {
    "reads": "float v = y[i];\n wait(); out[i] = 2 * v;",
    "writes": "out[i] = 1;\n wait(); out[i] = 2 * y[i];",
    "counts": "atomicAdd(&out[i], 0.0f);\n wait(); out[i] = 2 * y[i];",
    "copies": 'asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"((unsigned)__cvta_generic_to_shared('
    'turned + i)), "l"(__cvta_generic_to_global(y + i)) : "memory");\n'
    ' wait(); asm volatile("cp.async.wait_all;" ::: "memory"); out[i] = 2 * y[i];',
    "prefetches": 'asm volatile("prefetch.global.L1 [%0];" :: "l"(__cvta_generic_to_global(y + i)));\n'
    " wait(); out[i] = 2 * y[i];",
    "does not wait": "out[i] = 2 * y[i];\n",
    "waits on one path": "if (i < n / 2) { wait(); } out[i] = 2 * y[i];\n",
    "waits in a loop that may not be entered": "for (int j = 0; j < n; j++) wait(); out[i] = 2 * y[i];\n",
}
LINE = SOURCE.split("\n").index("    BODY") + 1


def execute(body: str, *, overlap: bool = True, sanitize: bool = False):
    source = SOURCE.replace("BODY", body)
    launches = [launch("first", 1, 64, ["x", "y"]), replace(launch("k", 1, 64, ["y", "out", 64]), overlap=overlap)]
    x = torch.arange(64, dtype=torch.float32)
    return x, run(source, launches, {"x": x}, [spec("out", 64)], [spec("y", 64)], sanitize=sanitize)


@pytest.mark.parametrize("body", WAITS_FIRST.values(), ids=WAITS_FIRST)
def test_a_kernel_that_waits_first_may_begin_early(body: str) -> None:
    x, execution = execute(body, sanitize=True)
    assert torch.equal(clean(execution)["out"], 2 * x + 2)


@pytest.mark.parametrize("body", TOO_EARLY.values(), ids=TOO_EARLY)
def test_what_is_touched_before_the_wait_is_found_with_its_line(body: str) -> None:
    _, execution = execute(body)
    (finding,) = execution.findings
    assert (finding.kind, finding.kernel, finding.line) == ("global_race", "k", LINE)
    assert "before griddepcontrol.wait" in finding.message


@pytest.mark.parametrize("body", TOO_EARLY.values(), ids=TOO_EARLY)
def test_a_launch_that_does_not_begin_early_need_not_wait(body: str) -> None:
    x, execution = execute(body, overlap=False)
    assert torch.equal(clean(execution)["out"], 2 * x + 2)


def test_a_kernel_that_can_end_without_waiting_is_found() -> None:
    """The launch behind it waits for this one only, and would read what the first has not written yet."""
    _, execution = execute("if (n > 1000) return; wait(); out[i] = 2 * y[i];")
    (finding,) = execution.findings
    assert finding.kind == "global_race" and "ends without griddepcontrol.wait" in finding.message


def test_a_gpu_is_asked_for_nothing_that_the_check_refuses() -> None:
    """On hardware the check reads the same PTX; what cannot be followed there is refused as well."""
    plan = BoundPlan((), (replace(launch("k", 1, 64, ["y", "out", 64]), overlap=True),))
    early = compile_ptx(SOURCE.replace("BODY", TOO_EARLY["reads"]))
    late = compile_ptx(SOURCE.replace("BODY", WAITS_FIRST["at once"]))
    indirect = compile_ptx(
        SOURCE.replace("BODY", "wait(); void (*chosen[2])() = {wait, begin}; chosen[n & 1](); out[i] = 2 * y[i];")
    )
    found = early_accesses(early, plan)
    assert found is not None and found.line == LINE
    assert early_accesses(late, plan) is None
    assert early_accesses(early, BoundPlan((), (launch("k", 1, 64, ["y", "out", 64]),))) is None
    refused = early_accesses(indirect, plan)
    assert refused is not None and refused.kernel == "k" and "cannot be told" in refused.message
