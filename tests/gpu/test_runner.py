"""Programs on a real GPU compute what PyTorch computes, and whatever a call does beside that is seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.device.test_bulk import RING
from tests.gpu.bench import GPUS, assert_works, call, copied, launch, needs_gpu
from tests.judge.bench import builder
from warpsmith.device.cuda import own
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.errors import MachineError
from warpsmith.judge.trial import same_bits
from warpsmith.records import DTYPE_BYTES, Execution, TensorSpec

pytestmark = needs_gpu

SHAPES: tuple[tuple[int, ...], ...] = ((3, 5, 7), (), (1,), (100_003,))


def bits(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Any bits: NaNs with payloads, infinities, subnormals and both zeros among them."""
    generator = torch.Generator().manual_seed(sum(shape) + 1)
    count = TensorSpec("x", shape, dtype).nbytes
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    if dtype == "bool":
        return (raw % 2 == 0).reshape(shape)
    return raw.view(getattr(torch, dtype)).reshape(shape)


@pytest.fixture
def by_bytes() -> Iterator[CudaDevice]:
    """A device that copies memory instead of mapping it."""
    device = CudaDevice(GPUS[0], builder(), share=False, spare=False)
    yield device
    device.close()


# ------------------------------------------------------------------------------------------------------------ computing


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_a_copy_is_right_to_the_bit_in_every_dtype(device: CudaDevice, dtype: str) -> None:
    for shape in SHAPES:
        x = bits(shape, dtype)
        execution = copied(device, x)
        assert execution.findings == () and execution.overwritten == () and execution.trampled == ()
        out = execution.outputs["out"].cpu()
        assert out.shape == x.shape and same_bits(out, x), shape


def test_arithmetic_is_that_of_pytorch(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void axpy(const float* x, const float* y, float* out, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[i] = __fadd_rn(x[i], __fmul_rn(3.0f, y[i]));
}
"""
    x, y = torch.randn(2, 5000, generator=torch.Generator().manual_seed(1))
    step = launch("axpy", "x", "y", "out", 5000, grid=20, block=256)
    execution = call(device, source, step, {"x": x, "y": y}, [TensorSpec("out", (5000,), "float32")])
    assert same_bits(execution.outputs["out"].cpu(), x + 3.0 * y)


def test_numbers_reach_parameters_of_every_kind(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void numbers(double* out, int a, long long b, float c, double d, unsigned char e, short f) {
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f;
}
"""
    given = (-7, -(1 << 40), 3, -5, 255, -300)
    execution = call(device, source, launch("numbers", "out", *given), {}, [TensorSpec("out", (6,), "float64")])
    assert execution.outputs["out"].tolist() == [float(number) for number in given]


def test_launches_come_one_after_the_other_and_share_scratch(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void square(const float* x, float* kept) { kept[threadIdx.x] = x[threadIdx.x] * x[threadIdx.x]; }
extern "C" __global__ void turn(const float* kept, float* out) { out[threadIdx.x] = kept[99 - threadIdx.x]; }
"""
    steps = [launch("square", "x", "kept", block=100), launch("turn", "kept", "out", block=100)]
    x = torch.arange(100.0)
    outputs, scratch = [TensorSpec("out", (100,), "float32")], [TensorSpec("kept", (100,), "float32")]
    execution = call(device, source, steps, {"x": x}, outputs, scratch=scratch)
    assert torch.equal(execution.outputs["out"].cpu(), (x * x).flip(0))


def test_programs_can_take_turns(device: CudaDevice) -> None:
    source = 'extern "C" __global__ void add(const int* x, int* out) {{ out[0] = x[0] + {}; }}'
    for number in (1, 2, 1, 3):
        execution = call(
            device,
            source.format(number),
            launch("add", "x", "out"),
            {"x": torch.tensor([10], dtype=torch.int32)},
            [TensorSpec("out", (1,), "int32")],
        )
        assert execution.outputs["out"].item() == 10 + number


# ----------------------------------------------------------------------------------------------------- kinds of launches


def test_much_dynamic_shared_memory_can_be_had(device: CudaDevice) -> None:
    count = min(device.spec.shared_per_block, 96 << 10) // 4
    assert 4 * count > 48 << 10
    source = """
extern "C" __global__ void turn(const float* x, float* out, int count) {
    extern __shared__ float buffer[];
    for (int i = threadIdx.x; i < count; i += blockDim.x) buffer[count - 1 - i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = buffer[i];
}
"""
    x = torch.arange(float(count))
    step = launch("turn", "x", "out", count, block=256, shared=4 * count)
    execution = call(device, source, step, {"x": x}, [TensorSpec("out", (count,), "float32")])
    assert execution.findings == () and torch.equal(execution.outputs["out"].cpu(), x.flip(0))


def test_static_memory_counts_where_a_kernel_must_ask_for_more(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void both(float* out) {
    extern __shared__ float large[];
    __shared__ float small[32];
    large[12287 - threadIdx.x] = small[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = large[12256 + threadIdx.x] + small[threadIdx.x];
}
"""
    step = launch("both", "out", block=32, shared=48 * 1024)
    execution = call(device, source, step, {}, [TensorSpec("out", (32,), "float32")])
    assert execution.findings == () and execution.outputs["out"].tolist() == [31.0] * 32


def test_a_kernel_may_be_launched_with_less_memory_after_more(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void fill(float* out, int count) {
    extern __shared__ float held[];
    for (int i = threadIdx.x; i < count; i += 32) held[i] = i;
    __syncthreads();
    out[threadIdx.x] = held[count - 1 - threadIdx.x];
}
"""
    steps = [launch("fill", out, count, block=32, shared=count * 4) for out, count in (("a", 24000), ("b", 13000))]
    specs = [TensorSpec(name, (32,), "float32") for name in "ab"]
    execution = call(device, source, steps, {}, specs)
    assert execution.findings == ()
    assert [execution.outputs[name][0].item() for name in "ab"] == [23999.0, 12999.0]


@pytest.mark.skipif(bool(GPUS) and GPUS[0].spec.compute_capability < (9, 0), reason="no copy engine before Hopper")
def test_a_ring_of_tiles_comes_by_the_copy_engine(device: CudaDevice) -> None:
    """The kernel that the simulator is tested with."""
    x = torch.randn(300, 41, 128)
    step = launch("ring", "x", "out", 41, grid=300, block=128)
    execution = call(device, RING, step, {"x": x}, [TensorSpec("out", (300, 128), "float32")])
    assert execution.findings == ()
    assert torch.allclose(execution.outputs["out"].cpu(), x.flip(2).sum(1), atol=1e-4)


def test_blocks_of_a_cooperative_launch_wait_for_each_other(device: CudaDevice) -> None:
    source = """
#include <cooperative_groups.h>
extern "C" __global__ void sum(const float* x, float* parts, float* out, int blocks) {
    if (threadIdx.x == 0) parts[blockIdx.x] = x[blockIdx.x];
    cooperative_groups::this_grid().sync();
    float total = 0.0f;
    for (int i = 0; i < blocks; ++i) total += parts[i];
    if (threadIdx.x == 0) out[blockIdx.x] = total;
}
"""
    blocks = device.spec.sm_count
    x = torch.arange(float(blocks))
    step = launch("sum", "x", "parts", "out", blocks, grid=blocks, block=32, cooperative=True)
    outputs, scratch = [TensorSpec("out", (blocks,), "float32")], [TensorSpec("parts", (blocks,), "float32")]
    execution = call(device, source, step, {"x": x}, outputs, scratch=scratch)
    assert execution.findings == () and bool((execution.outputs["out"].cpu() == x.sum()).all())


@pytest.mark.skipif(bool(GPUS) and GPUS[0].spec.compute_capability < (9, 0), reason="no clusters before Hopper")
def test_blocks_of_a_cluster_know_of_each_other(device: CudaDevice) -> None:
    source = """
extern "C" __global__ void ranks(int* out) {
    unsigned rank, size;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    out[blockIdx.x] = 100 * size + rank;
}
"""
    step = launch("ranks", "out", grid=8, cluster=(4, 1, 1))
    execution = call(device, source, step, {}, [TensorSpec("out", (8,), "int32")])
    assert execution.outputs["out"].tolist() == [400, 401, 402, 403] * 2


@pytest.mark.skipif(bool(GPUS) and GPUS[0].spec.compute_capability < (9, 0), reason="no clusters before Hopper")
def test_blocks_of_a_cluster_read_each_others_memory(device: CudaDevice) -> None:
    source = """
#include <cooperative_groups.h>
extern "C" __global__ void sums(const int* x, int* out) {
    __shared__ int held[32];
    const auto cluster = cooperative_groups::this_cluster();
    held[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    cluster.sync();
    int sum = 0;
    for (int block = 0; block < 4; ++block) sum += *cluster.map_shared_rank(held + threadIdx.x, block);
    cluster.sync();
    out[blockIdx.x * 32 + threadIdx.x] = sum;
}
"""
    x = torch.arange(8 * 32, dtype=torch.int32).reshape(2, 4, 32)
    step = launch("sums", "x", "out", grid=8, block=32, cluster=(4, 1, 1))
    execution = call(device, source, step, {"x": x}, [TensorSpec("out", (2, 4, 32), "int32")])
    assert torch.equal(execution.outputs["out"].cpu(), x.sum(1, keepdim=True, dtype=torch.int32).expand(2, 4, 32))


# --------------------------------------------------------------------------------------------------------------- conduct

POKE = 'extern "C" __global__ void poke(float* x, float* out, long long at) {{ out[0] = 1.0f; {} }}'


def poked(device: CudaDevice, statement: str, at: int = 0, *, fill: int = 0) -> Execution:
    """Do something beside writing the output, of which the program has 7 elements."""
    x = torch.arange(5, dtype=torch.float32)
    outputs = [TensorSpec("out", (7,), "float32")]
    return call(device, POKE.format(statement), launch("poke", "x", "out", at), {"x": x}, outputs, fill=fill)


def test_a_stray_write_is_seen_beside_which_buffer_it_is(device: CudaDevice) -> None:
    assert poked(device, "").trampled == ()
    assert poked(device, "out[7] = 0.0f;").trampled == ("out",)
    assert poked(device, "out[-1] = 0.0f;").trampled == ("x",)
    assert poked(device, "x[-1] = 0.0f;").trampled == ("the first buffer",)
    assert poked(device, "((char*)out)[28] ^= 1;").trampled == ("out",), "one bit of one byte"


def test_a_write_to_an_input_is_seen(device: CudaDevice) -> None:
    assert poked(device, "x[4] = -x[4];").overwritten == ("x",)
    assert poked(device, "x[4] = x[4];").overwritten == ()


def test_a_write_to_another_calls_memory_is_seen(device: CudaDevice) -> None:
    poked(device, "")
    arena = device._arena
    assert arena is not None and arena.layout.slots > 1
    elements = arena.layout.stride // 4
    assert "memory of other calls" in poked(device, "out[at] = 0.0f;", elements).trampled
    assert "memory of other calls" in poked(device, "out[at] = 0.0f;", -elements, fill=1).trampled


def test_reading_over_the_end_of_an_input_gives_nan(device: CudaDevice) -> None:
    for statement in ("out[1] = x[5];", "out[1] = x[-1];", "out[1] = x[1000];"):
        assert bool(poked(device, statement).outputs["out"][1].isnan())


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_what_is_never_written_changes_with_the_fill_and_is_nan_where_there_is_nan(
    device: CudaDevice, dtype: str
) -> None:
    source = 'extern "C" __global__ void nothing(void* out) {}'
    outputs = [TensorSpec("out", (5000,), dtype)]
    first, second = (call(device, source, launch("nothing", "out"), {}, outputs, fill=fill) for fill in (1, 2))
    assert not same_bits(first.outputs["out"], second.outputs["out"])
    if first.outputs["out"].is_floating_point():
        assert bool(first.outputs["out"].isnan().all())


STATES = {
    "a variable": ("__device__ int kept;", "kept"),
    "a static variable": ("static __device__ int kept;", "kept"),
    "an array": ("__device__ int kept[100];", "kept[77]"),
    "a constant array": ("__device__ const int kept[4] = {1, 2, 3, 4};", "((volatile int*)kept)[2]"),
    "a variable in a namespace": ("namespace hidden { __device__ int kept; }", "hidden::kept"),
    "a variable of no name's namespace": ("namespace { __device__ int kept; }", "kept"),
    "a member of a template": ("template <int N> __device__ int kept = N;", "kept<3>"),
}


@pytest.mark.parametrize("where", [*STATES, "a static variable of a function"])
def test_what_a_call_leaves_in_the_module_is_seen(device: CudaDevice, where: str) -> None:
    declared, name = STATES.get(where, ("", "kept"))
    within = "" if where in STATES else "static int kept;"
    source = (
        f'{declared}\nextern "C" __global__ void count(int* out) {{ {within} out[0] = {name}; {name} = out[0] + 1; }}'
    )
    execution = call(device, source, launch("count", "out"), {}, [TensorSpec("out", (1,), "int32")])
    # Where the hardware does not even allow the write, nothing can be kept either.
    assert execution.kept or execution.findings, "results could be kept there"


def test_tables_that_are_only_read_are_nothing_that_is_kept(device: CudaDevice) -> None:
    source = """
__constant__ int table[4] = {3, 1, 4, 1};
__device__ int other[4] = {2, 7, 1, 8};
extern "C" __global__ void look(const int* x, int* out) { out[0] = table[x[0]] + other[x[0]]; }
"""
    x = torch.tensor([2], dtype=torch.int32)
    execution = call(device, source, launch("look", "x", "out"), {"x": x}, [TensorSpec("out", (1,), "int32")])
    assert execution.outputs["out"].item() == 5 and execution.kept == ()


# ---------------------------------------------------------------------------------------------- mapped, copied, canaries


def test_bytes_and_mapping_see_the_same(device: CudaDevice, by_bytes: CudaDevice) -> None:
    x = torch.randn(10_007, generator=torch.Generator().manual_seed(3))
    mapped, sent = copied(device, x), copied(by_bytes, x)
    assert by_bytes._arena is not None and not by_bytes._arena.mapped
    if device._arena is None or not device._arena.mapped:
        pytest.skip("this machine does not map memory of another process")
    assert same_bits(mapped.outputs["out"].cpu(), x) and same_bits(sent.outputs["out"].cpu(), x)
    for statement in ("", "out[7] = 0.0f;", "x[0] = 9.0f;", "out[-1] = 0.0f;"):
        one, other = poked(device, statement), poked(by_bytes, statement)
        assert (one.trampled, one.overwritten, one.findings) == (other.trampled, other.overwritten, other.findings)
        assert same_bits(one.outputs["out"].cpu(), other.outputs["out"].cpu()), "the same fill is the same pattern"


def test_a_gpu_that_fails_the_canary_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CudaDevice(GPUS[0], builder(), spare=False)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(own, "right", lambda x, out: False)
            with pytest.raises(MachineError, match="wrong answer"):
                assert_works(device)
        assert_works(device)
    finally:
        device.close()
