"""A GPU as a device: every call runs in a runner process, on fresh contents between guards, and is checked afterwards.

Covered: stray reads and writes (guards, and a fingerprint of everything that is not the call's own), inputs that
change, module variables that a call leaves changed, faults, hangs, and a runner that dies; after each of those the
runner is replaced, and a canary must pass on the fresh one before the next program. A launch that overlaps the one
before it is not begun unless its PTX shows that it waits. Not covered here: other races and uninitialised reads, which
a sanitizer finds; a program that reads the memory of another call.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from warpsmith.device.cuda import own
from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.clocks import Watch
from warpsmith.device.cuda.gpus import Present
from warpsmith.device.cuda.layout import Layout, lay_out, slots_for
from warpsmith.device.cuda.lock import gpu_lock, turn
from warpsmith.device.cuda.process import Fault, RunnerProcess
from warpsmith.device.cuda.series import Series
from warpsmith.device.protocol import target
from warpsmith.device.simulator.early import early_accesses
from warpsmith.errors import MachineError
from warpsmith.program import Builder
from warpsmith.program.kernels import Kernel, Parameter, kernels_in, variables_in
from warpsmith.records import (
    BoundCall,
    BoundLaunch,
    BoundPlan,
    BoundView,
    Build,
    Execution,
    Finding,
    FindingKind,
    GpuSpec,
    TensorSpec,
)

BASE_SECONDS = 2.0
INSTRUCTIONS_PER_SECOND = 1e11
"""A thousandth of what a large GPU does: who needs longer for the budget of instructions hangs."""
_LOAD_SECONDS = 60.0
_LIBRARY_SECONDS = 240.0
"""To load a plan with library calls: the first makes the runner load PyTorch, under a sanitizer slowly."""
_PROFILE_SECONDS = 120.0
_FAULTS: Mapping[str, tuple[FindingKind, str]] = {
    "CUDA_ERROR_ILLEGAL_ADDRESS": ("out_of_bounds", "The program accessed memory that is not there."),
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": ("out_of_bounds", "The program accessed memory of another kind."),
    "CUDA_ERROR_MISALIGNED_ADDRESS": ("misaligned", "The program accessed a misaligned address."),
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": ("trap", "The program met an instruction that it may not execute."),
    "CUDA_ERROR_LAUNCH_FAILED": ("trap", "The program trapped."),
    "CUDA_ERROR_ASSERT": ("trap", "An assertion in the device code failed."),
    "CUDA_ERROR_INVALID_PC": ("trap", "The program jumped to where no code is."),
    "CUDA_ERROR_HARDWARE_STACK_ERROR": ("trap", "The program overflowed its stack."),
    "CUDA_ERROR_OUT_OF_MEMORY": ("out_of_memory", "The program's buffers do not fit into the GPU's memory."),
    "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE": ("invalid_launch", "Not all blocks can be resident at once."),
    "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES": ("invalid_launch", "A launch needs more registers or memory than there are."),
    "CUDA_ERROR_INVALID_VALUE": ("invalid_launch", "The driver refuses a launch."),
    "CUDA_ERROR_INVALID_CLUSTER_SIZE": ("invalid_launch", "The driver refuses the size of a cluster."),
    "CUDA_ERROR_NOT_FOUND": ("invalid_launch", "A kernel is not there."),
    "library": ("invalid_launch", "The library refuses a call."),
    "hidden": ("invalid_launch", "Results could be kept in a variable that cannot be looked at."),
    "timeout": ("budget", "The program does not end, or is far too slow."),
    "died": ("runner_died", "The process that ran the program died."),
    "nonsense": ("runner_died", "The process that ran the program answered nonsense."),
}


class CudaDevice:
    """Runs and times programs on one GPU. Implements `warpsmith.device.protocol.Device`.

    `prefix` starts the runner under another command, such as a sanitizer, which is then left to end by itself; memory
    is copied as bytes there, not mapped, and every buffer has an allocation of its own. `share` false copies as well.
    `shares` is how many such devices, in other processes, divide the GPU's memory among
    themselves. `waits` may be set; it is told when another process holds the GPU and when it no longer does.
    Close it when done: it owns processes. Not thread-safe.
    """

    def __init__(
        self,
        present: Present,
        builder: Builder,
        *,
        prefix: Sequence[str] = (),
        share: bool = True,
        spare: bool = True,
        shares: int = 1,
    ) -> None:
        self.present = present
        self.where = f"cuda:{present.ordinal}"
        self.runner = RunnerProcess(present.ordinal, prefix=prefix, spare=spare and not prefix)
        self.memory_bytes = present.spec.memory_bytes // shares
        self.watch = Watch(present.uuid)
        self.waits: Callable[[bool], None] = lambda waiting: None
        self._share = share and not prefix
        self._spread = bool(prefix)
        self._builder = builder
        self._lock = gpu_lock(present.uuid)
        self._arena: Arena | None = None
        self._loaded: tuple[Any, ...] = ()
        self._generation = -1

    @property
    def spec(self) -> GpuSpec:
        """The GPU, with limits read from the device."""
        return self.present.spec

    def exclusive(self) -> AbstractContextManager[Any]:
        """Hold the GPU: nobody else on this machine verifies or times meanwhile."""
        return turn(self._lock, self.waits)

    def close(self) -> None:
        """End the runner and give its memory back."""
        self._forget()
        self.runner.close()
        self.watch.close()

    # -- one call

    def run(
        self,
        build: Build,
        plan: BoundPlan,
        inputs: Mapping[str, torch.Tensor],
        outputs: Sequence[TensorSpec],
        *,
        fill: int,
        sanitize: bool = False,
        count: bool = True,
        budget: int | None = None,
    ) -> Execution:
        """Call the program once on a slot chosen by `fill`; see `Device.run`. Outputs are on this GPU.

        A GPU counts nothing and sanitizes nothing by itself, so there are no counters, whatever is asked for.
        Raises MachineError where the GPU itself does not work.
        """
        started = time.perf_counter()
        if (hasty := early_accesses(build.ptx, plan)) is not None:
            return Execution({}, (), (), (hasty,), (), time.perf_counter() - started)
        for attempt in range(2):
            try:
                arena = self.ready(build, plan, specs_of(inputs), outputs)
                return self._call(arena, inputs, fill, seconds_for(budget), started)
            except Fault as fault:
                self._forget()
                # Device code cannot end a process, so somebody else did; if it happens again it is no accident.
                if fault.name != "died" or attempt:
                    return Execution({}, (), (), (finding_of(fault, plan),), (), time.perf_counter() - started)
        raise AssertionError("unreachable")

    def _call(
        self, arena: Arena, inputs: Mapping[str, torch.Tensor], fill: int, seconds: float, started: float
    ) -> Execution:
        slot = fill % arena.layout.slots
        arena.fill(fill, slice(slot, slot + 1))
        arena.put(slot, inputs)
        strips = [(name, strip[slot]) for name, strip in arena.guards() if strip.dim() == 2]
        before = [(name, strip, strip.clone()) for name, strip in strips]
        others = arena.fingerprint(slot)
        arena.push()
        answer, _ = self.runner.ask({"do": "call", "slot": slot}, seconds=seconds)
        arena.pull()
        trampled = [name for name, strip, first in before if not torch.equal(strip, first)]
        if arena.fingerprint(slot) != others:
            trampled.append("memory of other calls")
        return Execution(
            arena.outputs(slot),
            arena.differs(slot, inputs),
            tuple(dict.fromkeys(trampled)),
            (),
            (),
            time.perf_counter() - started,
            tuple(answer["kept"]),
        )

    def profile(
        self, build: Build, plan: BoundPlan, inputs: Mapping[str, torch.Tensor], outputs: Sequence[TensorSpec]
    ) -> None:
        """Call the program once while the profiler around the runner looks. Raises MachineError where that fails."""
        try:
            arena = self.ready(build, plan, specs_of(inputs), outputs)
            arena.put(0, inputs)
            arena.push()
            for step in ({"do": "profile", "on": True}, {"do": "call", "slot": 0}, {"do": "profile", "on": False}):
                self.runner.ask(step, seconds=_PROFILE_SECONDS)
        except Fault as fault:
            self._forget()
            raise MachineError(f"a program that has passed fails under the profiler: {fault.message}") from fault

    # -- many calls

    def series(
        self, build: Build, plan: BoundPlan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], seed: int
    ) -> Series:
        """Load the program anew and capture a series of calls on all slots in an order drawn from `seed`.

        Raises Fault where the program cannot be captured.
        """
        self._loaded = ()
        arena = self.ready(build, plan, inputs, outputs)
        chance = random.Random(seed)
        return Series(self.runner, arena, len(plan.launches), self.spec.l2_bytes, chance, len(plan.calls))

    # -- loading

    def ready(
        self, build: Build, plan: BoundPlan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> Arena:
        """Have the program loaded and memory for it. Raises Fault where it cannot be loaded."""
        self._fresh()
        wanted = (build.key, plan, tuple(inputs), tuple(outputs))
        if self._arena is None or self._loaded != wanted:
            self._load(build, plan, inputs, outputs)
            self._loaded = wanted
        assert self._arena is not None
        return self._arena

    def _fresh(self) -> None:
        """Where the runner is a new one: equip it, and let the canary sing before anything else."""
        self.runner.start()
        if self._generation == self.runner.started:
            return
        self._forget()
        build = self._builder.build(own.PROGRAM, {}, self.architecture)
        if not build.ok:
            raise MachineError(f"the canary does not compile: {build.diagnostics[:1]}")
        x = own.question(self.where)
        try:
            self.runner.ask({"do": "equip"}, build.cubin, seconds=_LOAD_SECONDS)
            self._load(build, own.PLAN, [own.INPUT], [own.OUTPUT])
            assert self._arena is not None
            out = self._call(self._arena, {"x": x}, 1, _LOAD_SECONDS, time.perf_counter()).outputs.get("out")
        except Fault as fault:
            raise MachineError(f"the GPU fails on a program that is known to be right: {fault}") from fault
        if not own.right(x, out):
            raise MachineError("the GPU gives a wrong answer on a program that is known to be right")
        self._generation = self.runner.started

    @property
    def architecture(self) -> str:
        """What to compile for, such as `sm_90a`."""
        return target(self.spec)

    def _load(self, build: Build, plan: BoundPlan, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        arena = self._arena = self._allocate(inputs, outputs, plan.buffers, int(build.key[:8], 16))
        kernels = kernels_in(build.ptx)
        layout = arena.layout
        launches = [encode(launch, kernels[launch.kernel], layout) for launch in plan.launches]
        message = {
            "do": "load",
            "launches": launches,
            "calls": [encode_call(call, layout) for call in plan.calls],
            "variables": variables_in(build.ptx),
            "base": layout.base,
            "stride": layout.stride,
        }
        seconds = _LIBRARY_SECONDS if plan.calls else _LOAD_SECONDS
        answer, _ = self.runner.ask(message, build.cubin, seconds=seconds)
        # What the assembler has left out cannot keep anything; what is there must be seen.
        hidden = [name for name in answer["hidden"] if f"\0{name}\0".encode() in build.cubin]
        if hidden:
            raise Fault("hidden", f"the driver does not show {', '.join(hidden)}")
        arena.fill(int(build.key[:7], 16))

    def _allocate(
        self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], scratch: Sequence[TensorSpec], salt: int
    ) -> Arena:
        """Lay out slots, in the memory that is there if they fit; in one slot where memory is short."""
        base = 512 * (1 + salt % 64)
        one = lay_out(inputs, outputs, scratch, 1, base)
        slots = 1 if self._spread else slots_for(one.stride, self.spec.l2_bytes, self.memory_bytes)
        layout = lay_out(inputs, outputs, scratch, slots, base)
        if self._arena is not None and not self._spread and self._arena.suits(layout):
            self._arena.lay_out(layout)
            return self._arena
        self._drop_arena()
        try:
            return Arena(layout, self.runner, self.where, share=self._share, spread=self._spread)
        except Fault as fault:
            if fault.name != "CUDA_ERROR_OUT_OF_MEMORY" or slots == 1:
                raise
            self._fresh()
            self._drop_arena()
            return Arena(one, self.runner, self.where, share=self._share)

    def _drop_arena(self) -> None:
        if self._arena is not None:
            self._arena.close()
        self._arena, self._loaded = None, ()

    def recover(self) -> None:
        """After a fault outside `run`, or where memory is short, let go of the arena; the next call loads anew."""
        self._forget()

    def _forget(self) -> None:
        self._drop_arena()
        self._generation = -1


def specs_of(inputs: Mapping[str, torch.Tensor]) -> tuple[TensorSpec, ...]:
    """Describe tensors."""
    return tuple(
        TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in inputs.items()
    )


def seconds_for(budget: int | None) -> float:
    """Return how long a call may take that has this budget of thread-instructions."""
    return BASE_SECONDS + (budget or 0) / INSTRUCTIONS_PER_SECOND


def budget_for(seconds: float) -> int:
    """Return the budget of thread-instructions with which a call may take so long."""
    return int(max(0.0, seconds - BASE_SECONDS) * INSTRUCTIONS_PER_SECOND)


def finding_of(fault: Fault, plan: BoundPlan) -> Finding:
    """Say as a finding what a fault means."""
    kind, text = _FAULTS.get(fault.name, ("trap", f"The driver reports {fault.name}."))
    kernel = plan.launches[0].kernel if len(plan.launches) == 1 else "one of the plan"
    return Finding(kind, kernel, 0, f"{text} ({fault.message or fault.name})")


def encode(launch: BoundLaunch, kernel: Kernel, layout: Layout) -> dict[str, Any]:
    """Return a launch as the runner takes it: tensors as offsets in a slot, numbers as bytes of their parameter."""
    arguments = [
        ["at", layout.place(argument).start] if isinstance(argument, str) else ["bytes", number(argument, parameter)]
        for argument, parameter in zip(launch.args, kernel.parameters, strict=True)
    ]
    return {
        "kernel": launch.kernel,
        "grid": launch.grid,
        "block": launch.block,
        "shared": launch.shared,
        "cluster": launch.cluster,
        "cooperative": launch.cooperative,
        "overlap": launch.overlap,
        "args": arguments,
    }


def encode_call(call: BoundCall, layout: Layout) -> dict[str, Any]:
    """Return a library call as the runner takes it: tensors as offsets in a slot, with what is seen of them."""

    def encoded(view: BoundView) -> dict[str, Any]:
        place = layout.place(view.tensor)
        seen = {"shape": view.shape, "strides": view.strides, "offset": view.offset}
        return {"start": place.start, "bytes": place.spec.nbytes, **seen}

    return {
        "op": call.op,
        "args": [encoded(view) for view in call.args],
        "out": encoded(call.out),
        "options": call.options,
        "dtype": call.dtype,
        "tf32": call.tf32,
        "after": call.after,
    }


def number(value: int, parameter: Parameter) -> str:
    """Return an integer in the layout of a kernel's parameter, as hexadecimal text."""
    if parameter.type in ("f32", "f64"):
        return struct.pack("<f" if parameter.type == "f32" else "<d", float(value)).hex()
    return int(value % (1 << (8 * parameter.bytes))).to_bytes(parameter.bytes, "little").hex()
