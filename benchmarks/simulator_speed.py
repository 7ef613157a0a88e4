"""How fast is the simulator? Thread-instructions a second on five kernels.

    python benchmarks/simulator_speed.py [processes] [--no-counters]

With two processes each runs every kernel at the same time, so that both cores are busy; the rates add up.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.program import Builder
from warpsmith.records import BoundLaunch, BoundPlan, Build, Plan, Program, TensorSpec

SOURCE = r"""
__device__ float gelu(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678f)); }

extern "C" __global__ void gelu_scalar(const float* __restrict__ x, float* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = gelu(x[i]);
}

extern "C" __global__ void gelu_float4(const float4* __restrict__ x, float4* __restrict__ out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float4 v = x[i];
    out[i] = make_float4(gelu(v.x), gelu(v.y), gelu(v.z), gelu(v.w));
}

extern "C" __global__ void row_softmax(const float* __restrict__ x, float* __restrict__ out, int columns) {
    __shared__ float partial[32];
    const float* row = x + (long long)blockIdx.x * columns;
    const int warps = blockDim.x / 32;
    float top = -3.4e38f;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) top = fmaxf(top, row[c]);
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = top;
    __syncthreads();
    for (int w = 0; w < warps; w++) top = fmaxf(top, partial[w]);
    __syncthreads();
    float sum = 0.0f;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) sum += expf(row[c] - top);
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int w = 0; w < warps; w++) sum += partial[w];
    const float scale = 1.0f / sum;
    for (int c = threadIdx.x; c < columns; c += blockDim.x)
        out[(long long)blockIdx.x * columns + c] = expf(row[c] - top) * scale;
}

extern "C" __global__ void matmul(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
                                  int n) {
    __shared__ float left[32][32], right[32][32];
    const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    float sum = 0.0f;
    for (int t = 0; t < n; t += 32) {
        left[threadIdx.y][threadIdx.x] = a[row * n + t + threadIdx.x];
        right[threadIdx.y][threadIdx.x] = b[(t + threadIdx.y) * n + column];
        __syncthreads();
        for (int k = 0; k < 32; k++) sum += left[threadIdx.y][k] * right[k][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = sum;
}

extern "C" __global__ void convolution(const float* __restrict__ x, const float* __restrict__ w,
                                       float* __restrict__ out, int channels, int height, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= width || row >= height) return;
    float sum = 0.0f;
    for (int c = 0; c < channels; c++)
        for (int p = -1; p <= 1; p++)
            for (int q = -1; q <= 1; q++) {
                const int r = row + p, s = column + q;
                if (r >= 0 && r < height && s >= 0 && s < width)
                    sum += x[(c * height + r) * width + s] * w[(blockIdx.z * channels + c) * 9 + (p + 1) * 3 + q + 1];
            }
    out[(blockIdx.z * height + row) * width + column] = sum;
}
"""


@dataclass(frozen=True)
class Case:
    """A launch with its inputs and the elements of its output."""

    name: str
    launch: BoundLaunch
    inputs: dict[str, torch.Tensor]
    output: int


def cases() -> list[Case]:
    """The kernels with a million threads each (convolution and product: a quarter), and their arguments."""
    n = 1 << 20
    x, w = torch.randn(4 * n), torch.randn(16 * 16 * 9)
    gelu = BoundLaunch("gelu_scalar", (n // 256, 1, 1), (256, 1, 1), 0, ("x", "out", n))
    vector = BoundLaunch("gelu_float4", (n // 256, 1, 1), (256, 1, 1), 0, ("x", "out", n))
    softmax = BoundLaunch("row_softmax", (4096, 1, 1), (256, 1, 1), 0, ("x", "out", 1000))
    product = BoundLaunch("matmul", (16, 16, 1), (32, 32, 1), 0, ("a", "b", "out", 512))
    convolve = BoundLaunch("convolution", (4, 16, 16), (32, 8, 1), 0, ("x", "w", "out", 16, 128, 128))
    return [
        Case("gelu, scalar", gelu, {"x": x[:n]}, n),
        Case("gelu, float4", vector, {"x": x}, 4 * n),
        Case("row softmax", softmax, {"x": x[: 4096 * 1000]}, 4096 * 1000),
        Case("tiled matmul", product, {"a": x[: n // 4], "b": x[n : n + n // 4]}, n // 4),
        Case("convolution", convolve, {"x": x[: 16 * 128 * 128], "w": w}, 16 * 128 * 128),
    ]


def measure(build: Build, count: bool) -> list[tuple[str, int, float]]:
    """Run every case once; return name, thread-instructions and seconds."""
    torch.set_num_threads(1)
    simulator = Simulator(gpu("H100"))
    rows = []
    for case in cases():
        plan = BoundPlan((), (case.launch,))
        output = [TensorSpec("out", (case.output,), "float32")]
        counted = simulator.run(build, plan, case.inputs, output, fill=1)
        assert not counted.findings, counted.findings
        started = time.perf_counter()
        simulator.run(build, plan, case.inputs, output, fill=2, count=count)
        rows.append((case.name, counted.counters[0].thread_instructions, time.perf_counter() - started))
    return rows


def main() -> None:
    count = "--no-counters" not in sys.argv
    processes = next((int(word) for word in sys.argv[1:] if word.isdigit()), 2)
    with tempfile.TemporaryDirectory() as folder:
        builder = Builder(Path(folder))
        build = builder.build(Program(SOURCE, Plan((), (), (), ())), {}, "sm_90")
        builder.close()
    assert build.ok, build.diagnostics
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        answers = pool.starmap(measure, [(build, count)] * processes)
    print(f"{processes} processes at once, counters {'on' if count else 'off'}")
    print(f"{'kernel':<16}{'thread-instructions':>22}{'seconds':>10}{'M/s each':>12}{'M/s together':>14}")
    for several in zip(*answers):
        name, instructions, _ = several[0]
        seconds = max(row[2] for row in several)
        each = instructions / seconds / 1e6
        print(f"{name:<16}{instructions:>22,}{seconds:>10.3f}{each:>12.0f}{each * processes:>14.0f}")


if __name__ == "__main__":
    main()
