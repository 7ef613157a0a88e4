"""Pieces of CUDA for blocks of a thread block cluster (compute capability 9.0 and newer)."""

from __future__ import annotations

from collections.abc import Mapping

CLUSTER_SNIPPETS: Mapping[str, str] = {
    "cluster_reduce": """// All threads of a cluster meet, and see what the others wrote before.
__device__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The same place in the shared memory of another block of the cluster.
template <typename T> __device__ const T* in_block(const T* place, int block) {
    const T* there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(block));
    return there;
}

// Merge over the threads of a cluster, its blocks in one order for all of them; every thread gets the result.
template <int Blocks, int Warps, typename A> __device__ A cluster_reduce(A mine) {
    __shared__ A of_warp[Warps], of_block, whole;
    mine = warp_reduce(mine);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x < 32) {
        mine = warp_reduce(threadIdx.x < Warps ? of_warp[threadIdx.x] : A::empty());
        if (threadIdx.x == 0) of_block = mine;
    }
    cluster_barrier();
    if (threadIdx.x == 0) {
        mine = *in_block(&of_block, 0);
        #pragma unroll
        for (int block = 1; block < Blocks; ++block) mine.merge(*in_block(&of_block, block));
        whole = mine;
    }
    // A block that goes on would overwrite, one that ends would take along, what others still read.
    cluster_barrier();
    return whole;
}""",
}
