"""An attention laid out by linear indices: batch, query `m`, key, depth of a score, column `n` of a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal as Choice

from warpsmith.author.builtin.attention_match import Attention, Share
from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import Store
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Literal, Load, Local, Scalar, apply, transform
from warpsmith.author.builtin.values import Coords

Precision = Choice["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Layout:
    """A region around an attention, with formulas over linear indices."""

    region: Region
    found: Attention

    @staticmethod
    def of(region: Region) -> Layout:
        """Lay out the region's attention."""
        assert region.attention is not None
        return Layout(region, region.attention)

    @property
    def queries(self) -> int:
        """Rows of the scores."""
        return self._count("m")

    @property
    def width(self) -> int:
        """Columns of the values."""
        return self._count("n")

    @property
    def batches(self) -> int:
        """Number of independent attentions."""
        return self._count("b")

    @property
    def keys(self) -> int:
        """Columns of the scores."""
        return self.found.mix.depth

    @property
    def depth(self) -> int:
        """Length of the sum that makes a score."""
        return self.found.scores.depth

    @property
    def batch(self) -> Index:
        """The batch as an axis."""
        return lift(Axis("batch", self.batches))

    @property
    def m(self) -> Axis:
        """The query as an axis."""
        return Axis("m", self.queries)

    @cached_property
    def precision(self) -> Precision:
        """16-bit tiles where all operands lie in memory like that, and no share may overflow them."""
        place = lift(Axis("key", self.keys))
        column, depth = lift(Axis("n", self.width)), lift(Axis("depth", self.depth))
        operands = (self.query(lift(self.m), depth), self.key(place, depth), self.value(place, column))
        stored = {o.stored if isinstance(o, Load) else "float32" for o in operands}
        at_most_one = self.found.softmax is not None and self._weighted(lift(self.m), place) is None
        if stored == {"float16"} and at_most_one:
            return "float16"
        return "bfloat16" if stored == {"bfloat16"} else "float32"

    def query(self, m: Index, depth: Index) -> Scalar:
        """An element of the queries."""
        out, inner = self._out(m, Index()), self._inner(Index())
        return resolve(self.found.query(out, inner, unravel(depth, self.found.scores.inner)), {})

    def key(self, key: Index, depth: Index) -> Scalar:
        """An element of the keys."""
        out, inner = self._out(Index(), Index()), self._inner(key)
        return resolve(self.found.key(out, inner, unravel(depth, self.found.scores.inner)), {})

    def value(self, key: Index, n: Index) -> Scalar:
        """An element of the values."""
        return resolve(self.found.value(self._out(Index(), n), self._inner(key)), {})

    def logit(self, m: Index, key: Index, score: Local) -> Scalar:
        """What the softmax is taken of, or without a softmax the share itself, from the score."""
        share = self.found.share(self._out(m, Index()), self._inner(key))
        return resolve(share.logit, {(self.found.scores, 0): score})

    def weighted(self, m: Index, key: Index, power: Local) -> Scalar | None:
        """The share from the exponential, where more is left to do to it; None where it is all there is."""
        found = self._weighted(m, key)
        if found is None:
            return None
        whole, shifted = (transform(part, lambda node: node) for part in found)  # as they are when they are rebuilt
        return resolve(transform(whole, lambda node: power if node is shifted else node), {})

    def _weighted(self, m: Index, key: Index) -> tuple[Scalar, Scalar] | None:
        share = self.found.share(self._out(m, Index()), self._inner(key))
        if share.shifted is None or share.weighted is share.shifted:
            return None
        return share.weighted, share.shifted

    def finished(self, m: Index, mixed: Local, largest: Local) -> Scalar:
        """The sum of a row, zero where the formula says so of the whole row."""
        result: Scalar = mixed
        softmax = self.found.softmax
        for condition, due in self._share(m).kept:
            assert softmax is not None
            test, nothing = resolve(condition, {(softmax, 0): largest}), Literal(0.0, mixed.dtype)
            choice = (result, nothing) if due else (nothing, result)
            result = apply("where", test, *choice, dtype=mixed.dtype)
        return result

    @property
    def conditional(self) -> bool:
        """Whether anything is said of whole rows."""
        return bool(self._share(lift(self.m)).kept)

    def _share(self, m: Index) -> Share:
        return self.found.share(self._out(m, Index()), self._inner(lift(Axis("key", self.keys))))

    def stores(self, m: Index, n: Index, total: Scalar) -> list[Store]:
        """The region's outputs at an element."""
        coords = self._out(m, n)
        place = ravel(coords, self.region.domain)
        (producer,) = self.region.producers
        values = [resolve(o.at(coords, self.region.domain), {(producer, 0): total}) for o in self.region.outputs]
        return [Store(o.name, o.dtype, place, value) for o, value in zip(self.region.outputs, values, strict=True)]

    def comment(self) -> str:
        """What is computed, in one line."""
        times = f"{self.batches} times " if self.batches > 1 else ""
        heads = f"scores of {self.depth} products, values of {self.width} columns"
        return f"{times}{self.queries} queries that attend to {self.keys} keys: {heads}."

    def _count(self, role: str) -> int:
        return math.prod(self._extents(role))

    def _extents(self, role: str) -> tuple[int, ...]:
        return tuple(e for e, r in zip(self.found.mix.shape, self.found.roles, strict=True) if r == role)

    def _out(self, m: Index, n: Index) -> Coords:
        places = {role: iter(unravel(at, self._extents(role))) for role, at in (("b", self.batch), ("m", m), ("n", n))}
        return tuple(next(places[role]) for role in self.found.roles)

    def _inner(self, key: Index) -> Coords:
        return unravel(key, self.found.mix.inner)
