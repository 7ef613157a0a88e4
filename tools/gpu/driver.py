"""Just enough of the CUDA driver to run a program on tensors that PyTorch holds."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from cuda.bindings import driver

from warpsmith.records import BoundPlan, Build


def checked(result: tuple) -> object:
    """Return the value of a driver call, or raise with the error's name."""
    error, *rest = result
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(error.name)
    return rest[0] if rest else None


class Loaded:
    """A built program on the GPU, ready to be launched on the current stream."""

    def __init__(self, build: Build, plan: BoundPlan, tensors: Mapping[str, torch.Tensor]) -> None:
        torch.cuda.current_stream()
        self.module = checked(driver.cuModuleLoadData(build.cubin))
        self.plan = plan
        scratch = {
            b.name: torch.full((max(b.nbytes, 1),), 0x7F, dtype=torch.uint8, device="cuda") for b in plan.buffers
        }
        self.tensors = {**tensors, **scratch}
        self.launches = [self._prepare(launch) for launch in plan.launches]

    def _prepare(self, launch: object) -> tuple:
        function = checked(driver.cuModuleGetFunction(self.module, launch.kernel.encode()))
        if launch.shared > 48 * 1024:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            checked(driver.cuFuncSetAttribute(function, attribute, launch.shared))
        values, types = [], []
        for arg in launch.args:
            if isinstance(arg, str):
                values.append(self.tensors[arg].data_ptr())
                types.append(ctypes.c_void_p)
            else:
                values.append(arg)
                types.append(ctypes.c_int)
        return function, launch, (tuple(values), tuple(types))

    def __call__(self) -> None:
        """Launch every kernel of the plan."""
        stream = torch.cuda.current_stream().cuda_stream
        for function, launch, params in self.launches:
            checked(driver.cuLaunchKernel(function, *launch.grid, *launch.block, launch.shared, stream, params, 0))


def median_seconds(call: object, rounds: int = 21, per_graph: int = 50) -> float:
    """Median time of one call, from replays of a CUDA graph that holds many."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(per_graph):
            call()
    graph.replay()
    samples = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(end) * 1e-3 / per_graph)
    return sorted(samples)[rounds // 2]
