"""Scans: running sums and products along one dimension, with whatever pointwise work follows them.

A thread scans a stretch of neighbouring elements in registers, the threads of a row exchange the totals of their
stretches, and what the row has summed so far is carried from one round to the next.
"""

from __future__ import annotations

import math

from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Scope, loads, vector_widths
from warpsmith.author.builtin.kernels.scan_kernel import emit_scan
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.kernels.scan_split import emit_split_scan
from warpsmith.author.builtin.regions import Region
from warpsmith.records import GpuSpec


class Scans:
    """Algorithms: `thread`, `warp`, `block` to a row, `columns` for rows side by side, `split` for few long rows."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, vector width, and whether threads trade elements through shared memory to read in order."""
        algorithms = _algorithms(region, gpu)
        genes = [Gene("algorithm", algorithms)]
        widths = _widths(region)
        if len(widths) > 1:
            genes.append(Gene("vec", widths))
        if {"block", "split"} & set(algorithms):
            genes.append(Gene("reads", ("direct", "exchanged")))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, or two for `split`."""
        algorithm = str(genes["algorithm"])
        exchanged = algorithm in ("block", "split") and genes.get("reads") == "exchanged"
        # Elements that are traded one by one, or that a thread meets one by one, come as scalars.
        vec = 1 if exchanged or algorithm == "columns" else int(genes.get("vec", 1))
        layout = ScanLayout.of(region, vec)
        if algorithm == "split":
            return emit_split_scan(layout, scope, exchanged)
        return emit_scan(layout, scope, algorithm, exchanged)


def _algorithms(region: Region, gpu: GpuSpec) -> tuple[str, ...]:
    """Every algorithm that suits the shape, the likeliest first."""
    rows, cols = region.rows, region.cols
    side_by_side = math.prod(region.domain[region.reduced[0] + 1 :]) > 1
    if side_by_side:
        fitting = ["thread", "columns"] if cols < 64 or rows >= 64 * gpu.sm_count else ["columns", "thread"]
        fitting += ["block"] if cols >= 64 else []
    elif cols < 32:
        fitting = ["thread", "warp"]
    else:
        fitting = ["warp", "block"] if cols <= 512 else ["block", "warp"]
        fitting += ["thread"] if cols <= 512 else []
    if rows <= 2 * gpu.sm_count and cols >= 4096:
        fitting.insert(0 if rows * 4 <= gpu.sm_count else len(fitting), "split")
    return tuple(fitting)


def _widths(region: Region) -> tuple[int, ...]:
    """Vector widths in which something is read or written whole, the likeliest first."""
    layout = ScanLayout.of(region, 1)
    dtypes = [load.stored for load in loads([layout.source])] + [o.dtype for o in region.outputs]
    found = [v for v in vector_widths(region.cols, dtypes) if v == 1 or ScanLayout.of(region, v).any_vector]
    return tuple(sorted(found, key=lambda v: (v != min(4, max(found)), v)))
