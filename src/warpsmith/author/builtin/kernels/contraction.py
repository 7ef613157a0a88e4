"""Contractions: matrix products, linear layers and convolutions, with whatever pointwise work follows them.

`mma` and `wgmma` multiply on tensor cores, `tiled` keeps tiles of both operands in shared memory, `direct` sums in each
thread from memory, `dot` gives every output to a warp or a block.
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.contraction_direct import emit_direct
from warpsmith.author.builtin.kernels.contraction_dot import emit_dot
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_mma import emit_mma
from warpsmith.author.builtin.kernels.contraction_pack import merged, packed
from warpsmith.author.builtin.kernels.contraction_tile import Tile
from warpsmith.author.builtin.kernels.contraction_tiled import emit_tiled
from warpsmith.author.builtin.kernels.contraction_warps import mma_genes, suits, suits_groups
from warpsmith.author.builtin.kernels.contraction_wgmma import emit_wgmma
from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Scope
from warpsmith.author.builtin.regions import Region
from warpsmith.records import GpuSpec

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
# Sums long enough that several blocks may share one.
_SPLIT_DEPTH = 128
# Sums so long that sharing them pays for a second launch.
_LONG_DEPTH = 1024
# Algorithms that read operands in whole tiles.
_PACKING = frozenset({"mma", "wgmma", "tiled"})


class Contractions:
    """Algorithms `mma`, `wgmma`, `tiled`, `direct` and `dot`."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, tile, stages, patches, teams, vector width, precision, whether several blocks share a sum, and
        whether operands are brought into another order first.
        """
        layout = Layout.of(region, packed=True)
        algorithms = _algorithms(layout, gpu)
        genes = [Gene("algorithm", algorithms)]
        if layout.tensors and set(algorithms) & _PACKING:
            genes.append(Gene("operands", ("packed", "as stored")))
        if "mma" in algorithms:
            genes += mma_genes(layout, gpu)
        if "tiled" in algorithms:
            genes += [Gene("tile", _tiles(layout, gpu)), Gene("stages", (1, 2))]
        if layout.depth >= _SPLIT_DEPTH and {"mma", "tiled", "dot"} & set(algorithms):
            pays = layout.depth >= _LONG_DEPTH and layout.count < gpu.sm_count * 16 * 16
            genes.append(Gene("depth", ("split", "whole") if pays else ("whole", "split")))
        patches = _patches(layout, gpu)
        if len(patches) > 1:
            genes.append(Gene("per_thread", patches))
        if "dot" in algorithms and layout.depth >= 256:
            genes.append(Gene("team", ("warp", "block")))
        roomy = algorithms[0] != "direct" or layout.count >= 4 * _threads(gpu)
        widths = _widths(layout, (8, 4, 2, 1) if algorithms[0] == "mma" else (4, 8, 2, 1) if roomy else (1, 2, 4, 8))
        if len(widths) > 1:
            genes.append(Gene("vec", widths))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, or two where several blocks share a sum."""
        pack = genes.get("operands") == "packed" and genes["algorithm"] in _PACKING
        layout = Layout.of(region, pack)
        kernels = self._product(layout, genes, scope)
        return merged([*packed(layout.tensors, scope), kernels]) if layout.tensors else kernels

    def _product(self, layout: Layout, genes: Genes, scope: Scope) -> Kernels:
        vec, several = int(genes.get("vec", 1)), int(genes.get("per_thread", 1))
        split = genes.get("depth") == "split"
        if genes["algorithm"] == "mma":
            return emit_mma(layout, scope, genes, vec, split)
        if genes["algorithm"] == "wgmma":
            return emit_wgmma(layout, scope, genes, vec, split)
        if genes["algorithm"] == "tiled":
            return emit_tiled(layout, scope, Tile.parse(str(genes["tile"])), int(genes["stages"]), vec, split)
        if genes["algorithm"] == "direct":
            return emit_direct(layout, scope, several, next(v for v in (8, 4, 2, 1) if v <= vec and layout.n % v == 0))
        widest = max(side.vector(layout.batch, "depth", vec) for side in (layout.left, layout.right))
        return emit_dot(layout, scope, str(genes.get("team", "warp")), several, widest, split)


def _algorithms(layout: Layout, gpu: GpuSpec) -> tuple[str, ...]:
    """Every algorithm that suits the shape, the likeliest first."""
    small = min(layout.m, layout.n)
    dot = layout.depth >= _DOT_DEPTH and (layout.count <= _DOT_OUTPUTS or small <= _DOT_EXTENT)
    fitting = ["direct"]
    if small >= _TILED_EXTENT:
        shallow = layout.depth < 16 or small < 16
        fitting.insert(1 if shallow else 0, "tiled")
    if dot:
        fitting.insert(0 if small < 8 else len(fitting), "dot")
    groups = ("wgmma",) if suits_groups(layout, gpu) else ()
    return ("mma", *groups, *fitting) if suits(layout, gpu) else tuple(fitting)


def _tiles(layout: Layout, gpu: GpuSpec) -> tuple[str, ...]:
    """Tiles that are not mostly empty, those first that keep every multiprocessor busy with the least traffic."""

    def cost(text: str) -> tuple[tuple[bool, float], int]:
        tile = Tile.parse(text)
        return layout.cost(tile.m, tile.n, gpu), -tile.threads

    fitting = [t for t in _TILES if _fills(Tile.parse(t), layout)]
    return tuple(sorted(fitting, key=cost))


def _fills(tile: Tile, layout: Layout) -> bool:
    """Whether a tile is no more than twice as large as the product, or as small as tiles get."""
    return (tile.m <= max(16, 2 * layout.m - 1)) and (tile.n <= max(16, 2 * layout.n - 1))


def _threads(gpu: GpuSpec) -> int:
    """Threads that keep a GPU busy."""
    return gpu.sm_count * 256


def _patches(layout: Layout, gpu: GpuSpec) -> tuple[int, ...]:
    """Outputs of one thread or team along m, or along n where there is but one row; as many as leave enough threads."""
    extent = layout.m if layout.m > 1 else layout.n
    room = layout.count // _threads(gpu)
    default = 4 if room >= 4 else 2 if room >= 2 else 1
    fitting = [p for p in (1, 2, 4, 8) if p < 2 * extent]
    return tuple(sorted(fitting, key=lambda p: p != min(default, max(fitting))))


def _widths(layout: Layout, order: tuple[int, ...]) -> tuple[int, ...]:
    """Vector widths that make a difference somewhere, in the given order."""
    found = {1, *(v for v in (4, 2) if layout.n % v == 0)}
    for side in (layout.left, layout.right):
        found |= {side.vector(layout.batch, along, limit) for along in ("depth", "outer") for limit in (2, 4, 8)}
    return tuple(v for v in order if v in found)
