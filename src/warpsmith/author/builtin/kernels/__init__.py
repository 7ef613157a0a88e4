"""Kernel families: each turns the regions of one kind into CUDA."""

from collections.abc import Mapping

from warpsmith.author.builtin.kernels.contraction import Contractions
from warpsmith.author.builtin.kernels.emission import Family, Gene, Genes, Kernels, Scope
from warpsmith.author.builtin.kernels.pointwise import Pointwise
from warpsmith.author.builtin.kernels.rows import Rows
from warpsmith.author.builtin.kernels.scan import Scans
from warpsmith.author.builtin.regions import Kind

FAMILIES: Mapping[Kind, Family] = {
    "pointwise": Pointwise(),
    "rows": Rows(),
    "contraction": Contractions(),
    "scan": Scans(),
}

__all__ = ["FAMILIES", "Family", "Gene", "Genes", "Kernels", "Scope"]
