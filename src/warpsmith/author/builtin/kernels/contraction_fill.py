"""How a product is shared among multiprocessors: which tiles, and whether several blocks share each sum.

A rough model, only good for choosing where to begin: a block takes the time of its products and of the operands that
it reads through L2; blocks come in rounds of one for each multiprocessor; parts of sums are written and read once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.records import DTYPE_BYTES, GpuSpec

# Least share of a sum, which must pay for the part that it leaves in memory.
LEAST_SHARE = 128
# Threads that a multiprocessor needs to be busy.
_BUSY = 256
# Share of their peak that kernels come to.
_EFFICIENCY = 0.5
# Of one more kernel that begins and ends, in seconds.
_LAUNCH = 3e-6
# How much better sharing sums must look.
_GAIN = 0.8
# Parts of a sum, which are added up by few threads.
_MOST_SPLITS = 256
# Parts of all sums, which have indices of 32 bits.
_MOST_PARTS = 2**31


@dataclass(frozen=True)
class Share:
    """That blocks share sums, until there are as many as make `blocks` of `busy` threads.

    Each makes at least `least` products of a sum.
    """

    blocks: int
    busy: int = _BUSY
    least: int = LEAST_SHARE

    def splits(self, layout: Layout, tiles: int, threads: int) -> int:
        """Parts of each sum, at least 2, where `tiles` blocks of `threads` would make the whole sums.

        Blocks do not become more than wanted, since a few too many would need a round of their own.
        """
        wanted = self.blocks * max(1, self.busy // threads) // tiles
        most = min(_MOST_SPLITS, (_MOST_PARTS - 1) // layout.count)
        return max(2, min(wanted, layout.depth // self.least, most))

    def near(self, layout: Layout, tiles: int, threads: int) -> tuple[int, ...]:
        """Numbers of parts to choose from, the usual one first."""
        usual = self.splits(layout, tiles, threads)
        most = min(max(4, 4 * layout.depth // self.least), (_MOST_PARTS - 1) // layout.count)
        return (usual, *(n for n in (usual * 2, usual // 2, usual * 4, usual // 4) if 2 <= n <= most))


class Shape(Protocol):
    """A tile of m x n outputs, made by so many threads."""

    @property
    def m(self) -> int:
        """Rows."""
        ...

    @property
    def n(self) -> int:
        """Columns."""
        ...

    @property
    def threads(self) -> int:
        """Threads of a block."""
        ...


def tiles_of(layout: Layout, shape: Shape) -> int:
    """Tiles of all batches."""
    return layout.batches * -(-layout.m // shape.m) * -(-layout.n // shape.n)


def splittable(layout: Layout) -> bool:
    """Whether a sum is long enough for several blocks, and the parts are few enough."""
    return layout.depth >= LEAST_SHARE and 4 * layout.count < _MOST_PARTS


def shares(gpu: GpuSpec) -> tuple[Share, ...]:
    """How sums may be shared: among a block for each multiprocessor, or two."""
    return Share(gpu.sm_count), Share(2 * gpu.sm_count)


@dataclass(frozen=True)
class Model:
    """A product on a GPU by one algorithm: `rate` in multiply-adds per second of the whole GPU, bytes of an element."""

    layout: Layout
    gpu: GpuSpec
    rate: float
    element: int

    def seconds(self, shape: Shape, share: Share | None) -> float:
        """Estimate the product with tiles of one shape, with sums shared or whole."""
        layout, gpu = self.layout, self.gpu
        tiles = tiles_of(layout, shape)
        splits = share.splits(layout, tiles, shape.threads) if share else 1
        depth, rounds = -(-layout.depth // splits), -(-tiles * splits // gpu.sm_count)
        busy = min(1.0, rounds * shape.threads / _BUSY)
        products = shape.m * shape.n * depth * gpu.sm_count / (self.rate * _EFFICIENCY)
        operands = (shape.m + shape.n) * depth * self.element * gpu.sm_count / gpu.l2_bandwidth
        parts = self._parts(splits) if share else 0.0
        return max(rounds * (products + operands) / busy, self._memory) + parts

    def _parts(self, splits: int) -> float:
        """Seconds to write parts of sums and to add them up, out of L2 if they leave room for something else there."""
        held = splits * self.layout.count * DTYPE_BYTES[self.layout.dtype]
        fits = held <= self.gpu.l2_bytes // 2
        return 2 * held / (self.gpu.l2_bandwidth * _EFFICIENCY if fits else self.gpu.memory_bandwidth) + _LAUNCH

    @property
    def _memory(self) -> float:
        """Seconds to read each operand and to write the result once."""
        layout = self.layout
        elements = layout.batches * (layout.m + layout.n) * layout.depth + layout.count
        return elements * self.element / self.gpu.memory_bandwidth

    def ordered(self, shapes: Mapping[str, Shape], share: Share | None) -> tuple[str, ...]:
        """Names of tiles, the fastest first; of equals the first one."""
        return tuple(sorted(shapes, key=lambda name: self.seconds(shapes[name], share)))

    def best(self, shapes: Iterable[Shape]) -> tuple[float, Share | None]:
        """The least time with any of some tiles, and how sums are shared for it; None where they are better whole."""
        known = list(shapes)
        seconds = {share: min(self.seconds(s, share) for s in known) for share in (None, *shares(self.gpu))}
        best = min(seconds, key=lambda share: seconds[share])
        if not splittable(self.layout) or seconds[best] > _GAIN * seconds[None]:
            best = None
        return seconds[best], best
