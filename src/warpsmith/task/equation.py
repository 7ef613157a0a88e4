"""Reading the equation of an einsum: a name for every dimension of its operands and of its result."""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from warpsmith.records import Graph, Node, Ref

Labels = tuple[str, ...]
# Above this number of operands, the orders to multiply them in are too many to try.
_MOST_OPERANDS = 5


@dataclass(frozen=True)
class Equation:
    """Equal names go together, also within one operand; a name that the result lacks is summed."""

    terms: tuple[Labels, ...]
    result: Labels

    def extents(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """Return the extent of every name, for operands of these shapes; an extent of one stretches."""
        found: dict[str, int] = {}
        for term, shape in zip(self.terms, shapes, strict=True):
            for label, extent in zip(term, shape, strict=True):
                found[label] = max(extent, found.get(label, 1))
        return found


def parse_equation(equation: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for operands of these ranks.

    Dimensions under an ellipsis get numbers, counted from the right, so that operands of different rank broadcast.
    Without an arrow, the result has them first, then in alphabetical order what occurs once.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = tuple(_labels(term, rank) for term, rank in zip(left.split(","), ranks, strict=True))
    named = [label for term in terms for label in term]
    covered = sorted({label for label in named if label not in string.ascii_letters}, key=int, reverse=True)
    if not arrow:
        once = sorted(label for label in set(named) - set(covered) if named.count(label) == 1)
        return Equation(terms, (*covered, *once))
    before, dots, after = right.partition("...")
    return Equation(terms, (*before, *(covered if dots else ()), *after))


def _labels(term: str, rank: int) -> Labels:
    before, _, after = term.partition("...")
    covered = rank - len(before) - len(after)
    return (*before, *(str(covered - 1 - n) for n in range(covered)), *after)


def equation_of(graph: Graph, node: Node) -> tuple[Equation, tuple[Ref, ...]]:
    """Return the equation of an einsum node and its operands."""
    text, operands = node.args[0], node.args[1]
    assert isinstance(text, str) and isinstance(operands, tuple)
    refs = tuple(ref for ref in operands if isinstance(ref, Ref))
    return parse_equation(text, [len(graph.spec_of(ref).shape) for ref in refs]), refs


def least_operations(equation: Equation, shapes: Sequence[Sequence[int]]) -> int:
    """Return the multiplications and additions of the cheapest order to multiply the operands in, two at a time.

    What only one operand has, and the result lacks, is summed before, which is not counted. Beyond five operands, only
    the multiplications of one element of the result are.
    """
    extents = equation.extents(shapes)
    varying = [
        frozenset(label for label, extent in zip(term, shape, strict=True) if extent > 1)
        for term, shape in zip(equation.terms, shapes, strict=True)
    ]
    if len(varying) > _MOST_OPERANDS:
        return math.prod(extents[label] for label in equation.result)
    return _cheapest(varying, frozenset(equation.result), extents)


def _cheapest(factors: Sequence[frozenset[str]], result: Collection[str], extents: Mapping[str, int]) -> int:
    if len(factors) < 2:
        return 0
    costs = []
    for first, second in combinations(range(len(factors)), 2):
        others = [factor for n, factor in enumerate(factors) if n not in (first, second)]
        needed = frozenset(result).union(*others)
        shared = factors[first] & factors[second]
        used = (factors[first] | factors[second]) & (needed | shared)
        sums = 2 if shared - needed else 1
        rest = _cheapest([*others, used & needed], result, extents)
        costs.append(sums * math.prod(extents[label] for label in used) + rest)
    return min(costs)
