"""Run CUDA C++ or single PTX instructions on the simulator, without the rest of Warpsmith."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cuda.bindings.nvrtc as nvrtc
import numpy as np
import nvidia
import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.records import BoundLaunch, BoundPlan, Build, Execution, TensorSpec

GPU = gpu("H100")
INCLUDE = next(folder for folder in (Path(root) / "cu13" / "include" for root in nvidia.__path__) if folder.exists())
SIMULATOR = Simulator(GPU)


@functools.cache
def compile_ptx(source: str, architecture: str = "sm_90") -> str:
    """Compile CUDA C++ to PTX; for an architecture such as compute_90a to PTX only, which is quicker."""
    _, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], [])
    options = [
        f"--gpu-architecture={architecture}".encode(),
        b"-lineinfo",
        b"-default-device",
        f"-I{INCLUDE}".encode(),
        f"-I{INCLUDE}/cccl".encode(),
    ]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)  # never bytes: those of one character are shared by the whole interpreter
    nvrtc.nvrtcGetProgramLog(program, log)
    assert int(result) == 0, log.decode()
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = bytearray(size)
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.rstrip(b"\0 ").decode()


def build(ptx: str) -> Build:
    return Build(hashlib.sha256(ptx.encode()).hexdigest()[:16], "sm_90", True, ptx, b"", (), (), 0.0)


def three(extents: int | Sequence[int]) -> tuple[int, int, int]:
    values = (extents,) if isinstance(extents, int) else tuple(extents)
    x, y, z = (*values, 1, 1, 1)[:3]
    return x, y, z


def spec(name: str, shape: int | Sequence[int], dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, (shape,) if isinstance(shape, int) else tuple(shape), dtype)


def launch(
    kernel: str, grid: int | Sequence[int], block: int | Sequence[int], args: Sequence[str | int], shared: int = 0
) -> BoundLaunch:
    return BoundLaunch(kernel, three(grid), three(block), shared, tuple(args))


def run_ptx(
    ptx: str,
    launches: Sequence[BoundLaunch],
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[TensorSpec],
    scratch: Sequence[TensorSpec] = (),
    *,
    fill: int = 1,
    sanitize: bool = False,
    count: bool = True,
    budget: int | None = 200_000_000,
) -> Execution:
    plan = BoundPlan(tuple(scratch), tuple(launches))
    return SIMULATOR.run(build(ptx), plan, inputs, outputs, fill=fill, sanitize=sanitize, count=count, budget=budget)


def run(
    source: str,
    launches: BoundLaunch | Sequence[BoundLaunch],
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[TensorSpec],
    scratch: Sequence[TensorSpec] = (),
    **options: int | bool | None,
) -> Execution:
    """Compile and run; the execution may have findings."""
    several = (launches,) if isinstance(launches, BoundLaunch) else launches
    return run_ptx(compile_ptx(source), several, inputs, outputs, scratch, **options)  # type: ignore[arg-type]


def clean(execution: Execution) -> Mapping[str, torch.Tensor]:
    """Outputs of an execution that must have no findings and leave everything else alone."""
    assert execution.findings == ()
    assert execution.overwritten == ()
    assert execution.trampled == ()
    return execution.outputs


REGISTERS = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}


def instruction(text: str, sources: Sequence[np.ndarray], result: str) -> np.ndarray:
    """Execute one PTX instruction, `{d}` its destination and `{0}`, `{1}` … its sources, once for each element.

    Sources are loaded and the result (a NumPy dtype) is stored bit by bit. Text may hold several instructions and
    use the predicates %p0 to %p3.
    """
    count = len(sources[0])
    dtype = np.dtype(result)
    body = ["mov.u32 %i, %tid.x;", "mov.u32 %c, %ctaid.x;", "mad.lo.s32 %i, %c, 128, %i;"]
    body += [f"setp.ge.s32 %p, %i, {count};", "@%p bra $end;", "cvt.u64.u32 %w, %i;"]
    names = []
    for number, source in enumerate(sources):
        width = source.dtype.itemsize
        register = f"%s{number}_{REGISTERS[width]}"
        names.append(register)
        body += [f"ld.param.u64 %a, [k_{number}];", f"mad.lo.s64 %a, %w, {width}, %a;"]
        body.append(f"ld.global.b{8 * width} {register}, [%a];")
    target = f"%d_{REGISTERS[dtype.itemsize]}"
    body.append(text.format(*names, d=target))
    body += [f"ld.param.u64 %a, [k_{len(sources)}];", f"mad.lo.s64 %a, %w, {dtype.itemsize}, %a;"]
    body += [f"st.global.b{8 * dtype.itemsize} [%a], {target};", "$end:", "ret;"]
    registers = {name: name.rsplit("_", 1)[1] for name in (*names, target)}
    declared = "".join(f".reg .{kind} {name};\n" for name, kind in registers.items())
    parameters = ", ".join(f".param .u64 k_{number}" for number in range(len(sources) + 1))
    ptx = (
        f".version 8.5\n.target sm_90\n.address_size 64\n.visible .entry k({parameters})\n{{\n{declared}"
        ".reg .pred %p; .reg .pred %p<4>; .reg .b32 %i; .reg .b32 %c; .reg .b64 %w; .reg .b64 %a;\n"
        + "\n".join(body)
        + "\n}\n"
    )
    inputs = {
        f"s{number}": torch.from_numpy(np.ascontiguousarray(source).view(np.uint8))
        for number, source in enumerate(sources)
    }
    arguments = [*inputs, "out"]
    grid = max(1, math.ceil(count / 128))
    execution = run_ptx(
        ptx, [launch("k", grid, 128, arguments)], inputs, [spec("out", count * dtype.itemsize, "uint8")], count=False
    )
    return clean(execution)["out"].numpy().view(dtype)
