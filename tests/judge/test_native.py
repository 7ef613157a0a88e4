"""The judge with a GPU's device around it, of which only the runner is a Python function: all stages, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.device.fake_runner import Call
from tests.device.test_cuda_device import Runner
from tests.device.test_cuda_gpus import present
from tests.judge.fakes import FakeBuilder
from tests.judge.kernels import SQUARE, candidate_of, task_of
from warpsmith.device.cuda import own, series
from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.cuda.process import Fault
from warpsmith.errors import MachineError
from warpsmith.judge import Judge, crowd, native
from warpsmith.records import Build, Program, Stage, Verdict, digest

Body = Callable[[torch.Tensor], torch.Tensor]


class Builder(FakeBuilder):
    """Compiles nothing, but names builds as a compiler does."""

    def build(self, program: Program, tunables: Mapping[str, int], architecture: str) -> Build:
        found = super().build(program, tunables, architecture)
        canary = ".visible .entry canary(.param .u64 a, .param .u64 b, .param .u32 c) { ret; }"
        ptx = canary if program == own.PROGRAM else found.ptx.replace(")", ") { ret; }\n")
        return replace(found, key=digest("build", program.key), ptx=ptx)


def right(x: torch.Tensor) -> torch.Tensor:
    return x * x + x


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Call], None]], tuple[Judge, Runner]]]:
    """Make a judge whose GPU runs a function on each slot. The simulator, which needs real PTX, does not look."""
    monkeypatch.setattr(native, "SIMULATED", 0)
    made: list[CudaDevice] = []

    def make(program: Callable[[Call], None]) -> tuple[Judge, Runner]:
        device = CudaDevice(present("NVIDIA H100 80GB HBM3"), Builder(), share=False)  # type: ignore[arg-type]
        runner = Runner(program)
        runner.device = device
        device.where, device.runner = "cpu", runner  # type: ignore[assignment]
        made.append(device)
        monkeypatch.setattr(series, "time", SimpleNamespace(perf_counter=runner.perf_counter))
        return Judge(task_of(SQUARE), device, Builder()), runner  # type: ignore[arg-type]

    yield make
    for each in made:
        each.close()


def on_slot(body: Body) -> Callable[[Call], None]:
    def program(call: Call) -> None:
        call.tensor("out").copy_(body(call.tensor("x")))

    return program


def verdict_of(judge: Judge) -> Verdict:
    return judge.judge(candidate_of(SQUARE))


def test_an_honest_program_is_measured(judge: Callable[..., tuple[Judge, Runner]]) -> None:
    judging, _ = judge(on_slot(right))
    verdict = verdict_of(judging)
    assert verdict.failure is None and verdict.stage == Stage.PROFILE
    assert verdict.timing is not None and verdict.timing.source == "measured"
    assert verdict.timing.device == "NVIDIA H100 80GB HBM3"
    assert {name for name, _ in verdict.timing.clocks_of} >= {"events", "activity", "wall"}
    assert verdict.sanitized == "", "nobody has looked, and nobody says so"


def test_a_wrong_program_fails_before_it_is_timed(judge: Callable[..., tuple[Judge, Runner]]) -> None:
    judging, _ = judge(on_slot(lambda x: x * x))
    failure = verdict_of(judging).failure
    assert failure is not None and (failure.stage, failure.reason) == (Stage.NUMERICS, "wrong_value")


def test_a_program_that_is_right_only_when_it_is_not_timed_fails(judge: Callable[..., tuple[Judge, Runner]]) -> None:
    def cheat(call: Call) -> None:
        if not call.replayed:
            call.tensor("out").copy_(right(call.tensor("x")))

    judging, _ = judge(cheat)
    failure = verdict_of(judging).failure
    assert failure is not None and failure.stage == Stage.TIME
    assert failure.reason in ("unexpected_nan", "wrong_value")


def test_a_fault_while_it_is_timed_is_the_candidates(judge: Callable[..., tuple[Judge, Runner]]) -> None:
    judging, runner = judge(on_slot(right))
    runner.faults["replay"] = Fault("CUDA_ERROR_ILLEGAL_ADDRESS", "cuStreamSynchronize")
    failure = verdict_of(judging).failure
    assert failure is not None and failure.reason == "fault_when_timed"
    runner.faults.clear()
    assert verdict_of(judging).passed, "the next candidate gets a fresh runner"


def test_a_runner_that_somebody_kills_costs_nobody_a_verdict(
    judge: Callable[..., tuple[Judge, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judging, runner = judge(on_slot(right))
    asked = runner.ask
    killed: list[str] = []

    def ask(message: dict[str, object], *blobs: bytes, seconds: float, max_blob: int = 1 << 16) -> object:
        if message["do"] == "replay" and not killed:
            killed.append("replay")
            runner.alive = False
            raise Fault("died", "was ended by SIGKILL")
        return asked(message, *blobs, seconds=seconds, max_blob=max_blob)

    monkeypatch.setattr(runner, "ask", ask)
    assert verdict_of(judging).passed and killed == ["replay"]


def test_a_stopwatch_verifies_what_it_times(judge: Callable[..., tuple[Judge, Runner]]) -> None:
    state: dict[str, Body] = {"body": right}
    judging, _ = judge(on_slot(lambda x: state["body"](x)))
    with judging.stopwatch(candidate_of(SQUARE)) as watch:
        assert watch.sample() == pytest.approx(1e-5)
        state["body"] = lambda x: x
        with pytest.raises(MachineError, match="is wrong now"):
            watch.sample()


def test_a_simulated_gpu_has_no_stopwatch() -> None:
    from tests.judge.bench import judge_for

    with pytest.raises(MachineError, match="need a GPU"), judge_for(task_of(SQUARE)).stopwatch(candidate_of(SQUARE)):
        pass


@pytest.mark.parametrize(("left", "waited"), [(20 << 30, True), (1 << 30, False)])
def test_only_what_an_empty_gpu_would_hold_waits_for_memory_of_others(
    judge: Callable[..., tuple[Judge, Runner]], monkeypatch: pytest.MonkeyPatch, left: int, waited: bool
) -> None:
    judging, _ = judge(on_slot(right))
    device = judging.gpu
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(crowd, "time", clock)
    monkeypatch.setattr(crowd, "taken_bytes", lambda _: 10 << 30)

    allocate = device._allocate

    def full(inputs: Any, outputs: Any, scratch: Any, salt: int) -> Arena:
        if not scratch:  # the canary
            return allocate(inputs, outputs, scratch, salt)
        if sum(slept) > 10.0:
            raise MachineError("they have left")
        raise Fault("CUDA_ERROR_OUT_OF_MEMORY", "it is full")

    monkeypatch.setattr(device, "_allocate", full)
    plan = SQUARE.plan.replace('"count"]', '"count", "room"]')
    candidate = candidate_of(
        SQUARE, plan=f'{plan}\n[buffers.room]\nshape = [{device.spec.memory_bytes - left}]\ndtype = "uint8"\n'
    )
    if waited:
        with pytest.raises(MachineError, match="they have left"):
            judging.judge(candidate)
    else:
        failure = judging.judge(candidate).failure
        assert failure is not None and failure.reason == "out_of_memory"
    assert bool(slept) == waited
