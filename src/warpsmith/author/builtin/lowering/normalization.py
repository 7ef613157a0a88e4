"""Normalisation layers: moments of a domain, then a pointwise formula over it."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.index import ravel, unravel
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.reductions import divided, moments, outer, reduction
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Reduction, Value, Virtual

# ATen's default for rms_norm without an epsilon: the machine epsilon of the dtype that is computed in.
_EPSILON = {"float64": 2.220446049250313e-16, "float32": 1.1920928955078125e-07}


def _affine(value: Scalar, weight: Scalar | None, bias: Scalar | None) -> Scalar:
    if weight is not None:
        value = apply("mul", value, weight)
    return apply("add", value, bias) if bias is not None else value


def _inverse_deviation(both: Reduction, rest: Coords, eps: float) -> Scalar:
    variance = divided(both.part(1, rest), both.cols)
    return apply("rsqrt", apply("add", variance, Literal(eps, both.dtype)))


def _normalized(both: Reduction, x: Value, coords: Coords, rest: Coords, eps: float) -> Scalar:
    centred = apply("sub", element(x, coords, both.dtype), both.part(0, rest))
    return apply("mul", centred, _inverse_deviation(both, rest, eps))


@lowers("layer_norm.default", "native_layer_norm.default")
def layer_norm(
    site: Site, x: Value, shape: Sequence[int], weight: Value | None = None, bias: Value | None = None,
    eps: float = 1e-5, *_unused: object,
) -> Value | tuple[Value | None, ...]:  # fmt: skip
    """Normalise over the last dimensions, then scale and shift per element of them."""
    lead = len(x.shape) - len(shape)
    reduced = tuple(range(lead, len(x.shape)))
    both = moments(site.name("moments"), x, reduced)

    def formula(coords: Coords) -> Scalar:
        gain = element(weight, coords[lead:], both.dtype) if weight is not None else None
        shift = element(bias, coords[lead:], both.dtype) if bias is not None else None
        return _affine(_normalized(both, x, coords, coords[:lead], eps), gain, shift)

    out = Virtual(site.name(), x.shape, x.dtype, formula)
    return (out, None, None) if "native" in site.node.op else out


@lowers("rms_norm.default", "_fused_rms_norm.default")
def rms_norm(
    site: Site, x: Value, shape: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Value | tuple[Value | None, ...]:
    """Divide by the root of the mean square over the last dimensions, then scale."""
    lead = len(x.shape) - len(shape)
    dtype = compute_dtype(x.dtype)
    small = _EPSILON[dtype] if eps is None else eps

    def square(coords: Coords) -> Scalar:
        a = element(x, coords, dtype)
        return apply("mul", a, a)

    total = reduction(site.name("squares"), "sum", x.shape, range(lead, len(x.shape)), square, (dtype,))

    def formula(coords: Coords) -> Scalar:
        mean = divided(total.at(coords[:lead]), total.cols)
        scale = apply("rsqrt", apply("add", mean, Literal(small, dtype)))
        gain = element(weight, coords[lead:], dtype) if weight is not None else None
        return _affine(apply("mul", element(x, coords, dtype), scale), gain, None)

    out = Virtual(site.name(), x.shape, x.dtype, formula)
    return (out, None) if "fused" in site.node.op else out


@lowers("group_norm.default", "native_group_norm.default")
def group_norm(site: Site, x: Value, *args: object) -> Value | tuple[Value | None, ...]:
    """Normalise over groups of channels, then scale and shift per channel."""
    if "native" in site.node.op:
        weight, bias, _n, _c, _hw, groups, eps = args
    else:
        groups, weight, bias, eps = (*args, *(None, None, 1e-5)[len(args) - 1 :])[:4]
    assert isinstance(groups, int) and isinstance(eps, float)
    batch, channels, *space = x.shape
    grouped = (batch, groups, channels // groups, *space)
    domain = Virtual(x.name, grouped, x.dtype, lambda c: x.at(unravel(ravel(c, grouped), x.shape)))
    both = moments(site.name("moments"), domain, range(2, len(grouped)))

    def formula(coords: Coords) -> Scalar:
        inner = unravel(ravel(coords, x.shape), grouped)
        gain = element(weight, (coords[1],), both.dtype) if isinstance(weight, Value) else None
        shift = element(bias, (coords[1],), both.dtype) if isinstance(bias, Value) else None
        return _affine(_normalized(both, domain, inner, inner[:2], eps), gain, shift)

    out = Virtual(site.name(), x.shape, x.dtype, formula)
    return (out, None, None) if "native" in site.node.op else out


@lowers("instance_norm.default")
def instance_norm(
    site: Site, x: Value, weight: Value | None, bias: Value | None, _mean: Value | None, _var: Value | None,
    _use_input_stats: bool, _momentum: float, eps: float, *_unused: object,
) -> Value:  # fmt: skip
    """Normalise every channel of every sample over its space, then scale and shift per channel."""
    both = moments(site.name("moments"), x, range(2, len(x.shape)))

    def formula(coords: Coords) -> Scalar:
        gain = element(weight, (coords[1],), both.dtype) if weight is not None else None
        shift = element(bias, (coords[1],), both.dtype) if bias is not None else None
        return _affine(_normalized(both, x, coords, coords[:2], eps), gain, shift)

    return Virtual(site.name(), x.shape, x.dtype, formula)


@lowers(
    "_native_batch_norm_legit_functional.default",
    "_native_batch_norm_legit_no_training.default",
    "batch_norm.default",
    "_native_batch_norm_legit.no_stats",
    "native_batch_norm.default",
)
def batch_norm(
    site: Site, x: Value, weight: Value | None, bias: Value | None, *args: object
) -> Value | tuple[Value | None, ...]:
    """Normalise every channel over batch and space; in training mode, also return the updated running statistics.

    ATen updates the running variance with the unbiased one: n / (n - 1) times what normalises.
    """
    tensors = [a for a in args if isinstance(a, Value)]
    numbers = [a for a in args if isinstance(a, float)]
    eps = numbers[-1] if len(numbers) > 1 or "batch_norm.default" not in site.node.op else numbers[0]
    momentum = numbers[0]
    training = next((a for a in args if isinstance(a, bool)), "no_training" not in site.node.op)
    if "no_stats" in site.node.op:
        training = True
    dtype = compute_dtype(x.dtype)
    if not training:
        return _inference(site, x, weight, bias, tensors[0], tensors[1], eps, dtype)
    reduced = (0, *range(2, len(x.shape)))
    both = moments(site.name("moments"), x, reduced)

    def formula(coords: Coords) -> Scalar:
        gain = element(weight, (coords[1],), dtype) if weight is not None else None
        shift = element(bias, (coords[1],), dtype) if bias is not None else None
        return _affine(_normalized(both, x, coords, outer(coords, reduced), eps), gain, shift)

    out = Virtual(site.name(), x.shape, x.dtype, formula)
    if len(site.node.outputs) == 1:
        return out

    def updated(part: int, old: Value, count: int) -> Virtual:
        def at(coords: Coords) -> Scalar:
            fresh = both.part(part, coords)
            fresh = divided(fresh, count) if part else fresh
            kept = apply("mul", element(old, coords, dtype), Literal(1.0 - momentum, dtype))
            return apply("add", kept, apply("mul", fresh, Literal(momentum, dtype)))

        return Virtual(site.name(f"running{part}"), old.shape, old.dtype, at)

    saved_mean = Virtual(site.name("mean"), both.shape, dtype, lambda c: both.part(0, c))
    saved_scale = Virtual(site.name("scale"), both.shape, dtype, lambda c: _inverse_deviation(both, c, eps))
    if not tensors[:2] or "no_stats" in site.node.op:
        return out, saved_mean, saved_scale
    return (
        out, saved_mean, saved_scale,
        updated(0, tensors[0], 1), updated(1, tensors[1], max(both.cols - 1, 1)),
    )  # fmt: skip


def _inference(
    site: Site, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, eps: float, dtype: str
) -> Value | tuple[Value | None, ...]:
    def formula(coords: Coords) -> Scalar:
        channel = (coords[1],)
        scale = apply("rsqrt", apply("add", element(var, channel, dtype), Literal(eps, dtype)))
        centred = apply("sub", element(x, coords, dtype), element(mean, channel, dtype))
        gain = element(weight, channel, dtype) if weight is not None else None
        shift = element(bias, channel, dtype) if bias is not None else None
        return cast(_affine(apply("mul", centred, scale), gain, shift), dtype)

    out = Virtual(site.name(), x.shape, x.dtype, formula)
    return (out, None, None, mean, var)[: len(site.node.outputs)] if len(site.node.outputs) > 1 else out
