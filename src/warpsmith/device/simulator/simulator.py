"""The simulator as a device: programs run on the CPU from their PTX."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warpsmith.device.arena import Arena
from warpsmith.device.protocol import target
from warpsmith.device.simulator import launch as launching
from warpsmith.device.simulator import library
from warpsmith.device.simulator.counters import Counting
from warpsmith.device.simulator.early import early_access
from warpsmith.device.simulator.emit import Code, emit
from warpsmith.device.simulator.estimate import estimate, occupancy
from warpsmith.device.simulator.flow import Flow, flow
from warpsmith.device.simulator.memory import GLOBAL_BASE, Memory
from warpsmith.device.simulator.parse import parse
from warpsmith.device.simulator.ptx import Function, Module, Variable
from warpsmith.device.simulator.sanitizer import Initialised, Sanitizer
from warpsmith.records import (
    BoundCall,
    BoundLaunch,
    BoundPlan,
    Build,
    Counters,
    Execution,
    Finding,
    GpuSpec,
    KernelResources,
    TensorSpec,
    Timing,
)

if TYPE_CHECKING:
    import torch

MAX_THREADS = 1024
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_BLOCK = (1024, 1024, 64)
MAX_CLUSTER = 8
MODULES_KEPT = 64


@dataclass
class _Loaded:
    """A parsed module and the kernels of it that were translated."""

    module: Module
    kernels: dict[str, tuple[Flow, Code]]


class Simulator:
    """Runs PTX for `spec`. Implements `warpsmith.device.protocol.Device`.

    Blocks run in the order of their numbers, some thousand threads at a time, those of a cluster together. A spin
    that waits for another block ends if that block is among those that the GPU could hold at once. Launches run one
    after the other; of one that may overlap the launch before it, `early` looks whether it waits where it must.
    """

    where = "cpu"

    def __init__(self, spec: GpuSpec) -> None:
        self._spec = spec
        self._modules: OrderedDict[str, _Loaded] = OrderedDict()

    @property
    def spec(self) -> GpuSpec:
        """The simulated GPU."""
        return self._spec

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
        """Call the program once; see `Device.run`. Raises SimulatorError for what it does not implement."""
        started = time.perf_counter()
        loaded = self._load(build)
        variables = [variable for variable in loaded.module.variables.values() if variable.space in ("global", "const")]
        arena = Arena(inputs, outputs, plan.buffers, fill, [_image(variable) for variable in variables])
        addresses = {variable.name: GLOBAL_BASE + arena.regions[variable.name].start for variable in variables}
        _link(arena, variables, addresses)
        before = arena.variables()
        memory = Memory(arena.data)
        findings: list[Finding] = []
        counters: list[Counters] = []
        executed = 0
        initialised = Initialised(arena) if sanitize else None
        for launch in plan.steps:
            if isinstance(launch, BoundCall):
                left = math.inf if budget is None else budget - executed
                findings += library.execute(launch, arena, initialised, left)
                executed += library.products_of(launch)
                if findings:
                    break
                continue
            wrong = self._invalid(launch, loaded.module, build.resources)
            if wrong:
                findings.append(Finding("invalid_launch", launch.kernel, 0, wrong))
                break
            flow_, code = self._kernel(loaded, launch.kernel, addresses)
            if launch.overlap and (hasty := early_access(flow_)) is not None:
                findings.append(hasty)
                break
            arguments = _arguments(flow_, launch, arena)
            counting = Counting(code, flow_, len(arena.data)) if count else None
            sanitizer = None
            if initialised is not None:
                blocks = math.prod(launch.grid)
                size = math.prod(launch.cluster)
                sanitizer = Sanitizer(launch.kernel, flow_, code.sites, arena, initialised, blocks, size)
            run = launching.KernelRun(
                code,
                flow_,
                self._spec,
                arena,
                memory,
                launch.grid,
                launch.block,
                launch.cluster,
                launch.shared,
                arguments,
                counting,
                sanitizer,
                executed,
                budget,
                launch.cooperative,
                fill,
            )
            with np.errstate(all="ignore"):
                findings += launching.execute(run, launch.kernel)
            if sanitizer is not None:
                findings = sanitizer.findings + findings
            executed = run.executed
            if counting is not None:
                counters.append(counting.result(launch.kernel, launch.grid, launch.block, run.shared_bytes))
            if findings:
                break
        return Execution(
            {spec.name: arena.output(spec.name) for spec in outputs},
            arena.overwritten(),
            arena.trampled(),
            tuple(findings),
            tuple(counters),
            time.perf_counter() - started,
            tuple(name for name, content in arena.variables().items() if content != before[name]),
        )

    @property
    def architecture(self) -> str:
        """What to compile for, such as `sm_90a`."""
        return target(self._spec)

    def close(self) -> None:
        """There is nothing to end."""

    def exclusive(self) -> AbstractContextManager[object]:
        """Nobody disturbs a simulation."""
        return nullcontext()

    def time(self, build: Build, plan: BoundPlan, counters: Sequence[Counters]) -> Timing:
        """Estimate the time of one call from counters."""
        return estimate(build, plan, counters, self._spec)

    # -- loading

    def _load(self, build: Build) -> _Loaded:
        loaded = self._modules.get(build.key)
        if loaded is None:
            loaded = self._modules[build.key] = _Loaded(parse(build.ptx), {})
            while len(self._modules) > MODULES_KEPT:
                self._modules.popitem(last=False)
        self._modules.move_to_end(build.key)
        return loaded

    @staticmethod
    def _kernel(loaded: _Loaded, name: str, addresses: dict[str, int]) -> tuple[Flow, Code]:
        """Translate a kernel, once. Module variables stand first in every arena, so their addresses never change."""
        if name not in loaded.kernels:
            blocks = flow(loaded.module, name)
            loaded.kernels[name] = (blocks, emit(blocks, addresses))
        return loaded.kernels[name]

    def _invalid(self, launch: BoundLaunch, module: Module, resources: Sequence[KernelResources]) -> str:
        """Say why the hardware would refuse the launch; nothing if it would not."""
        function = module.functions.get(launch.kernel)
        if function is None or not function.entry:
            return f"there is no kernel named {launch.kernel}"
        if len(launch.args) != len(function.parameters):
            return f"{len(launch.args)} arguments for a kernel with {len(function.parameters)} parameters"
        threads = math.prod(launch.block)
        if not all(1 <= extent <= limit for extent, limit in zip(launch.block, MAX_BLOCK)) or threads > MAX_THREADS:
            return f"a block of {launch.block} threads is not possible"
        if not all(1 <= extent <= limit for extent, limit in zip(launch.grid, MAX_GRID)):
            return f"a grid of {launch.grid} blocks is not possible"
        if function.max_threads and threads > math.prod(function.max_threads):
            return f"{threads} threads, but the kernel was compiled for at most {math.prod(function.max_threads)}"
        static = sum(one.size for one in function.variables if one.space == "shared")
        if static + launch.shared > self._spec.shared_per_block:
            return f"{static + launch.shared} bytes of shared memory, of {self._spec.shared_per_block} per block"
        wrong = self._invalid_cluster(launch, function)
        if wrong:
            return wrong
        if launch.cooperative:
            known = next((one for one in resources if one.name == launch.kernel), None)
            fitting = occupancy(launch, known, self._spec)[0] * self._spec.sm_count
            if math.prod(launch.grid) > fitting:
                return f"{math.prod(launch.grid)} blocks cannot all be resident at once, as a cooperative launch needs"
        return ""

    def _invalid_cluster(self, launch: BoundLaunch, function: Function) -> str:
        """Say why the hardware would refuse the launch's cluster; nothing if it would not."""
        cluster = launch.cluster
        if function.cluster and tuple(function.cluster) != cluster[: len(function.cluster)]:
            return f"a cluster of {cluster} blocks, but the kernel was compiled for one of {function.cluster}"
        if cluster == (1, 1, 1):
            return ""
        if self._spec.compute_capability < (9, 0):
            return f"{self._spec.name} has no clusters"
        if math.prod(cluster) > MAX_CLUSTER or any(e % size for e, size in zip(launch.grid, cluster)):
            return f"a grid of {launch.grid} blocks cannot consist of clusters of {cluster}, of at most {MAX_CLUSTER}"
        return ""


def _image(variable: Variable) -> tuple[str, bytes, int]:
    """A module variable's bytes at load time."""
    return variable.name, variable.data if variable.data is not None else bytes(variable.size), variable.align


def _link(arena: Arena, variables: Sequence[Variable], addresses: Mapping[str, int]) -> None:
    """Fill in the addresses that initialisers of variables ask for."""
    for variable in variables:
        start = arena.regions[variable.name].start
        for offset, name, addend in variable.references:
            value = (addresses[name] + addend).to_bytes(8, "little")
            arena.data[start + offset : start + offset + 8] = np.frombuffer(value, np.uint8)


def _arguments(flow_: Flow, launch: BoundLaunch, arena: Arena) -> dict[str, bytes]:
    """Lay out the arguments: addresses of tensors and buffers, integers as the parameters' types."""
    found: dict[str, bytes] = {}
    for parameter, argument in zip(flow_.parameters, launch.args):
        value = GLOBAL_BASE + arena.regions[argument].start if isinstance(argument, str) else argument
        found[parameter.name] = launching.argument_bytes(parameter, value)
    return found
