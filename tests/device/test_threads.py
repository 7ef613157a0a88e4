"""Threads that part and meet: divergence, barriers, shuffles, votes, atomics, and progress of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.device.kit import clean, launch, run, spec

HEADER = 'extern "C" __global__ void k'


def ints(values) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.int32)


def one(source: str, inputs, size: int, grid=1, block=128, *, shared: int = 0, extra: tuple[int, ...] = (), **options):
    """Run a kernel k(inputs…, out, extra…) and return `out` as int32."""
    args = [*inputs, "out", *extra]
    execution = run(source, launch("k", grid, block, args, shared), inputs, [spec("out", size, "int32")], **options)
    return clean(execution)["out"].numpy()


def test_nested_branches_and_early_return():
    source = (
        HEADER
        + """(const int* x, int* out, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i >= n) return;
        int v = x[i], r = 0;
        if (v > 0) { if (v % 2) r = v * 3; else { r = -v; if (v > 50) { out[i] = 12345; return; } } }
        else if (v == 0) r = 7; else r = v - 1;
        out[i] = r + 1;
    }"""
    )
    x = np.random.default_rng(0).integers(-5, 100, 300)
    expected = [
        12345 if v > 50 and v % 2 == 0 else (v * 3 if v > 0 and v % 2 else -v if v > 0 else 7 if v == 0 else v - 1) + 1
        for v in x
    ]
    assert one(source, {"x": ints(x)}, 300, 3, extra=(300,)).tolist() == expected


def test_loops_with_a_trip_count_for_each_thread():
    source = (
        HEADER
        + """(const int* x, int* out) {
        int i = threadIdx.x, steps = 0; long long n = x[i];
        while (n != 1) { if (n & 1) n = 3 * n + 1; else n >>= 1; if (++steps == 90) break; if (n > 4000) continue; }
        out[i] = steps;
    }"""
    )

    def steps(n):
        count = 0
        while n != 1 and count < 90:
            n = 3 * n + 1 if n & 1 else n >> 1
            count += 1
        return count

    x = np.arange(1, 129)
    assert one(source, {"x": ints(x)}, 128).tolist() == [steps(int(v)) for v in x]


def test_a_dense_switch_becomes_an_indexed_branch():
    cases = "".join(f"case {n}: r = x[i] * {n * n + 1} + {n}; out[i + 128] = {n}; break;" for n in range(12))
    source = (
        HEADER
        + "(const int* x, int* out) { int i = threadIdx.x, r; switch (x[i]) {"
        + cases
        + "default: r = -1; } out[i] = r; }"
    )
    x = np.random.default_rng(1).integers(0, 15, 128)
    got = one(source, {"x": ints(x)}, 256)[:128]
    assert got.tolist() == [int(v * (v * v + 1) + v) if v < 12 else -1 for v in x]


def test_indexed_branches_in_ptx():
    from tests.device.kit import instruction

    text = "ts: .branchtargets A, B, C; brx.idx {0}, ts; A: mov.b32 {d}, 10; bra E; B: mov.b32 {d}, 20; bra E; C: mov.b32 {d}, 30; E:"
    assert instruction(text, [np.array([2, 0, 1, 1, 0], np.uint32)], "i4").tolist() == [30, 10, 20, 20, 10]


def test_device_functions_with_structs_and_guarded_calls():
    source = """struct Pair { float a; double b; int c[3]; };
    __noinline__ __device__ Pair twist(Pair p, int k) { p.a *= 2; p.b -= k; p.c[k % 3] = k; return p; }
    __noinline__ __device__ int fold(int n, int seed) { for (int i = 0; i < n; i++) seed = seed * 5 + i; return seed; }
    extern "C" __global__ void k(const int* x, int* out) {
        int i = threadIdx.x; Pair p; p.a = i; p.b = i * 0.5; p.c[0] = 1; p.c[1] = 2; p.c[2] = 3;
        if (x[i] > 3) p = twist(p, x[i]);
        out[i] = fold(x[i], int(p.a + p.b) + p.c[0] * 100 + p.c[1] * 10 + p.c[2]);
    }"""
    x = np.random.default_rng(2).integers(0, 9, 128)

    def expected(i, v):
        a, b, c = float(i), i * 0.5, [1, 2, 3]
        if v > 3:
            a, b = a * 2, b - v
            c[v % 3] = v
        seed = int(a + b) + c[0] * 100 + c[1] * 10 + c[2]
        for n in range(v):
            seed = seed * 5 + n
        return np.int64(seed).astype(np.int32)

    assert one(source, {"x": ints(x)}, 128).tolist() == [expected(i, int(v)) for i, v in enumerate(x)]


def test_local_arrays_with_computed_indices():
    source = (
        HEADER
        + """(const int* x, int* out) {
        int i = threadIdx.x, a[24];
        for (int j = 0; j < 24; j++) a[j] = j * i;
        a[x[i]] += 1000; int s = 0;
        for (int j = x[i] - 1; j <= x[i] + 1; j++) s += a[(j + 24) % 24];
        out[i] = s;
    }"""
    )
    x = np.random.default_rng(3).integers(0, 24, 128)
    expected = [sum((j + 24) % 24 * i for j in (v - 1, v, v + 1)) + 1000 for i, v in enumerate(x.tolist())]
    assert one(source, {"x": ints(x)}, 128).tolist() == expected


@pytest.mark.parametrize("block", [32, 96, 100, 256])
def test_block_reduction_through_shared_memory_and_shuffles(block):
    source = (
        HEADER
        + """(const int* x, int* out) {
        extern __shared__ int s[]; __shared__ int total;
        int i = threadIdx.x, v = x[blockIdx.x * blockDim.x + i];
        s[i] = v; if (i == 0) total = 0; __syncthreads();
        int left = i ? s[i - 1] : 0;
        unsigned mask = __activemask();
        for (int o = 16; o; o >>= 1) { int w = __shfl_down_sync(mask, v, o); if (i % 32 + o < 32 && i + o < blockDim.x) v += w; }
        if (i % 32 == 0) atomicAdd(&total, v);
        __syncthreads();
        out[blockIdx.x * blockDim.x + i] = total + left;
    }"""
    )
    x = np.random.default_rng(4).integers(-1000, 1000, (5, block))
    left = np.concatenate([np.zeros((5, 1), int), x[:, :-1]], axis=1)
    got = one(source, {"x": ints(x.reshape(-1))}, x.size, 5, block, shared=4 * block)
    assert got.reshape(x.shape).tolist() == (x.sum(1, keepdims=True) + left).tolist()


def test_threads_that_ended_do_not_hold_up_a_barrier():
    source = (
        HEADER
        + """(int* out) {
        __shared__ int s[128]; int i = threadIdx.x;
        if (i >= 100) return;
        s[i] = i; __syncthreads(); out[i] = s[99 - i];
    }"""
    )
    assert one(source, {}, 100).tolist() == list(range(99, -1, -1))


def test_shuffles_in_divergent_code_see_only_their_members():
    source = (
        HEADER
        + """(int* out) {
        int i = threadIdx.x, r;
        if (i % 2) r = __shfl_sync(0xaaaaaaaa, i, (i & 31) ^ 2); else r = __shfl_up_sync(0x55555555, i, 4) * 1000;
        r += __shfl_xor_sync(0xffffffff, i, 31);
        out[i] = r;
    }"""
    )
    expected = []
    for i in range(64):
        lane, warp = i % 32, i // 32 * 32
        value = warp + (lane ^ 2) if i % 2 else (warp + (lane - 4 if lane >= 4 else lane)) * 1000
        expected.append(value + warp + (lane ^ 31))
    assert one(source, {}, 64, 1, 64).tolist() == expected


@pytest.mark.parametrize("width", [4, 8, 32])
def test_shuffle_modes_and_widths(width):
    source = (
        HEADER
        + f"""(const int* x, int* out) {{
        int i = threadIdx.x, v = x[i];
        out[i] = __shfl_sync(~0u, v, 3, {width}); out[i + 64] = __shfl_up_sync(~0u, v, 2, {width});
        out[i + 128] = __shfl_down_sync(~0u, v, 3, {width}); out[i + 192] = __shfl_xor_sync(~0u, v, 1, {width});
    }}"""
    )
    x = np.random.default_rng(5).integers(0, 1000, 64)
    base = np.arange(64) // width * width
    at = np.arange(64) - base
    expected = [
        base + 3 % width,
        base + np.where(at >= 2, at - 2, at),
        base + np.where(at + 3 < width, at + 3, at),
        base + (at ^ 1),
    ]
    got = one(source, {"x": ints(x)}, 256, 1, 64).reshape(4, 64)
    for row, index in zip(got, expected):
        assert row.tolist() == x[index].tolist()


def test_votes_matches_and_warp_reductions():
    source = (
        HEADER
        + """(const int* x, int* out) {
        int i = threadIdx.x, v = x[i]; unsigned all = ~0u; int agree;
        out[i] = __ballot_sync(all, v > 4); out[i + 64] = __any_sync(all, v == 9) * 2 + __all_sync(all, v < 10);
        out[i + 128] = __match_any_sync(all, v); out[i + 192] = __reduce_max_sync(all, v);
        out[i + 256] = __reduce_add_sync(all, v); out[i + 320] = __match_all_sync(all, i / 32, &agree) + agree;
    }"""
    )
    x = np.random.default_rng(6).integers(0, 10, 64)
    got = one(source, {"x": ints(x)}, 384, 1, 64).reshape(6, 2, 32).view(np.uint32)
    for warp in range(2):
        v = x[warp * 32 : warp * 32 + 32]
        bits = 1 << np.arange(32)
        assert (got[0, warp] == (bits * (v > 4)).sum()).all()
        assert (got[1, warp] == (v == 9).any() * 2 + 1).all()
        assert got[2, warp].tolist() == [int((bits * (v == one)).sum()) for one in v]
        assert (got[3, warp] == v.max()).all() and (got[4, warp] == v.sum()).all()
        assert (got[5, warp] == 0).all()


def test_cooperative_groups_and_shuffled_halves():
    source = """#include <cooperative_groups.h>
    #include <cooperative_groups/reduce.h>
    #include <cuda_fp16.h>
    namespace cg = cooperative_groups;
    extern "C" __global__ void k(const int* x, int* out) {
        auto block = cg::this_thread_block(); auto warp = cg::tiled_partition<32>(block); auto tile = cg::tiled_partition<8>(warp);
        int i = block.thread_rank(), v = x[i];
        out[i] = cg::reduce(warp, v, cg::plus<int>()); out[i + 64] = cg::reduce(tile, v, cg::greater<int>());
        if (v % 3 == 0) { auto here = cg::coalesced_threads(); out[i + 128] = here.size() * 100 + here.thread_rank(); } else out[i + 128] = tile.shfl(v, 2);
        __half2 h = __shfl_xor_sync(~0u, __floats2half2_rn(v, -v), 1); out[i + 192] = __low2float(h) - 2 * __high2float(h);
    }"""
    x = np.random.default_rng(8).integers(0, 50, 64)
    got = one(source, {"x": ints(x)}, 256, 1, 64).reshape(4, 64)
    assert got[0].tolist() == np.repeat(x.reshape(2, 32).sum(1), 32).tolist()
    assert got[1].tolist() == np.repeat(x.reshape(8, 8).max(1), 8).tolist()
    fits = x % 3 == 0
    for i in range(64):
        warp = slice(i // 32 * 32, i // 32 * 32 + 32)
        if fits[i]:
            assert got[2, i] == fits[warp].sum() * 100 + fits[warp][: i % 32].sum()
        elif fits[i // 8 * 8 + 2] == fits[i]:
            assert got[2, i] == x[i // 8 * 8 + 2]
    assert got[3].tolist() == (3 * x[np.arange(64) ^ 1]).tolist()


def test_barrier_reductions():
    source = (
        HEADER
        + """(const int* x, int* out) {
        int i = threadIdx.x, v = x[blockIdx.x * 96 + i];
        out[blockIdx.x * 96 + i] = __syncthreads_count(v > 4) * 4 + (__syncthreads_or(v == 9) != 0) * 2 + (__syncthreads_and(v > 0) != 0);
    }"""
    )
    x = np.random.default_rng(7).integers(0, 10, (3, 96))
    x[1] = 5
    expected = (x > 4).sum(1) * 4 + (x == 9).any(1) * 2 + (x > 0).all(1)
    assert (one(source, {"x": ints(x.reshape(-1))}, 288, 3, 96).reshape(3, 96) == expected[:, None]).all()


def test_named_barriers_synchronise_part_of_a_block():
    source = (
        HEADER
        + """(int* out) {
        __shared__ int s[128]; int i = threadIdx.x, half = i / 64;
        s[i] = i * 3;
        if (half == 0) asm volatile("bar.sync 1, 64;" ::: "memory"); else asm volatile("bar.sync 2, 64;" ::: "memory");
        out[i] = s[half * 64 + 63 - i % 64];
    }"""
    )
    assert one(source, {}, 128, sanitize=True).tolist() == [(i // 64 * 64 + 63 - i % 64) * 3 for i in range(128)]


@pytest.mark.parametrize(
    ("call", "start", "step"),
    [
        ("atomicAdd(a, v)", 5, lambda old, v: old + v),
        ("atomicSub(a, v)", 5, lambda old, v: old - v),
        ("atomicMin(a, v)", 50, min),
        ("atomicMax(a, v)", 5, max),
        ("atomicAnd(a, v)", 0x7FFFFFFF, lambda old, v: old & v),
        ("atomicOr(a, v)", 0, lambda old, v: old | v),
        ("atomicXor(a, v)", 3, lambda old, v: old ^ v),
        ("atomicExch(a, v)", 3, lambda old, v: v),
        ("atomicCAS(a, v, v + 1)", 3, lambda old, v: v + 1 if old == v else old),
        ("(int)atomicInc((unsigned*)a, v)", 3, lambda old, v: 0 if old >= v else old + 1),
        ("(int)atomicDec((unsigned*)a, v)", 3, lambda old, v: v if old == 0 or old > v else old - 1),
    ],
)
@pytest.mark.parametrize("addresses", [1, 3, 200])
def test_atomics_take_turns_and_return_what_was_there(call, start, step, addresses):
    source = f"""extern "C" __global__ void fill(int* m) {{ m[threadIdx.x] = {start}; }}
    extern "C" __global__ void k(const int* x, const int* w, int* m, int* out) {{
        int i = threadIdx.x, v = x[i]; int* a = m + w[i]; out[i] = {call};
    }}"""
    random = np.random.default_rng(8)
    x, where = random.integers(0, 100, 256), random.integers(0, addresses, 256)
    inputs = {"x": ints(x), "w": ints(where)}
    launches = [launch("fill", 1, addresses, ["m"]), launch("k", 1, 256, ["x", "w", "m", "out"])]
    execution = run(source, launches, inputs, [spec("m", addresses, "int32"), spec("out", 256, "int32")], sanitize=True)
    outputs = clean(execution)
    memory = [start] * addresses
    old = []
    for v, at in zip(x.tolist(), where.tolist()):
        old.append(memory[at])
        memory[at] = step(memory[at], v)
    assert outputs["m"].tolist() == memory
    assert outputs["out"].tolist() == old


def test_float_atomics_add_up():
    source = """#include <cuda_fp16.h>
    extern "C" __global__ void k(const float* x, float* f, double* d, __half2* h) {
        int i = threadIdx.x; __shared__ float s[2];
        if (i < 2) { s[i] = 0; f[i] = 0; d[i] = 0; h[i] = __half2(0, 0); } __syncthreads();
        atomicAdd(&s[i % 2], x[i]); atomicAdd(d + i % 2, (double)x[i]); atomicAdd(h + i % 2, __half2(1.f, x[i] > 0));
        __syncthreads(); if (i < 2) atomicAdd(f + i, s[i]);
    }"""
    x = torch.randn(256)
    outputs = [spec("f", 2), spec("d", 2, "float64"), spec("h", 4, "float16")]
    got = clean(run(source, launch("k", 1, 256, ["x", "f", "d", "h"]), {"x": x}, outputs))
    sums = x.double().reshape(128, 2).sum(0)
    torch.testing.assert_close(got["d"], sums)
    torch.testing.assert_close(got["f"].double(), sums, rtol=1e-5, atol=1e-5)
    assert got["h"].tolist() == [128.0, float((x[::2] > 0).sum()), 128.0, float((x[1::2] > 0).sum())]


def test_a_spin_lock_within_a_warp_makes_progress():
    source = (
        HEADER
        + """(int* out) {
        __shared__ int lock, count; int i = threadIdx.x;
        if (i == 0) { lock = 0; count = 0; } __syncthreads();
        bool done = false;
        while (!done) { if (atomicCAS(&lock, 0, 1) == 0) { count = count + 1; __threadfence_block(); atomicExch(&lock, 0); done = true; } }
        __syncthreads(); out[i] = count;
    }"""
    )
    assert one(source, {}, 64, 1, 64, budget=20_000_000).tolist() == [64] * 64


def test_a_grid_barrier_in_a_cooperative_launch():
    source = """extern "C" __global__ void zero(int* count) { *count = 0; }
    extern "C" __global__ void k(int* count, int* s, int* out) {
        int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
        s[i] = i * 3; __threadfence(); __syncthreads();
        if (threadIdx.x == 0) { atomicAdd(count, 1); while (*(volatile int*)count < gridDim.x) {} __threadfence(); }
        __syncthreads(); out[i] = s[n - 1 - i];
    }"""
    launches = [launch("zero", 1, 1, ["count"]), replace(launch("k", 30, 64, ["count", "s", "out"]), cooperative=True)]
    scratch = [spec("count", 1, "int32"), spec("s", 1920, "int32")]
    execution = run(source, launches, {}, [spec("out", 1920, "int32")], scratch, sanitize=True)
    assert clean(execution)["out"].tolist() == [3 * (1919 - i) for i in range(1920)]


def test_blocks_may_wait_for_blocks_that_begin_later():
    # More blocks than run together at first: the early ones spin until the last one has raised the flag.
    source = """extern "C" __global__ void zero(int* flag) { *flag = 0; }
    extern "C" __global__ void k(int* flag, int* out) {
        if (threadIdx.x == 0) {
            if (blockIdx.x == gridDim.x - 1) atomicExch(flag, 1); else while (atomicAdd(flag, 0) == 0) {}
        }
        __syncthreads(); out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
    }"""
    launches = [launch("zero", 1, 1, ["flag"]), launch("k", 20, 1024, ["flag", "out"])]
    execution = run(source, launches, {}, [spec("out", 20480, "int32"), spec("flag", 1, "int32")], budget=10**9)
    assert bool((clean(execution)["out"] == 1).all())


def test_an_endless_loop_ends_with_the_budget():
    source = HEADER + "(int* out) { volatile int* p = out; p[0] = 0;\n while (p[0] == 0) {\n } out[1] = 1; }"
    execution = run(source, launch("k", 1, 32, ["out"]), {}, [spec("out", 2, "int32")], budget=100_000)
    assert [one.kind for one in execution.findings] == ["budget"]
    assert execution.findings[0].line == 2


def test_a_trap_is_a_finding_with_its_line():
    source = HEADER + "(int* out) {\n if (threadIdx.x == 5)\n __trap();\n out[threadIdx.x] = 1; }"
    execution = run(source, launch("k", 1, 32, ["out"]), {}, [spec("out", 32, "int32")])
    assert [(one.kind, one.line, one.thread) for one in execution.findings] == [("trap", 3, (5, 0, 0))]


def test_indices_in_three_dimensions():
    source = (
        HEADER
        + """(int* out) {
        int b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        out[b * 24 + t] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z + 1000 * threadIdx.x + 10000 * threadIdx.y + 100000 * threadIdx.z;
    }"""
    )
    got = one(source, {}, 24 * 24, (2, 3, 4), (4, 3, 2)).reshape(4, 3, 2, 2, 3, 4)
    bz, by, bx, tz, ty, tx = np.indices(got.shape)
    assert (got == bx + 10 * by + 100 * bz + 1000 * tx + 10000 * ty + 100000 * tz).all()
