"""The sanitizer finds what happens to work, names both lines, and keeps quiet about correct kernels."""

from __future__ import annotations

import pytest
import torch

from tests.device.kit import launch, run, spec

SUM = """extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ float s[128]; int i = threadIdx.x; float v = 0;
    for (int j = i; j < n; j += 128) v += x[j];
    s[i] = v;
    __syncthreads();
    for (int o = 64; o; o >>= 1) {
        if (i < o) s[i] += s[i + o];
        __syncthreads();
    }
    if (i == 0) out[0] = s[0];
}"""

TILES = """extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ float s[2][32][33]; int a = threadIdx.x, b = threadIdx.y;
    for (int t = 0; t < n; t++) {
        s[t & 1][b][a] = x[(t * 32 + b) * 32 + a];
        __syncthreads();
        out[(t * 32 + b) * 32 + a] = s[t & 1][a][b];
    }
}"""

WARP = """extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ float s[64]; int i = threadIdx.x;
    s[i] = x[i];
    __syncwarp();
    float v = s[i ^ 1];
    __syncwarp();
    s[i] = v;
    __syncwarp();
    out[i] = s[i ^ 2] + v;
}"""

LAST_BLOCK = """extern "C" __global__ void zero(unsigned* count) { *count = 0; }
extern "C" __global__ void k(const float* x, float* out, int n, float* partial, unsigned* count) {
    __shared__ bool last; int i = threadIdx.x;
    for (int o = 16; o; o >>= 1) n += 0;
    if (i == 0) {
        partial[blockIdx.x] = x[blockIdx.x];
        __threadfence();
        last = atomicAdd(count, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && i == 0) { float t = 0; for (int b = 0; b < gridDim.x; b++) t += partial[b]; out[0] = t; }
}"""


def findings(source, *, grid=1, block=128, n=1000, size=4096, scratch=False):
    launches = [launch("k", grid, block, ["x", "out", n, *(("partial", "count") if scratch else ())])]
    buffers = []
    if scratch:
        launches.insert(0, launch("zero", 1, 1, ["count"]))
        buffers = [spec("partial", 64), spec("count", 1, "int32")]
    execution = run(source, launches, {"x": torch.randn(size)}, [spec("out", size)], buffers, sanitize=True)
    return execution.findings


def without(source: str, line: int, old: str, new: str = "") -> str:
    """Change one line of the source, so that other lines keep their numbers."""
    lines = source.split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (SUM, {}),
        (TILES, {"block": (32, 32), "n": 4}),
        (WARP, {"block": 64}),
        (LAST_BLOCK, {"grid": 9, "block": 32, "scratch": True}),
    ],
)
def test_correct_kernels_have_no_findings(source, options):
    assert findings(source, **options) == ()


@pytest.mark.parametrize(
    ("source", "options", "kind", "lines"),
    [
        (without(SUM, 5, "__syncthreads();"), {}, "shared_race", {7}),
        (without(SUM, 8, "__syncthreads();"), {}, "shared_race", {7}),
        (without(TILES, 5, "__syncthreads();"), {"block": (32, 32), "n": 4}, "shared_race", {4, 6}),
        (without(TILES, 4, "t & 1", "0"), {"block": (32, 32), "n": 1}, None, set()),
        (without(TILES, 2, "[2]", "[1]").replace("t & 1", "0"), {"block": (32, 32), "n": 4}, "shared_race", {4}),
        (without(WARP, 4, "__syncwarp();"), {"block": 64}, "shared_race", {5}),
        (without(WARP, 6, "__syncwarp();"), {"block": 64}, "shared_race", {7}),
        (without(LAST_BLOCK, 7, "__threadfence();"), {"grid": 9, "block": 32, "scratch": True}, "global_race", {11}),
    ],
)
def test_a_missing_barrier_is_a_race(source, options, kind, lines):
    found = findings(source, **options)
    assert {one.kind for one in found} == ({kind} if kind else set())
    assert {one.line for one in found} == lines


def test_two_threads_that_store_to_one_place_race_and_equal_values_are_marked():
    base = 'extern "C" __global__ void k(const float* x, float* out, int n) {\n out[threadIdx.x / 2] = %s;\n}'
    (found,) = findings(base % "threadIdx.x", block=64)
    assert (found.kind, found.line) == ("global_race", 2)
    assert "the same value" not in found.message
    (found,) = findings(base % "3", block=64)
    assert found.kind == "global_race" and "the same value" in found.message


def test_blocks_that_write_to_one_place_race():
    source = 'extern "C" __global__ void k(const float* x, float* out, int n) {\n out[threadIdx.x] = blockIdx.x;\n}'
    (found,) = findings(source, grid=3, block=32)
    assert (found.kind, found.line) == ("global_race", 2)
    assert "thread (0, 0, 0) of block" in found.message


def test_atomics_do_not_race_with_each_other_but_with_plain_accesses():
    source = """extern "C" __global__ void k(const float* x, float* out, int n) {
        __shared__ int c;
        if (threadIdx.x == 0) c = 0;
        __syncthreads();
        atomicAdd(&c, 1); volatile int* flag = &c;
        %s
        __syncthreads(); out[threadIdx.x] = c;
    }"""
    assert findings(source % "") == ()
    (found,) = findings(source % "out[threadIdx.x + 500] = c;")
    assert (found.kind, found.line) == ("shared_race", 6)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("__shared__ float s[64];\n if (i) s[i] = 1; __syncthreads();\n out[i] = s[i];", 4),
        ("out[i + 128] = 1;\n float v = out[i + 129];\n out[i] = v;", 3),
        ("float a[8];\n for (int j = 0; j < 7; j++) a[(j + n) % 8] = j;\n out[i] = a[i % 8];", 4),
    ],
)
def test_reading_what_nobody_wrote(body, line):
    found = findings(
        'extern "C" __global__ void k(const float* x, float* out, int n) { int i = threadIdx.x;\n' + body + "\n}",
        block=64,
    )
    uninitialised = [one for one in found if one.kind == "uninitialised"]
    assert [one.line for one in uninitialised] == [line]


def test_scratch_written_by_an_earlier_launch_is_initialised():
    source = """extern "C" __global__ void a(float* s) { s[threadIdx.x] = 1; }
    extern "C" __global__ void b(float* s, float* out) { out[threadIdx.x] = s[threadIdx.x]; }"""
    launches = [launch("a", 1, 32, ["s"]), launch("b", 1, 32, ["s", "out"])]
    assert run(source, launches, {}, [spec("out", 32)], [spec("s", 32)], sanitize=True).findings == ()
    found = run(source, launches[1:], {}, [spec("out", 32)], [spec("s", 32)], sanitize=True).findings
    assert [one.kind for one in found] == ["uninitialised"]


def test_a_barrier_that_only_some_threads_reach():
    source = """extern "C" __global__ void k(const float* x, float* out, int n) {
        int i = threadIdx.x;
        if (i < 64) {
            asm volatile("bar.sync 0;" ::: "memory");
            out[i] = 1;
        } else { while (n > 0) n -= (x[0] < 1e30f); asm volatile("bar.sync 1, 128;" ::: "memory"); }
    }"""
    (found,) = findings(source)
    assert found.kind == "barrier_divergence"
    assert found.line in (4, 6)


def test_threads_of_a_block_at_different_barriers():
    source = """extern "C" __global__ void k(const float* x, float* out, int n) {
        int i = threadIdx.x;
        if (i < 64) {
            out[i] = 1; asm volatile("bar.sync 0;" ::: "memory"); out[i + 300] = 2;
        } else {
            asm volatile("bar.sync 0;" ::: "memory"); out[i + 600] = 5;
        }
    }"""
    (found,) = findings(source)
    assert (found.kind, found.line) == ("barrier_divergence", 6) or (found.kind, found.line) == (
        "barrier_divergence",
        4,
    )


def test_a_shuffle_from_a_thread_that_takes_no_part():
    source = """extern "C" __global__ void k(const float* x, float* out, int n) {
        int i = threadIdx.x; float v = x[i];
        if (i % 32 < 8)
            v = __shfl_down_sync(0xff, v, 4);
        out[i] = v;
    }"""
    found = findings(source, block=32)
    assert [(one.kind, one.line) for one in found] == [("uninitialised", 4)]
