"""Asynchronous copies: when their bytes are there, who may touch them before, and a matrix product built on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.device.kit import GPU, build, clean, compile_ptx, launch, run, spec
from warpsmith.device.simulator import explain
from warpsmith.records import BoundPlan

# A product of float32 matrices, x (m by k) and y (k by n): tiles of 32 by 32, 16 deep, two of them in shared memory.
# Four warps, each with a quarter of 16 by 16. Every float is the sum of two TF32 numbers; of their four products the
# least is left out. Line 1 is the first line of the string.
PRODUCT = """__device__ unsigned tf32(float x) { unsigned bits; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x)); return bits; }
__device__ void copy(float* to, const float* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
__device__ void mma(float* c, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
extern "C" __global__ void product(const float* x, const float* y, float* out, int n, int k) {
    __shared__ __align__(16) float left[2][32][20], right[2][16][40];
    const int i = threadIdx.x, g = i % 32 / 4, t = i % 4, row = i / 64 * 16, column = i / 32 % 2 * 16;
    x += blockIdx.y * 32 * k; y += blockIdx.x * 32; out += blockIdx.y * 32 * n + blockIdx.x * 32;
    float c[2][4] = {};
    auto fetch = [&](int tile) {
        copy(&left[tile % 2][i / 4][i % 4 * 4], x + i / 4 * k + tile * 16 + i % 4 * 4);
        copy(&right[tile % 2][i / 8][i % 8 * 4], y + (tile * 16 + i / 8) * n + i % 8 * 4);
    };
    fetch(0); asm volatile("cp.async.commit_group;");
    for (int tile = 0; tile < k / 16; tile++) {
        if (tile + 1 < k / 16) fetch(tile + 1);
        asm volatile("cp.async.commit_group;");
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads();
        for (int d = 0; d < 16; d += 8) {
            unsigned a[2][4], b[2][2][2];
            for (int e = 0; e < 4; e++) {
                const float v = left[tile % 2][row + g + e % 2 * 8][d + t + e / 2 * 4];
                a[0][e] = tf32(v); a[1][e] = tf32(v - __uint_as_float(a[0][e]));
            }
            for (int e = 0; e < 4; e++) {
                const float v = right[tile % 2][d + t + e % 2 * 4][column + e / 2 * 8 + g];
                b[0][e / 2][e % 2] = tf32(v); b[1][e / 2][e % 2] = tf32(v - __uint_as_float(b[0][e / 2][e % 2]));
            }
            for (int half = 0; half < 2; half++) {
                mma(c[half], a[1], b[0][half]);
                mma(c[half], a[0], b[1][half]);
                mma(c[half], a[0], b[0][half]);
            }
        }
        __syncthreads();
    }
    for (int e = 0; e < 8; e++) out[(row + g + e % 4 / 2 * 8) * n + column + e / 4 * 8 + 2 * t + e % 2] = c[e / 4][e % 4];
}"""

M, N, K = 64, 96, 80


def multiplied(source: str, **options: bool):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((M, K), (K, N)))
    one = launch("product", (N // 32, M // 32), 128, ["x", "y", "out", N, K])
    inputs = {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}
    return run(source, one, inputs, [spec("out", (M, N))], **{"sanitize": True, **options}), x, y


def without(line: int, old: str, new: str = "") -> str:
    """Change one line of the product, so that others keep their numbers."""
    lines = PRODUCT.split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    return "\n".join(lines)


def worst(got: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    scale = np.abs(x).astype(np.float64) @ np.abs(y).astype(np.float64)
    return float((np.abs(got - x.astype(np.float64) @ y.astype(np.float64)) / scale).max())


def test_a_product_of_split_floats_is_as_accurate_as_float32() -> None:
    execution, x, y = multiplied(PRODUCT)
    got = clean(execution)["out"].numpy()
    assert worst(got, x, y) < 2.0**-22
    assert execution.counters[0].tensor == (("tf32", 3 * M * N * K),)
    coarse, _, _ = multiplied(
        "\n".join("" if "a[1], b[0]" in one or "a[0], b[1]" in one else one for one in PRODUCT.split("\n"))
    )
    assert worst(clean(coarse)["out"].numpy(), x, y) > 2.0**-14


@pytest.mark.parametrize(
    ("line", "old", "new", "read"),
    [
        (22, "cp.async.wait_group 1;", "// no wait;", {27, 31}),
        (22, "wait_group 1", "wait_group 2", {27, 31}),
        (23, "__syncthreads();", "", {27, 31}),
        (40, "__syncthreads();", "", {3}),
        (21, "cp.async.commit_group;", "// no group;", {27, 31}),
    ],
)
def test_each_thing_that_orders_copies_is_needed(line: int, old: str, new: str, read: set[int]) -> None:
    execution, _, _ = multiplied(without(line, old, new))
    assert {one.kind for one in execution.findings} == {"shared_race"}
    assert {one.line for one in execution.findings} & read


def test_a_read_that_does_not_wait_names_the_copy_and_gets_no_numbers() -> None:
    source = without(22, "cp.async.wait_group 1;", "// no wait;")
    message = multiplied(source)[0].findings[0].message
    assert "a copy to it is on its way" in message and "in line 3" in message and "cp.async.wait_group" in message
    execution, _, _ = multiplied(source, sanitize=False)
    assert torch.isnan(execution.outputs["out"]).all()


# --------------------------------------------------------------------------------------------------- small kernels

HEAD = """#include <cuda_pipeline.h>
extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ __align__(16) float s[256]; const int i = threadIdx.x; const unsigned to = __cvta_generic_to_shared(s);
"""


def small(body: str, n: int = 64, **options: bool):
    x = torch.arange(1, 65, dtype=torch.float32)
    return run(
        HEAD + body + "\n}",
        launch("k", 1, 32, ["x", "out", n]),
        {"x": x},
        [spec("out", 64)],
        **{"sanitize": True, **options},
    )


def copied(offset: str, source: str, size: str) -> str:
    return f'asm volatile("cp.async.ca.shared.global [%0], [%1], {size};" :: "r"(to + {offset}), "l"({source}), "r"(n) : "memory");'


WAIT = 'asm volatile("cp.async.wait_all;" ::: "memory");'


@pytest.mark.parametrize(("size", "words"), [(4, 1), (8, 2), (16, 4)])
def test_copies_of_every_size_and_what_they_fill_with_zeros(size: int, words: int) -> None:
    body = f"const int j = i % 8; if (i < 8) {{ {copied(f'j * {size}', f'x + j * {words}', f'{size}, %2')} }}\n{WAIT} __syncthreads();\n"
    body += f"for (int j = i; j < 64; j += 32) out[j] = j < {8 * words} ? s[j] : -1;"
    for kept in (0, size // 2, size):
        got = clean(small(body, kept))["out"].numpy()
        raw = np.arange(1, 8 * words + 1, dtype=np.float32).view(np.uint8).reshape(8, size).copy()
        raw[:, kept:] = 0
        assert got.tobytes() == raw.tobytes() + np.full(64 - 8 * words, -1, np.float32).tobytes()


def test_the_functions_of_the_cuda_header() -> None:
    body = """for (int j = 0; j < 2; j++) { __pipeline_memcpy_async(s + i + 32 * j, x + i + 32 * j, 4); __pipeline_commit(); }
    __pipeline_wait_prior(1); out[i] = s[i] * 2;
    __pipeline_wait_prior(0); out[i + 32] = s[i + 32];"""
    assert clean(small(body))["out"].tolist() == [2.0 * i if i <= 32 else i for i in range(1, 65)]
    (found,) = small(body.replace("prior(0)", "prior(1)")).findings
    assert (found.kind, found.line) == ("shared_race", 6)


def test_a_group_belongs_to_the_thread_that_committed_it() -> None:
    body = f"""{copied("4 * i", "x + i", "4")} asm volatile("cp.async.commit_group;");
    if (i < 16) {{ {copied("4 * i + 128", "x + i", "4")} asm volatile("cp.async.commit_group;"); }}
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    out[i] = i < 16 ? s[i] : 0;"""
    assert clean(small(body + " out[i + 32] = 0;"))["out"].tolist() == [
        float(i + 1) if i < 16 else 0.0 for i in range(64)
    ]
    (found,) = small(body.replace("i < 16 ? s[i] : 0", "s[i]")).findings
    assert (found.kind, found.line, found.thread) == ("shared_race", 7, (16, 0, 0))


def test_writing_to_what_is_being_copied_to_is_a_race() -> None:
    (found,) = small(f"{copied('4 * i', 'x + i', '4')}\ns[i] = 1; {WAIT}").findings
    assert (found.kind, found.line) == ("shared_race", 5) and "writes shared memory" in found.message
    (found,) = small(f"{copied('4 * (i / 2)', 'x + i', '4')}").findings
    assert (found.kind, found.line) == ("shared_race", 4)


@pytest.mark.parametrize(
    ("offset", "source", "kind"),
    [
        ("16 * i", "x + 4 * i", "out_of_bounds"),
        ("1024 + 16 * i", "x", "out_of_bounds"),
        ("4 * i", "x", "misaligned"),
        ("16 * i", "x + i", "misaligned"),
    ],
)
def test_places_are_checked_when_a_copy_is_issued(offset: str, source: str, kind: str) -> None:
    (found,) = small(copied(offset, source, "16"), sanitize=False).findings
    assert (found.kind, found.line) == (kind, 4)


def test_a_source_of_no_bytes_may_lie_anywhere_but_not_one_of_too_many() -> None:
    body = f"{copied('16 * i', 'x + 1000 * i', '16, %2')} {WAIT} __syncthreads(); out[i] = s[4 * i]; out[i + 32] = 0;"
    assert not clean(small(body, 0))["out"].any()
    (found,) = small(body, 4).findings
    assert found.kind == "out_of_bounds"
    (found,) = small(copied("16 * i", "x", "16, %2"), 20).findings
    assert found.kind == "out_of_bounds" and "copies 20 bytes by a copy of 16" in found.message


def test_copies_count_as_reads_and_are_waited_for_where_all_groups_are() -> None:
    loop = 'for (int j = 0; j < 8; j++) { %s asm volatile("cp.async.commit_group;");\n %s __syncthreads(); out[i] = s[i]; __syncthreads(); }'
    source = loop % (
        copied("4 * i + 128 * (j & 1)", "x + i", "4"),
        'asm volatile("cp.async.wait_group LEFT;" ::: "memory");',
    )
    waiting, ahead = (small(source.replace("LEFT", str(left)), sanitize=False).counters[0] for left in (0, 1))
    assert waiting.global_load_requests == ahead.global_load_requests == 8
    assert waiting.unique_load_bytes == 128
    assert (waiting.chained_reads, ahead.chained_reads) == (8, 0)
    one = launch("k", 1, 32, ["x", "out", 64])
    built = build(compile_ptx('extern "C" __global__ void k() {}'))
    times = [
        dict(explain(built, BoundPlan((), (one,)), [counted], GPU)[0].resources)["latency"]
        for counted in (waiting, ahead)
    ]
    assert times[0] > 2 * times[1]
