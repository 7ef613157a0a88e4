"""Our own two kernels: a canary that every fresh runner must get right, and the reader that flushes the caches."""

from __future__ import annotations

import torch

from warpsmith.records import BoundLaunch, BoundPlan, Plan, Program, TensorSpec

COUNT = 10_000
INPUT = TensorSpec("x", (COUNT,), "float32")
OUTPUT = TensorSpec("out", (COUNT,), "float32")

PROGRAM = Program(
    """
extern "C" __global__ void canary(const float* x, float* out, int count) {
    __shared__ float turned[256];
    int i = blockIdx.x * 256 + threadIdx.x;
    turned[255 - threadIdx.x] = i < count ? x[i] * 2.0f + 1.0f : 0.0f;
    __syncthreads();
    if (i < count) out[i] = turned[255 - threadIdx.x];
}

// Reads everything and writes nothing, as far as the compiler can tell it might.
extern "C" __global__ void read_through(float4* data, long long count) {
    float sum = 0.0f;
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float4 value = __ldcg(data + i);
        sum += value.x + value.y + value.z + value.w;
    }
    if (sum == 12345.0f) data[0].x = sum;
}
""",
    Plan((), (), (), ()),
)
PLAN = BoundPlan((), (BoundLaunch("canary", (-(-COUNT // 256), 1, 1), (256, 1, 1), 0, ("x", "out", COUNT)),))


def question(device: str) -> torch.Tensor:
    """Return what the canary is given: float32 [COUNT]."""
    return torch.arange(COUNT, dtype=torch.float32, device=device)


def right(x: torch.Tensor, out: torch.Tensor | None) -> bool:
    """Whether the canary's answer is right to the bit."""
    return out is not None and torch.equal(out, x * 2.0 + 1.0)
