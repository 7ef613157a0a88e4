"""Thread block clusters: who is in one, what its blocks see of each other, and what the sanitizer finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.device.kit import GPU, build, clean, compile_ptx, launch, run, run_ptx, spec
from warpsmith.device.simulator import explain
from warpsmith.errors import SimulatorError
from warpsmith.records import BoundLaunch, BoundPlan, Execution, KernelResources

# Every block adds up the values that the blocks of its cluster hold. Line 1 is the first line of the string.
SUMS = """__device__ void meet() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ float* in_block(float* place, int block) {
    float* there; asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(block)); return there;
}
extern "C" __global__ void sums(const float* x, float* out, int blocks) {
    __shared__ float held[32];
    const int i = threadIdx.x;
    held[i] = x[blockIdx.x * 32 + i];
    meet();
    float sum = 0;
    for (int b = 0; b < blocks; b++) sum += *in_block(held + i, b);
    meet();
    out[blockIdx.x * 32 + i] = sum;
}"""


def clustered(kernel: str, grid: int, block: int, args: tuple[str | int, ...], cluster: int = 4) -> BoundLaunch:
    return replace(launch(kernel, grid, block, args), cluster=(cluster, 1, 1))


def summed(source: str, blocks: int = 4, **options: bool) -> tuple[Execution, torch.Tensor]:
    x = torch.arange(12.0 * 32).reshape(12, 32)
    one = clustered("sums", 12, 32, ("x", "out", blocks))
    execution = run(source, one, {"x": x}, [spec("out", (12, 32))], **{"sanitize": True, **options})
    return execution, x.reshape(3, 4, 32).sum(1, keepdim=True).expand(3, 4, 32).reshape(12, 32)


def without(line: int, old: str, new: str = "") -> str:
    """Change one line of the sums, so that others keep their numbers."""
    lines = SUMS.split("\n")
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    return "\n".join(lines)


def test_blocks_of_a_cluster_read_each_others_shared_memory() -> None:
    execution, due = summed(SUMS)
    assert torch.equal(clean(execution)["out"], due)


@pytest.mark.parametrize(
    ("line", "old", "new", "message", "at"),
    [
        (12, "meet();", "", "may not have begun", {14}),
        (12, "meet();", "__syncthreads();", "nothing to order the two", {14}),
        (15, "meet();", "", "may have ended", {14}),
        (2, "release", "relaxed", "nothing to order the two", {14}),
    ],
)
def test_each_barrier_of_a_cluster_is_needed(line: int, old: str, new: str, message: str, at: set[int]) -> None:
    execution, _ = summed(without(line, old, new))
    assert {one.kind for one in execution.findings} == {"shared_race"}
    assert any(message in one.message and one.line in at for one in execution.findings), execution.findings


def test_what_is_written_between_arriving_and_waiting_is_not_seen_by_others() -> None:
    early = without(11, "held[i] = x", "float mine = x").replace("    meet();\n    float sum", "    SPLIT float sum")
    arrive, wait = SUMS.split("\n")[1:3]
    between, _ = summed(early.replace("SPLIT", f"{arrive} held[i] = mine; {wait}"))
    assert {one.kind for one in between.findings} == {"shared_race"}
    before, due = summed(early.replace("SPLIT", f"held[i] = mine; {arrive} {wait}"))
    assert torch.equal(clean(before)["out"], due)


def test_a_block_that_no_cluster_has_and_memory_that_no_block_has() -> None:
    (found,) = summed(SUMS, blocks=5)[0].findings
    assert (found.kind, found.line) == ("out_of_bounds", 6) and "block 4 of a cluster of 4" in found.message
    (found,) = summed(without(14, "held + i", "held + i + 1"))[0].findings
    assert (found.kind, found.line, found.thread) == ("out_of_bounds", 14, (31, 0, 0))


def test_a_value_that_another_block_never_wrote() -> None:
    found = summed(without(11, "held[i] =", "if (blockIdx.x % 4) held[i] ="))[0].findings
    assert {one.kind for one in found} == {"uninitialised"}


def test_an_access_to_a_block_that_has_ended_is_found_without_the_sanitizer() -> None:
    source = without(13, "float sum", "if (blockIdx.x % 4 == 0) return; meet(); float sum")
    (found,) = summed(source, sanitize=False)[0].findings
    assert (found.kind, found.line, found.block) == ("out_of_bounds", 14, (1, 0, 0))
    assert "block (0, 0, 0), which has ended" in found.message


def test_threads_that_have_ended_are_not_waited_for() -> None:
    execution, due = summed(
        without(15, "meet();", "meet(); if (i >= 16) { out[blockIdx.x * 32 + i] = sum; return; } meet();")
    )
    assert torch.equal(clean(execution)["out"], due)


# --------------------------------------------------------------------------------------------------- small kernels

ARRIVE, WAIT = (
    'asm volatile("barrier.cluster.arrive;" ::: "memory");',
    'asm volatile("barrier.cluster.wait;" ::: "memory");',
)


def small(body: str, outputs: int = 128) -> Execution:
    """Four blocks of a warp in clusters of two; `i` is the thread, `r` the block's rank, line 2 the first of the body."""
    head = 'extern "C" __global__ void k(int* out) { const int i = threadIdx.x, b = blockIdx.x, r = b % 2;\n'
    return run(
        head + body + "\n}", clustered("k", 4, 32, ("out",), 2), {}, [spec("out", outputs, "int32")], sanitize=True
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"{ARRIVE}\n{ARRIVE}", "again without having waited"),
        (f"{ARRIVE} {WAIT}\n{WAIT}", "without having arrived"),
        (f"if (i < 16) {{ {ARRIVE} {WAIT} }}\nelse __syncthreads();", "that the others never reach"),
    ],
)
def test_barriers_that_are_used_wrongly(body: str, message: str) -> None:
    (found,) = small(body).findings
    assert (found.kind, found.line) == ("barrier_divergence", 3) and message in found.message


def test_stores_and_atomics_go_to_other_blocks() -> None:
    body = f"""__shared__ int sum, mine[32]; if (i == 0) sum = 0; {ARRIVE} {WAIT}
    unsigned there, own = __cvta_generic_to_shared(&mine[i]), at = __cvta_generic_to_shared(&sum), first;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(own), "r"(r ^ 1));
    asm("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(first) : "r"(at));
    asm volatile("st.shared::cluster.u32 [%0], %1;" :: "r"(there), "r"(100 * r + i) : "memory");
    asm volatile("red.relaxed.cluster.shared::cluster.add.u32 [%0], %1;" :: "r"(first), "r"(i) : "memory");
    {ARRIVE} {WAIT}
    int all; asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(all) : "r"(first) : "memory");
    unsigned rank; asm("getctarank.shared::cluster.u32 %0, %1;" : "=r"(rank) : "r"(there));
    out[b * 32 + i] = mine[i]; out[128 + b * 32 + i] = 10 * all + rank; {ARRIVE} {WAIT}"""
    got = clean(small(body, 256))["out"].reshape(2, 2, 2, 32)
    assert got[0].tolist() == [[[100 * (1 - r) + i for i in range(32)] for r in range(2)] for _ in range(2)]
    assert got[1].tolist() == [[[9920 + 1 - r] * 32 for r in range(2)] for _ in range(2)]


def test_the_functions_of_the_cuda_header_and_clusters_of_three_dimensions() -> None:
    source = """#include <cooperative_groups.h>
    extern "C" __global__ void k(int* out) {
        __shared__ int s[1]; const auto c = cooperative_groups::this_cluster();
        const dim3 at = c.block_index(), size = c.dim_blocks();
        s[0] = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z; c.sync();
        const int next = (c.block_rank() + 1) % c.num_blocks();
        int* there = c.map_shared_rank(s, next);
        int* mine = out + 5 * (blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
        mine[0] = *there; mine[1] = at.x + 10 * at.y + 100 * at.z; mine[2] = size.x + 10 * size.y + 100 * size.z;
        mine[3] = c.query_shared_rank(there) - next; unsigned x, n;
        asm("mov.u32 %0, %clusterid.y; mov.u32 %1, %nclusterid.x;" : "=r"(x), "=r"(n)); mine[4] = x + 10 * n;
        c.sync();
    }"""
    one = BoundLaunch("k", (4, 4, 2), (1, 1, 1), 0, ("out",), (2, 2, 2))
    got = clean(run(source, one, {}, [spec("out", (2, 4, 4, 5), "int32")], sanitize=True))["out"]
    for z, y, x in ((z, y, x) for z in range(2) for y in range(4) for x in range(4)):
        rank = (x % 2 + 2 * (y % 2) + 4 * z + 1) % 8
        due = x // 2 * 2 + rank % 2 + 10 * (y // 2 * 2 + rank // 2 % 2) + 100 * (rank // 4)
        assert got[z, y, x].tolist() == [due, x % 2 + 10 * (y % 2) + 100 * z, 222, 0, y // 2 + 20]


def test_a_barrier_of_the_cluster_orders_global_memory_among_its_blocks_only() -> None:
    body = f"out[b * 32 + i] = i; {ARRIVE} {WAIT}\nout[128 + b * 32 + i] = out[(b ^ 1) * 32 + i];"
    assert clean(small(body, 256))["out"].tolist() == [*range(32)] * 8
    assert {one.kind for one in small(body.replace("^ 1", "^ 2"), 256).findings} == {"global_race"}


def test_a_relaxed_start_and_a_released_end_are_in_order() -> None:
    source = SUMS.replace(
        "    __shared__",
        '    asm volatile("barrier.cluster.arrive.relaxed;"); asm volatile("barrier.cluster.wait;");    __shared__',
    )
    execution, due = summed(source)
    assert torch.equal(clean(execution)["out"], due)


def test_launches_that_hardware_refuses() -> None:
    source = SUMS.replace("void sums", "void __cluster_dims__(4, 1, 1) sums")
    assert summed(source)[0].findings == ()
    x = torch.zeros(12, 32)
    for cluster, why in ((2, "compiled for one of (4, 1, 1)"), (1, "compiled for one of (4, 1, 1)")):
        one = clustered("sums", 12, 32, ("x", "out", 1), cluster)
        (found,) = run(source, one, {"x": x}, [spec("out", (12, 32))]).findings
        assert found.kind == "invalid_launch" and why in found.message
    for cluster in (5, 12):
        one = clustered("sums", 12, 32, ("x", "out", 1), cluster)
        (found,) = run(SUMS, one, {"x": x}, [spec("out", (12, 32))]).findings
        assert found.kind == "invalid_launch" and "clusters of" in found.message


def test_a_form_that_is_not_known_is_named() -> None:
    ptx = compile_ptx(SUMS).replace("wait.acquire", "wait.relaxed")
    one = clustered("sums", 4, 32, ("x", "out", 4))
    with pytest.raises(SimulatorError, match=r"barrier\.cluster\.wait\.relaxed"):
        run_ptx(ptx, [one], {"x": torch.zeros(128)}, [spec("out", 128)])


def test_memory_of_other_blocks_costs_more_and_the_estimate_keeps_clusters_together() -> None:
    far = summed(SUMS, sanitize=False)[0].counters[0]
    near = summed(without(14, "held + i, b", "held + i, blockIdx.x % 4"), sanitize=False)[0].counters[0]
    # 12 warps write one line and read four: three of the four in other blocks, at eight times the cost.
    assert near.shared_wavefronts == near.shared_requests == 12 * 5
    assert far.shared_wavefronts == far.shared_requests == 12 * (1 + 1 + 3 * 8)
    assert dict(far.instructions)["barrier"] == 4 * 12 * 32
    resources = KernelResources("sums", 16, 0, 0, 128, 0)
    made = replace(build(compile_ptx(SUMS)), resources=(resources,))
    one = clustered("sums", 132, 32, ("x", "out", 4), 4)
    spread = replace(one, cluster=(1, 1, 1))
    waves = [
        explain(made, BoundPlan((), (each,)), (far,), replace(GPU, sm_count=15))[0].waves for each in (one, spread)
    ]
    assert waves[0] / waves[1] == pytest.approx(15 / 12)
