"""A program that faults, hangs or asks too much is told apart; the next one runs on a fresh runner as if nothing was."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from tests.gpu.bench import assert_works, call, compiled, launch, needs_gpu
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.records import BoundLaunch, Execution, TensorSpec

pytestmark = needs_gpu

OUT = [TensorSpec("out", (4,), "float32")]
SOURCE = 'extern "C" __global__ void bad(const float* x, float* out) {{ {} }}'
ENDLESS = "while (*(const volatile float*)x >= 0.0f) {} out[0] = 1.0f;"


def run(device: CudaDevice, body: str, step: BoundLaunch | None = None, *, budget: int | None = None) -> Execution:
    x = torch.ones(64)
    return call(device, SOURCE.format(body), step or launch("bad", "x", "out"), {"x": x}, OUT, budget=budget)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("*(float*)8 = 1.0f;", "out_of_bounds"),
        ("out[1LL << 40] = 1.0f;", "out_of_bounds"),
        ("out[0] = x[-(1LL << 42)];", "out_of_bounds"),
        ("*(float4*)(out + 1) = make_float4(x[0], x[1], x[2], x[3]);", "misaligned"),
        ("__trap();", "trap"),
    ],
    ids=["null pointer", "far away", "far in front", "misaligned", "trap"],
)
def test_a_fault_is_told_by_its_kind_and_the_next_program_runs(device: CudaDevice, body: str, kind: str) -> None:
    assert_works(device)
    started = device.runner.started
    execution = run(device, body)
    assert [finding.kind for finding in execution.findings] == [kind], execution.findings
    assert execution.findings[0].kernel == "bad" and execution.outputs == {}
    assert_works(device)
    assert device.runner.started == started + 1, "after a fault a process is never used again"


def test_an_endless_loop_ends_with_its_budget(device: CudaDevice) -> None:
    execution = run(device, ENDLESS, budget=1000)
    assert [finding.kind for finding in execution.findings] == ["budget"]
    assert_works(device)


def test_launches_that_the_driver_refuses_are_told_of(device: CudaDevice) -> None:
    refused = {
        "too many threads": launch("bad", "x", "out", block=2048),
        "no threads": launch("bad", "x", "out", block=0),
        "too much shared memory": launch("bad", "x", "out", shared=4 << 20),
        "more cooperating blocks than fit": launch("bad", "x", "out", grid=1 << 20, block=1024, cooperative=True),
    }
    for name, step in refused.items():
        execution = run(device, "out[0] = 1.0f;", step)
        assert [finding.kind for finding in execution.findings] == ["invalid_launch"], (name, execution.findings)
    assert_works(device)


def test_buffers_that_do_not_fit_are_told_of(device: CudaDevice) -> None:
    huge = [TensorSpec("huge", (2 * device.spec.memory_bytes,), "uint8")]
    step = launch("bad", "x", "out")
    execution = call(device, SOURCE.format("out[0] = 1.0f;"), step, {"x": torch.ones(64)}, OUT, scratch=huge)
    assert [finding.kind for finding in execution.findings] == ["out_of_memory"]
    assert_works(device)


SLOW = """
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); while (now - start < 3000000000ULL);
    for (int i = 0; i < 4; ++i) out[i] = x[i];
"""
"""Takes three seconds."""


def kill_runner(device: CudaDevice, times: int) -> threading.Thread:
    """Kill the runner in the midst of its next call, and the one that takes its place, until it was done often enough."""

    def work() -> None:
        for number in range(device.runner.started, device.runner.started + times):
            # A runner counts as started before it is equipped: give it the time to come to the call.
            while device.runner.started < number or device.runner.pid is None:
                time.sleep(0.01)
            time.sleep(1.5)
            os.kill(device.runner.pid, signal.SIGKILL)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("times", "kinds"), [(1, []), (2, ["runner_died"])])
def test_a_runner_that_is_killed_during_a_call_is_replaced(device: CudaDevice, times: int, kinds: list[str]) -> None:
    assert_works(device)
    compiled(device, SOURCE.format(SLOW))  # so that the call is under way when the signal comes
    killer = kill_runner(device, times)
    execution = run(device, SLOW, budget=10**12)
    killer.join(30)
    assert [finding.kind for finding in execution.findings] == kinds, execution.findings
    assert "SIGKILL" in execution.findings[0].message if kinds else execution.outputs["out"].tolist() == [1.0] * 4
    assert_works(device)


def test_a_runner_that_is_killed_between_calls_is_replaced_and_nobody_is_blamed(device: CudaDevice) -> None:
    assert_works(device)
    pid = device.runner.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # Looks, and leaves it to the device to find out.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert_works(device)
    assert device.runner.pid != pid


def test_faults_in_a_row_leak_no_memory(device: CudaDevice) -> None:
    assert_works(device)
    before = torch.cuda.mem_get_info(device.where)[0]
    for _ in range(4):
        run(device, "__trap();")
    assert_works(device)
    assert before - torch.cuda.mem_get_info(device.where)[0] < 1 << 30, "what dead runners held must be free again"
