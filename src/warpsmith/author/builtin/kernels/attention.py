"""Attention in one kernel: scores, softmax and the mix of values, with whatever pointwise work follows them."""

from __future__ import annotations

from warpsmith.author.builtin.kernels.attention_kernel import emit_attention
from warpsmith.author.builtin.kernels.attention_layout import Layout
from warpsmith.author.builtin.kernels.attention_tile import Tile, choices
from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Scope
from warpsmith.author.builtin.regions import Region
from warpsmith.records import GpuSpec


class Attentions:
    """One algorithm, with a choice of tiles."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """The tile, and for 16-bit operands whether shares are multiplied whole, in two parts, or rounded.

        PyTorch's own kernels round them, so that its error usually allows it.
        """
        layout = Layout.of(region)
        genes = [Gene("tile", tuple(map(str, choices(layout, gpu))))]
        if layout.precision != "float32":
            genes.append(Gene("shares", ("whole", "rounded")))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write the kernel for one choice of genes."""
        tile = Tile.parse(Layout.of(region), str(genes["tile"]))
        return emit_attention(tile, genes.get("shares") == "whole", scope)
