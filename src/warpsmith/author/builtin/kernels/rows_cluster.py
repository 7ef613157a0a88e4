"""Rows shared by the blocks of a cluster: each keeps a part in its shared memory, and all exchange what they reduced.

A row of up to eight times the shared memory of a block is so read once, however many passes there are over it.
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.emission import Scope
from warpsmith.author.builtin.kernels.frame import Frame
from warpsmith.author.builtin.kernels.mapping import Mapping
from warpsmith.author.builtin.kernels.rows_kept import kept_loads
from warpsmith.author.builtin.regions import Region
from warpsmith.records import DTYPE_BYTES, GpuSpec

_HOPPER = (9, 0)
_SIZES = (2, 4, 8)
_BLOCKS = (256, 512, 1024)
# Shared memory of a block that reductions need.
_RESERVED = 4 * 1024
# Columns from which on a row is worth more than a block, and from which on it is though there are rows for all of them.
_LONG_OF_FEW, _LONG = 1 << 12, 1 << 14


def suits_clusters(region: Region, gpu: GpuSpec) -> bool:
    """Whether a row is read more than once and fits into the shared memory of a cluster."""
    if gpu.compute_capability < _HOPPER or region.cols < (_LONG_OF_FEW if _few(region, gpu) else _LONG):
        return False
    size = _bytes_per_column(region)
    # In the widest vectors, of which most are left over.
    return size > 0 and bool(_choices(-(-region.cols // 8), 8 * size, gpu.shared_per_block)[1])


def clusters_first(region: Region, gpu: GpuSpec) -> bool:
    """Whether rows that suit clusters are longer than what one block holds, and enough to keep half of the GPU busy."""
    whole = _bytes_per_column(region) * region.cols
    return whole > gpu.shared_per_block and 2 * region.rows * max(_SIZES) >= gpu.sm_count


def cluster_per_row(frame: Frame, scope: Scope) -> Mapping:
    """Each cluster reduces a row; its threads take turns of columns, so that a block reads neighbours."""
    block, cluster = scope.tunable("BLOCK"), scope.tunable("CLUSTER")
    size = sum(DTYPE_BYTES[load.stored] for load in kept_loads(frame)) * frame.lanes.vec
    blocks, sizes = _choices(frame.lanes.group.extent, size, scope.shared)
    return Mapping(
        (
            f"const {scope.integer} row = blockIdx.x / {cluster};",
            f"const int lane = blockIdx.x % {cluster} * {block} + threadIdx.x;",
        ),
        f"({cluster} * {block})",
        f"cluster_reduce<{cluster}, {block} / 32>",
        "cluster_reduce",
        block,
        (f"{frame.region.rows} * {cluster}",),
        (block,),
        ((block, blocks), (cluster, sizes)),
        cluster=cluster,
    )


def _few(region: Region, gpu: GpuSpec) -> bool:
    return region.rows <= 2 * gpu.sm_count


def _bytes_per_column(region: Region) -> int:
    """What is kept of each column where all passes are made."""
    return sum(DTYPE_BYTES[load.stored] for load in kept_loads(Frame.of(region, 1, one_pass=False)))


def _choices(groups: int, size: int, room: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Threads to a block and blocks to a cluster, the likeliest first, to keep `groups` of `size` bytes in `room` each.

    Every pair fits. Three blocks to a multiprocessor, of which one reads, one reduces and one writes, are better than
    large clusters; a block that is alone there needs many threads.
    """

    def fits(cluster: int, block: int) -> bool:
        items = -(-groups // (cluster * block))
        return items * block * size <= room - _RESERVED

    blocks = [b for b in _BLOCKS if fits(max(_SIZES), b)]
    sizes = [c for c in _SIZES if blocks and all(fits(c, b) for b in blocks)]
    small = [c for c in sizes if 3 * groups * size <= c * room]
    sizes = [*small, *(c for c in reversed(sizes) if c not in small)]
    alone = bool(sizes) and 2 * groups * size > sizes[0] * room
    return tuple(sorted(blocks, key=lambda b: (b != (1024 if alone else 512), -b))), tuple(sizes)
