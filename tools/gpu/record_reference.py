"""Record what a GPU gives for every kernel of tests/device/hardware/operations.cu, bit by bit."""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from cuda.bindings import driver
from driver import checked

from warpsmith.program import Builder
from warpsmith.records import Plan, Program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "device" / "hardware"))
import cases


def main() -> None:
    """Write an array of 32-bit words for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=cases.RECORDED)
    options = parser.parse_args()
    builder = Builder(tempfile.mkdtemp())
    build = builder.build(Program(cases.SOURCE.read_text(), Plan((), (), (), ())), {}, "sm_90a")
    builder.close()
    if not build.ok:
        raise SystemExit("\n".join(f"{d.line}: {d.message}" for d in build.diagnostics))
    held = [torch.from_numpy(column.view(np.int32)).cuda() for column in cases.inputs()]
    module = checked(driver.cuModuleLoadData(build.cubin))
    recorded = {}
    for name in cases.kernels():
        out = torch.full((cases.COUNT,), -1, dtype=torch.int32, device="cuda")
        function = checked(driver.cuModuleGetFunction(module, name.encode()))
        values = (*(t.data_ptr() for t in held), out.data_ptr())
        params = (values, (ctypes.c_void_p,) * 4)
        checked(driver.cuLaunchKernel(function, cases.COUNT // 256, 1, 1, 256, 1, 1, 0, 0, params, 0))
        torch.cuda.synchronize()
        recorded[name] = out.cpu().numpy().view(np.uint32)
    np.savez_compressed(options.out, **recorded)
    print(f"{len(recorded)} kernels recorded on {torch.cuda.get_device_name()} with torch {torch.__version__}")


if __name__ == "__main__":
    main()
