"""Attention as two contractions with a softmax between them."""

from __future__ import annotations

import math

from warpsmith.author.builtin.lowering.contractions import product
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.reductions import softmax_parts
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, compute_dtype
from warpsmith.author.builtin.values import Contraction, Coords, Value, Virtual
from warpsmith.errors import UnsupportedOperator


@lowers("scaled_dot_product_attention.default")
def attention(
    site: Site, query: Value, key: Value, value: Value, attn_mask: Value | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    """softmax(scale·query @ keyᵀ + mask) @ value, for (…, length, width) tensors.

    A boolean mask hides where it is false, `is_causal` what lies above the diagonal from the upper left corner; a row
    with nothing to see gives zeros. With `enable_gqa`, consecutive heads of the query share one of key and value.
    """
    if dropout_p:
        raise UnsupportedOperator("attention with dropout")
    if enable_gqa:
        key, value = _shared_heads(key, query.shape[-3]), _shared_heads(value, query.shape[-3])
    dtype = compute_dtype(site.spec.dtype)
    raw = product(site, query, key, transposed=True)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale

    def score(coords: Coords) -> Scalar:
        logit = apply("mul", raw.at(coords), Literal(factor, dtype))
        if is_causal:
            logit = _visible(apply("le", Position(coords[-1]), Position(coords[-2])), logit)
        if attn_mask is None:
            return logit
        if attn_mask.dtype == "bool":
            return _visible(element(attn_mask, coords, "bool"), logit)
        return apply("add", logit, element(attn_mask, coords, dtype))

    probabilities = _softmax(site, Virtual(site.name("scores"), raw.shape, dtype, score), attn_mask is not None)
    weighted = product(site, probabilities, value)
    whole = Contraction(
        site.name("mix"), weighted.shape, dtype, weighted.parts, weighted.roles, weighted.inner, weighted.left,
        weighted.right, "matmul",
    )  # fmt: skip
    return Virtual(site.name(), site.spec.shape, site.spec.dtype, whole.at)


def _shared_heads(x: Value, heads: int) -> Virtual:
    """Repeat every head, in dimension -3, until there are `heads`."""
    times = heads // x.shape[-3]
    shape = (*x.shape[:-3], heads, *x.shape[-2:])
    return Virtual(x.name, shape, x.dtype, lambda c: x.at((*c[:-3], c[-3] // times, *c[-2:])))


def _visible(condition: Scalar, logit: Scalar) -> Scalar:
    return apply("where", condition, logit, Literal(-math.inf, logit.dtype), dtype=logit.dtype)


def _softmax(site: Site, scores: Virtual, may_be_empty: bool) -> Virtual:
    both, dim = softmax_parts(site.name("softmax"), scores, -1)

    def formula(coords: Coords) -> Scalar:
        rest = coords[:dim]
        largest = both.part(0, rest)
        share = apply("div", apply("exp", apply("sub", scores.at(coords), largest)), both.part(1, rest))
        if not may_be_empty:
            return share
        nothing = apply("eq", largest, Literal(-math.inf, both.dtype))
        return apply("where", nothing, Literal(0.0, both.dtype), share, dtype=both.dtype)

    return Virtual(site.name("probabilities"), scores.shape, scores.dtype, formula)
