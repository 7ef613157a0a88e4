"""Memory of all kinds: widths, spaces and lifetimes; and wild accesses, found with the line that made them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.device.kit import clean, instruction, launch, run, spec
from warpsmith.device.arena import Arena, poison, tensor_bytes
from warpsmith.records import DTYPE_BYTES, TensorSpec

HEADER = 'extern "C" __global__ void k'


NUMBERS = {
    "char": np.int8,
    "unsigned char": np.uint8,
    "short": np.int16,
    "unsigned short": np.uint16,
    "int": np.int32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
VECTORS = [
    (kind, width) for kind, dtype in NUMBERS.items() for width in (1, 2, 4) if np.dtype(dtype).itemsize * width <= 16
]


@pytest.mark.parametrize(("kind", "width"), VECTORS)
def test_loads_and_stores_of_every_width(kind, width):
    dtype = NUMBERS[kind]
    size = np.dtype(dtype).itemsize * width
    source = (
        HEADER
        + f"""(const char* x, char* out, const int* order) {{
        struct alignas({size}) V {{ {kind} a[{width}]; }};
        int i = threadIdx.x; V v = ((const V*)x)[order[i]]; for (int j = 0; j < {width}; j++) v.a[j] += ({kind})1; ((V*)out)[i] = v;
    }}"""
    )
    random = np.random.default_rng(width)
    order = random.permutation(64)
    x = random.integers(0, 100, 64 * width).astype(dtype)
    inputs = {"x": torch.from_numpy(x.view(np.uint8)), "order": torch.from_numpy(order.astype(np.int32))}
    execution = run(source, launch("k", 1, 64, ["x", "out", "order"]), inputs, [spec("out", 64 * size, "uint8")])
    got = clean(execution)["out"].numpy().view(dtype).reshape(64, width)
    assert got.tolist() == (x.reshape(64, width)[order] + 1).tolist()


def test_signed_bytes_are_extended():
    # The first source is read again, byte by byte: those of 0x80FF7F01 in turn.
    text = (
        ".reg .b64 %q; .reg .b64 %b; ld.param.u64 %b, [k_0]; cvt.u64.u32 %q, {1}; add.s64 %q, %q, %b; "
        "ld.global.SIGN8 {d}, [%q];"
    )
    bytes_and_offsets = [np.full(4, 0x80FF7F01, np.uint32), np.arange(4, dtype=np.uint32)]
    assert instruction(text.replace("SIGN", "s"), bytes_and_offsets, "i4").tolist() == [1, 127, -1, -128]
    assert instruction(text.replace("SIGN", "u"), bytes_and_offsets, "i4").tolist() == [1, 127, 255, 128]


def test_static_dynamic_and_constant_memory():
    source = """__constant__ float table[4] = {1.5f, 2.5f, 3.5f, 4.5f}; __device__ int bias[3] = {10, 20, 30}; __device__ int zeros[2];
    __device__ const int* where = bias + 1;
    extern "C" __global__ void k(float* out) {
        extern __shared__ float dynamic[]; __shared__ float fixed[64]; __shared__ char bytes[3];
        int i = threadIdx.x; fixed[i] = i; dynamic[i] = -i; if (i < 3) bytes[i] = i + 1; __syncthreads();
        out[i] = fixed[63 - i] + dynamic[(i + 1) % 64] + table[i % 4] + bias[i % 3] + zeros[i & 1] + bytes[i % 3] + where[i & 1];
    }"""
    i = np.arange(64)
    expected = (
        63
        - i
        - (i + 1) % 64
        + np.array([1.5, 2.5, 3.5, 4.5])[i % 4]
        + (10, 20, 30) @ (i % 3 == np.arange(3)[:, None])
        + i % 3
        + 1
    )
    expected = expected + np.where(i & 1, 30, 20)
    got = clean(run(source, launch("k", 1, 64, ["out"], 256), {}, [spec("out", 64)], sanitize=True))["out"]
    assert got.tolist() == expected.tolist()


def test_module_variables_begin_afresh_with_every_call():
    source = "__device__ int calls; " + HEADER + "(int* out) { if (threadIdx.x == 0) out[0] = ++calls; }"
    for _ in range(2):
        execution = run(source, [launch("k", 1, 32, ["out"])] * 2, {}, [spec("out", 1, "int32")])
        assert clean(execution)["out"].tolist() == [2]


def test_scalars_take_the_type_of_the_parameter():
    source = (
        HEADER
        + "(float* out, float a, double b, long long c, int d, unsigned char e, bool f) { out[0] = a + b + c + d + e + f; }"
    )
    execution = run(source, launch("k", 1, 1, ["out", 3, -2, 2**40, -(2**30), 200, 1]), {}, [spec("out", 1)])
    assert clean(execution)["out"].item() == np.float32(3 - 2 + 2**40 - 2**30 + 200 + 1)


def test_generic_pointers_to_several_spaces():
    source = """__noinline__ __device__ float read(const float* p, int n) { float s = 0; for (int j = 0; j < n; j++) s += p[j]; return s; }
    __noinline__ __device__ void bump(float* p) { *p += 1; atomicAdd(p, 0.5f); }
    extern "C" __global__ void k(const float* x, float* out) {
        __shared__ float s[64]; float local[4]; int i = threadIdx.x;
        s[i] = 2 * x[i]; for (int j = 0; j < 4; j++) local[j] = x[(i + j) % 64]; __syncthreads();
        const float* p = i % 3 == 0 ? x + i % 60 : i % 3 == 1 ? s + i % 60 : local;
        out[i] = read(p, 4); __syncthreads(); bump(i % 2 ? s + i : out + i); __syncthreads(); if (i % 2) out[i] += s[i];
    }"""
    x = torch.randint(0, 50, (64,)).float()
    expected = []
    for i in range(64):
        four = (
            [x[i % 60 + j] for j in range(4)]
            if i % 3 == 0
            else [2 * x[i % 60 + j] for j in range(4)]
            if i % 3 == 1
            else [x[(i + j) % 64] for j in range(4)]
        )
        expected.append(float(sum(four)) + 1.5 + (2 * float(x[i]) if i % 2 else 0))
    got = clean(run(source, launch("k", 1, 64, ["x", "out"]), {"x": x}, [spec("out", 64)], sanitize=True))["out"]
    assert got.tolist() == expected


def test_asynchronous_copies():
    source = (
        HEADER
        + """(const float4* x, float4* out, int n) {
        __shared__ float4 s[32]; int i = threadIdx.x; unsigned to = __cvta_generic_to_shared(s + i);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(x + i), "r"(i < n ? 16 : 4 * (i % 4)) : "memory");
        asm volatile("cp.async.commit_group;" ::); asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads(); out[i] = s[31 - i];
    }"""
    )
    x = torch.randn(32, 4)
    kept = torch.tensor([[1.0] * 4 if i < 20 else [float(j < i % 4) for j in range(4)] for i in range(32)])
    execution = run(source, launch("k", 1, 32, ["x", "out", 20]), {"x": x}, [spec("out", (32, 4))])
    assert clean(execution)["out"].tolist() == (x * kept).flip(0).tolist()


# ------------------------------------------------------------------------------------------------------ wild accesses


def finding(body: str, *, size: int = 64, block: int = 64, grid: int = 1, n: int = 64, extra: str = "", **options):
    """Run k(x, out, n) with one source line per line of `body`, line 1 the first; return the only finding."""
    source = (
        f'{extra}extern "C" __global__ void k(const float* x, float* out, int n) {{ int i = blockIdx.x * blockDim.x + threadIdx.x;'
        + body
        + "}"
    )
    execution = run(
        source, launch("k", grid, block, ["x", "out", n]), {"x": torch.ones(size)}, [spec("out", size)], **options
    )
    assert len(execution.findings) == 1, execution.findings
    return execution.findings[0]


def test_reading_past_the_end_names_the_line_the_thread_and_the_buffer():
    found = finding("\n float v = 1;\n v += x[i + 3];\n out[i] = v;", grid=2, block=32)
    assert (found.kind, found.kernel, found.line) == ("out_of_bounds", "k", 3)
    assert (found.block, found.thread) == ((1, 0, 0), (29, 0, 0))
    assert "byte offset 256 of x, which has 256 bytes" in found.message


@pytest.mark.parametrize(
    ("statement", "kind", "said"),
    [
        ("out[i - 1] = 1;", "out_of_bounds", "byte offset -4 of out"),
        ("out[i + 1] = 1;", "out_of_bounds", "byte offset 256 of out"),
        ("*(int*)(16 + i * 4) = 1;", "out_of_bounds", "null pointer"),
        ("out[(long long)i << 40] = 1;", "out_of_bounds", "far from every buffer"),
        ("*(int*)((char*)out + i) = 1;", "misaligned", "not a multiple of 4"),
        ("*(float4*)(out + (i & 31)) = float4();", "misaligned", "not a multiple of 16"),
        (
            "__shared__ float s[16]; s[i + n - 64] = 1; __syncthreads(); out[i] = s[0];",
            "out_of_bounds",
            "shared memory, which has 64",
        ),
        ("float l[8]; for (int j = 0; j < 8; j++) l[j] = x[j]; out[i] = l[i];", "out_of_bounds", "local memory"),
        ("atomicAdd(out + 64, 1.0f);", "out_of_bounds", "accesses 4 bytes"),
    ],
)
def test_wild_and_crooked_accesses_are_found(statement, kind, said):
    found = finding(f"\n\n{statement}\n")
    assert (found.kind, found.line) == (kind, 3)
    assert said in found.message


def test_what_a_kernel_does_to_inputs_and_guards_shows():
    source = HEADER + "(float* x, float* out) { out[threadIdx.x] = x[threadIdx.x]; if (threadIdx.x == 3) x[3] = 5; }"
    execution = run(source, launch("k", 1, 8, ["x", "out"]), {"x": torch.zeros(8)}, [spec("out", 8)])
    assert execution.overwritten == ("x",)
    assert execution.outputs["out"].tolist() == [0.0] * 8


def test_what_nobody_writes_stays_poisoned():
    source = HEADER + "(float* out) { out[0] = 1; }"
    one, other = (
        run(source, launch("k", 1, 1, ["out"]), {}, [spec("out", 4)], fill=fill).outputs["out"] for fill in (1, 2)
    )
    assert one[0] == 1 and torch.isnan(one[1:]).all() and torch.isnan(other[1:]).all()
    assert one.view(torch.int32).tolist() != other.view(torch.int32).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": "missing"}, "no kernel named missing"),
        ({"block": (2048, 1, 1)}, "block of (2048, 1, 1)"),
        ({"block": (32, 64, 1)}, "block of (32, 64, 1)"),
        ({"grid": (1, 70000, 1)}, "grid of"),
        ({"shared": 300_000}, "shared memory"),
        ({"args": ("out",)}, "1 arguments"),
        ({"cooperative": True, "grid": (100_000, 1, 1)}, "100000 blocks"),
    ],
)
def test_launches_that_hardware_refuses(change, said):
    wrong = replace(launch("k", 1, 32, ["out", 1]), **change)
    execution = run(HEADER + "(float* out, int n) { out[0] = n; }", wrong, {}, [spec("out", 4)])
    assert [one.kind for one in execution.findings] == ["invalid_launch"]
    assert said in execution.findings[0].message


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_poison_is_nan_where_the_dtype_has_one(dtype):
    arena = Arena({}, [TensorSpec("out", (100,), dtype)], [], 3)
    output = arena.output("out")
    assert output.shape == (100,) and str(output.dtype) == f"torch.{dtype}"
    if output.dtype.is_floating_point:
        assert torch.isnan(output).all()
    assert len(set(poison(dtype, 800, np.random.default_rng(1)).tolist())) > 20


def test_guards_notice_a_single_byte():
    arena = Arena({"x": torch.ones(3)}, [TensorSpec("out", (5,), "float32")], [], 3)
    assert arena.trampled() == () and arena.overwritten() == ()
    arena.data[arena.regions["out"].end] ^= 1
    assert arena.trampled() == ("out",)
    arena.data[arena.regions["x"].start] ^= 1
    assert arena.overwritten() == ("x",)
    assert math.isnan(float(arena.output("out")[0]))


def test_empty_and_scalar_tensors():
    source = HEADER + "(const float* x, float* out, float* none) { out[0] = x[0]; }"
    inputs = {"x": torch.tensor(3.0), "unused": torch.empty(0)}
    execution = run(source, launch("k", 1, 1, ["x", "out", "none"]), inputs, [spec("out", ()), spec("none", (0, 3))])
    outputs = clean(execution)
    assert outputs["out"].item() == 3.0 and outputs["none"].shape == (0, 3)


def test_a_tensor_of_one_element_may_have_any_strides() -> None:
    expanded = torch.ones(()).expand(1, 1)
    assert tensor_bytes(expanded).tobytes() == np.float32(1).tobytes()


def test_shared_memory_is_that_of_the_kernel_alone_and_aligned_as_it_asks():
    """What another kernel of the module declares takes no room, and `__align__` holds behind static arrays too."""
    source = """extern "C" __global__ void other(float* out) { __shared__ float own[8000]; own[threadIdx.x] = 1; __syncthreads(); out[threadIdx.x] = own[31 - threadIdx.x]; }
    extern "C" __global__ void alone(unsigned* out) { extern __shared__ __align__(1024) char tile[]; if (threadIdx.x) return; tile[0] = 1; out[0] = unsigned(__cvta_generic_to_shared(tile)); }
    extern "C" __global__ void behind(unsigned* out) { extern __shared__ __align__(1024) char tile[]; __shared__ float own[32]; own[threadIdx.x] = 1;
        __syncthreads(); if (threadIdx.x) return; tile[0] = own[1]; out[0] = unsigned(__cvta_generic_to_shared(tile)); }"""
    for kernel, place in (("alone", 0), ("behind", 1024)):
        execution = run(source, launch(kernel, 1, 32, ["out"], 20_000), {}, [spec("out", 1, "int32")], sanitize=True)
        assert clean(execution)["out"].tolist() == [place]
