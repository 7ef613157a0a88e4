"""Which family makes kernels of which kind of region."""

from __future__ import annotations

from collections.abc import Mapping

from warpsmith.author.builtin.kernels.attention import Attentions
from warpsmith.author.builtin.kernels.contraction import Contractions
from warpsmith.author.builtin.kernels.emission import Family
from warpsmith.author.builtin.kernels.pointwise import Pointwise
from warpsmith.author.builtin.kernels.recurrence import Recurrences
from warpsmith.author.builtin.kernels.rows import Rows
from warpsmith.author.builtin.kernels.scan import Scans
from warpsmith.author.builtin.regions import Kind

FAMILIES: Mapping[Kind, Family] = {
    "pointwise": Pointwise(),
    "rows": Rows(),
    "contraction": Contractions(),
    "scan": Scans(),
    "recurrence": Recurrences(),
    "attention": Attentions(),
}
