"""Reductions over any dimensions, softmax, scans, and the windows that pooling and convolutions slide."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import padded
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Reduction, ReductionKind, Scan, ScanKind, Value, Virtual
from warpsmith.errors import UnsupportedOperator

Dims = Sequence[int] | int | None


def reduced_dims(x: Value, dims: Dims) -> tuple[int, ...]:
    """Normalise a dimension argument; none and an empty list mean all."""
    rank = len(x.shape)
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return tuple(range(rank))
    wanted = [dims] if isinstance(dims, int) else dims
    return tuple(sorted(d % rank for d in wanted)) if rank else ()


def reduction(
    name: str,
    kind: ReductionKind,
    domain: Sequence[int],
    reduced: Sequence[int],
    source: Formula,
    parts: Sequence[str],
) -> Reduction:
    """Build a reduction; its shape is the domain without the reduced dimensions."""
    shape = tuple(e for d, e in enumerate(domain) if d not in reduced)
    return Reduction(name, shape, parts[0], tuple(parts), kind, tuple(domain), tuple(reduced), source)


def outer(coords: Coords, reduced: Sequence[int]) -> Coords:
    """Drop the coordinates of reduced dimensions."""
    return tuple(c for d, c in enumerate(coords) if d not in reduced)


def _finish(site: Site, x: Value, reduced: Sequence[int], formula: Formula) -> Virtual:
    """Give a result over the remaining dimensions the node's shape, with kept dimensions of extent one.

    Where a node has several results, they have the same shape; the first may be one that nobody uses.
    """
    spec = next(spec for spec in site.node.outputs if spec is not None)
    keeps = len(spec.shape) == len(x.shape)

    def at(coords: Coords) -> Scalar:
        return cast(formula(outer(coords, reduced) if keeps else coords), spec.dtype)

    return Virtual(site.name(), spec.shape, spec.dtype, at)


def simple(site: Site, kind: ReductionKind, x: Value, dims: Dims, source: Formula, dtype: str) -> Virtual:
    """Reduce to one part of `dtype`."""
    reduced = reduced_dims(x, dims)
    whole = reduction(site.name("reduced"), kind, x.shape, reduced, source, (dtype,))
    return _finish(site, x, reduced, whole.at)


def _accumulated(site: Site, x: Value) -> tuple[Formula, str]:
    dtype = compute_dtype(site.spec.dtype)
    return (lambda coords: element(x, coords, dtype)), dtype


@lowers("sum.default", "sum.dim_IntList")
def sum_(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Sum over dimensions."""
    source, dtype = _accumulated(site, x)
    return simple(site, "sum", x, dims, source, dtype)


@lowers("prod.default", "prod.dim_int")
def prod(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Product over dimensions."""
    source, dtype = _accumulated(site, x)
    return simple(site, "prod", x, dims, source, dtype)


@lowers("mean.default", "mean.dim")
def mean(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Mean over dimensions."""
    reduced = reduced_dims(x, dims)
    source, dtype = _accumulated(site, x)
    total = reduction(site.name("sum"), "sum", x.shape, reduced, source, (dtype,))
    return _finish(site, x, reduced, lambda coords: divided(total.at(coords), total.cols))


def divided(a: Scalar, count: float) -> Scalar:
    """a / count."""
    return apply("div", a, Literal(float(count), a.dtype))


@lowers("amax.default")
def amax(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Largest element; NaN if there is one."""
    return simple(site, "max", x, dims, x.at, compute_dtype(x.dtype))


@lowers("amin.default")
def amin(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Smallest element; NaN if there is one."""
    return simple(site, "min", x, dims, x.at, compute_dtype(x.dtype))


@lowers("any.default", "any.dim", "any.dims")
def any_(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Whether any element is true."""
    return simple(site, "any", x, dims, lambda c: cast(x.at(c), "bool"), "bool")


@lowers("all.default", "all.dim", "all.dims")
def all_(site: Site, x: Value, dims: Dims = None, _keepdim: bool = False) -> Value:
    """Whether all elements are true."""
    return simple(site, "all", x, dims, lambda c: cast(x.at(c), "bool"), "bool")


@lowers("count_nonzero.default", "count_nonzero.dim_IntList")
def count_nonzero(site: Site, x: Value, dims: Dims = None) -> Value:
    """How many elements are not zero."""
    return simple(site, "sum", x, dims, lambda c: cast(cast(x.at(c), "bool"), "int64"), "int64")


@lowers("max.default", "min.default")
def extreme(site: Site, x: Value) -> Value:
    """Largest or smallest element of all."""
    return (amax if ".max." in site.node.op else amin)(site, x)


@lowers("argmax.default", "argmin.default")
def argmax(site: Site, x: Value, dim: int | None = None, _keepdim: bool = False) -> Value:
    """First position of the largest or smallest element."""
    kind: ReductionKind = "argmax" if "argmax" in site.node.op else "argmin"
    reduced = reduced_dims(x, dim)
    value = compute_dtype(x.dtype)
    found = reduction(site.name("found"), kind, x.shape, reduced, x.at, (value, "int64"))
    return _finish(site, x, reduced, lambda coords: found.part(1, coords))


@lowers("max.dim", "min.dim")
def extreme_with_index(site: Site, x: Value, dim: int, _keepdim: bool = False) -> tuple[Value | None, ...]:
    """Largest or smallest element along a dimension, with its first position."""
    kind: ReductionKind = "argmax" if ".max." in site.node.op else "argmin"
    reduced = reduced_dims(x, dim)
    found = reduction(site.name("found"), kind, x.shape, reduced, x.at, (compute_dtype(x.dtype), "int64"))
    values = _finish(site, x, reduced, found.at)
    keeps = len(values.shape) == len(x.shape)
    places = Virtual(
        site.name("index"), values.shape, "int64", lambda c: found.part(1, outer(c, reduced) if keeps else c)
    )
    return values, places


def moments(name: str, x: Value, reduced: Sequence[int]) -> Reduction:
    """Mean and sum of squared deviations, as parts 0 and 1."""
    dtype = compute_dtype(x.dtype)
    return reduction(name, "mean_var", x.shape, reduced, lambda c: element(x, c, dtype), (dtype, dtype))


def _deviation(
    site: Site, x: Value, reduced: Sequence[int], both: Reduction, correction: float, root: bool
) -> Virtual:  # fmt: skip
    def formula(coords: Coords) -> Scalar:
        variance = divided(both.part(1, coords), max(both.cols - correction, 0))
        return apply("sqrt", variance) if root else variance

    return _finish(site, x, reduced, formula)


def _variance(site: Site, x: Value, dims: Dims, correction: float, root: bool) -> Value:
    reduced = reduced_dims(x, dims)
    return _deviation(site, x, reduced, moments(site.name("moments"), x, reduced), correction, root)


def _dims_and_bias(args: Sequence[Dims | bool]) -> tuple[Dims, bool]:
    dims = next((a for a in args if a is not None and not isinstance(a, bool)), None)
    return dims, next((a for a in args if isinstance(a, bool)), True)


@lowers("var.correction", "std.correction")
def variance(site: Site, x: Value, dims: Dims = None, correction: float | None = None) -> Value:
    """Variance or standard deviation; `correction` is taken from the count."""
    return _variance(site, x, dims, 1 if correction is None else correction, "std" in site.node.op)


@lowers("var.default", "std.default", "var.dim", "std.dim")
def variance_unbiased(site: Site, x: Value, *args: Dims | bool) -> Value:
    """Variance or standard deviation, unbiased unless told otherwise."""
    dims, unbiased = _dims_and_bias(args)
    return _variance(site, x, dims, 1 if unbiased else 0, "std" in site.node.op)


def _with_mean(site: Site, x: Value, dims: Dims, correction: float) -> tuple[Value | None, ...]:
    reduced = reduced_dims(x, dims)
    both = moments(site.name("moments"), x, reduced)
    mean = _finish(site, x, reduced, both.at)
    return (
        _deviation(site, x, reduced, both, correction, "std" in site.node.op),
        Virtual(site.name("mean"), mean.shape, mean.dtype, mean.formula),
    )


@lowers("var_mean.correction", "std_mean.correction")
def variance_and_mean(
    site: Site, x: Value, dims: Dims = None, correction: float | None = None
) -> tuple[Value | None, ...]:
    """Variance or standard deviation, and the mean."""
    return _with_mean(site, x, dims, 1 if correction is None else correction)


@lowers("var_mean.default", "std_mean.default", "var_mean.dim", "std_mean.dim")
def variance_and_mean_unbiased(site: Site, x: Value, *args: Dims | bool) -> tuple[Value | None, ...]:
    """Variance or standard deviation, unbiased unless told otherwise, and the mean."""
    dims, unbiased = _dims_and_bias(args)
    return _with_mean(site, x, dims, 1 if unbiased else 0)


@lowers("norm.ScalarOpt_dim", "norm.Scalar", "linalg_vector_norm.default", "norm.ScalarOpt_dim_dtype")
def vector_norm(site: Site, x: Value, order: float | None = 2, dims: Dims = None, _keepdim: bool = False) -> Value:
    """(Σ|x|^p)^(1/p); the largest or smallest magnitude for p = ±inf."""
    p = 2.0 if order is None else float(order)
    dtype = compute_dtype(x.dtype)
    reduced = reduced_dims(x, dims)
    if math.isinf(p):
        kind: ReductionKind = "max" if p > 0 else "min"
        return simple(site, kind, x, dims, lambda c: apply("abs", x.at(c)), dtype)

    def source(coords: Coords) -> Scalar:
        a = x.at(coords)
        if p == 2:
            return apply("mul", a, a)
        magnitude = apply("abs", a)
        return magnitude if p == 1 else apply("pow", magnitude, Literal(p, dtype))

    total = reduction(site.name("powers"), "sum", x.shape, reduced, source, (dtype,))

    def formula(coords: Coords) -> Scalar:
        a = total.at(coords)
        if p == 2:
            return apply("sqrt", a)
        return a if p == 1 else apply("pow", a, Literal(1 / p, dtype))

    return _finish(site, x, reduced, formula)


@lowers("linalg_norm.default")
def linalg_norm(site: Site, x: Value, order: float | None = None, dims: Dims = None, keepdim: bool = False) -> Value:
    """The Euclidean (Frobenius) norm, which is what no order means."""
    if order is not None and not (isinstance(dims, int) or (dims is not None and len(dims) == 1)):
        raise UnsupportedOperator(f"aten.linalg_norm of order {order} over a matrix")
    return vector_norm(site, x, 2 if order is None else order, dims, keepdim)


def softmax_parts(name: str, x: Value, dim: int) -> tuple[Reduction, int]:
    """Maximum and Σ exp(x - maximum) along `dim`, as parts 0 and 1."""
    dim %= len(x.shape) or 1
    dtype = compute_dtype(x.dtype)
    return reduction(name, "max_sumexp", x.shape, (dim,), lambda c: element(x, c, dtype), (dtype, dtype)), dim


@lowers("softmax.int", "_softmax.default")
def softmax(site: Site, x: Value, dim: int, *_unused: object) -> Value:
    """exp(x - max) / Σ exp(x - max) along a dimension."""
    both, dim = softmax_parts(site.name("softmax"), x, dim)

    def formula(coords: Coords) -> Scalar:
        rest = outer(coords, (dim,))
        shifted = apply("exp", apply("sub", element(x, coords, both.dtype), both.part(0, rest)))
        return apply("div", shifted, both.part(1, rest))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


@lowers("log_softmax.int", "_log_softmax.default")
def log_softmax(site: Site, x: Value, dim: int, *_unused: object) -> Value:
    """x - max - log Σ exp(x - max) along a dimension."""
    both, dim = softmax_parts(site.name("softmax"), x, dim)

    def formula(coords: Coords) -> Scalar:
        rest = outer(coords, (dim,))
        shifted = apply("sub", element(x, coords, both.dtype), both.part(0, rest))
        return apply("sub", shifted, apply("log", both.part(1, rest)))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


@lowers("logsumexp.default")
def logsumexp(site: Site, x: Value, dims: Dims, _keepdim: bool = False) -> Value:
    """max + log Σ exp(x - max); the maximum itself where it is infinite."""
    reduced = reduced_dims(x, dims)
    dtype = compute_dtype(x.dtype)
    both = reduction(site.name("sums"), "max_sumexp", x.shape, reduced, lambda c: element(x, c, dtype), (dtype, dtype))

    def formula(coords: Coords) -> Scalar:
        largest = both.part(0, coords)
        # Infinity minus itself says nothing; a largest element that is infinite is the answer.
        infinite = apply("eq", apply("abs", largest), Literal(math.inf, dtype))
        finite = apply("add", largest, apply("log", both.part(1, coords)))
        return apply("where", infinite, largest, finite, dtype=dtype)

    return _finish(site, x, reduced, formula)


@lowers("cumsum.default", "cumprod.default")
def cumulative(site: Site, x: Value, dim: int) -> Value:
    """Running sum or product along a dimension."""
    source, dtype = _accumulated(site, x)
    kind: ScanKind = "sum" if "cumsum" in site.node.op else "prod"
    whole = Scan(site.name("scan"), site.spec.shape, dtype, (dtype,), kind, dim % len(x.shape), False, source)
    return Virtual(site.name(), site.spec.shape, site.spec.dtype, whole.at)


def windows(
    x: Value, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int], before: Sequence[int],
    dilation: Sequence[int], fill: float,
) -> tuple[tuple[int, ...], Formula]:  # fmt: skip
    """Return a tensor of sliding windows over the last dimensions: (*leading, *out, *kernel), `fill` outside of x."""
    rank = len(kernel)
    lead = len(x.shape) - rank
    spans = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, stride, kernel, dilation, strict=True)]
    room = padded(x.name, x, (*x.shape[:lead], *spans), (*[0] * lead, *before), fill)
    domain = (*x.shape[:lead], *out, *kernel)

    def source(coords: Coords) -> Scalar:
        places, taps = coords[lead : lead + rank], coords[lead + rank :]
        inner = tuple(p * s + t * d for p, s, t, d in zip(places, stride, taps, dilation, strict=True))
        return room.at((*coords[:lead], *inner))

    return domain, source
