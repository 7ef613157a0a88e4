"""The usual way to try a kernel: a PyTorch extension, built by nvcc, checked with allclose, timed with events.

    python benchmarks/usual_way.py

Builds a row softmax with a host wrapper under a new name, compares it with eager PyTorch on five seeds at 1e-4, and
takes the mean of 100 trials with CUDA events, with 256 MB written between trials: what KernelBench does with a
solution (Ouyang et al. 2025, arXiv:2502.10517). It is measured in a process of its own, since an extension cannot be
unloaded and a faulty kernel spoils the process. benchmarks/judge_speed.py sets it beside the judge; `DEVICE_CODE` and
`PLAN` are the same kernel as a program.

Not counted here, though the usual way pays for it as well: timing the reference, and tidying up what was built.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from warpsmith.device.cuda.tools import find, toolkits

ROWS, COLUMNS = 128, 1000
"""Shape of the input, that of examples/softmax.py."""
BLOCK = 256

DEVICE_CODE = r"""
extern "C" __global__ void row_softmax(const float* x, float* out, int rows, int cols) {
    __shared__ float partial[BLOCK];
    const int t = threadIdx.x;
    const float* in = x + (long long)blockIdx.x * cols;
    float* to = out + (long long)blockIdx.x * cols;
    float most = -INFINITY;
    for (int c = t; c < cols; c += BLOCK) most = fmaxf(most, in[c]);
    partial[t] = most;
    __syncthreads();
    for (int s = BLOCK / 2; s > 0; s /= 2) {
        if (t < s) partial[t] = fmaxf(partial[t], partial[t + s]);
        __syncthreads();
    }
    most = partial[0];
    __syncthreads();
    float sum = 0.0f;
    for (int c = t; c < cols; c += BLOCK) sum += expf(in[c] - most);
    partial[t] = sum;
    __syncthreads();
    for (int s = BLOCK / 2; s > 0; s /= 2) {
        if (t < s) partial[t] += partial[t + s];
        __syncthreads();
    }
    sum = partial[0];
    for (int c = t; c < cols; c += BLOCK) to[c] = expf(in[c] - most) / sum;
}
"""
"""The kernel. Both ways compile this text; `BLOCK`, a power of two, is a macro."""

PLAN = f"""
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"
[tunables]
BLOCK = [{BLOCK}, 64, 128]
[[launch]]
kernel = "row_softmax"
grid = ["rows"]
block = ["BLOCK"]
args = ["x", "out", "rows", "cols"]
"""

_DECLARATION = "torch::Tensor softmax_rows(torch::Tensor x);"
_HOST_CODE = r"""
torch::Tensor softmax_rows(torch::Tensor x) {
    auto out = torch::empty_like(x);
    const int rows = x.size(0), cols = x.size(1);
    row_softmax<<<rows, BLOCK>>>(x.data_ptr<float>(), out.data_ptr<float>(), rows, cols);
    return out;
}
"""
_SEEDS, _TOLERANCE = range(5), 1e-4
_WARM_UP, _TRIALS, _FLUSH_BYTES = 3, 100, 256 << 20
_MOST_SECONDS = 300.0


@dataclass(frozen=True)
class Usual:
    """One candidate the usual way, in seconds. `start` is importing PyTorch and making a context, `time` the trials.

    `total` is the whole life of the process as its parent sees it, `kernel` the mean time of one call.
    """

    start: float
    build: float
    check: float
    time: float
    kernel: float
    right: bool
    total: float = 0.0


def toolkit() -> Path | None:
    """Return the folder of a CUDA toolkit with nvcc in it, or None where none is installed."""
    # A program called nvcc on the search path may be a script that starts the one of a toolkit elsewhere.
    for folder in toolkits():
        if (folder / "bin" / "nvcc").is_file():
            return folder
    nvcc = find("nvcc")
    return None if nvcc is None else Path(nvcc).resolve().parent.parent


def in_a_process(name: str, home: Path) -> Usual | str:
    """Build, check and time the extension called `name` with the toolkit in `home`, in a process of its own.

    A string says why that failed: what the process printed last.
    """
    with tempfile.TemporaryDirectory(prefix="warpsmith-usual-") as folder:
        environment = {**os.environ, "CUDA_HOME": str(home), "TORCH_EXTENSIONS_DIR": folder}
        command = [sys.executable, __file__, name, folder]
        began = time.perf_counter()
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A group of its own, so that nvcc and what it started end with it.
            start_new_session=True,
        ) as process:
            try:
                printed, complaints = process.communicate(timeout=_MOST_SECONDS)
            except subprocess.TimeoutExpired:
                return f"gave no answer within {_MOST_SECONDS:g} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        total = time.perf_counter() - began
    lines = printed.strip().splitlines()
    if process.returncode != 0 or not lines:
        return f"ended with code {process.returncode}: {complaints.strip()[-1500:]}"
    return Usual(**{**json.loads(lines[-1]), "total": total})


def measure(name: str, folder: Path) -> Usual:
    """Do it in this process. Raises what PyTorch raises where the extension cannot be built."""
    began = time.perf_counter()
    import torch
    from torch.utils.cpp_extension import load_inline

    x = torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    load: Any = load_inline
    extension = load(
        name=name,
        cpp_sources=[_DECLARATION],
        cuda_sources=[DEVICE_CODE + _HOST_CODE],
        functions=["softmax_rows"],
        extra_cuda_cflags=["-O3", f"-DBLOCK={BLOCK}"],
        build_directory=str(folder),
    )
    built = time.perf_counter()
    right = True
    for seed in _SEEDS:
        torch.manual_seed(seed)
        x = torch.randn(ROWS, COLUMNS, device="cuda")
        right &= torch.allclose(extension.softmax_rows(x), torch.softmax(x, dim=1), atol=_TOLERANCE, rtol=_TOLERANCE)
    torch.cuda.synchronize()
    checked = time.perf_counter()
    kernel = _trials(extension.softmax_rows, x)
    ended = time.perf_counter()
    return Usual(started - began, built - started, checked - built, ended - checked, kernel, bool(right))


def _trials(function: object, x: object) -> float:
    """Return the mean time of a call in seconds."""
    import torch

    assert callable(function)
    for _ in range(_WARM_UP):
        function(x)
    torch.cuda.synchronize()
    event: Any = torch.cuda.Event
    flush = torch.empty(_FLUSH_BYTES // 8, dtype=torch.int64, device="cuda")
    times = []
    for _ in range(_TRIALS):
        before, after = (event(enable_timing=True) for _ in range(2))
        flush.fill_(42)
        torch.cuda.synchronize()
        before.record()
        function(x)
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after) * 1e-3)
    return statistics.fmean(times)


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(asdict(measure(sys.argv[1], Path(sys.argv[2])))))
        return
    home = toolkit()
    print("There is no nvcc here." if home is None else in_a_process("usual_alone", home))


if __name__ == "__main__":
    main()
