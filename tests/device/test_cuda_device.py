"""What a device asks of its runner and makes of the answers, with a runner that needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.device.fake_runner import Call, FakeRunner, Program
from tests.device.test_cuda_gpus import present
from tests.judge.fakes import FakeBuilder
from warpsmith import wire
from warpsmith.device.cuda import own
from warpsmith.device.cuda.device import CudaDevice, finding_of, number, seconds_for
from warpsmith.device.cuda.layout import lay_out
from warpsmith.device.cuda.process import Fault
from warpsmith.errors import MachineError
from warpsmith.program.kernels import Parameter
from warpsmith.records import BoundLaunch, BoundPlan, Build, Execution, TensorSpec

X, OUT, SCRATCH = (TensorSpec(name, (5,), "float32") for name in ("x", "out", "scratch"))
PLAN = BoundPlan((SCRATCH,), (BoundLaunch("double", (1, 1, 1), (5, 1, 1), 0, ("x", "out")),))
PTX = ".visible .entry double(.param .u64 double_0, .param .u64 double_1) { ret; }"
INPUT = torch.arange(5.0)


class Runner(FakeRunner):
    """Also starts, dies, loads: what a device needs beside what an arena and a series need."""

    def __init__(self, program: Program) -> None:
        super().__init__(lay_out([], [], [], 1, 0))
        self.wanted, self.started, self.alive = program, 0, False
        self.canary: Program = right_canary
        self.device: CudaDevice | None = None
        self.limits: list[float] = []
        self.hidden: list[str] = []

    def start(self) -> None:
        if not self.alive:
            self.alive, self.started = True, self.started + 1

    def close(self) -> None:
        self.alive = False

    def ask(
        self, message: wire.Message, *blobs: bytes, seconds: float, max_blob: int = 1 << 16
    ) -> tuple[wire.Message, list[bytes]]:
        self.start()
        self.limits.append(seconds)
        try:
            return super().ask(message, *blobs, seconds=seconds, max_blob=max_blob)
        except Fault:
            self.alive = False
            raise

    def _equip(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        return {}, []

    def _load(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        assert self.device is not None and self.device._arena is not None
        self.layout = self.device._arena.layout
        self.kept = set()
        is_canary = message["launches"][0]["kernel"] == "canary"
        self.program = self.canary if is_canary else self.wanted
        return {"hidden": [] if is_canary else self.hidden}, []


def right_canary(call: Call) -> None:
    call.tensor("out").copy_(call.tensor("x") * 2.0 + 1.0)


def double(call: Call) -> None:
    call.tensor("out").copy_(2.0 * call.tensor("x"))


class CanaryBuilder(FakeBuilder):
    """Gives the canary's build, which needs a key in hexadecimal."""

    def build(self, program: object, tunables: object, architecture: str) -> Build:
        return build("0", ".visible .entry canary(.param .u64 a, .param .u64 b, .param .u32 c) { ret; }")


def build(letter: str, ptx: str = PTX) -> Build:
    return Build(letter * 16, "sm_90a", True, ptx, b"", (), (), 0.0)


@pytest.fixture
def make() -> Iterator[Any]:
    """Make a device on the CPU whose runner runs a Python function."""
    made: list[CudaDevice] = []

    def device(program: Program) -> tuple[CudaDevice, Runner]:
        made.append(CudaDevice(present("NVIDIA H100 80GB HBM3"), CanaryBuilder(), share=False))  # type: ignore[arg-type]
        runner = Runner(program)
        runner.device = made[-1]
        made[-1].where = "cpu"
        made[-1].runner = runner  # type: ignore[assignment]
        return made[-1], runner

    yield device
    for each in made:
        each.close()


def run(device: CudaDevice, letter: str = "a", *, fill: int = 7, budget: int | None = None) -> Execution:
    return device.run(build(letter), PLAN, {"x": INPUT}, [OUT], fill=fill, budget=budget)


def test_a_call_gives_what_the_program_computes(make: Any) -> None:
    device, runner = make(double)
    for fill in (1, 2, 1000):
        execution = run(device, fill=fill)
        assert torch.equal(execution.outputs["out"], 2.0 * INPUT)
        assert not (execution.findings or execution.trampled or execution.overwritten or execution.kept)
    assert runner.asked.count("load") == 2, "the canary and the program: what is loaded is not loaded again"


def test_what_a_call_does_beside_that_is_told(make: Any) -> None:
    def misbehaves(call: Call) -> None:
        double(call)
        layout, memory = call.runner.layout, call.memory
        memory[layout.offset("out", call.slot) + 20] ^= 1
        memory[layout.offset("x", (call.slot + 1) % layout.slots)] ^= 1
        call.tensor("x")[3] = 9.0
        call.runner.kept.add("cache")

    execution = run(make(misbehaves)[0])
    assert execution.trampled == ("out", "memory of other calls")
    assert execution.overwritten == ("x",) and execution.kept == ("cache",)


def test_the_fill_chooses_the_slot_and_what_unwritten_memory_holds(make: Any) -> None:
    slots = []
    device, _ = make(lambda call: slots.append(call.slot))
    first, again, other = (run(device, fill=fill).outputs["out"] for fill in (3, 3, 4))
    assert len(set(slots)) == 2
    as_bits = [value.view(torch.int32) for value in (first, again, other)]
    assert torch.equal(as_bits[0], as_bits[1]) and not torch.equal(as_bits[0], as_bits[2])
    assert bool(first.isnan().all())


def test_after_a_fault_everything_is_set_up_again_and_the_canary_sings_first(make: Any) -> None:
    device, runner = make(double)
    run(device)
    runner.faults["call"] = Fault("CUDA_ERROR_ILLEGAL_ADDRESS", "double: CUDA_ERROR_ILLEGAL_ADDRESS")
    execution = run(device)
    assert execution.outputs == {} and [finding.kind for finding in execution.findings] == ["out_of_bounds"]
    runner.faults.clear()
    runner.asked.clear()
    assert torch.equal(run(device).outputs["out"], 2.0 * INPUT)
    asked = [question for question in runner.asked if question not in ("read", "write", "arena")]
    assert asked == ["equip", "load", "call", "load", "call"] and runner.started == 2


@pytest.mark.parametrize(("deaths", "kinds"), [(1, []), (2, ["runner_died"])])
def test_a_runner_that_somebody_killed_is_tried_again_once(make: Any, deaths: int, kinds: list[str]) -> None:
    left = [Fault("died", "the runner was ended by SIGKILL")] * deaths

    def dies(call: Call) -> None:
        if left:
            raise left.pop()
        double(call)

    device, runner = make(dies)
    execution = run(device)
    assert [finding.kind for finding in execution.findings] == kinds and runner.started == 2
    assert kinds or torch.equal(execution.outputs["out"], 2.0 * INPUT)
    assert torch.equal(run(device).outputs["out"], 2.0 * INPUT), "nothing of it is left for the next program"


def test_a_gpu_that_fails_on_the_canary_is_the_machines_fault(make: Any) -> None:
    device, runner = make(double)
    runner.canary = double
    with pytest.raises(MachineError, match="wrong answer"):
        run(device)
    runner.faults["call"] = Fault("CUDA_ERROR_ECC_UNCORRECTABLE", "canary")
    with pytest.raises(MachineError, match="known to be right"):
        run(device)


def test_another_program_is_loaded_anew(make: Any) -> None:
    device, runner = make(double)
    for letter in ("a", "b", "b", "a"):
        assert torch.equal(run(device, letter).outputs["out"], 2.0 * INPUT)
    assert runner.asked.count("load") == 4


def test_the_budget_decides_how_long_a_call_may_take(make: Any) -> None:
    device, runner = make(double)
    run(device, budget=10**12)
    assert seconds_for(10**12) in runner.limits
    assert seconds_for(None) < seconds_for(10**10) < seconds_for(10**13)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned"),
        ("CUDA_ERROR_LAUNCH_FAILED", "trap"),
        ("CUDA_ERROR_OUT_OF_MEMORY", "out_of_memory"),
        ("CUDA_ERROR_INVALID_VALUE", "invalid_launch"),
        ("timeout", "budget"),
        ("died", "runner_died"),
        ("nonsense", "runner_died"),
        ("CUDA_ERROR_OF_THE_FUTURE", "trap"),
    ],
)
def test_a_fault_becomes_a_finding_that_names_it(name: str, kind: str) -> None:
    finding = finding_of(Fault(name, f"double: {name}"), PLAN)
    assert finding.kind == kind and finding.kernel == "double" and name in finding.message


def test_numbers_are_laid_out_as_their_parameters_are() -> None:
    assert number(-1, Parameter("u32", 4, False)) == "ffffffff"
    assert number(258, Parameter("u16", 2, False)) == "0201"
    assert number(1, Parameter("f32", 4, False)) == "0000803f"
    assert number(-2, Parameter("f64", 8, False)) == "00000000000000c0"
    assert number(1 << 40, Parameter("u64", 8, False)) == "0000000000010000"


def test_the_canary_would_notice() -> None:
    x = own.question("cpu")
    out = x * 2.0 + 1.0
    assert own.right(x, out) and not own.right(x, None)
    out[-1] = torch.nextafter(out[-1], torch.tensor(0.0))
    assert not own.right(x, out)


def test_a_variable_that_cannot_be_looked_at_is_refused_unless_it_was_left_out(make: Any) -> None:
    device, runner = make(double)
    runner.hidden = ["kept"]
    assert not run(device, "a").findings, "the assembler left it out"
    there = replace(build("b"), cubin=b"\x7fELF\0kept\0other\0")
    found = device.run(there, PLAN, {"x": INPUT}, [OUT], fill=7).findings
    assert [finding.kind for finding in found] == ["invalid_launch"] and "kept" in found[0].message
