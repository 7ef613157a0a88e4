"""Sums of products over named dimensions, and the products of tensors that are one of these."""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.lowering.pointwise import element, literal_like, scaled
from warpsmith.author.builtin.lowering.reductions import reduction
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Scalar, apply, compute_dtype
from warpsmith.author.builtin.values import Contraction, Coords, Value, Virtual
from warpsmith.errors import UnsupportedOperator
from warpsmith.task.equation import Equation, Labels, parse_equation

Places = Mapping[str, Index]


@dataclass(frozen=True)
class Factor:
    """A tensor whose dimensions have names: it varies along `labels`, and `at` gives the element at their places."""

    labels: Labels
    at: Callable[[Places], Scalar]


class SumOfProducts:
    """Multiplies operands from left to right, and sums each dimension as soon as no later operand needs it.

    The equation names the dimensions; one of extent one stretches.
    """

    def __init__(self, site: Site, equation: Equation, operands: Sequence[Value]) -> None:
        self._site = site
        self._terms = equation.terms
        self._result = equation.result
        self._dtype = compute_dtype(site.spec.dtype)
        self._numbers = count()
        self._extents = equation.extents([operand.shape for operand in operands])
        self._factors = [self._factor(term, operand) for term, operand in zip(self._terms, operands, strict=True)]

    def value(self) -> Virtual:
        """Return the tensor with the dimensions of the result."""
        whole, *others = self._factors
        for number, other in enumerate(others, 1):
            later = {label for term in self._terms[number + 1 :] for label in term}
            whole = self._multiplied(whole, other, later | set(self._result))
        whole = self._summed(whole, self._result)
        result = self._result

        def at(coords: Coords) -> Scalar:
            return whole.at(dict(zip(result, coords, strict=True)))

        return Virtual(self._site.name(), tuple(self._extents[label] for label in result), self._site.spec.dtype, at)

    def _factor(self, term: Labels, operand: Value) -> Factor:
        def at(places: Places) -> Scalar:
            coords = (
                places[label] if extent > 1 else Index() for label, extent in zip(term, operand.shape, strict=True)
            )
            return element(operand, tuple(coords), self._dtype)

        varies = (label for label, extent in zip(term, operand.shape, strict=True) if extent > 1)
        return Factor(tuple(dict.fromkeys(varies)), at)

    def _multiplied(self, left: Factor, right: Factor, needed: Collection[str]) -> Factor:
        """Multiply two factors, and sum what they alone have in common."""
        shared = set(left.labels) & set(right.labels)
        left = self._summed(left, [*needed, *shared])
        right = self._summed(right, [*needed, *shared])
        inner = tuple(label for label in left.labels if label in shared and label not in needed)
        kept = self._ordered([label for label in (*left.labels, *right.labels) if label not in inner])

        def product(places: Places) -> Scalar:
            return apply("mul", left.at(places), right.at(places))

        if not inner:
            return Factor(kept, product)
        roles = "".join("b" if k in shared else "m" if k in left.labels else "n" for k in kept)
        if set(roles) <= {"b"}:
            return self._summed(Factor((*kept, *inner), product), kept)

        def side(factor: Factor) -> Callable[[Coords, Coords], Scalar]:
            return lambda out, k: factor.at(dict(zip((*kept, *inner), (*out, *k), strict=True)))

        whole = Contraction(
            self._name(), self._shape(kept), self._dtype, (self._dtype,), roles, self._shape(inner),
            side(left), side(right), "matmul",
        )  # fmt: skip
        return Factor(kept, lambda places: whole.at(tuple(places[label] for label in kept)))

    def _summed(self, factor: Factor, kept: Collection[str]) -> Factor:
        """Sum the dimensions that are not in `kept`."""
        dropped = [label for label in factor.labels if label not in kept]
        if not dropped:
            return factor
        rest = self._ordered([label for label in factor.labels if label in kept])
        domain = (*rest, *dropped)
        total = reduction(
            self._name(), "sum", self._shape(domain), range(len(rest), len(domain)),
            lambda coords: factor.at(dict(zip(domain, coords, strict=True))), (self._dtype,),
        )  # fmt: skip
        return Factor(rest, lambda places: total.at(tuple(places[label] for label in rest)))

    def _ordered(self, labels: Sequence[str]) -> Labels:
        """Put labels in the order of the result, so that the last product is written as it stands; others behind."""
        unique = list(dict.fromkeys(labels))
        return (*(k for k in self._result if k in unique), *(k for k in unique if k not in self._result))

    def _shape(self, labels: Sequence[str]) -> tuple[int, ...]:
        return tuple(self._extents[label] for label in labels)

    def _name(self) -> str:
        return self._site.name(f"product{next(self._numbers)}")


@lowers("einsum.default")
def einsum(site: Site, equation: str, operands: Sequence[Value]) -> Value:
    """Sum of products over the dimensions that an equation names; operands are multiplied from left to right."""
    return _spelled(site, equation, *operands)


def _spelled(site: Site, equation: str, *operands: Value) -> Virtual:
    read = parse_equation(equation, [len(operand.shape) for operand in operands])
    return SumOfProducts(site, read, operands).value()


@lowers("outer.default", "ger.default")
def outer(site: Site, a: Value, b: Value) -> Value:
    """Every element of one vector times every element of another."""
    return _spelled(site, "i,j->ij", a, b)


@lowers("inner.default")
def inner(site: Site, a: Value, b: Value) -> Value:
    """Sum of products over the last dimensions."""
    first = string.ascii_lowercase[: max(len(a.shape) - 1, 0)]
    second = string.ascii_uppercase[: max(len(b.shape) - 1, 0)]
    if not a.shape or not b.shape:
        return _spelled(site, "...,...->...", a, b)
    return _spelled(site, f"{first}z,{second}z->{first}{second}", a, b)


@lowers("tensordot.default")
def tensordot(site: Site, a: Value, b: Value, dims_a: Sequence[int], dims_b: Sequence[int]) -> Value:
    """Sum of products over pairs of dimensions, those left of the first operand before those of the second."""
    first = list(string.ascii_lowercase[: len(a.shape)])
    second = list(string.ascii_uppercase[: len(b.shape)])
    for p, q in zip(dims_a, dims_b, strict=True):
        second[q] = first[p]
    summed = {first[p] for p in dims_a}
    result = [label for label in (*first, *second) if label not in summed]
    return SumOfProducts(site, Equation((tuple(first), tuple(second)), tuple(result)), [a, b]).value()


@lowers("linalg_vecdot.default")
def vecdot(site: Site, a: Value, b: Value, dim: int = -1) -> Value:
    """Sum of products along one dimension."""
    rank = max(len(a.shape), len(b.shape))
    labels = tuple(str(n) for n in range(rank))
    result = (*labels[: dim % rank], *labels[dim % rank + 1 :])
    terms = (labels[rank - len(a.shape) :], labels[rank - len(b.shape) :])
    return SumOfProducts(site, Equation(terms, result), [a, b]).value()


@lowers("linalg_multi_dot.default")
def multi_dot(site: Site, matrices: Sequence[Value]) -> Value:
    """Product of matrices, from left to right; the first and the last may be vectors."""
    labels = string.ascii_lowercase
    if len(matrices) >= len(labels):
        raise UnsupportedOperator(f"{site.node.op} of {len(matrices)} matrices")
    terms: list[Labels] = [(labels[n], labels[n + 1]) for n in range(len(matrices))]
    if len(matrices[0].shape) == 1:
        terms[0] = terms[0][1:]
    if len(matrices[-1].shape) == 1:
        terms[-1] = terms[-1][:1]
    named = [label for term in terms for label in term]
    result = tuple(label for label in named if named.count(label) == 1)
    return SumOfProducts(site, Equation(tuple(terms), result), matrices).value()


@lowers("bilinear.default")
def bilinear(site: Site, x: Value, y: Value, weight: Value, bias: Value | None = None) -> Value:
    """xᵀ·W·y for each matrix of the weight, plus a bias."""
    whole = _spelled(site, "...i,oij,...j->...o", x, weight, y)
    if bias is None:
        return whole
    return Virtual(
        site.name(), whole.shape, whole.dtype,
        lambda c: apply("add", whole.at(c), element(bias, c[-1:], compute_dtype(whole.dtype))),
    )  # fmt: skip


@lowers("addmv.default", "addr.default")
def added_product(site: Site, x: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    """beta·x + alpha·(a·b): a matrix and a vector, or (addr) the outer product of two vectors."""
    whole = _spelled(site, "i,j->ij" if "addr" in site.node.op else "ij,j->i", a, b)
    dtype = compute_dtype(whole.dtype)

    def at(coords: Coords) -> Scalar:
        product = scaled(whole.at(coords), alpha)
        # A factor of zero hides what stands there, even NaN.
        extra = scaled(element(x, coords, dtype), beta) if beta else literal_like(product, 0)
        return apply("add", extra, product)

    return Virtual(site.name(), whole.shape, whole.dtype, at)
