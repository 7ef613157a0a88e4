"""Times that are measured: of a known kernel, by clocks that agree, and not below what physics allows."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from tests.gpu.bench import judge_for, needs_gpu, shared_device
from tests.judge.bench import builder
from tests.judge.kernels import SQUARE, TOTAL, Kernel, Square, candidate_of, task_of
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.cuda.process import Fault
from warpsmith.judge.pool import Pool
from warpsmith.judge.references import References
from warpsmith.judge.screen import screen
from warpsmith.judge.timing import Limits, measure
from warpsmith.records import BoundPlan, Failure, Stage, Timing
from warpsmith.task import bound

pytestmark = needs_gpu

SEED = 3
LARGE = Kernel("large square", Square, lambda: (torch.randn(1 << 22),), SQUARE.source, SQUARE.plan)
"""16 MiB in and 16 MiB out, in so many slots that memory decides how long it takes."""


@cache
def pool() -> Pool:
    where, task = shared_device().where, task_of(LARGE)
    return Pool(task, References(task, 0, device=where).get("nominal", 0), 0, 4, where)


def measured(device: CudaDevice, source: str, *, least: float = 0.0) -> Timing | Failure:
    """Time a program for the large task without the stages that come before."""
    task, candidate = task_of(LARGE), candidate_of(LARGE, source)
    plan = screen(task, candidate, device.spec)
    assert isinstance(plan, BoundPlan)
    build = builder().build(candidate.program, {}, device.architecture)
    with device.exclusive():
        series = device.series(build, plan, task.graph.arguments, task.graph.results, SEED)
        return measure(series, pool(), Limits(2.0, least), SEED, device.spec.name, device.watch.state)


def test_a_known_kernel_takes_about_as_long_as_memory_says(device: CudaDevice) -> None:
    timing = measured(device, SQUARE.source)
    assert isinstance(timing, Timing), timing
    assert timing.source == "measured" and timing.device == device.spec.name
    ideal = bound(task_of(LARGE), device.spec).seconds
    # What the L2 still holds of the last outputs makes the one side, launches and imperfect loads the other.
    assert 0.7 * ideal < timing.median < 6.0 * ideal, (timing.median, ideal)
    low, high = timing.interval
    assert high / low < 1.5


def test_clocks_agree_and_the_driver_says_how_the_gpu_did(device: CudaDevice) -> None:
    timing = measured(device, SQUARE.source)
    assert isinstance(timing, Timing), timing
    clocks = dict(timing.clocks_of)
    assert {"events", "wall", "events warm"} <= set(clocks)
    if "activity" in clocks:
        assert clocks["activity"] == pytest.approx(clocks["events"], rel=0.5)
    if device.watch.works:
        assert timing.states and all(state.sm_clock > 0 for state in timing.states)


def test_a_verdict_tells_a_measurement_from_an_estimate() -> None:
    for kernel in (SQUARE, TOTAL):
        verdict = judge_for(task_of(kernel)).judge(candidate_of(kernel))
        assert verdict.failure is None, verdict.failure
        assert verdict.timing is not None and verdict.timing.source == "measured"


STATEMENT = "if (i < count) out[i] = x[i] * x[i] + x[i];"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("if (i < count - 1) out[i] = x[i] * x[i] + x[i];", "unexpected_nan"),
        ("if (i < count) out[i] = x[i] * x[i] + 1.0f;", "wrong_value"),
        (STATEMENT + " if (i == 5) ((float*)x)[i] = 0.0f;", "input_overwritten"),
        (STATEMENT + " if (i == 5) out[count] = 0.0f;", "out_of_bounds"),
        ("if (i < count) out[i] = x[i] * x[i] + x[i]; if (i == 0) calls += 1;", "kept_state"),
    ],
    ids=["dropped tail", "another formula", "overwrites", "tramples", "counts calls"],
)
def test_what_a_timed_call_must_not_do_is_seen(device: CudaDevice, statement: str, reason: str) -> None:
    source = "__device__ int calls;\n" + SQUARE.source.replace(STATEMENT, statement)
    assert statement in source
    failure = measured(device, source)
    assert isinstance(failure, Failure) and failure.stage == Stage.TIME
    assert failure.reason == reason, failure.message


def test_a_call_that_computes_the_result_of_another_is_seen(device: CudaDevice) -> None:
    measured(device, SQUARE.source)
    assert device._arena is not None
    layout = device._arena.layout
    # The first call that is made must find its neighbour within the arena, or it would fault.
    first = random.Random(SEED).sample(range(layout.slots), layout.slots)[0]
    other = layout.stride // 4 if first == 0 else -layout.stride // 4
    ahead = STATEMENT + f" if (i < count) out[i + {other}] = x[i + {other}] * x[i + {other}] + x[i + {other}];"
    failure = measured(device, SQUARE.source.replace(STATEMENT, ahead))
    assert isinstance(failure, Failure) and failure.reason == "out_of_bounds", failure


def test_less_than_physics_allows_is_rejected(device: CudaDevice) -> None:
    failure = measured(device, SQUARE.source, least=1.0)
    assert isinstance(failure, Failure) and failure.reason == "below_bound"


def test_a_fault_while_a_program_is_timed_is_told_and_the_next_is_timed_again(device: CudaDevice) -> None:
    with pytest.raises(Fault) as caught:
        measured(device, SQUARE.source.replace(STATEMENT, STATEMENT + " if (i == 7) __trap();"))
    assert caught.value.name.startswith("CUDA_ERROR")
    device.recover()
    assert isinstance(measured(device, SQUARE.source), Timing)
