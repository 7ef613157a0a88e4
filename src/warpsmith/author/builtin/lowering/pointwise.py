"""Operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable

from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import FLOATS, Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Value, Virtual, expand_coords

Operand = Value | float | int | bool


def element(operand: Operand, coords: Coords, dtype: str) -> Scalar:
    """Return the element of a broadcast operand, computed in `dtype`."""
    if isinstance(operand, Value):
        return cast(operand.at(expand_coords(coords, operand.shape)), compute_dtype(dtype))
    value = bool(operand) if dtype == "bool" else float(operand) if dtype in FLOATS else int(operand)
    return Literal(value, compute_dtype(dtype))


def _promoted(*operands: Operand) -> str:
    """The dtype in which ATen computes: that of the tensors, unless a number is of a higher kind."""
    rank = ("bool", "uint8", "int8", "int16", "int32", "int64", "bfloat16", "float16", "float32", "float64")
    sized = [o.dtype for o in operands if isinstance(o, Value) and o.shape]
    zero_dim = [o.dtype for o in operands if isinstance(o, Value) and not o.shape]
    tensors = sized or zero_dim
    best = max(tensors, key=rank.index)
    if {"bfloat16", "float16"} <= set(tensors):
        best = "float32"
    lower_kinds = [d for d in zero_dim if sized and _kind(d) > _kind(best)]
    best = max(lower_kinds, key=rank.index, default=best)
    for number in operands:
        if not isinstance(number, Value):
            kind = 0 if isinstance(number, bool) else 1 if isinstance(number, int) else 2
            if kind > _kind(best):
                best = ("bool", "int64", "float32")[kind]
    return best


def _kind(dtype: str) -> int:
    return 0 if dtype == "bool" else 2 if dtype in FLOATS else 1


def mapped(site: Site, body: Callable[..., Scalar], *operands: Operand, dtype: str | None = None) -> Virtual:
    """Return the tensor whose elements are `body` of the operands' elements, rounded to the node's dtype.

    `dtype` is the one to compute in; left out, the one that ATen promotes to, or float32 where the result is
    floating and the operands are not.
    """
    spec = site.spec
    inner = dtype or _promoted(*operands)
    if inner not in FLOATS and spec.dtype in FLOATS:
        inner = spec.dtype

    def formula(coords: Coords) -> Scalar:
        return cast(body(*(element(o, coords, inner) for o in operands)), spec.dtype)

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


def _literal(like: Scalar, value: float) -> Scalar:
    return Literal(float(value) if like.dtype in FLOATS else int(value), like.dtype)


def _unary(op: str) -> Callable[[Site, Value], Value]:
    return lambda site, x: mapped(site, lambda a: apply(op, a), x)


def _binary(op: str) -> Callable[[Site, Value, Operand], Value]:
    return lambda site, x, y: mapped(site, lambda a, b: apply(op, a, b), x, y)


for _name in [
    "neg",
    "abs",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "erf",
    "erfc",
    "floor",
    "ceil",
    "round",
    "trunc",
    "reciprocal",
    "sign",
    "sigmoid",
]:
    lowers(f"{_name}.default")(_unary(_name))

for _aten, _op in {"mul": "mul", "div": "div", "maximum": "maximum", "minimum": "minimum"}.items():
    lowers(f"{_aten}.Tensor", f"{_aten}.Scalar", f"{_aten}.default")(_binary(_op))
for _op in ("lt", "le", "gt", "ge", "eq", "ne"):
    lowers(f"{_op}.Tensor", f"{_op}.Scalar")(_binary(_op))
for _aten, _op in {"logical_and": "and", "logical_or": "or"}.items():
    lowers(f"{_aten}.default")(
        lambda site, x, y, _op=_op: mapped(site, lambda a, b: apply(_op, a, b), x, y, dtype="bool")
    )
for _aten in ("and", "or", "xor"):
    for _name in (f"bitwise_{_aten}", f"__{_aten}__"):
        lowers(f"{_name}.Tensor", f"{_name}.Scalar")(_binary(f"bit_{_aten}"))


@lowers("logical_not.default")
def logical_not(site: Site, x: Value) -> Value:
    """1 where the element is zero."""
    return mapped(site, lambda a: apply("not", a), x, dtype="bool")


@lowers("bitwise_not.default")
def bitwise_not(site: Site, x: Value) -> Value:
    """Complement of all bits; of a bool, its negation."""
    return mapped(site, lambda a: apply("not" if a.dtype == "bool" else "bit_not", a), x)


@lowers("isnan.default")
def isnan(site: Site, x: Value) -> Value:
    """Whether the element is not a number."""
    return mapped(site, lambda a: apply("ne", a, a), x)


@lowers("add.Tensor", "add.Scalar")
def add(site: Site, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """x + alpha·y."""
    return mapped(site, lambda a, b: apply("add", a, _scaled(b, alpha)), x, y)


@lowers("sub.Tensor", "sub.Scalar")
def sub(site: Site, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """x - alpha·y."""
    return mapped(site, lambda a, b: apply("sub", a, _scaled(b, alpha)), x, y)


@lowers("rsub.Tensor", "rsub.Scalar")
def rsub(site: Site, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """y - alpha·x."""
    return mapped(site, lambda a, b: apply("sub", b, _scaled(a, alpha)), x, y)


def _scaled(value: Scalar, factor: float) -> Scalar:
    return value if factor == 1 else apply("mul", value, _literal(value, factor))


@lowers("div.Tensor_mode", "div.Scalar_mode")
def div_mode(site: Site, x: Operand, y: Operand, rounding_mode: str | None = None) -> Value:
    """x / y, rounded towards zero (`trunc`) or down (`floor`)."""
    op = {None: "div", "trunc": "div_trunc", "floor": "div_floor"}[rounding_mode]
    return mapped(site, lambda a, b: apply(op, a, b), x, y)


@lowers("floor_divide.default", "floor_divide.Scalar")
def floor_divide(site: Site, x: Operand, y: Operand) -> Value:
    """x / y rounded down."""
    return mapped(site, lambda a, b: apply("div_floor", a, b), x, y)


@lowers("remainder.Tensor", "remainder.Scalar")
def remainder(site: Site, x: Operand, y: Operand) -> Value:
    """x modulo y, with the sign of y."""
    return mapped(site, lambda a, b: apply("remainder", a, b), x, y)


@lowers("fmod.Tensor", "fmod.Scalar")
def fmod(site: Site, x: Operand, y: Operand) -> Value:
    """x modulo y, with the sign of x."""
    return mapped(site, lambda a, b: apply("fmod", a, b), x, y)


@lowers("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def power(site: Site, x: Operand, y: Operand) -> Value:
    """x to the power y; small whole powers by multiplication, the square root by its own instruction."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        if isinstance(b, Literal):
            if b.value == 0.5:
                return apply("sqrt", a)
            if b.value == -0.5:
                return apply("rsqrt", a)
            if b.value in (1, 2, 3, 4):
                square = apply("mul", a, a)
                return {1: a, 2: square, 3: apply("mul", square, a), 4: apply("mul", square, square)}[int(b.value)]
            if b.value == -1 and a.dtype in FLOATS:
                return apply("reciprocal", a)
        return apply("pow", a, b)

    return mapped(site, body, x, y)


@lowers("square.default")
def square(site: Site, x: Value) -> Value:
    """x·x."""
    return mapped(site, lambda a: apply("mul", a, a), x)


@lowers("relu.default", "relu_.default")
def relu(site: Site, x: Value) -> Value:
    """max(x, 0); NaN stays NaN."""
    return mapped(site, _relu, x)


def _relu(a: Scalar) -> Scalar:
    zero = _literal(a, 0)
    return apply("where", apply("lt", a, zero), zero, a, dtype=a.dtype)


@lowers("relu6.default")
def relu6(site: Site, x: Value) -> Value:
    """x clamped to [0, 6]."""
    return mapped(site, lambda a: _clamp(a, 0, 6), x)


@lowers("hardtanh.default", "hardtanh_.default")
def hardtanh(site: Site, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """x clamped to [low, high]."""
    return mapped(site, lambda a: _clamp(a, low, high), x)


@lowers("clamp.default", "clamp.Tensor", "clamp_min.default", "clip.default")
def clamp(site: Site, x: Value, min: Operand | None = None, max: Operand | None = None) -> Value:
    """x limited from below and above; NaN stays NaN."""
    given = [bound for bound in (min, max) if bound is not None]
    names = [op for op, bound in (("maximum", min), ("minimum", max)) if bound is not None]

    def body(a: Scalar, *limits: Scalar) -> Scalar:
        for op, limit in zip(names, limits, strict=True):
            a = apply(op, a, limit)
        return a

    return mapped(site, body, x, *given)


@lowers("clamp_max.default")
def clamp_max(site: Site, x: Value, high: Operand) -> Value:
    """x limited from above."""
    return mapped(site, lambda a, b: apply("minimum", a, b), x, high)


def _clamp(a: Scalar, low: float, high: float) -> Scalar:
    return apply("minimum", apply("maximum", a, _literal(a, low)), _literal(a, high))


@lowers("gelu.default")
def gelu(site: Site, x: Value, approximate: str = "none") -> Value:
    """x·Φ(x), by erf, or by tanh where the module asks for it."""

    def by_erf(a: Scalar) -> Scalar:
        scaled = apply("mul", a, _literal(a, math.sqrt(0.5)))
        return _product(_literal(a, 0.5), a, _plus_one(apply("erf", scaled)))

    def by_tanh(a: Scalar) -> Scalar:
        cube = _product(_literal(a, 0.044715), a, a, a)
        inner = apply("mul", _literal(a, math.sqrt(2 / math.pi)), apply("add", a, cube))
        return _product(_literal(a, 0.5), a, _plus_one(apply("tanh", inner)))

    return mapped(site, by_tanh if approximate == "tanh" else by_erf, x)


def _product(first: Scalar, *rest: Scalar) -> Scalar:
    for factor in rest:
        first = apply("mul", first, factor)
    return first


def _plus_one(a: Scalar) -> Scalar:
    return apply("add", _literal(a, 1), a)


@lowers("silu.default", "silu_.default")
def silu(site: Site, x: Value) -> Value:
    """x·sigmoid(x)."""
    return mapped(site, lambda a: apply("mul", a, apply("sigmoid", a)), x)


@lowers("mish.default")
def mish(site: Site, x: Value) -> Value:
    """x·tanh(softplus(x))."""
    return mapped(site, lambda a: apply("mul", a, apply("tanh", _softplus(a, 1.0, 20.0))), x)


@lowers("softplus.default")
def softplus(site: Site, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta·x)) / beta; x itself where beta·x exceeds the threshold."""
    return mapped(site, lambda a: _softplus(a, beta, threshold), x)


def _softplus(a: Scalar, beta: float, threshold: float) -> Scalar:
    scaled = _scaled(a, beta)
    soft = _scaled(apply("log1p", apply("exp", scaled)), 1 / beta)
    return apply("where", apply("gt", scaled, _literal(a, threshold)), a, soft, dtype=a.dtype)


@lowers("softsign.default")
def softsign(site: Site, x: Value) -> Value:
    """x / (1 + |x|)."""
    return mapped(site, lambda a: apply("div", a, _plus_one(apply("abs", a))), x)


@lowers("log_sigmoid.default", "log_sigmoid_forward.default")
def log_sigmoid(site: Site, x: Value) -> Value:
    """min(x, 0) - log(1 + exp(-|x|))."""

    def body(a: Scalar) -> Scalar:
        tail = apply("log1p", apply("exp", apply("neg", apply("abs", a))))
        return apply("sub", apply("minimum", a, _literal(a, 0)), tail)

    return mapped(site, body, x)


@lowers("elu.default", "elu_.default")
def elu(site: Site, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """scale·x above zero, scale·alpha·(exp(input_scale·x) - 1) below."""

    def body(a: Scalar) -> Scalar:
        below = _scaled(apply("expm1", _scaled(a, input_scale)), alpha * scale)
        return apply("where", apply("gt", a, _literal(a, 0)), _scaled(a, scale), below, dtype=a.dtype)

    return mapped(site, body, x)


@lowers("selu.default")
def selu(site: Site, x: Value) -> Value:
    """Self-normalising ELU with its two fixed constants (Klambauer et al., 2017)."""
    return elu(site, x, 1.6732632423543772, 1.0507009873554805)


@lowers("celu.default")
def celu(site: Site, x: Value, alpha: float = 1.0) -> Value:
    """max(x, 0) + min(0, alpha·(exp(x / alpha) - 1))."""
    return elu(site, x, alpha, 1.0, 1.0 / alpha)


@lowers("leaky_relu.default", "leaky_relu_.default")
def leaky_relu(site: Site, x: Value, slope: float = 0.01) -> Value:
    """x above zero, slope·x below."""
    return mapped(
        site, lambda a: apply("where", apply("gt", a, _literal(a, 0)), a, _scaled(a, slope), dtype=a.dtype), x
    )


@lowers("hardsigmoid.default")
def hardsigmoid(site: Site, x: Value) -> Value:
    """clamp(x + 3, 0, 6) / 6."""
    return mapped(site, lambda a: apply("div", _clamp(apply("add", a, _literal(a, 3)), 0, 6), _literal(a, 6)), x)


@lowers("hardswish.default", "hardswish_.default")
def hardswish(site: Site, x: Value) -> Value:
    """x·clamp(x + 3, 0, 6) / 6."""

    def body(a: Scalar) -> Scalar:
        gate = _clamp(apply("add", a, _literal(a, 3)), 0, 6)
        return apply("div", apply("mul", a, gate), _literal(a, 6))

    return mapped(site, body, x)


@lowers("threshold.default")
def threshold(site: Site, x: Value, limit: float, value: float) -> Value:
    """x above the limit, `value` elsewhere."""
    return mapped(
        site, lambda a: apply("where", apply("le", a, _literal(a, limit)), _literal(a, value), a, dtype=a.dtype), x
    )


@lowers("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(site: Site, condition: Value, x: Operand, y: Operand) -> Value:
    """x where the condition holds, y elsewhere."""
    spec = site.spec

    def formula(coords: Coords) -> Scalar:
        chosen = element(condition, coords, "bool")
        return apply(
            "where", chosen, element(x, coords, spec.dtype), element(y, coords, spec.dtype),
            dtype=compute_dtype(spec.dtype),
        )  # fmt: skip

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


@lowers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(site: Site, x: Value, mask: Value, value: Operand) -> Value:
    """`value` where the mask holds, x elsewhere."""
    return where(site, mask, value, x)


@lowers("lerp.Scalar", "lerp.Tensor")
def lerp(site: Site, x: Value, y: Value, weight: Operand) -> Value:
    """x + weight·(y - x)."""
    return mapped(site, lambda a, b, w: apply("add", a, apply("mul", w, apply("sub", b, a))), x, y, weight)


@lowers("addcmul.default")
def addcmul(site: Site, x: Value, y: Value, z: Value, value: float = 1) -> Value:
    """x + value·y·z."""
    return mapped(site, lambda a, b, c: apply("add", a, _scaled(apply("mul", b, c), value)), x, y, z)


@lowers("_to_copy.default", "to.dtype", "to.dtype_layout", "type_as.default")
def convert(site: Site, x: Value, *_unused: object) -> Value:
    """x in another dtype; the exporter has already said which."""
    return mapped(site, lambda a: a, x, dtype=x.dtype)


@lowers(
    "clone.default",
    "contiguous.default",
    "alias.default",
    "detach.default",
    "detach_.default",
    "lift_fresh_copy.default",
    "dropout.default",
    "copy.default",
)
def copy(site: Site, x: Value, *rest: object) -> Value:
    """x itself; dropout stands here because it is the identity wherever a task admits it."""
    source = rest[0] if site.node.op == "aten.copy.default" and isinstance(rest[0], Value) else x
    return mapped(site, lambda a: a, source, dtype=source.dtype)


@lowers(
    "full.default",
    "scalar_tensor.default",
    "zeros.default",
    "ones.default",
    "full_like.default",
    "zeros_like.default",
    "ones_like.default",
    "new_zeros.default",
    "new_ones.default",
    "new_full.default",
)
def full(site: Site, *args: object) -> Value:
    """A tensor with one value everywhere."""
    family = site.node.op.split(".")[1]
    number = args[0] if family == "scalar_tensor" else 0.0
    if "full" in family:
        number = args[2] if family == "new_full" else args[1]
    if "ones" in family:
        number = 1.0
    spec = site.spec
    assert isinstance(number, (bool, int, float))
    return Virtual(site.name(), spec.shape, spec.dtype, lambda coords: element(number, coords, spec.dtype))
