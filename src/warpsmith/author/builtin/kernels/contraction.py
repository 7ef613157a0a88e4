"""Contractions: matrix products, linear layers and convolutions, with whatever pointwise work follows them.

`mma` and `wgmma` multiply on tensor cores, `parts` does so in float32 with operands that were parted in two halves of
16 bits first, `tiled` keeps tiles of both operands in shared memory, `direct` sums in each
thread from memory, `strip` does so with windows that slide, `dot` gives every output to a warp or a block.
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.contraction_direct import emit_direct
from warpsmith.author.builtin.kernels.contraction_dot import emit_dot
from warpsmith.author.builtin.kernels.contraction_fill import Model, Share, shares, splittable
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_mma import emit_mma
from warpsmith.author.builtin.kernels.contraction_pack import merged, packed
from warpsmith.author.builtin.kernels.contraction_strip import emit_strip, slide_along
from warpsmith.author.builtin.kernels.contraction_tile import Tile
from warpsmith.author.builtin.kernels.contraction_tiled import emit_tiled
from warpsmith.author.builtin.kernels.contraction_warps import (
    Warps,
    groups_first,
    mma_genes,
    suits,
    tensor_rate,
    tensor_tiles,
)
from warpsmith.author.builtin.kernels.contraction_wgmma import emit_wgmma
from warpsmith.author.builtin.kernels.contraction_wgmma_bulk import WgmmaBulk
from warpsmith.author.builtin.kernels.contraction_wgmma_parts import (
    WgmmaParts,
    parts_model,
    parts_seconds,
    parts_tiles,
)
from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Scope
from warpsmith.author.builtin.regions import Region
from warpsmith.records import DTYPE_BYTES, GpuSpec

# Tile of a block / patch of a thread. Wide patches do more products for each read of shared memory, small tiles give
# more blocks.
_TILES = (
    "128x128/8x8", "128x64/8x4", "64x128/4x8", "64x64/4x4", "64x64/8x8", "64x32/4x2", "32x64/2x4", "32x32/2x2",
    "32x32/4x4", "32x32/2x4", "64x16/4x1", "16x64/1x4", "16x64/4x4", "16x32/2x2", "16x16/1x1", "16x16/2x2",
)  # fmt: skip
# Below this extent a tile would be mostly empty.
_TILED_EXTENT = 4
# A dot product wants a stretch for every lane, and reads both operands anew for every output.
_DOT_DEPTH, _DOT_OUTPUTS, _DOT_EXTENT = 32, 1 << 15, 16
# Sums so long that sharing them pays for a second launch, where threads read operands for themselves.
_LONG_DEPTH = 1024
# Sums that give every thread of a block something to read.
_BLOCK_DEPTH = 8192
# Threads of a busy multiprocessor where each reads for itself, and the least share of a sum.
_LONE = {"dot": (1024, 512), "direct": (1024, 32)}
_TENSOR = frozenset({"mma", "wgmma"})
# Algorithms that read operands in whole tiles.
_PACKING = _TENSOR | {"tiled"}


class Contractions:
    """Algorithms `mma`, `wgmma`, `parts`, `tiled`, `direct`, `strip` and `dot`."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, tile, stages, who brings tiles to shared memory, patches, teams, vector width, precision, whether
        several blocks share a sum and for how many blocks, and whether operands are brought into another order first.
        """
        layout = Layout.of(region, packed=True)
        slide = slide_along(layout)
        algorithms = _algorithms(layout, gpu, slides=slide is not None)
        share = _usual_share(layout, gpu, algorithms[0])
        genes = [Gene("algorithm", algorithms)]
        if layout.tensors and set(algorithms) & _PACKING:
            genes.append(Gene("operands", ("packed", "as stored")))
        if "mma" in algorithms:
            genes += mma_genes(layout, gpu, share)
        if "parts" in algorithms:
            genes.append(Gene("panels", parts_model(layout, gpu).ordered(parts_tiles(layout, gpu), share)))
            genes.append(Gene("feed", ("threads", "bulk")))
        if "tiled" in algorithms:
            genes += [Gene("tile", _tiles(layout, gpu, share)), Gene("stages", (1, 2))]
        if splittable(layout):
            numbers = sorted(shares(gpu), key=lambda each: share is not None and each != share)
            genes.append(Gene("depth", ("split", "whole") if share else ("whole", "split")))
            genes.append(Gene("blocks", tuple(each.blocks for each in numbers)))
        patches = _patches(layout, gpu, share)
        if len(patches) > 1:
            genes.append(Gene("per_thread", patches))
        if slide is not None:
            genes.append(Gene("strip", slide.lengths))
        if "dot" in algorithms and layout.depth >= 256:
            few = layout.count <= gpu.sm_count // 2 and layout.depth >= _BLOCK_DEPTH
            genes.append(Gene("team", ("block", "warp") if few else ("warp", "block")))
        roomy = algorithms[0] != "direct" or layout.count >= 4 * _threads(gpu)
        widths = _widths(
            layout, (8, 4, 2, 1) if algorithms[0] in _TENSOR | {"parts"} else (4, 8, 2, 1) if roomy else (1, 2, 4, 8)
        )
        if len(widths) > 1:
            genes.append(Gene("vec", widths))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, or two where several blocks share a sum."""
        pack = genes.get("operands") == "packed" and genes["algorithm"] in _PACKING
        one_pass = region.tf32 and genes["algorithm"] in _TENSOR and genes.get("precision") == "tf32"
        layout = Layout.of(region, pack, tf32=one_pass)
        kernels = self._product(layout, genes, scope)
        return merged([*packed(layout.tensors, scope), kernels]) if layout.tensors else kernels

    def _product(self, layout: Layout, genes: Genes, scope: Scope) -> Kernels:
        vec, several = int(genes.get("vec", 1)), int(genes.get("per_thread", 1))
        share = Share(int(genes["blocks"]), *_LONE.get(str(genes["algorithm"]), ())) if _splits(genes) else None
        if genes["algorithm"] == "mma":
            return emit_mma(layout, scope, genes, vec, share)
        if genes["algorithm"] == "wgmma":
            return emit_wgmma(layout, scope, genes, vec, share)
        if genes["algorithm"] == "parts":
            kind = WgmmaBulk if genes["feed"] == "bulk" else WgmmaParts
            kernel = kind(layout, scope, Warps.of_groups(str(genes["panels"])), share)
            return merged([*(side.emit(scope) for side in kernel.sides), kernel.emit()])
        if genes["algorithm"] == "tiled":
            return emit_tiled(layout, scope, Tile.parse(str(genes["tile"])), int(genes["stages"]), vec, share)
        if genes["algorithm"] == "direct":
            fitting = next(v for v in (8, 4, 2, 1) if v <= vec and layout.n % v == 0)
            return emit_direct(layout, scope, several, fitting, share)
        if genes["algorithm"] == "strip":
            slide = slide_along(layout)
            assert slide is not None
            return emit_strip(layout, scope, slide, int(genes["strip"]))
        widest = max(side.vector(layout.batch, "depth", vec) for side in (layout.left, layout.right))
        return emit_dot(layout, scope, str(genes.get("team", "warp")), several, widest, share)


def _algorithms(layout: Layout, gpu: GpuSpec, *, slides: bool) -> tuple[str, ...]:
    """Every algorithm that suits the shape, the likeliest first."""
    small = min(layout.m, layout.n)
    dot = layout.depth >= _DOT_DEPTH and (layout.count <= _DOT_OUTPUTS or small <= _DOT_EXTENT)
    fitting = ["direct"]
    if small >= _TILED_EXTENT:
        shallow = layout.depth < 16 or small < 16
        fitting.insert(1 if shallow else 0, "tiled")
    if dot:
        first = small < 8 and not _by_rows(layout, gpu)
        fitting.insert(0 if first else len(fitting), "dot")
    if slides:
        fitting.insert(0, "strip")
    if not suits(layout, gpu):
        return tuple(fitting)
    _, groups = tensor_tiles(layout, gpu)
    tensor = ("mma", "wgmma") if groups else ("mma",)
    tensor = tensor[::-1] if groups_first(layout, gpu) else tensor
    if parts := parts_tiles(layout, gpu):
        seconds = parts_model(layout, gpu).best(parts.values())[0] + parts_seconds(layout, gpu)
        tensor = (*tensor, "parts") if seconds > _tensor_seconds(layout, gpu) else ("parts", *tensor)
    return (*tensor, *fitting)


def _tensor_seconds(layout: Layout, gpu: GpuSpec) -> float:
    """Estimate a product on tensor cores whose operands are read as they are."""
    model = Model(layout, gpu, *tensor_rate(layout, gpu))
    return min(model.best(tiles.values())[0] for tiles in tensor_tiles(layout, gpu) if tiles)


def _usual_share(layout: Layout, gpu: GpuSpec, algorithm: str) -> Share | None:
    """How sums are shared by default where an algorithm comes first; None where they are better whole."""
    if algorithm == "parts":
        return parts_model(layout, gpu).best(parts_tiles(layout, gpu).values())[1]
    if algorithm in _TENSOR:
        tiles = tensor_tiles(layout, gpu)[algorithm == "wgmma"]
        return Model(layout, gpu, *tensor_rate(layout, gpu)).best(tiles.values())[1]
    if algorithm == "tiled":
        return _model(layout, gpu).best(_fitting(layout).values())[1]
    threads = layout.count * 32 * 2 if algorithm == "dot" else layout.count
    pays = layout.depth >= _LONG_DEPTH and threads < _threads(gpu)
    return shares(gpu)[0] if pays and splittable(layout) else None


def _by_rows(layout: Layout, gpu: GpuSpec) -> bool:
    """Whether neighbouring threads should read along the rows of the wider operand, and there are enough threads."""
    enough = layout.depth >= _LONG_DEPTH or layout.count >= _threads(gpu)
    return enough and layout.n >= 32 and layout.right.direction(layout.batch) == "outer"


def _model(layout: Layout, gpu: GpuSpec) -> Model:
    """The time that tiles take without tensor cores."""
    size = DTYPE_BYTES[layout.dtype]
    return Model(layout, gpu, gpu.fp32_flops / 2 * 4 / size, size)


def _tiles(layout: Layout, gpu: GpuSpec, share: Share | None) -> tuple[str, ...]:
    """Tiles that are not mostly empty, the fastest first; of equals the one with the most threads."""
    fitting = dict(sorted(_fitting(layout).items(), key=lambda item: -item[1].threads))
    return _model(layout, gpu).ordered(fitting, share)


def _fitting(layout: Layout) -> dict[str, Tile]:
    tiles = {text: Tile.parse(text) for text in _TILES}
    return {text: tile for text, tile in tiles.items() if _fills(tile, layout)}


def _splits(genes: Genes) -> bool:
    return genes.get("depth") == "split"


def _fills(tile: Tile, layout: Layout) -> bool:
    """Whether a tile is no more than twice as large as the product, or as small as tiles get."""
    return (tile.m <= max(16, 2 * layout.m - 1)) and (tile.n <= max(16, 2 * layout.n - 1))


def _threads(gpu: GpuSpec) -> int:
    """Threads that keep a GPU busy."""
    return gpu.sm_count * 256


def _patches(layout: Layout, gpu: GpuSpec, share: Share | None) -> tuple[int, ...]:
    """Outputs of one thread or team along m, or along n where there is but one row; as many as leave enough threads.

    Where threads share sums there are always enough.
    """
    extent = layout.m if layout.m > 1 else layout.n
    room = layout.count // _threads(gpu) if share is None else layout.m
    default = 4 if room >= 4 else 2 if room >= 2 else 1
    fitting = [p for p in (1, 2, 4, 8) if p < 2 * extent]
    return tuple(sorted(fitting, key=lambda p: p != min(default, max(fitting))))


def _widths(layout: Layout, order: tuple[int, ...]) -> tuple[int, ...]:
    """Vector widths that make a difference somewhere, in the given order."""
    found = {1, *(v for v in (4, 2) if layout.n % v == 0)}
    for side in (layout.left, layout.right):
        found |= {side.vector(layout.batch, along, limit) for along in ("depth", "outer") for limit in (2, 4, 8)}
    return tuple(v for v in order if v in found)
