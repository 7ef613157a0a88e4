"""The built-in author's genome: which values are stored, and one choice for every gene of every region."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from warpsmith.records import frozen


@dataclass(frozen=True)
class Recipe:
    """How to compile a graph. Whatever it does not say takes its default.

    `cuts` are nodes whose value is stored although it could be recomputed where it is used; `unfused` are regions that
    write their results as they are, with no epilogue; `genes` holds the choices of each region by its name; `tunables`
    values by macro; `overlap` says whether launches begin before the ones before them have ended, where they may. What
    a recipe says of regions that do not arise from its cuts lies dormant, as in a genome.
    """

    cuts: frozenset[str] = frozenset()
    unfused: frozenset[str] = frozenset()
    genes: Mapping[str, Mapping[str, int | str]] = field(default_factory=frozen)
    tunables: Mapping[str, int] = field(default_factory=frozen)
    overlap: bool = False

    def to_json(self) -> str:
        """Write as JSON with sorted keys: equal recipes give equal texts."""
        plain: dict[str, object] = {
            "cuts": sorted(self.cuts),
            "unfused": sorted(self.unfused),
            "genes": {name: dict(genes) for name, genes in self.genes.items()},
            "tunables": dict(self.tunables),
        }
        if self.overlap:
            plain["overlap"] = True
        return json.dumps(plain, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read what `to_json` wrote."""
        plain = json.loads(text)
        return Recipe(
            frozenset(plain["cuts"]),
            frozenset(plain["unfused"]),
            frozen({name: frozen(genes) for name, genes in plain["genes"].items()}),
            frozen(plain["tunables"]),
            bool(plain.get("overlap", False)),
        )

    def choosing(self, region: str, gene: str, choice: int | str) -> Recipe:
        """Return a recipe with one gene changed."""
        genes = {**self.genes.get(region, {}), gene: choice}
        return replace(self, genes=frozen({**self.genes, region: frozen(genes)}))
