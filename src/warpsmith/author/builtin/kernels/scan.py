"""Scans: running sums and products along one dimension, with whatever pointwise work follows them.

A thread scans a stretch of neighbouring elements in registers, the threads of a row exchange the totals of their
stretches, and what the row has summed so far is carried from one round to the next.
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Scope, loads, vector_widths
from warpsmith.author.builtin.kernels.scan_kernel import emit_scan
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.kernels.scan_lookback import BESIDE, emit_lookback
from warpsmith.author.builtin.kernels.scan_split import emit_split_scan
from warpsmith.author.builtin.regions import Region
from warpsmith.records import GpuSpec

# Algorithms in which a block scans a row or a piece of it.
_BLOCKS = frozenset({"block", "split", "lookback"})


class Scans:
    """Algorithms: `thread`, `warp`, `block` to a row, `columns` for rows side by side; for few long rows `lookback` in
    one pass, `split` in two.
    """

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, vector width, and how the threads of a block read; see `scan_stretch`."""
        algorithms = _algorithms(region, gpu)
        genes = [Gene("algorithm", algorithms)]
        widths = _widths(region)
        if len(widths) > 1:
            genes.append(Gene("vec", widths))
        if _BLOCKS & set(algorithms):
            reads = ("striped", "exchanged", "direct")
            beside = ScanLayout.of(region, 1).beside
            striped_first = beside == 1 or (algorithms[0] == "lookback" and beside < BESIDE)
            genes.append(Gene("reads", reads if striped_first else tuple(reversed(reads))))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, or two for `split` and `lookback`."""
        algorithm = str(genes["algorithm"])
        reads = str(genes.get("reads", "direct")) if algorithm in _BLOCKS else "direct"
        # Elements that are traded one by one, or that a thread meets one by one, come as scalars.
        vec = 1 if reads == "exchanged" or algorithm == "columns" else int(genes.get("vec", 1))
        layout = ScanLayout.of(region, vec)
        if algorithm == "split":
            return emit_split_scan(layout, scope, reads)
        if algorithm == "lookback":
            return emit_lookback(layout, scope, reads)
        return emit_scan(layout, scope, algorithm, reads)


def _algorithms(region: Region, gpu: GpuSpec) -> tuple[str, ...]:
    """Every algorithm that suits the shape, the likeliest first."""
    rows, cols = region.rows, region.cols
    beside = ScanLayout.of(region, 1).beside
    if beside > 1:
        fitting = ["thread", "columns"] if cols < 64 or rows >= 64 * gpu.sm_count else ["columns", "thread"]
        fitting += ["block"] if cols >= 64 else []
    elif cols < 32:
        fitting = ["thread", "warp"]
    else:
        fitting = ["warp", "block"] if cols <= 512 else ["block", "warp"]
        fitting += ["thread"] if cols <= 512 else []
    return tuple(_with_cut(fitting, rows, cols, beside, gpu))


def _with_cut(whole: list[str], rows: int, cols: int, beside: int, gpu: GpuSpec) -> list[str]:
    """Add the algorithms that cut rows, if there are few and long ones; they come first where that pays.

    A cut row costs a second launch and a few trips through memory. By the estimate, which knows nothing of blocks that
    wait for each other, a block walks along some 8000 elements in that time; columns have fewer threads each.
    """
    side_by_side = beside >= BESIDE
    blocks, least, pays = (-(-rows // 32), 1024, 1024) if side_by_side else (rows, 4096, 16384)
    if blocks > 2 * gpu.sm_count or cols < least:
        return whole
    cut = ["lookback", "split"] if rows <= 2 * gpu.sm_count and cols >= 4096 else ["lookback"]
    few = blocks <= gpu.sm_count if side_by_side else blocks * 4 <= gpu.sm_count
    return [*cut, *whole] if few and cols >= pays else [*whole, *cut]


def _widths(region: Region) -> tuple[int, ...]:
    """Vector widths in which something is read or written whole, the likeliest first."""
    layout = ScanLayout.of(region, 1)
    dtypes = [load.stored for load in loads([layout.source])] + [o.dtype for o in region.outputs]
    found = [v for v in vector_widths(region.cols, dtypes) if v == 1 or ScanLayout.of(region, v).any_vector]
    return tuple(sorted(found, key=lambda v: (v != min(4, max(found)), v)))
