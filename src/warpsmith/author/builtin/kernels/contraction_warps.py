"""The choices of a product on tensor cores: what a block and each of its warps computes, and in which number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warpsmith.author.builtin.kernels.contraction_fill import Model, Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_tile import Staging
from warpsmith.author.builtin.kernels.emission import Gene
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.scalar import Load
from warpsmith.records import DTYPE_BYTES, GpuSpec

# Rows and columns of the matrix that one instruction adds to.
MMA_M, MMA_N = 16, 8
# Dtypes whose values have at most the eleven significant bits of TF32.
_EXACT_IN_TF32 = frozenset({"float16", "bfloat16", "bool", "int8", "uint8"})
# Tile of a block / of a warp. Large tiles read less memory for each product, small ones give more blocks.
_WARPS = (
    "256x128/64x64", "128x256/64x64", "128x128/64x64", "128x128/64x32", "128x64/32x32", "64x128/32x32", "64x64/32x32",
    "64x64/32x16", "32x64/16x32", "64x32/32x16", "32x128/16x32", "128x32/32x16", "32x32/16x16", "16x64/16x16",
)  # fmt: skip
# Tiles of blocks whose warps work in groups of four on 64 rows each.
_GROUPS = ("128x256", "256x128", "128x192", "128x128", "64x128", "128x64", "64x64", "64x32")
# Depth of their tiles: rows of 128 bytes are what the widest swizzle interleaves.
GROUP_DEPTH = 32
# Fewest stages of tiles in shared memory that overlap copies with products.
LEAST_STAGES, LEAST_GROUP_STAGES = 2, 3
# Sums of one lane. Twice as many registers are in use where products are summed afresh for each tile, and finding the
# elements of a convolution's windows takes some too.
_SUMS, _FEWER_SUMS = 128, 64
# How much longer than by `mma` a product by `wgmma` may look and still be faster: measured on an H100, 4096 cubed takes
# 1.63 instead of 2.27 ms in float32, 0.34 instead of 0.44 ms in float16.
_GROUP_GAIN = 1.25
# Depth that fills the stages of `wgmma`.
_GROUP_SUM = 4 * GROUP_DEPTH
# Below these extents an instruction would be mostly empty.
_LEAST_M, _LEAST_N, _LEAST_DEPTH = 16, 16, 16
_FIRST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Warps:
    """A block makes a tile of `m` x `n`, each of its warps `warp_m` x `warp_n` of it."""

    m: int
    n: int
    warp_m: int
    warp_n: int

    @staticmethod
    def parse(text: str) -> Warps:
        """Read `128x128/64x32`."""
        block, warp = text.split("/")
        (m, n), (warp_m, warp_n) = (map(int, part.split("x")) for part in (block, warp))
        return Warps(m, n, warp_m, warp_n)

    @staticmethod
    def of_groups(text: str) -> Warps:
        """Read `128x64`: each four warps make 64 rows together, in the way of `wgmma`."""
        m, n = map(int, text.split("x"))
        return Warps(m, n, MMA_M, n)

    @property
    def across(self) -> int:
        """Warps side by side."""
        return self.n // self.warp_n

    def stage_bytes(self, depth: int, element: int) -> int:
        """An upper limit for the shared memory of one stage: tiles of both operands, with gaps between their rows."""
        return ((self.m + self.n) * (depth + 16 // element) + 16 * depth) * element

    @property
    def formed_bytes(self) -> int:
        """Shared memory for three tiles of the right operand, split in two, in the form that `wgmma` reads."""
        return 3 * 2 * self.n * GROUP_DEPTH * 4

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.m // self.warp_m * self.across * 32


@dataclass(frozen=True)
class Format:
    """What tensor cores multiply: dtype of the tiles in shared memory, and depth `k` of one instruction."""

    name: Literal["tf32", "f16", "bf16"]
    dtype: str

    @staticmethod
    def of(layout: Layout, stagings: list[Staging]) -> Format:
        """The format of two tiles: 16-bit where both operands are stored so, else TF32."""
        stored = {plain_dtype(layout, staging) for staging in stagings}
        if stored == {"float16"}:
            return Format("f16", "float16")
        if stored == {"bfloat16"}:
            return Format("bf16", "bfloat16")
        return Format("tf32", "float32")

    @property
    def bytes(self) -> int:
        """Size of an element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def ctype(self) -> str:
        """C++ type of an element."""
        return CTYPES[self.dtype]

    @property
    def chunk(self) -> int:
        """Elements of 16 bytes: a row of the matrices that `ldmatrix` reads, half the depth of an instruction."""
        return 16 // self.bytes

    @property
    def k(self) -> int:
        """Depth of one instruction."""
        return 2 * self.chunk

    def pad(self, staging: Staging) -> int:
        """Elements between rows of a tile, so that the lanes of a fragment read from banks of their own."""
        by_word = self.name == "tf32" and staging.along == "outer"
        return 8 if by_word else self.chunk


def plain_dtype(layout: Layout, staging: Staging) -> str | None:
    """The dtype that an operand is stored in, if it is read from memory as it is."""
    value = staging.operand.value(layout.batch, staging.along, staging.lanes)
    return value.stored if isinstance(value, Load) else None


def exact_in_tf32(layout: Layout, staging: Staging) -> bool:
    """Whether rounding to TF32 changes no element of an operand."""
    value = staging.operand.value(layout.batch, staging.along, staging.lanes)
    return isinstance(value, Load) and (value.stored in _EXACT_IN_TF32 or value.tensor in layout.rounded)


def suits(layout: Layout, gpu: GpuSpec) -> bool:
    """Whether tensor cores can compute a product, and would not be mostly idle."""
    large = layout.m >= _LEAST_M and layout.n >= _LEAST_N and layout.depth >= _LEAST_DEPTH
    return large and layout.dtype == "float32" and gpu.compute_capability >= _FIRST_CAPABILITY


def group_format(layout: Layout) -> Format:
    """What groups of four warps multiply in: 16 bits only if both operands are stored so, and read in whole pieces."""
    sides = (layout.left, layout.right)
    along = [side.direction(layout.batch) for side in sides]
    wide = all(side.vector(layout.batch, way, 8) == 8 for side, way in zip(sides, along, strict=True))
    stagings = [Staging(side, way, 8 if wide else 1, 16) for side, way in zip(sides, along, strict=True)]
    found = Format.of(layout, stagings)
    return found if wide or found.name == "tf32" else Format("tf32", "float32")


def suits_groups(layout: Layout, gpu: GpuSpec) -> bool:
    """Whether the tensor cores of Hopper can compute a product in groups of four warps."""
    large = layout.m >= 64 and layout.n >= 32
    if not (suits(layout, gpu) and large and gpu.compute_capability == (9, 0)):
        return False
    stored = {
        plain_dtype(layout, Staging(side, side.direction(layout.batch), 1, 16)) for side in (layout.left, layout.right)
    }
    # 16-bit operands that cannot be read in vectors are left to `mma`, which needs no widening.
    return group_format(layout).name != "tf32" or len(stored) > 1 or not stored & {"float16", "bfloat16"}


def all_exact(layout: Layout) -> bool:
    """Whether TF32 holds every element of both operands."""
    return all(exact_in_tf32(layout, Staging(side, "depth", 1, 16)) for side in (layout.left, layout.right))


def tensor_rate(layout: Layout, gpu: GpuSpec) -> tuple[float, int]:
    """Peak of the whole GPU in multiply-adds per second for a product on tensor cores, and the bytes of an element."""
    if group_format(layout).name != "tf32":
        return gpu.half_flops / 2, 2
    sides = (Staging(side, "depth", 1, 16) for side in (layout.left, layout.right))
    passes = 1 if layout.region.tf32 else 1 + sum(not exact_in_tf32(layout, side) for side in sides)
    return gpu.tf32_flops / 2 / passes, 4


def groups_first(layout: Layout, gpu: GpuSpec) -> bool:
    """Whether `wgmma` is the better beginning: with operands that are copied in whole vectors, and of convolutions only
    where tensor cores read them as they are packed.
    """
    format_ = group_format(layout)
    if layout.depth < _GROUP_SUM or not suits_groups(layout, gpu):
        return False
    if layout.producer.operation == "conv" and not _packed_for_groups(layout):
        return False
    for side in (layout.left, layout.right):
        along = side.direction(layout.batch)
        vec = side.vector(layout.batch, along, format_.chunk)
        if vec < format_.chunk or plain_dtype(layout, Staging(side, along, vec, 16)) != format_.dtype:
            return False
    warps, groups = tensor_tiles(layout, gpu)
    model = Model(layout, gpu, *tensor_rate(layout, gpu))
    return bool(groups) and model.best(groups.values())[0] <= _GROUP_GAIN * model.best(warps.values())[0]


def _packed_for_groups(layout: Layout) -> bool:
    """Whether both operands are packed with their depth innermost, and may be rounded to TF32 by that."""
    names = {tensor.name for tensor in layout.tensors}
    values = [
        side.value(layout.batch, "depth", side.lanes("depth", 4))
        for side in (layout.left, layout.right)
        if side.vector(layout.batch, "depth", 4) == 4
    ]
    return layout.region.tf32 and len(values) == 2 and all(isinstance(v, Load) and v.tensor in names for v in values)


def tensor_tiles(layout: Layout, gpu: GpuSpec) -> tuple[dict[str, Warps], dict[str, Warps]]:
    """Tiles that a product can be cut into: of `mma`, and of `wgmma`."""
    sides = (layout.left, layout.right)
    afresh = not all_exact(layout) and not layout.region.tf32
    simple = all(side.vector(layout.batch, side.direction(layout.batch), 8) > 1 for side in sides)
    sums = _SUMS if simple and not afresh else _FEWER_SUMS

    def fits(tile: Warps) -> bool:
        filled = tile.m <= max(32, 2 * layout.m - 1) and tile.n <= max(32, 2 * layout.n - 1)
        return filled and tile.warp_m * tile.warp_n // 32 <= sums

    def roomy(tile: Warps) -> bool:
        return LEAST_GROUP_STAGES * tile.stage_bytes(GROUP_DEPTH, 4) + tile.formed_bytes <= gpu.shared_per_block

    def turnable(tile: Warps) -> bool:
        return tile.n % 64 == 0 and LEAST_GROUP_STAGES * tile.stage_bytes(64, 2) <= gpu.shared_per_block

    tiles = {text: Warps.parse(text) for text in _WARPS}
    groups = {text: Warps.of_groups(text) for text in _GROUPS} if suits_groups(layout, gpu) else {}
    possible = roomy if group_format(layout).name == "tf32" else turnable
    return (
        {text: tile for text, tile in tiles.items() if fits(tile)},
        {text: tile for text, tile in groups.items() if fits(tile) and possible(tile)},
    )


def mma_genes(layout: Layout, gpu: GpuSpec, share: Share | None) -> list[Gene]:
    """Tiles, those first that look fastest where sums are shared so, and the precision."""
    model = Model(layout, gpu, *tensor_rate(layout, gpu))
    tiles = zip(("warps", "groups"), tensor_tiles(layout, gpu), strict=True)
    genes = [Gene(name, model.ordered(shapes, share)) for name, shapes in tiles if shapes]
    return [*genes, Gene("precision", ("tf32", "exact"))] if layout.region.tf32 and not all_exact(layout) else genes
