"""Memory of the GPU that somebody else holds for a while."""

from __future__ import annotations

import threading

import torch

from tests.gpu.bench import judge_for, needs_gpu
from tests.judge.kernels import SQUARE, Kernel, Square, candidate_of, task_of
from warpsmith.device.cuda.device import CudaDevice

pytestmark = needs_gpu

LARGE = Kernel("larger square", Square, lambda: (torch.randn(1 << 26),), SQUARE.source, SQUARE.plan)


def test_judging_waits_for_memory_that_others_hold(device: CudaDevice) -> None:
    task = task_of(LARGE)  # before memory is short
    free, _ = torch.cuda.mem_get_info(device.where)
    others = [torch.empty(int(free) - (1 << 30), dtype=torch.uint8, device=device.where)]
    told: list[bool] = []
    device.waits = told.append

    def leave() -> None:
        others.clear()
        torch.cuda.empty_cache()

    leaving = threading.Timer(8.0, leave)
    leaving.start()
    try:
        verdict = judge_for(task).judge(candidate_of(LARGE))
    finally:
        leaving.join()
        device.waits = lambda waiting: None
    assert verdict.passed, verdict.failure
    assert True in told, "memory was never short"


def test_a_program_that_fits_into_no_gpu_of_this_size_is_not_waited_for(device: CudaDevice) -> None:
    others = torch.empty(8 << 30, dtype=torch.uint8, device=device.where)
    told: list[bool] = []
    device.waits = told.append
    plan = SQUARE.plan + f'[buffers.scratch]\nshape = [{device.spec.memory_bytes - (64 << 20)}]\ndtype = "uint8"\n'
    candidate = candidate_of(
        SQUARE,
        SQUARE.source.replace("int count)", "int count, unsigned char* scratch)"),
        plan.replace('"count"]', '"count", "scratch"]'),
    )
    try:
        verdict = judge_for(task_of(SQUARE)).judge(candidate)
    finally:
        device.waits = lambda waiting: None
        del others
    assert verdict.failure is not None and verdict.failure.reason == "out_of_memory"
    assert not told
