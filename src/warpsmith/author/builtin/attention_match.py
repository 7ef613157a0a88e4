"""Attention, recognised: a contraction that mixes values by shares which are computed from scores, themselves sums.

    score[b, m, key] = Σ_depth query(b, m, depth) · key(b, key, depth)
    out[b, m, n]     = Σ_key share(score, b, m, key) · value(b, key, n)

`share` is any formula of the score (ReLU attention), or a softmax over all keys, with whatever scales and masks stand
before it, times a weight. It makes no difference who wrote it: what counts is what the formulas need. One kernel can
compute all of it, a block of keys after the other, with no score in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as Choice

from warpsmith.author.builtin.index import Axis, axes_of, lift, unravel
from warpsmith.author.builtin.scalar import Apply, Literal, Result, Scalar, looked_up, walk
from warpsmith.author.builtin.values import Contraction, Coords, Producer, Reduction, Value

# The widest head whose tiles fit the shared memory of every GPU of the catalogue.
LARGEST_HEAD = 1024

Side = Choice["left", "right"]


@dataclass(frozen=True, eq=False)
class Share:
    """The factor of a value, taken apart.

    `logit` is what the softmax is taken of, or the factor itself where there is none. `shifted` is the part
    exp(logit - maximum) / sum, and `weighted` the formula around it, in which it is a factor. `kept` are conditions,
    the same for all keys, without which the whole row is zero; each with the truth that it must have.
    """

    logit: Scalar
    weighted: Scalar
    shifted: Scalar | None = None
    kept: tuple[tuple[Scalar, bool], ...] = ()


@dataclass(frozen=True, eq=False)
class Attention:
    """Three producers that one kernel computes. `share_side` is the operand of `mix` that holds the shares,
    `query_side` the one of `scores` that varies with the row.

    `roles` says of every dimension of the output what it counts as: "m" is one of queries, "n" one of the width of
    values, "b" one of the batch, which keys or values vary along too.
    """

    mix: Contraction
    scores: Contraction
    softmax: Reduction | None
    share_side: Side
    query_side: Side
    roles: str

    def share(self, out: Coords, inner: Coords) -> Share:
        """The share of a key, with results of `scores` and of `softmax` where they are needed."""
        operand = self.mix.left if self.share_side == "left" else self.mix.right
        share = _parted(operand(out, inner), self.scores, self.softmax, inner)
        assert share is not None
        return share

    def value(self, out: Coords, inner: Coords) -> Scalar:
        """What is multiplied by the share."""
        return (self.mix.right if self.share_side == "left" else self.mix.left)(out, inner)

    def query(self, out: Coords, inner: Coords, depth: Coords) -> Scalar:
        """The factor of a score that varies with the row."""
        return self._factor(self.query_side == "left", out, inner, depth)

    def key(self, out: Coords, inner: Coords, depth: Coords) -> Scalar:
        """The factor of a score that varies with the key."""
        return self._factor(self.query_side == "right", out, inner, depth)

    def _factor(self, left: bool, out: Coords, inner: Coords, depth: Coords) -> Scalar:
        operand = self.mix.left if self.share_side == "left" else self.mix.right
        place = _place(operand(out, inner), self.scores)
        assert place is not None
        return (self.scores.left if left else self.scores.right)(place, depth)

    @property
    def inside(self) -> tuple[Producer, ...]:
        """Producers that are computed within, and have no result outside."""
        return (self.scores,) if self.softmax is None else (self.scores, self.softmax)

    def needs(self) -> set[Result]:
        """Results of other producers that any operand or mask reads."""
        out, inner = _coords(self.mix)
        depth = tuple(lift(a) for a in axes_of(self.scores.inner, "d"))
        operands = [*self.mix.operands(), self.query(out, inner, depth), self.key(out, inner, depth)]
        return {r for operand in operands for r in _results(operand) if r.producer not in self.inside}


def matching(mix: Producer) -> Attention | None:
    """Return the attention that a producer completes, or None where it is anything else."""
    if not isinstance(mix, Contraction) or not _suits(mix):
        return None
    out, inner = _coords(mix)
    left, right = mix.operands()
    sides: tuple[tuple[Side, Scalar, Scalar], ...] = (("left", left, right), ("right", right, left))
    for side, share, value in sides:
        used = {r.producer for r in _results(share)}
        for scores in sorted(used, key=lambda producer: producer.name):
            if isinstance(scores, Contraction) and _suits(scores):
                found = _matched(mix, scores, side, share, value, (out, inner))
                if found is not None:
                    return found
    return None


def attended(value: Value | None) -> Iterator[Producer]:
    """Yield the scores of every attention that the elements of a value come from directly."""
    if value is None:
        return
    for result in _results(value.at(tuple(lift(a) for a in axes_of(value.shape, "v")))):
        found = matching(result.producer)
        if found is not None:
            yield found.scores


def _suits(one: Contraction) -> bool:
    return one.dtype == "float32" and one.operation == "matmul" and not one.phases


def _matched(
    mix: Contraction, scores: Contraction, side: Side, share: Scalar, value: Scalar, at: tuple[Coords, Coords]
) -> Attention | None:
    place, inner = _place(share, scores), at[1]
    softmax = _softmax_of(share, scores)
    parted = _parted(share, scores, softmax, inner)
    if place is None or parted is None or scores.depth > LARGEST_HEAD:
        return None
    depth = tuple(lift(a) for a in axes_of(scores.inner, "d"))
    factors = scores.left(place, depth), scores.right(place, depth)
    along = [bool(factor.axes & _axes_in(inner)) for factor in factors]
    if along[0] == along[1]:
        return None
    key = factors[along.index(True)]
    roles = _roles(axes_of(mix.shape, "o"), share.axes, key.axes | value.axes)
    width, batches = (math.prod(e for e, r in zip(mix.shape, roles, strict=True) if r == role) for role in "nb")
    # Two layers of a network without softmax have the same form, but their weights serve all rows: no batch.
    if width > LARGEST_HEAD or mix.depth < 2 or (softmax is None and batches == 1):
        return None
    return Attention(mix, scores, softmax, side, "right" if along[0] else "left", roles)


def _roles(axes: tuple[Axis, ...], share: frozenset[Axis], others: frozenset[Axis]) -> str:
    return "".join("n" if a not in share else "b" if a in others else "m" for a in axes)


def _coords(mix: Contraction) -> tuple[Coords, Coords]:
    """Axes like those that `operands` uses."""
    return tuple(lift(a) for a in axes_of(mix.shape, "o")), tuple(lift(a) for a in axes_of(mix.inner, "k"))


def _results(expression: Scalar) -> set[Result]:
    return {node for node in walk(expression) if isinstance(node, Result)}


def _place(share: Scalar, scores: Contraction) -> Coords | None:
    """The one element of the scores that a share needs, always; None where there are several, or a table says which."""
    places = {(r.coords, r.guard) for r in _results(share) if r.producer is scores}
    if len(places) != 1:
        return None
    coords, guard = places.pop()
    return coords if guard is None and not any(map(looked_up, coords)) else None


def _softmax_of(share: Scalar, scores: Contraction) -> Reduction | None:
    """The reduction that normalises the scores, if any."""
    for result in sorted(_results(share), key=lambda r: r.producer.name):
        producer = result.producer
        if not isinstance(producer, Reduction) or producer.kind != "max_sumexp":
            continue
        if any(r.producer is scores for operand in producer.operands() for r in _results(operand)):
            return producer
    return None


def _parted(share: Scalar, scores: Contraction, softmax: Reduction | None, inner: Coords) -> Share | None:
    """Take a share apart; None where a softmax is used in another way than as a factor."""
    if softmax is None:
        return Share(share, share)
    found = {node: logit for node in walk(share) if (logit := _softened(node, softmax, inner)) is not None}
    if len(found) != 1:
        return None
    ((shifted, logit),) = found.items()
    weighted, kept = _peeled(share, _axes_in(inner))
    around = {r.producer for r in walk(weighted, {shifted}) if isinstance(r, Result)}
    beside = {(r.producer, r.part) for condition, _ in kept for r in _results(condition)}
    if around & {scores, softmax} or any(p is scores or (p is softmax and part) for p, part in beside):
        return None
    return Share(logit, weighted, shifted, kept) if _factor_of(weighted, shifted) else None


def _softened(node: Scalar, softmax: Reduction, inner: Coords) -> Scalar | None:
    """The x of a node exp(x - maximum) / sum, if it is one, with the very x that the maximum was taken of."""
    if not (isinstance(node, Apply) and node.op == "div"):
        return None
    power, total = node.args
    if not (isinstance(power, Apply) and power.op == "exp" and isinstance(total, Result)):
        return None
    difference = power.args[0]
    if not (isinstance(difference, Apply) and difference.op == "sub"):
        return None
    logit, largest = difference.args
    if not (isinstance(largest, Result) and largest.producer is softmax and total.producer is softmax):
        return None
    if (largest.part, total.part) != (0, 1) or largest.coords != total.coords or largest.guard or total.guard:
        return None
    moving = [index for index in inner if index.axes]
    if len(moving) != 1 or moving[0].high + 1 != softmax.cols:
        return None
    rows = iter(largest.coords)
    cols = iter(unravel(moving[0], [softmax.domain[d] for d in softmax.reduced]))
    place = tuple(next(cols) if d in softmax.reduced else next(rows) for d in range(len(softmax.domain)))
    return logit if softmax.source(place) is logit else None


def _axes_in(inner: Coords) -> frozenset[Axis]:
    return frozenset(axis for index in inner for axis in index.axes)


def _peeled(share: Scalar, keys: frozenset[Axis]) -> tuple[Scalar, tuple[tuple[Scalar, bool], ...]]:
    """Take off conditions that hold for a whole row or for none of it."""
    kept: list[tuple[Scalar, bool]] = []
    while isinstance(share, Apply) and share.op == "where" and not share.args[0].axes & keys:
        condition, yes, no = share.args
        if _is_zero(yes):
            kept.append((condition, False))
            share = no
        elif _is_zero(no):
            kept.append((condition, True))
            share = yes
        else:
            break
    return share, tuple(kept)


def _is_zero(node: Scalar) -> bool:
    return isinstance(node, Literal) and node.value == 0


def _factor_of(node: Scalar, shifted: Scalar) -> bool:
    """Whether a formula is a multiple of one of its parts."""
    if node is shifted:
        return True
    if not isinstance(node, Apply):
        return False
    if node.op == "mul":
        first, second = node.args
        return (_factor_of(first, shifted) and _free(second, shifted)) or (
            _factor_of(second, shifted) and _free(first, shifted)
        )
    if node.op == "div":
        return _factor_of(node.args[0], shifted) and _free(node.args[1], shifted)
    if node.op == "where":
        condition, yes, no = node.args
        linear = all(_is_zero(n) or _factor_of(n, shifted) for n in (yes, no))
        return linear and _free(condition, shifted)
    return node.op == "neg" and _factor_of(node.args[0], shifted)


def _free(node: Scalar, shifted: Scalar) -> bool:
    return all(part is not shifted for part in walk(node))
