"""`wgmma`: products of matrices in every layout, when their results are there, and what has to be ordered around them.

Layouts are written once more here, element by element, as the PTX ISA gives them ("Canonical Layouts"): strides between
rows and columns, then swizzling of the address. Random matrices give the right product only if every element is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.device.kit import build as build_of
from tests.device.kit import clean, compile_ptx, spec
from warpsmith.device.catalog import GPUS, gpu
from warpsmith.device.simulator import Simulator, explain
from warpsmith.errors import SimulatorError
from warpsmith.records import BoundLaunch, BoundPlan, Build, Execution

H100 = gpu("H100")
BYTES = {"tf32": 4, "f16": 2, "bf16": 2}
LEFT, RIGHT = 8192, 32768
"""Bytes of shared memory for A of a warpgroup and for B."""


def assembly(kind: str, n: int, a: str, turned: str, signs: str = "1, 1") -> str:
    """A function `NAME(d, a, b, add)`; `a` is `smem` or `regs`, `turned` such as "0, 1" (nothing for TF32)."""
    name = f"mma_{kind}_{n}_{a}_{turned.replace(', ', '')}_{signs.replace(', ', '').replace('-', 'm')}"
    k, count = 32 // BYTES[kind], n // 2
    operand = f"%{count}" if a == "smem" else "{" + ", ".join(f"%{count + i}" for i in range(4)) + "}"
    b = count + (1 if a == "smem" else 4)
    given = '"l"(a)' if a == "smem" else ", ".join(f'"r"(a[{i}])' for i in range(4))
    tail = f", {turned}" if turned else ""
    text = f"wgmma.mma_async.sync.aligned.m64n{n}k{k}.f32.{kind}.{kind} "
    text += "{" + ", ".join(f"%{i}" for i in range(count)) + f"}}, {operand}, %{b}, p, {signs}{tail};"
    results = ", ".join(f'"+f"(d[{i}])' for i in range(count))
    taken = "unsigned long long a" if a == "smem" else "const unsigned* a"
    return (
        f"__device__ __forceinline__ void {name}(float* d, {taken}, unsigned long long b, int add) {{\n"
        f'asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{b + 1}, 0; {text} }}" : {results} : {given}, "l"(b), "r"(add)); }}\n'
    )


def name_of(kind: str, n: int, a: str, turned: str, signs: str = "1, 1") -> str:
    return assembly(kind, n, a, turned, signs).split("(")[0].split()[-1]


def kernel(kind: str, n: int, a: str, turned: str, signs: str = "1, 1") -> str:
    """Every warpgroup multiplies an A of its own by the block's B, in several steps along k."""
    k, packed = 32 // BYTES[kind], 4 // BYTES[kind]
    fragments = f"""unsigned f[4];
        for (int r = 0; r < 4; r++) f[r] = rows[((16 * w + g + r % 2 * 8) * {k} * steps + {k} * j) / {packed} + t + r / 2 * 4];
        ENTER """
    fetch = fragments if a == "regs" else ""
    return f"""
{assembly(kind, n, a, turned, signs)}
extern "C" __global__ void k_{name_of(kind, n, a, turned, signs)}(const uint4* as, const uint4* bs, const float* c, float* out,
        const unsigned* rows, int lead_a, int stride_a, int lead_b, int stride_b, int swizzle, int steps, int next_a, int next_b, int add) {{
    extern __shared__ __align__(1024) uint4 s[];
    const int own = threadIdx.x / 128, i = threadIdx.x % 128, group = blockIdx.x * 2 + own, w = i / 32, g = i % 32 / 4, t = i % 4;
    uint4 *left = s + own * {LEFT // 16}, *right = s + 2 * {LEFT // 16};
    c += group * 64 * {n}; out += group * 64 * {n}; rows += group * 64 * {k // packed} * steps;
    for (int e = i; e < {LEFT // 16}; e += 128) left[e] = as[group * {LEFT // 16} + e];
    for (int e = threadIdx.x; e < {RIGHT // 16}; e += 256) right[e] = bs[e];
    float d[{n // 2}];
    for (int r = 0; r < {n // 2}; r++) d[r] = c[(16 * w + g + r / 2 % 2 * 8) * {n} + r / 4 * 8 + 2 * t + r % 2];
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    unsigned long long da = describe(left, lead_a, stride_a, swizzle), db = describe(right, lead_b, stride_b, swizzle);
    #pragma unroll 1
    for (int j = 0; j < steps; j++) {{
        {fetch or "if (j == 0) { ENTER }"}
        {name_of(kind, n, a, turned, signs)}(d, {"f" if a == "regs" else "da + j * next_a"}, db + j * next_b, j || add);
        {"LEAVE" if a == "regs" else "if (j == steps - 1) { LEAVE }"}
    }}
    for (int r = 0; r < {n // 2}; r++) out[(16 * w + g + r / 2 % 2 * 8) * {n} + r / 4 * 8 + 2 * t + r % 2] = d[r];
}}"""


HEAD = """
#define ENTER asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#define LEAVE asm volatile("wgmma.commit_group.sync.aligned;\\n wgmma.wait_group.sync.aligned 0;" ::: "memory");
__device__ unsigned long long describe(const void* p, int lead, int stride, int swizzle) {
    return ((unsigned)__cvta_generic_to_shared(p) & 0x3FFFF) >> 4 | (unsigned long long)lead >> 4 << 16
        | (unsigned long long)stride >> 4 << 32 | (unsigned long long)swizzle << 62;
}
"""

FORMS = [
    ("bf16", 8, "smem", "0, 0"),
    ("f16", 64, "smem", "0, 0"),
    ("bf16", 256, "smem", "0, 0"),
    ("tf32", 24, "smem", ""),
    ("tf32", 128, "smem", ""),
    ("bf16", 72, "smem", "1, 1"),
    ("f16", 128, "smem", "0, 1"),
    ("f16", 8, "smem", "1, 0"),
    ("f16", 40, "regs", "0"),
    ("bf16", 136, "regs", "1"),
    ("tf32", 16, "regs", ""),
]
SIGNED = ("bf16", 8, "smem", "0, 0", "-1, 1")
SWIZZLES = {0: 0, 128: 1, 64: 2, 32: 3}


def compiled(source: str) -> Build:
    return build_of(compile_ptx(source, "compute_90a"))


@pytest.fixture(scope="module")
def build() -> Build:
    return compiled(HEAD + "".join(kernel(*form) for form in (*FORMS, SIGNED)))


def encoded(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Elements as unsigned integers, and what a tensor core takes them for, float64."""
    if kind == "f16":
        half = values.astype(np.float16)
        return half.view(np.uint16), half.astype(np.float64)
    bits = values.astype(np.float32).view(np.uint32)
    if kind == "tf32":
        return bits, (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return (bits >> 16).astype(np.uint16), (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Laid:
    """Where element (row, column) of a matrix stands: byte offsets before swizzling by `width` bytes."""

    element: int
    width: int
    transposed: bool
    lead: int
    stride: int

    def offsets(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        fit = 16 // self.element
        if self.transposed and self.width:
            wide = self.width // self.element
            at = row % wide * self.element + row // wide * self.lead
            return at + column % 8 * self.width + column // 8 * self.stride
        if self.transposed:
            return row % fit * self.element + row // fit * self.stride + column % 8 * 16 + column // 8 * self.lead
        if self.width:
            return row % 8 * self.width + row // 8 * self.stride + column * self.element
        return row % 8 * 16 + row // 8 * self.stride + column % fit * self.element + column // fit * self.lead

    def image(self, elements: np.ndarray, size: int) -> np.ndarray:
        """The matrix as bytes of shared memory; what it does not fill holds NaNs."""
        found = np.full(size // self.element, ~elements.dtype.type(0))
        at = self.offsets(*np.indices(elements.shape))
        if self.width:
            at ^= (at // 128 % 8 & self.width // 16 - 1) * 16
        assert len(np.unique(at)) == elements.size
        found[at // self.element] = elements
        return found.view(np.int32)


def laid(kind: str, width: int, transposed: bool, rows: int, steps: int) -> tuple[Laid, int]:
    """A layout with strides that differ, and how far (in units of 16 bytes) the next step in k begins."""
    element, per_step = BYTES[kind], 32 // BYTES[kind]
    if transposed:
        if width:
            stride = 8 * width
            lead = stride * per_step // 8 * steps + stride
            return Laid(element, width, True, lead, stride), stride * per_step // 8 // 16
        lead = rows // 8 * 128 + 128
        return Laid(element, 0, True, lead, 128), lead * per_step // 8 // 16
    if width:
        return Laid(element, width, False, 16, 8 * width), 2
    return Laid(element, 0, False, 128, 128 * 2 * steps + 128), 2 * 128 // 16


def multiplied(build: Build, form: tuple[str, ...], width: int, steps: int, add: bool, **options: bool):
    """Run one kernel; return the execution, what is due in float64, and the sum of magnitudes."""
    kind, n, a, turned = form[:4]
    sign = -1 if form[4:] else 1
    k, flags = 32 // BYTES[kind] * steps, turned.split(", ") if turned else ["0", "0"]
    rng = np.random.default_rng(n + width)
    left, x = encoded(rng.standard_normal((4, 64, k)), kind)
    right, y = encoded(rng.standard_normal((n, k)), kind)
    c = rng.standard_normal((4, 64, n)).astype(np.float32)
    of_a, next_a = laid(kind, width, a == "smem" and flags[0] == "1", 64, steps)
    of_b, next_b = laid(kind, width, flags[-1] == "1", n, steps)
    inputs = {
        "a": np.concatenate([of_a.image(one, LEFT) for one in left]) if a == "smem" else np.zeros(LEFT, np.int32),
        "b": of_b.image(right, RIGHT),
        "c": c,
        "rows": np.ascontiguousarray(left).view(np.int32),
    }
    strides = of_a.lead, of_a.stride, of_b.lead, of_b.stride, SWIZZLES[width]
    args = "a", "b", "c", "out", "rows", *strides, steps, next_a, next_b, int(add)
    one = BoundLaunch(f"k_{name_of(*form)}", (2, 1, 1), (256, 1, 1), 2 * LEFT + RIGHT, args)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    execution = Simulator(H100).run(
        build, BoundPlan((), (one,)), tensors, [spec("out", (4, 64, n))], fill=1, **{"sanitize": True, **options}
    )
    due = sign * x @ y.T + (c if add else 0)
    return execution, due, np.abs(x) @ np.abs(y).T + np.abs(c)


@pytest.mark.parametrize("width", SWIZZLES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form)))
def test_products_of_matrices_in_every_layout(build: Build, form: tuple[str, ...], width: int) -> None:
    kind, n = form[:2]
    # Where no row ends at the width of swizzling, two steps along k are enough to see how far apart they are.
    all_transposed = form[3] == "1, 1" or form[2:] == ("regs", "1")
    steps = 2 if width == 0 or all_transposed else width // 32
    execution, due, scale = multiplied(build, form, width, steps, add=True, sanitize=width == 128, count=width == 128)
    got = clean(execution)["out"].numpy().astype(np.float64)
    assert (np.abs(got - due) <= scale * steps * 2.0**-24).all()
    for counted in execution.counters:
        assert counted.tensor == ((kind, 4 * 64 * n * 32 // BYTES[kind] * steps),)
        assert dict(counted.issued)["tensor"] == 16 * steps


def test_without_adding_accumulators_do_not_matter_and_signs_do(build: Build) -> None:
    for form in (FORMS[0], SIGNED):
        execution, due, _ = multiplied(build, form, 128, 1, add=False)
        got = clean(execution)["out"].numpy()
        np.testing.assert_array_equal(got, due.astype(np.float32))


def test_what_descriptors_read_is_counted_as_traffic_of_shared_memory(build: Build) -> None:
    ways = [multiplied(build, FORMS[1], 128, steps, add=True, sanitize=False)[0].counters[0] for steps in (1, 4)]
    # Three more products of 4 warpgroups, each of 64 + 64 rows of 32 bytes, at 128 bytes a clock.
    assert ways[1].shared_wavefronts - ways[0].shared_wavefronts == 3 * 4 * (64 + 64) * 32 // 128


@pytest.mark.parametrize(("name", "teraflops"), [("H100", 989), ("H200", 989)])
def test_products_are_charged_at_the_dense_peak(build: Build, name: str, teraflops: float) -> None:
    counted = multiplied(build, FORMS[1], 128, 4, add=True, sanitize=False)[0].counters
    one = BoundLaunch(f"k_{name_of(*FORMS[1])}", (2, 1, 1), (256, 1, 1), 2 * LEFT + RIGHT, ())
    (launched,) = explain(build, BoundPlan((), (one,)), counted, GPUS[name])
    # Two blocks, so that the busiest multiprocessor does half of the work.
    due = 2 * (2 * 64 * 64 * 64) * GPUS[name].sm_count / (teraflops * 1e12)
    assert dict(launched.resources)["tensor"] == pytest.approx(due, rel=0.01)


def test_programs_are_compiled_for_the_architecture_that_has_it() -> None:
    assert {name: Simulator(gpu(name)).architecture for name in ("H100", "A100", "RTX 4090", "B200")} == {
        "H100": "sm_90a",
        "A100": "sm_80",
        "RTX 4090": "sm_89",
        "B200": "sm_100a",
    }


# ------------------------------------------------------------------------------------------- a product in many tiles

# x (128 by k) times y (64 by k), transposed, in bfloat16: tiles of 64 in k, swizzled by 128 bytes, two of them in
# shared memory; two warpgroups, each with half of x. Line 1 is the first line of the string.
TILED = (
    """__device__ unsigned long long describe(const void* p) {
    return ((unsigned)__cvta_generic_to_shared(p) & 0x3FFFF) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
__device__ void copy(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
"""
    + assembly("bf16", 64, "smem", "0, 0")
    + """extern "C" __global__ void tiled(const uint4* x, const uint4* y, float* out, int k) {
    __shared__ __align__(1024) uint4 left[2][128][8], right[2][64][8];
    const int i = threadIdx.x, own = i / 128, w = i % 128 / 32, g = i % 32 / 4, t = i % 4;
    float d[32] = {};
    auto fetch = [&](int tile) {
        for (int e = i; e < 1024; e += 256) copy(&left[tile % 2][e / 8][e % 8 ^ e / 8 % 8], x + e / 8 * (k / 8) + tile * 8 + e % 8);
        for (int e = i; e < 512; e += 256) copy(&right[tile % 2][e / 8][e % 8 ^ e / 8 % 8], y + e / 8 * (k / 8) + tile * 8 + e % 8);
    };
    fetch(0); asm volatile("cp.async.commit_group;");
    #pragma unroll 1
    for (int tile = 0; tile < k / 64; tile++) {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        if (tile + 1 < k / 64) fetch(tile + 1);
        asm volatile("cp.async.commit_group;");
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int j = 0; j < 4; j++) {
            mma_bf16_64_smem_00_11(d, describe(left[tile % 2][own * 64]) + 2 * j, describe(right[tile % 2]) + 2 * j, tile + j);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    for (int r = 0; r < 32; r++)
        out[(own * 64 + 16 * w + g + r / 2 % 2 * 8) * 64 + r / 4 * 8 + 2 * t + r % 2] = d[r];
}"""
)


def line_of(source: str, text: str, nth: int = 0) -> int:
    return [number for number, line in enumerate(source.split("\n"), 1) if text in line][nth]


def changed(old: str, new: str = "", nth: int = 0) -> str:
    """The tiled product with one line changed, so that others keep their numbers."""
    lines = TILED.split("\n")
    at = line_of(TILED, old, nth) - 1
    lines[at] = lines[at].replace(old, new)
    return "\n".join(lines)


def tiled(source: str, k: int = 256, **options: bool) -> tuple[Execution, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    (left, x), (right, y) = (encoded(rng.standard_normal((rows, k)), "bf16") for rows in (128, 64))
    inputs = {"x": torch.from_numpy(left.view(np.int16)), "y": torch.from_numpy(right.view(np.int16))}
    one = BoundLaunch("tiled", (1, 1, 1), (256, 1, 1), 0, ("x", "y", "out", k))
    execution = Simulator(H100).run(
        compiled(source),
        BoundPlan((), (one,)),
        inputs,
        [spec("out", (128, 64))],
        fill=1,
        **{"sanitize": True, **options},
    )
    return execution, x @ y.T, np.abs(x) @ np.abs(y).T


def test_a_tiled_product_with_copies_on_their_way() -> None:
    execution, due, scale = tiled(TILED)
    assert (np.abs(clean(execution)["out"].numpy() - due) <= scale * 2.0**-20).all()


def test_products_may_stay_on_their_way_while_the_next_are_issued() -> None:
    # The next tile is fetched only once the products that read its place have been waited for.
    source = changed('"wgmma.wait_group.sync.aligned 0;"', '"wgmma.wait_group.sync.aligned 1;"')
    source = source.replace("        if (tile + 1 < k / 64) fetch(tile + 1);\n", "\n", 1)
    source = source.replace(
        "    }\n    for (int r",
        '        __syncthreads(); if (tile + 2 < k / 64) fetch(tile + 2); asm volatile("cp.async.commit_group;");\n    }\n'
        '    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");\n    for (int r',
    )
    source = source.replace("fetch(0); asm", 'fetch(0); asm volatile("cp.async.commit_group;"); fetch(1); asm')
    source = source.replace("left[2]", "left[3]").replace("right[2]", "right[3]").replace("tile % 2", "tile % 3")
    execution, due, scale = tiled(source)
    assert (np.abs(clean(execution)["out"].numpy() - due) <= scale * 2.0**-20).all()


@pytest.mark.parametrize(
    ("old", "nth", "new", "at", "said"),
    [
        ("cp.async.wait_group 0;", 0, "// no wait", "asm volatile(\"{", "a copy to it is on its way"),
        ("__syncthreads();", 0, "", 'asm volatile("{', "a barrier must follow the write"),
        ("fence.proxy.async.shared::cta;", 0, "// no fence", 'asm volatile("{', "fence.proxy.async must follow"),
        ("wgmma.wait_group.sync.aligned 0;", 0, "// no wait", "cp.async.cg", "must wait (wgmma.wait_group)"),
        ("wgmma.wait_group.sync.aligned 0;", 0, "// no wait", "out[(own", "reads a register whose result is on its way"),
        ("wgmma.commit_group.sync.aligned;", 0, "// no group", "out[(own", "reads a register whose result is on its way"),
        ("wgmma.fence.sync.aligned;", 0, "// no fence", 'asm volatile("{', "before the first wgmma"),
    ],
)  # fmt: skip
def test_each_thing_that_orders_products_is_needed(old: str, nth: int, new: str, at: str, said: str) -> None:
    execution, _, _ = tiled(changed(old, new, nth))
    found = [one for one in execution.findings if said in one.message]
    assert line_of(TILED, at) in {one.line for one in found}, execution.findings


def test_a_result_that_nobody_waited_for_is_no_number() -> None:
    execution, _, _ = tiled(changed("wgmma.wait_group.sync.aligned 0;", "// no wait"), sanitize=False)
    assert execution.findings == () and torch.isnan(execution.outputs["out"]).all()


# ------------------------------------------------------------------------------------------------------ small kernels

SMALL = """
extern "C" __global__ void small(const uint4* x, float* out, int n) {
    __shared__ __align__(1024) uint4 s[256]; const int i = threadIdx.x; float d[4] = {}, e[4] = {}; unsigned a[4] = {};
    for (int j = i; j < 256; j += blockDim.x) s[j] = x[j];
    asm volatile("fence.proxy.async;" ::: "memory"); __syncthreads();
    const unsigned long long m = describe(s, 128, 256, 0);
    BODY
    for (int r = 0; r < 4; r++) out[4 * i + r] = d[r] + e[r] + __uint_as_float(a[r]);
}"""
MMA = "mma_f16_8_smem_00_11"
BOTH = HEAD + assembly("f16", 8, "smem", "0, 0") + assembly("f16", 8, "regs", "0")


def small(body: str, threads: int = 128, n: int = 0, **options: bool) -> Execution:
    values = np.random.default_rng(1).standard_normal(2048).astype(np.float16)
    inputs = {"x": torch.from_numpy(values.view(np.int16))}
    one = BoundLaunch("small", (1, 1, 1), (threads, 1, 1), 0, ("x", "out", n))
    build = compiled(BOTH + SMALL.replace("BODY", body))
    return Simulator(H100).run(
        build, BoundPlan((), (one,)), inputs, [spec("out", 4 * threads)], fill=1, **{"sanitize": True, **options}
    )


GROUP = 'asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");'


def wait(left: int) -> str:
    return f'asm volatile("wgmma.wait_group.sync.aligned {left};" ::: "memory");'


def test_warpgroups_may_take_different_ways() -> None:
    ways = "if (i / 128 % 2) { if (i % 32 < 8) d[0] = n; ENTER MMA(d, m, m, 1); LEAVE } else { ENTER MMA(d, m, m, 0); LEAVE }"
    together = clean(small("ENTER MMA(d, m, m, 0); LEAVE".replace("MMA", MMA), 256))["out"]
    assert torch.equal(clean(small(ways.replace("MMA", MMA), 256))["out"], together)


def test_results_survive_that_threads_part_and_meet_before_the_wait() -> None:
    body = (
        f"ENTER {MMA}(d, m, m, 0); {GROUP} if (i % 64 < 16) a[0] = __float_as_uint(x[i].x * 1.0f); {wait(0)} a[0] = 0;"
    )
    plain = clean(small(f"ENTER {MMA}(d, m, m, 0); LEAVE", 256))["out"]
    assert torch.equal(clean(small(body, 256))["out"], plain) and plain.abs().max() > 0.1


def test_a_wait_that_leaves_some_settles_the_older_ones() -> None:
    body = f"ENTER {MMA}(d, m, m, 0); {GROUP} {MMA}(e, m + 2, m, 0); {GROUP} {wait(1)}\n d[0] += 1; %s\n {wait(0)}"
    clean(small(body % ""))
    found = small(body % "e[0] += 1;").findings
    assert [(one.kind, one.line) for one in found] == [("uninitialised", line_of(SMALL, "BODY") + 1 + BOTH.count("\n"))]
    assert "reads a register whose result is on its way" in found[0].message


def test_one_result_is_used_while_another_product_is_on_its_way() -> None:
    """As attention does. The compiler computes `q` in the registers of `a` before the wait, which is not our mistake."""
    body = """float o[4] = {}; unsigned q[4];
    #pragma unroll 1
    for (int j = 0; j < 3; j++) { ENTER SMEM(d, m, m, 0); GROUP REGS(o, a, m, 1); GROUP WAIT1
        for (int r = 0; r < 4; r++) { e[r] += d[r] * 0.25f; q[r] = __float_as_uint(d[r]) >> 3 & 0x2fff2fff; } WAIT0
        for (int r = 0; r < 4; r++) a[r] = q[r]; }
    for (int r = 0; r < 4; r++) { d[r] = o[r]; a[r] = 0; }"""
    body = body.replace("SMEM", MMA).replace("REGS", "mma_f16_8_regs_0_11").replace("GROUP", GROUP)
    results = [clean(small(body.replace("WAIT1", wait(first)).replace("WAIT0", wait(0))))["out"] for first in (0, 1)]
    assert torch.equal(*results) and results[0].abs().max() > 1


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ("d[0] *= 2;", "with no wgmma.fence since"),
        ("d[0] *= 2; ENTER", ""),
        ("", ""),
        ("e[0] = d[0] * 2;", ""),
    ],
)
def test_registers_that_are_computed_between_products_need_a_fence(between: str, said: str) -> None:
    found = small(f"ENTER {MMA}(d, m, m, 0); LEAVE {between} {MMA}(d, m, m, 1); LEAVE").findings
    assert bool(found) == bool(said) and all(said in one.message for one in found), found


def test_accumulators_of_another_shape_must_be_waited_for() -> None:
    body = f"float w[8] = {{}}; ENTER mma_f16_16_smem_00_11(w, m, m, 0); for (int r = 0; r < 4; r++) d[r] = w[r]; {MMA}(d, m, m, 1); LEAVE"
    source = assembly("f16", 16, "smem", "0, 0")
    build = compiled(BOTH + source + SMALL.replace("BODY", body))
    one = BoundLaunch("small", (1, 1, 1), (128, 1, 1), 0, ("x", "out", 0))
    inputs = {"x": torch.zeros(2048, dtype=torch.int16)}
    found = (
        Simulator(H100).run(build, BoundPlan((), (one,)), inputs, [spec("out", 512)], fill=1, sanitize=True).findings
    )
    assert any("reads a register whose result is on its way" in one.message for one in found), found


@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize(
    ("body", "threads", "here"),
    [
        ("if (i % 2) { MMA(d, m, m, 0); }", 128, "64"),
        ("if (i < 96) { MMA(d, m, m, 0); }", 128, "96"),
        ("if (i >= 64 && i < 192) { MMA(d, m, m, 0); }", 256, "64"),
        ("MMA(d, m, m, 0);", 192, "64"),
    ],
)
def test_a_part_of_a_warpgroup_cannot_multiply(body: str, threads: int, here: str, sanitize: bool) -> None:
    found = small("ENTER " + body.replace("MMA", MMA) + " LEAVE", threads, sanitize=sanitize).findings[-1]
    assert found.kind == "barrier_divergence"
    assert f"needs all 128 threads of the warpgroup; {here} execute it" in found.message


def test_warps_that_come_later_are_waited_for() -> None:
    body = f"ENTER if (i / 32 == 1) {{ for (int j = 0; j < 9; j++) a[0] += x[j].x & n; }} {MMA}(d, m, m, 0); LEAVE"
    plain = clean(small(f"ENTER {MMA}(d, m, m, 0); LEAVE"))["out"]
    assert torch.equal(clean(small(body))["out"], plain)


@pytest.mark.parametrize(
    ("left", "right", "kind", "said"),
    [
        ("m + i % 2", "m", "barrier_divergence", "disagree on the descriptor of A"),
        ("m", "m + (4096 >> 4)", "out_of_bounds", "bytes of B at offset 4096 of shared memory, which has 4096"),
        ("describe(s + 8, 16, 512, 1)", "m", "misaligned", "must begin at a multiple of 1024"),
        ("describe(s + 4, 16, 512, 2)", "m", "misaligned", "must begin at a multiple of 512"),
        ("m", "describe(s + 2, 16, 256, 3)", "misaligned", "B begins at offset 32"),
    ],
)
def test_descriptors_are_checked(left: str, right: str, kind: str, said: str) -> None:
    found = small(f"ENTER {MMA}(d, {left}, {right}, 0); LEAVE", sanitize=False).findings
    assert [one.kind for one in found] == [kind] and said in found[0].message, found


def test_what_is_not_simulated_is_named() -> None:
    with pytest.raises(SimulatorError, match="base offset is not simulated"):
        small(f"ENTER {MMA}(d, describe(s, 16, 256, 1) | 1ull << 49, m, 0); LEAVE")
    half = 'asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%0, %1}, %2, %2, 1, 1, 1, 0, 0;" '
    with pytest.raises(SimulatorError, match=r"m64n8k16\.f16\.f16\.f16.*unknown form of wgmma"):
        small("ENTER " + half + ': "+r"(a[0]), "+r"(a[1]) : "l"(m)); LEAVE')


def test_shared_memory_that_nobody_wrote_is_reported() -> None:
    body = f"__shared__ __align__(16) uint4 u[64]; ENTER {MMA}(d, m, describe(u, 128, 256, 0), 0); LEAVE"
    (found,) = small(body).findings
    assert found.kind == "uninitialised" and "which nobody has written" in found.message


FENCE = 'asm volatile("fence.proxy.async.shared::cta;" ::: "memory");'


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (f"{FENCE} __syncthreads();", False),
        (f"__syncthreads(); {FENCE}", False),
        (f"__syncthreads(); if (i == 5) {FENCE} __syncthreads();", False),
        ("__syncthreads();", True),
        (f"__syncthreads(); if (i == 5) {FENCE}", True),
        (f"if (i == 5) {FENCE} __syncthreads();", True),
    ],
)
def test_where_a_proxy_fence_may_stand(order: str, found: bool) -> None:
    body = f"__syncthreads(); s[i] = x[i + 1]; {order} ENTER {MMA}(d, m, m, 0); LEAVE"
    findings = small(body).findings
    assert bool(findings) == found and all("fence.proxy.async" in one.message for one in findings), findings


def test_a_warpgroup_may_write_again_to_what_it_has_read() -> None:
    body = f"ENTER {MMA}(d, m, m, 0); LEAVE s[i] = x[i];"
    clean(small(body))
    found = small(body, 256).findings
    assert {one.kind for one in found} == {"shared_race"}


def test_one_thread_is_elected_and_registers_may_be_asked_for() -> None:
    body = """asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    asm volatile("{ .reg .pred p; elect.sync %0|p, 0xffffffff; selp.u32 %1, 1, 0, p; }" : "=r"(a[0]), "=r"(a[1]));
    d[0] = a[0] * 100 + a[1]; a[0] = a[1] = 0;"""
    lane, elected = np.divmod(clean(small(body))["out"].numpy().reshape(4, 32, 4)[:, :, 0], 100)
    assert (elected.sum(axis=1) == 1).all() and (lane == elected.argmax(axis=1)[:, None]).all()
