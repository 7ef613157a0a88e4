"""Operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable

from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import FLOATS, FUNCTIONS, Literal, Scalar, apply, cast, compute_dtype
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


def literal_like(like: Scalar, value: float) -> Scalar:
    """A constant of the dtype of another value."""
    return Literal(float(value) if like.dtype in FLOATS else int(value), like.dtype)


def _unary(op: str) -> Callable[[Site, Value], Value]:
    return lambda site, x: mapped(site, lambda a: apply(op, a), x)


def _binary(op: str) -> Callable[[Site, Value, Operand], Value]:
    return lambda site, x, y: mapped(site, lambda a, b: apply(op, a, b), x, y)


for _name in (*FUNCTIONS, "neg", "abs", "round", "reciprocal", "sign", "sigmoid"):
    lowers(f"{_name}.default")(_unary(_name))

for _aten, _op in {"negative": "neg", "absolute": "abs", "special_expit": "sigmoid", "special_expm1": "expm1"}.items():
    lowers(f"{_aten}.default")(_unary(_op))

# fmt: off
_BINARY = {
    "mul": "mul", "multiply": "mul", "div": "div", "divide": "div", "true_divide": "div", "maximum": "maximum",
    "minimum": "minimum", "lt": "lt", "less": "lt", "le": "le", "less_equal": "le", "gt": "gt", "greater": "gt",
    "ge": "ge", "greater_equal": "ge", "eq": "eq", "ne": "ne", "not_equal": "ne",
}
# fmt: on
for _aten, _op in _BINARY.items():
    lowers(f"{_aten}.Tensor", f"{_aten}.Scalar", f"{_aten}.default")(_binary(_op))
for _aten, _op in {"max": "maximum", "min": "minimum"}.items():
    lowers(f"{_aten}.other")(_binary(_op))
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
    return mapped(site, lambda a, b: apply("add", a, scaled(b, alpha)), x, y)


@lowers("sub.Tensor", "sub.Scalar", "subtract.Tensor", "subtract.Scalar")
def sub(site: Site, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """x - alpha·y."""
    return mapped(site, lambda a, b: apply("sub", a, scaled(b, alpha)), x, y)


@lowers("rsub.Tensor", "rsub.Scalar")
def rsub(site: Site, x: Operand, y: Operand, alpha: float = 1) -> Value:
    """y - alpha·x."""
    return mapped(site, lambda a, b: apply("sub", b, scaled(a, alpha)), x, y)


def scaled(value: Scalar, factor: float) -> Scalar:
    """factor·value, without a multiplication by one."""
    return value if factor == 1 else apply("mul", value, literal_like(value, factor))


@lowers("div.Tensor_mode", "div.Scalar_mode", "divide.Tensor_mode", "divide.Scalar_mode")
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
    return mapped(site, lambda a, b, c: apply("add", a, scaled(apply("mul", b, c), value)), x, y, z)


@lowers("addcdiv.default")
def addcdiv(site: Site, x: Value, y: Value, z: Value, value: float = 1) -> Value:
    """x + value·y / z."""
    return mapped(site, lambda a, b, c: apply("add", a, scaled(apply("div", b, c), value)), x, y, z)


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
    "copy.default",
)
def copy(site: Site, x: Value, *rest: object) -> Value:
    """x itself."""
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
