"""Bulk copies and barriers in shared memory: a ring of tiles, and every way in which a kernel may get it wrong."""

from __future__ import annotations

import pytest
import torch

from tests.device.kit import clean, compile_ptx, launch, run_ptx, spec
from warpsmith.errors import SimulatorError
from warpsmith.records import Execution

# Each block adds up tiles of 128 elements, turned round; line 1 is the first line of the string.
RING = r"""__device__ unsigned at(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }
__device__ void init(unsigned long long* b, int n) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(at(b)), "r"(n) : "memory"); }
__device__ void arrive(unsigned long long* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(at(b)) : "memory"); }
__device__ void expect(unsigned long long* b, int n) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(at(b)), "r"(n) : "memory"); }
__device__ void await(unsigned long long* b, int turn) {
    unsigned done = 0;
    while (!done) asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(at(b)), "r"(turn) : "memory");
}
__device__ void copy(void* to, const void* from, int n, unsigned long long* b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" :: "r"(at(to)), "l"(from), "r"(n), "r"(at(b)) : "memory");
}
extern "C" __global__ void ring(const float* x, float* out, int tiles) {
    __shared__ __align__(128) float tile[2][128];
    __shared__ unsigned long long full[2], empty[2];
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) { init(&full[i], 1); init(&empty[i], 4); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    x += blockIdx.x * tiles * 128; out += blockIdx.x * 128;
    auto fetch = [&](int t) { expect(&full[t % 2], 512); copy(tile[t % 2], x + t * 128, 512, &full[t % 2]); };
    if (threadIdx.x == 0) for (int t = 0; t < 2 && t < tiles; t++) fetch(t);
    float sum = 0;
    for (int t = 0; t < tiles; t++) {
        await(&full[t % 2], t / 2 % 2);
        sum += tile[t % 2][127 - threadIdx.x];
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(&empty[t % 2]);
        if (threadIdx.x == 0 && t + 2 < tiles) { await(&empty[t % 2], t / 2 % 2); fetch(t + 2); }
    }
    out[threadIdx.x] = sum;
}"""
TILES = 5


def _run(source: str, blocks: int = 3, tiles: int = TILES, x: torch.Tensor | None = None) -> Execution:
    x = torch.randn(blocks, tiles, 128, generator=torch.Generator().manual_seed(3)) if x is None else x
    ptx = compile_ptx(source, "compute_90a")
    launches = [launch("ring", blocks, 128, ["x", "out", tiles])]
    return run_ptx(ptx, launches, {"x": x}, [spec("out", (blocks, 128))], sanitize=True, budget=500_000)


@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_a_ring_of_tiles_brings_every_element(tiles: int) -> None:
    x = torch.randn(3, tiles, 128, generator=torch.Generator().manual_seed(4))
    execution = _run(RING, tiles=tiles, x=x)
    clean(execution)
    assert torch.allclose(execution.outputs["out"], x.flip(2).sum(1), atol=1e-5)


MISTAKES = {
    "nobody waits for a tile": ("        await(&full[t % 2], t / 2 % 2);\n", "", "while a bulk copy to it is on its way"),
    "one warp does not wait": (
        "        await(&full[t % 2], t / 2 % 2);", "        if (threadIdx.x / 32 != 2) await(&full[t % 2], t / 2 % 2);", "a bulk copy",
    ),
    "a tile is overwritten before it was read": (
        "{ await(&empty[t % 2], t / 2 % 2); fetch(t + 2); }", "fetch(t + 2);", "reads in line",
    ),
    "a warp says that it has read before it does": (
        "        sum += tile[t % 2][127 - threadIdx.x];\n        __syncwarp();\n        if (threadIdx.x % 32 == 0) arrive(&empty[t % 2]);",
        "        if (threadIdx.x % 32 == 0) arrive(&empty[t % 2]);\n        __syncwarp();\n        sum += tile[t % 2][127 - threadIdx.x];",
        "a bulk copy|reads in line|while",
    ),
    "barriers are used before they are made": ("    __syncthreads();\n", "", "which another warp initialises|nobody initialised|another warp initialises"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_ordered_is_found(mistake: str) -> None:
    old, new, words = MISTAKES[mistake]
    assert old in RING
    found = _run(RING.replace(old, new)).findings
    assert found and any(word in finding.message for finding in found for word in words.split("|")), found


FAULTS = {
    "bytes that no sixteen divide": ("x + t * 128, 512,", "x + t * 128, 500,", "a multiple of 16"),
    "more than there is to read": ("x + t * 128, 512,", "x + t * 128 + 100000, 512,", "16 bytes"),
    "to the end of shared memory and beyond": ("copy(tile[t % 2],", "copy(tile[t % 2] + 300,", "of shared memory"),
    "more arrivals than were announced": ("expect(&full[t % 2], 512);", "expect(&full[t % 2], 512); arrive(&full[t % 2]);", "more often than was announced"),
    "a barrier for nobody": ("init(&full[i], 1)", "init(&full[i], 0)", "a barrier for 0 arrivals"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_ends_the_run(fault: str) -> None:
    old, new, words = FAULTS[fault]
    assert old in RING
    (finding,) = _run(RING.replace(old, new)).findings[-1:]
    assert words in finding.message


def test_bytes_that_never_come_are_waited_for_until_the_budget_ends() -> None:
    (finding,) = _run(RING.replace("expect(&full[t % 2], 512)", "expect(&full[t % 2], 528)"), blocks=1).findings
    assert finding.kind == "budget"


def test_the_state_of_a_barrier_is_not_known() -> None:
    with pytest.raises(SimulatorError, match="only waiting by parity is known"):
        _run(RING.replace('b64 _, [%0];" :: "r"(at(b))', 'b64 %0, [%1];" : "=l"(*b) : "r"(at(b))'))
