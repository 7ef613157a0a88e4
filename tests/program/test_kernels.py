"""Does a plan fit the kernels? Every way in which it may not is said in words, for what NVRTC really emits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpsmith.program import Builder, Parameter, kernels_in, misfits
from warpsmith.records import BoundLaunch, BoundPlan, Build, Plan, Program

SOURCE = """
struct Three { int a[3]; };
extern "C" __global__ void row_softmax(const float* __restrict__ x, float* out, int rows, long long cols) {
  __shared__ float tile[1024];
  tile[threadIdx.x] = x[threadIdx.x + cols];
  __syncthreads();
  if (threadIdx.x < rows) out[threadIdx.x] = tile[1023 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(128) bounded(float* out, double scale, short s, float f, Three t) {
  out[threadIdx.x] = scale * s + f + t.a[1];
}
extern "C" __global__ void empty() {}
__global__ void mangled(float* out) { out[0] = 1; }
template <int N> __global__ void generic(float* out) { out[0] = N; }
template __global__ void generic<3>(float*);
"""


@pytest.fixture(scope="module", params=["sm_90", "sm_100"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    with Builder(tmp_path_factory.mktemp("cache")) as builder:
        yield builder.build(Program(SOURCE, Plan((), (), (), ())), {}, request.param)


def said(built: Build, kernel: str, *args: str | int, block: int = 32, shared: int = 0) -> list[str]:
    launch = BoundLaunch(kernel, (1, 1, 1), (block, 1, 1), shared, args)
    return list(misfits(built, BoundPlan((), (launch,)), shared_per_block=232448))


def test_signatures_are_read_from_ptx(built: Build) -> None:
    kernels = kernels_in(built.ptx)
    assert set(kernels) == {"row_softmax", "bounded", "empty", "_Z7mangledPf", "_Z7genericILi3EEvPf"}
    assert [str(parameter) for parameter in kernels["row_softmax"].parameters] == [
        "a pointer",
        "a pointer",
        "an integer of 32 bits",
        "an integer or pointer of 64 bits",
    ]
    assert [str(parameter) for parameter in kernels["bounded"].parameters] == [
        "a pointer",
        "a floating-point number of 64 bits",
        "an integer of 16 bits",
        "a floating-point number of 32 bits",
        "a struct of 12 bytes",
    ]
    assert kernels["bounded"].max_threads == 128
    assert kernels["empty"].parameters == ()


def test_a_plan_that_fits_has_nothing_said_of_it(built: Build) -> None:
    assert said(built, "row_softmax", "x", "out", 48, 2**40, shared=232448 - 4096) == []
    assert said(built, "row_softmax", "x", "out", 2**32 - 1, -1) == []
    assert said(built, "empty") == []


@pytest.mark.parametrize(
    ("kernel", "args", "message"),
    [
        ("row_sotfmax", (), "launch 1 (row_sotfmax): kernel 'row_sotfmax' is not defined; did you mean 'row_softmax'?"),
        ("zzz", (), "kernel 'zzz' is not defined; known: "),
        ("mangled", ("out",), "kernel 'mangled' is not declared extern \"C\""),
        ("generic", ("out",), "kernel 'generic' is not declared extern \"C\""),
        ("row_softmax", ("x", "out", 48), "row_softmax takes 4 arguments, the plan gives 3"),
        ("empty", (1,), "empty takes 0 arguments, the plan gives 1"),
        ("row_softmax", (7, "out", 48, 1), "argument 1 is the number 7, but the parameter is a pointer"),
        (
            "row_softmax",
            ("x", "out", "x", 1),
            "argument 3 is the tensor 'x', but the parameter is an integer of 32 bits",
        ),
        ("row_softmax", ("x", "out", 2**32, 1), "argument 3 is 4294967296, which does not fit an integer of 32 bits"),
        ("row_softmax", ("x", "out", -(2**31) - 1, 1), "does not fit an integer of 32 bits"),
        ("bounded", ("out", 1, 70000, 1, 1), "argument 3 is 70000, which does not fit an integer of 16 bits"),
        ("bounded", ("out", 1, 1, 1, 1), "parameter 5 is a struct of 12 bytes"),
    ],
)
def test_misfits_are_named(built: Build, kernel: str, args: tuple[str | int, ...], message: str) -> None:
    assert any(message in sentence for sentence in said(built, kernel, *args))


def test_launch_bounds_and_shared_memory_are_compared(built: Build) -> None:
    assert "256 threads, but __launch_bounds__ allows 128" in said(built, "bounded", "o", 1, 1, 1, 1, block=256)[-1]
    (sentence,) = said(built, "row_softmax", "x", "out", 1, 1, shared=232448 - 4095)
    assert "4096 bytes of static and 228353 bytes of dynamic shared memory" in sentence


def test_code_without_kernels_is_told_so() -> None:
    build = Build("", "sm_90", True, ".version 9.0\n", b"", (), (), 0.0)
    assert 'the device code has no extern "C" __global__ function' in said(build, "k")[0]


@given(st.text(alphabet=".entry(){}u64 _k[]%,ld.pramcvt\n/*", max_size=120))
def test_text_that_inline_assembly_may_bring_never_breaks_the_reader(text: str) -> None:
    for kernel in kernels_in(f".visible .entry k({text})\n.maxntid 1, 2\n{{ {text} }}").values():
        assert all(isinstance(parameter, Parameter) for parameter in kernel.parameters)


def test_kernels_in_comments_are_not_there() -> None:
    assert kernels_in("// .entry ghost() {\n/* .entry ghost2() { */ .entry real(\n)\n{ ret; }").keys() == {"real"}
