"""Good hand-written kernels for small tasks. Every mutation is an edit of one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from warpsmith.program import parse_plan
from warpsmith.records import Candidate, Lineage, Program, Task
from warpsmith.task import task_from_module


@dataclass(frozen=True)
class Kernel:
    """A module with example inputs, and device code with a plan that computes it."""

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple[torch.Tensor, ...]]
    source: str
    plan: str


class Softmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, dim=-1)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, 192) / 14)
        self.bias = nn.Parameter(torch.zeros(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(200))
        self.bias = nn.Parameter(torch.zeros(200))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (200,), self.gain, self.bias, 1e-5)


class LogMax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x).amax(dim=-1)


class RowMax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.amax(dim=-1)


class ArgMax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.argmax(x, dim=-1)


class Total(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class Square(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x + x


SOFTMAX = Kernel(
    "softmax",
    Softmax,
    lambda: (torch.randn(9, 300),),
    """
extern "C" __global__ void row_softmax(const float* x, float* out, int rows, int cols) {
    __shared__ float partial[BLOCK];
    int t = threadIdx.x;
    const float* in = x + blockIdx.x * cols;
    float* to = out + blockIdx.x * cols;
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
""",
    """
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"
[tunables]
BLOCK = [64, 128]
[[launch]]
kernel = "row_softmax"
grid = ["rows"]
block = ["BLOCK"]
args = ["x", "out", "rows", "cols"]
""",
)

LINEAR = Kernel(
    "linear",
    Linear,
    lambda: (torch.randn(46, 192),),
    """
#include <cuda_fp16.h>
extern "C" __global__ void linear(const float* x, const float* weight, const float* bias, float* out,
                                  int rows, int inner, int cols) {
    __shared__ float left[16][17];
    __shared__ float right[16][17];
    int row = blockIdx.y * 16 + threadIdx.y;
    int col = blockIdx.x * 16 + threadIdx.x;
    int other = blockIdx.x * 16 + threadIdx.y;
    float sum = 0.0f;
    for (int base = 0; base < inner; base += 16) {
        int k = base + threadIdx.x;
        left[threadIdx.y][threadIdx.x] = row < rows && k < inner ? x[row * inner + k] : 0.0f;
        right[threadIdx.y][threadIdx.x] = other < cols && k < inner ? weight[other * inner + k] : 0.0f;
        __syncthreads();
        for (int i = 0; i < 16; ++i) sum += left[threadIdx.y][i] * right[threadIdx.x][i];
        __syncthreads();
    }
    if (row < rows && col < cols) out[row * cols + col] = sum + bias[col];
}
""",
    """
[symbols]
rows = "x.shape[0]"
inner = "x.shape[1]"
cols = "weight.shape[0]"
[[launch]]
kernel = "linear"
grid = ["ceil_div(cols, 16)", "ceil_div(rows, 16)"]
block = [16, 16]
args = ["x", "weight", "bias", "out", "rows", "inner", "cols"]
""",
)

LAYER_NORM = Kernel(
    "layer_norm",
    LayerNorm,
    lambda: (torch.randn(7, 200),),
    """
__device__ float warp_sum(float value) {
    for (int s = 16; s > 0; s /= 2) value += __shfl_xor_sync(0xffffffffu, value, s);
    return value;
}
extern "C" __global__ void layer_norm(const float* x, const float* gain, const float* bias, float* out, int cols) {
    const float* in = x + blockIdx.x * cols;
    float* to = out + blockIdx.x * cols;
    int lane = threadIdx.x;
    float sum = 0.0f;
    for (int c = lane; c < cols; c += 32) sum += in[c];
    float mean = warp_sum(sum) / cols;
    float squares = 0.0f;
    for (int c = lane; c < cols; c += 32) squares += (in[c] - mean) * (in[c] - mean);
    float scale = rsqrtf(warp_sum(squares) / cols + 1e-5f);
    for (int c = lane; c < cols; c += 32) to[c] = (in[c] - mean) * scale * gain[c] + bias[c];
}
""",
    """
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"
[[launch]]
kernel = "layer_norm"
grid = ["rows"]
block = [32]
args = ["x", "gain", "bias", "out", "cols"]
""",
)

BATCH_NORM = Kernel(
    "batch_norm",
    lambda: nn.BatchNorm1d(6).train(),
    lambda: (torch.randn(40, 6),),
    """
extern "C" __global__ void batch_norm(const float* x, const float* weight, const float* bias, const float* mean_in,
                                      const float* var_in, const long long* count, float* out, float* mean_out,
                                      float* var_out, long long* count_out, int rows, int cols) {
    int c = threadIdx.x;
    if (c < cols) {
        float sum = 0.0f;
        for (int r = 0; r < rows; ++r) sum += x[r * cols + c];
        float mean = sum / rows;
        float squares = 0.0f;
        for (int r = 0; r < rows; ++r) squares += (x[r * cols + c] - mean) * (x[r * cols + c] - mean);
        float scale = rsqrtf(squares / rows + 1e-5f);
        for (int r = 0; r < rows; ++r) out[r * cols + c] = (x[r * cols + c] - mean) * scale * weight[c] + bias[c];
        mean_out[c] = 0.9f * mean_in[c] + 0.1f * mean;
        var_out[c] = 0.9f * var_in[c] + 0.1f * (squares / (rows - 1));
    }
    if (c == 0) count_out[0] = count[0] + 1;
}
""",
    """
[symbols]
rows = "{x}.shape[0]"
cols = "{x}.shape[1]"
[[launch]]
kernel = "batch_norm"
grid = [1]
block = [32]
args = ["{x}", "weight", "bias", "running_mean", "running_var", "num_batches_tracked", "out", "new_running_mean",
        "new_running_var", "new_num_batches_tracked", "rows", "cols"]
""",
)

LOG_MAX = Kernel(
    "log_max",
    LogMax,
    lambda: (torch.rand(37, 20) + 0.1,),
    """
extern "C" __global__ void log_max(const float* x, float* out, int rows, int cols) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    float most = -INFINITY;
    for (int c = 0; c < cols; ++c) {
        float value = logf(x[r * cols + c]);
        most = value > most || value != value ? value : most;
        if (most != most) break;
    }
    out[r] = most;
}
""",
    """
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"
[[launch]]
kernel = "log_max"
grid = ["ceil_div(rows, 32)"]
block = [32]
args = ["x", "out", "rows", "cols"]
""",
)

ROW_MAX = Kernel(
    "row_max",
    RowMax,
    lambda: (torch.randn(37, 20),),
    """
extern "C" __global__ void row_max(const float* x, float* out, int rows, int cols) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    float most = -INFINITY;
    for (int c = 0; c < cols; ++c) most = fmaxf(most, x[r * cols + c]);
    out[r] = most;
}
""",
    LOG_MAX.plan.replace("log_max", "row_max"),
)

ARG_MAX = Kernel(
    "arg_max",
    ArgMax,
    lambda: (torch.randn(37, 20),),
    """
extern "C" __global__ void arg_max(const float* x, long long* out, int rows, int cols) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    int best = 0;
    for (int c = 1; c < cols; ++c)
        if (x[r * cols + c] > x[r * cols + best]) best = c;
    out[r] = best;
}
""",
    LOG_MAX.plan.replace("log_max", "arg_max"),
)

TOTAL = Kernel(
    "total",
    Total,
    lambda: (torch.randn(41, 50),),
    """
__device__ float block_sum(float value) {
    __shared__ float partial[64];
    partial[threadIdx.x] = value;
    __syncthreads();
    for (int s = 32; s > 0; s /= 2) {
        if (threadIdx.x < s) partial[threadIdx.x] += partial[threadIdx.x + s];
        __syncthreads();
    }
    return partial[0];
}
extern "C" __global__ void sum_blocks(const float* x, float* sums, int count) {
    float sum = 0.0f;
    for (int i = blockIdx.x * 64 + threadIdx.x; i < count; i += 64 * gridDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
extern "C" __global__ void sum_sums(const float* sums, float* out, int blocks) {
    float sum = block_sum(threadIdx.x < blocks ? sums[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) out[0] = sum;
}
""",
    """
[symbols]
count = "x.numel"
[tunables]
BLOCKS = [7, 13]
[buffers.sums]
shape = ["BLOCKS"]
dtype = "float32"
[[launch]]
kernel = "sum_blocks"
grid = ["BLOCKS"]
block = [64]
args = ["x", "sums", "count"]
[[launch]]
kernel = "sum_sums"
grid = [1]
block = [64]
args = ["sums", "out", "BLOCKS"]
""",
)

SQUARE = Kernel(
    "square",
    Square,
    lambda: (torch.randn(1003),),
    """
extern "C" __global__ void square(const float* x, float* out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = x[i] * x[i] + x[i];
}
""",
    """
[symbols]
count = "x.numel"
[[launch]]
kernel = "square"
grid = ["ceil_div(count, 128)"]
block = [128]
args = ["x", "out", "count"]
""",
)

KERNELS = (SOFTMAX, LINEAR, LAYER_NORM, BATCH_NORM, LOG_MAX, ROW_MAX, ARG_MAX, TOTAL, SQUARE)


@cache
def task_of(kernel: Kernel) -> Task:
    """Export the kernel's module once."""
    torch.manual_seed(7)
    return task_from_module(kernel.module(), kernel.inputs(), name=kernel.name)


def candidate_of(kernel: Kernel, source: str | None = None, plan: str | None = None) -> Candidate:
    """Return the kernel, or an edit of it, as a candidate for its task."""
    task = task_of(kernel)
    text = (plan or kernel.plan).replace("{x}", task.graph.inputs[0].name)
    program = Program(source or kernel.source, parse_plan(text))
    return Candidate(task.key, program, tuple(program.plan.defaults.items()), Lineage("person", "test"))
