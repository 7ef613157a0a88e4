"""Tensor cores: `mma` in every form, `ldmatrix`, and what a warp that is not whole does to them.

The fragments are laid out by the formulas of the PTX ISA, written once more in the kernels; a product of random
matrices comes out right only if every element is where it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from tests.device.kit import clean, launch, spec
from warpsmith.device.catalog import GPUS, gpu
from warpsmith.device.simulator import Simulator, explain
from warpsmith.errors import SimulatorError
from warpsmith.program import Builder
from warpsmith.records import BoundLaunch, BoundPlan, Build, Execution, Plan, Program

WARPS = 6
# Row and column of element i of a thread, by group g and member t of the group.
LAYOUTS = {
    ("b32", 4): ("i % 2 ? g + 8 : g", "t", "t"),
    ("b32", 8): ("i % 2 ? g + 8 : g", "i < 2 ? t : t + 4", "i == 0 ? t : t + 4"),
    ("b16", 8): ("i < 2 ? g : g + 8", "2 * t + (i & 1)", "2 * t + i"),
    ("b16", 16): (
        "i < 2 || (i >= 4 && i < 6) ? g : g + 8",
        "i < 4 ? 2 * t + (i & 1) : 2 * t + (i & 1) + 8",
        "i < 2 ? 2 * t + (i & 1) : 2 * t + (i & 1) + 8",
    ),
}
FORMS = [
    ("tf32", 4, "f32"),
    ("tf32", 8, "f32"),
    ("f16", 8, "f32"),
    ("f16", 16, "f32"),
    ("bf16", 8, "f32"),
    ("bf16", 16, "f32"),
    ("f16", 8, "f16"),
    ("f16", 16, "f16"),
]


def assembly(operands: str, k: int, accumulator: str) -> str:
    """Inline assembly of an instruction on arrays d, a, b and c of registers."""
    packed = 1 if operands == "tf32" else 2
    counts = (4 if accumulator == "f32" else 2, 16 * k // 32 // packed, 8 * k // 32 // packed)
    kinds = ("f" if accumulator == "f32" else "r", "r", "r", "f" if accumulator == "f32" else "r")
    number, fragments, values = 0, [], []
    for name, count, kind in zip("dabc", (*counts, counts[0]), kinds, strict=True):
        fragments.append("{" + ", ".join(f"%{number + i}" for i in range(count)) + "}")
        values.append(", ".join(f'"{"=" if name == "d" else ""}{kind}"({name}[{i}])' for i in range(count)))
        number += count
    text = f"mma.sync.aligned.m16n8k{k}.row.col.{accumulator}.{operands}.{operands}.{accumulator} "
    return f'asm volatile("{text}{", ".join(fragments)};" : {values[0]} : {", ".join(values[1:])});'


def product_kernel(operands: str, k: int, accumulator: str) -> str:
    """A kernel k(a, b, c, d) in which each warp multiplies matrices of its own, stored row after row."""
    wide = operands == "tf32"
    row, column, depth = LAYOUTS["b32" if wide else "b16", k]
    element, held = ("unsigned", "unsigned") if wide else ("unsigned short", "unsigned short")
    added = "float" if accumulator == "f32" else "unsigned short"
    of_a, of_b = 16 * k // 32, 8 * k // 32
    pack = "{0}[i] = {0}e[i];" if wide else "{0}[i / 2] = i % 2 ? {0}[i / 2] | {0}e[i] << 16 : {0}e[i];"
    registers = 4 if accumulator == "f32" else 2
    pack_c = "c[i] = ce[i];" if accumulator == "f32" else pack.format("c")
    take = "d[i]" if accumulator == "f32" else "(unsigned short)(d[i / 2] >> 16 * (i % 2))"
    held_c = "float" if accumulator == "f32" else "unsigned"
    return f"""
extern "C" __global__ void mma_{operands}_{k}_{accumulator}(
        const {element}* as, const {element}* bs, const {added}* cs, {added}* ds) {{
    const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    as += warp * {16 * k}; bs += warp * {8 * k}; cs += warp * 128; ds += warp * 128;
    {held} ae[{of_a}], be[{of_b}]; {added} ce[4]; unsigned a[{of_a}], b[{of_b}]; {held_c} c[{registers}], d[{registers}];
    for (int i = 0; i < {of_a}; i++) {{ ae[i] = as[({row}) * {k} + ({column})]; {pack.format("a")} }}
    for (int i = 0; i < {of_b}; i++) {{ be[i] = bs[({depth}) * 8 + g]; {pack.format("b")} }}
    for (int i = 0; i < 4; i++) {{ ce[i] = cs[(i < 2 ? g : g + 8) * 8 + 2 * t + (i & 1)]; {pack_c} }}
    {assembly(operands, k, accumulator)}
    for (int i = 0; i < 4; i++) ds[(i < 2 ? g : g + 8) * 8 + 2 * t + (i & 1)] = {take};
}}"""


def loading_kernel(count: int, transposed: bool) -> str:
    """A kernel that loads matrices of 16-bit elements, 8 by 8, and writes each thread's registers."""
    targets = ", ".join(f"%{i}" for i in range(count))
    return f"""
extern "C" __global__ void load_{count}{"_trans" if transposed else ""}(const unsigned short* x, unsigned* out) {{
    __shared__ __align__(16) unsigned short s[{count}][8][24]; const int i = threadIdx.x, j = i / 8 % {count};
    for (int e = i; e < {64 * count}; e += 32) s[e / 64][e / 8 % 8][8 + e % 8] = x[e];
    __syncthreads();
    const unsigned from = __cvta_generic_to_shared(s[j][i % 8]); unsigned r[{count}];
    asm volatile("ldmatrix.sync.aligned.m8n8.x{count}{".trans" if transposed else ""}.shared.b16 {{{targets}}}, [%{count} + 16];"
        : {", ".join(f'"=r"(r[{i}])' for i in range(count))} : "r"(from) : "memory");
    for (int n = 0; n < {count}; n++) out[i * {count} + n] = r[n];
}}"""


STAGED = """
extern "C" __global__ void staged(const unsigned short* x, const unsigned short* y, float* out) {
    __shared__ __align__(16) unsigned short left[16][24], right[16][8]; const int i = threadIdx.x, g = i / 4, t = i % 4;
    for (int e = i; e < 256; e += 32) left[e / 16][e % 16] = x[e];
    for (int e = i; e < 128; e += 32) right[e / 8][e % 8] = y[e];
    __syncthreads();
    const unsigned from = __cvta_generic_to_shared(&left[i % 16][i / 16 * 8]), to = __cvta_generic_to_shared(right[i % 16]);
    unsigned a[4], b[2]; float c[4] = {0, 0, 0, 0}, d[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(from) : "memory");
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(to) : "memory");
    MMA
    for (int n = 0; n < 4; n++) out[(g + n / 2 * 8) * 8 + 2 * t + n % 2] = d[n];
}"""

CONVERT = """
extern "C" __global__ void to_tf32(const float* x, unsigned* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out[i]) : "f"(x[i]));
}"""

# One source line for each line of the string: line 2 is the first of the body.
PART = """
extern "C" __global__ void part(const float* x, float* out, int mode) {
    __shared__ __align__(16) unsigned s[32]; const unsigned i = threadIdx.x, from = __cvta_generic_to_shared(s); unsigned a[4], b[2] = {0, 0}; float c[4], d[4] = {0, 0, 0, 0};
    for (int n = 0; n < 4; n++) { a[n] = __float_as_uint(x[i]); c[n] = x[i] + n; }
    if (i % 32 < 16) c[0] = c[1] * 2; else c[1] = c[0] * 3;
    if (mode == 0) { MMA }
    if (mode == 1 && i % 2) { MMA }
    if (mode == 2) { if (i < 40) return; MMA }
    if (mode == 3) { if (i % 32 < 16) { MMA } else { c[0] = 1; MMA } }
    if (mode == 4 && i < 8) asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(a[0]) : "r"(from) : "memory");
    if (mode == 5) asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(a[0]) : "r"(from + i % 8 * 8) : "memory");
    if (mode == 6) asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(a[0]), "=r"(a[1]) : "r"(from + i % 16 * 16) : "memory");
    if (mode == 7) { s[i ^ 1] = i; asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(a[0]) : "r"(from + i % 8 * 16) : "memory"); }
    if (mode == 8) asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(a[0]) : "r"(from + i % 8 * 16) : "memory");
    out[i] = d[0] + d[1] + d[2] + d[3] + __uint_as_float(a[0]);
}"""

WORK = """
extern "C" __global__ void work(const float* x, float* out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x; unsigned a[4], b[2]; float c[4] = {0, 0, 0, 0}, d[4];
    for (int n = 0; n < 4; n++) a[n] = __float_as_uint(x[i]);
    b[0] = b[1] = a[0];
    for (int n = 0; n < 10; n++) { MMA c[n % 4] += d[n % 4]; }
    out[i] = c[0] + c[1] + c[2] + c[3];
}"""

SOURCE = "#include <cuda_fp16.h>\n" + "".join(
    [
        *(product_kernel(*form) for form in FORMS),
        *(loading_kernel(count, transposed) for count in (1, 2, 4) for transposed in (False, True)),
        STAGED.replace("MMA", assembly("f16", 16, "f32")),
        CONVERT,
        WORK.replace("MMA", assembly("tf32", 8, "f32")),
    ]
)


def compiled(builder: Builder, source: str, architecture: str = "sm_90a") -> Build:
    built = builder.build(Program(source, Plan((), (), (), ())), {}, architecture)
    assert built.ok, built.diagnostics
    return built


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory):
    with Builder(tmp_path_factory.mktemp("cache")) as one:
        yield one


@pytest.fixture(scope="module")
def build(builder: Builder) -> Build:
    return compiled(builder, SOURCE)


def run(
    build: Build,
    one: BoundLaunch,
    inputs: Mapping[str, np.ndarray],
    out: tuple[str, Sequence[int] | int, str],
    **options,
) -> Execution:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    plan = BoundPlan((), (one,))
    return Simulator(gpu("H100")).run(build, plan, tensors, [spec(*out)], fill=1, **{"sanitize": True, **options})


def bfloat(values: np.ndarray) -> np.ndarray:
    """Bits of float32 numbers cut off to bfloat16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def encoded(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Values as elements of a type (as integers that PyTorch knows), and what they are exactly, float64."""
    if kind == "f16":
        half = values.astype(np.float16)
        return half.view(np.int16), half.astype(np.float64)
    if kind == "bf16":
        bits = bfloat(values)
        return bits.view(np.int16), (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    single = values.astype(np.float32)
    kept = (single.view(np.uint32) & 0xFFFFE000).view(np.float32) if kind == "tf32" else single
    return single.view(np.int32) if kind == "tf32" else single, kept.astype(np.float64)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form)))
def test_products_equal_those_in_float64(build: Build, form: tuple[str, int, str]) -> None:
    operands, k, accumulator = form
    rng = np.random.default_rng(k)
    a, exact_a = encoded(rng.standard_normal((WARPS, 16, k)), operands)
    b, exact_b = encoded(rng.standard_normal((WARPS, k, 8)), operands)
    c, exact_c = encoded(rng.standard_normal((WARPS, 16, 8)), accumulator)
    one = launch(f"mma_{operands}_{k}_{accumulator}", 2, 32 * WARPS // 2, ["a", "b", "c", "out"])
    wide = accumulator == "f32"
    execution = run(build, one, {"a": a, "b": b, "c": c}, ("out", (WARPS, 16, 8), "float32" if wide else "int16"))
    got = clean(execution)["out"].numpy()
    due = (exact_a @ exact_b + exact_c).astype(np.float32 if wide else np.float16)
    np.testing.assert_array_almost_equal_nulp(got if wide else got.view(np.float16), due, 1)
    name = operands if wide else f"{operands}.f16"
    assert execution.counters[0].tensor == ((name, WARPS * 16 * 8 * k),)
    assert dict(execution.counters[0].issued)["tensor"] == WARPS


def test_the_lower_bits_of_tf32_operands_are_ignored(build: Build) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((WARPS, 16, 8), (WARPS, 8, 8)))
    zero = np.zeros((WARPS, 16, 8), np.float32)
    one = launch("mma_tf32_8_f32", 2, 32 * WARPS // 2, ["a", "b", "c", "out"])
    results = []
    for mask in (0xFFFFFFFF, 0xFFFFE000, 0xFFFFC000):
        kept = {name: (x.view(np.uint32) & np.uint32(mask)).view(np.int32) for name, x in (("a", a), ("b", b))}
        results.append(clean(run(build, one, {**kept, "c": zero}, ("out", (WARPS, 16, 8), "float32")))["out"])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[1], results[2])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_are_loaded_into_fragments(build: Build, count: int, transposed: bool) -> None:
    x = np.random.default_rng(2).integers(0, 1 << 16, (count, 8, 8)).astype(np.uint16)
    one = launch(f"load_{count}{'_trans' if transposed else ''}", 1, 32, ["x", "out"])
    execution = run(build, one, {"x": x.view(np.int16)}, ("out", (32, count), "int32"))
    got = clean(execution)["out"].numpy().view(np.uint16).reshape(32, count, 2)
    for lane in range(32):
        for j in range(count):
            matrix = x[j].T if transposed else x[j]
            assert got[lane, j].tolist() == matrix[lane // 4, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()


def test_loaded_fragments_are_those_that_products_take(build: Build) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((16, 16)).astype(np.float16), rng.standard_normal((16, 8)).astype(np.float16)
    inputs = {"x": x.view(np.int16), "y": y.view(np.int16)}
    got = clean(run(build, launch("staged", 1, 32, ["x", "y", "out"]), inputs, ("out", (16, 8), "float32")))["out"]
    np.testing.assert_allclose(got.numpy(), x.astype(np.float64) @ y.astype(np.float64), rtol=0, atol=1e-6)


def test_rounding_to_tf32_goes_to_nearest_and_from_ties_away(build: Build) -> None:
    rng = np.random.default_rng(4)
    ties = np.float32(1) + np.arange(1, 129, dtype=np.float32) * np.float32(2.0**-11)
    x = np.concatenate([rng.standard_normal(128), ties, -ties, rng.standard_normal(128) * 1e30]).astype(np.float32)
    got = clean(run(build, launch("to_tf32", 4, 128, ["x", "out"]), {"x": x}, ("out", 512, "int32")))["out"]
    fraction, exponent = np.frexp(np.abs(x.astype(np.float64)))
    due = np.copysign(np.ldexp(np.floor(fraction * 2**11 + 0.5), exponent - 11), x)
    assert got.numpy().view(np.float32).tolist() == due.astype(np.float32).tolist()


# ---------------------------------------------------------------------------------------------------- what is caught


@pytest.fixture(scope="module")
def part(builder: Builder) -> Build:
    return compiled(builder, PART.replace("MMA", assembly("tf32", 8, "f32")))


def part_findings(part: Build, mode: int, block: int = 64, **options: bool):
    x = np.random.default_rng(5).standard_normal(64).astype(np.float32)
    return run(part, launch("part", 1, block, ["x", "out", mode]), {"x": x}, ("out", 64, "float32"), **options).findings


def test_a_warp_that_parted_meets_again_at_a_product(part: Build) -> None:
    assert part_findings(part, 0, sanitize=False) == ()


@pytest.mark.parametrize("sanitize", [False, True])
@pytest.mark.parametrize(("mode", "line", "here"), [(1, 7, "16"), (2, 8, "24"), (3, 9, "16"), (4, 10, "8")])
def test_a_part_of_a_warp_cannot_execute_them(part: Build, mode: int, line: int, here: str, sanitize: bool) -> None:
    found = part_findings(part, mode, sanitize=sanitize)[-1]
    assert (found.kind, found.line) == ("barrier_divergence", line)
    assert f"needs all 32 threads of the warp; {here} execute it" in found.message


def test_a_block_without_whole_warps_cannot_execute_them(part: Build) -> None:
    (found,) = part_findings(part, 0, block=48)
    assert (found.kind, found.thread) == ("barrier_divergence", (32, 0, 0))


@pytest.mark.parametrize(
    ("mode", "kind", "line"),
    [(5, "misaligned", 11), (6, "out_of_bounds", 12), (7, "shared_race", 13), (8, "uninitialised", 14)],
)
def test_rows_are_checked(part: Build, mode: int, kind: str, line: int) -> None:
    found = part_findings(part, mode, block=32)
    assert {(one.kind, one.line) for one in found} == {(kind, line)}


def test_an_unknown_form_is_named(builder: Builder) -> None:
    text = 'asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%2}, {%3, %3};"'
    source = (
        'extern "C" __global__ void k(int* out) { int a, b; '
        + text
        + ' : "=r"(a), "=r"(b) : "r"(1), "r"(0)); *out = a + b; }'
    )
    with pytest.raises(SimulatorError, match=r"mma\.sync\.aligned\.m8n8k16.*unknown form of mma"):
        run(compiled(builder, source, "sm_80"), launch("k", 1, 32, ["out"]), {}, ("out", 1, "int32"))


# --------------------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("name", GPUS)
def test_products_are_charged_at_the_peak_of_the_gpu(build: Build, name: str) -> None:
    target = GPUS[name]
    x = np.zeros(32 * target.sm_count, np.float32)
    one = launch("work", target.sm_count, 32, ["x", "out"])
    counters = run(build, one, {"x": x}, ("out", len(x), "float32"), sanitize=False).counters
    operations = 2 * 16 * 8 * 8 * 10 * target.sm_count
    (launched,) = explain(build, BoundPlan((), (one,)), counters, target)
    assert dict(launched.resources)["tensor"] == pytest.approx(operations / target.tf32_flops)


@pytest.mark.parametrize(("name", "teraflops"), [("H100", 989), ("A100", 312), ("RTX 4090", 165), ("B200", 2250)])
def test_bfloat16_is_charged_at_the_rate_with_float32_accumulators(build: Build, name: str, teraflops: float) -> None:
    x = np.zeros((WARPS, 16, 16), np.int16), np.zeros((WARPS, 16, 8), np.int16), np.zeros((WARPS, 16, 8), np.float32)
    one = launch("mma_bf16_16_f32", WARPS, 32, ["a", "b", "c", "out"])
    inputs = dict(zip("abc", x, strict=True))
    counters = run(build, one, inputs, ("out", (WARPS, 16, 8), "float32"), sanitize=False).counters
    (launched,) = explain(build, BoundPlan((), (one,)), counters, GPUS[name])
    due = 2 * 16 * 8 * 16 * GPUS[name].sm_count / (teraflops * 1e12)
    assert dict(launched.resources)["tensor"] == pytest.approx(due, rel=0.01)
