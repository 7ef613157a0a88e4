"""Kernel families: each turns the regions of one kind into CUDA."""

from warpsmith.author.builtin.kernels.emission import Family, Gene, Genes, Kernels, Scope
from warpsmith.author.builtin.kernels.families import FAMILIES

__all__ = ["FAMILIES", "Family", "Gene", "Genes", "Kernels", "Scope"]
