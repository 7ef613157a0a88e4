"""When is an output right?

For each element of a floating output

    error = |got - expected| / unit,    right where    error <= factor * max(eager error, 1) + floor_ulps

`expected` is the float64 answer. `unit` is how far one rounding error in every step of an honest computation moves
this element (see `rounding`), and at least one unit roundoff of the output's dtype times |expected|. For a sum of K
products it is u * sqrt(K) * sum |a||b|. `eager error` is the largest error, in the same units, that PyTorch itself
makes on these inputs in the task's precision; the one it is held up to is there because PyTorch on the CPU
accumulates some sums in float64 and then has no error at all. `factor` and `floor_ulps` belong to the task.

Differences below the smallest normal number of the dtype do not count: flushing subnormals to zero is honest.

A NaN or an infinity must stand exactly where the float64 answer has the same one. Where that is finite, an infinity
counts as the smallest number that the output's dtype rounds to it, so that next to the largest number either is right.
Where eager PyTorch overflows on the way and the float64 answer does not, both are right. Integers and booleans must
be equal to the answer, or to one of the answers that rounding in front of a discontinuity leads to. All elements
count. Predicates read `not (error <= limit)`, so that a NaN is never right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from warpsmith.judge.references import Due, Reference
from warpsmith.records import FamilyResult, Mismatch, Tolerance


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the outputs of one run compare. `reason` and `mismatch` are None where all are right."""

    result: FamilyResult
    reason: str | None
    mismatch: Mismatch | None


def compare(reference: Reference, outputs: Mapping[str, torch.Tensor], tolerance: Tolerance) -> Comparison:
    """Compare outputs with what is due. The result tells of the output that is worst against its limit.

    Raises ValueError for a reference that holds no answers, against which everything would be right.
    """
    if not reference.due:
        raise ValueError("a reference without answers")
    worst: tuple[float, float, float] = (0.0, 0.0, limit_for(0.0, tolerance))
    reason: str | None = None
    mismatch: Mismatch | None = None
    for name, due in reference.due.items():
        got = outputs.get(name)
        fault = _form(due, got)
        if fault is not None or got is None:
            reason = reason or fault
            mismatch = mismatch or Mismatch(name, (), 0.0, 0.0, due.expected.numel(), due.expected.numel())
            continue
        eager = _eager_error(due)
        limit = limit_for(eager, tolerance)
        errors = _errors(due, got)
        wrong = ~(errors <= limit)
        largest = float(errors.max()) if errors.numel() else 0.0
        if not (largest / limit <= worst[0] / worst[2]):
            worst = (largest, eager, limit)
        if mismatch is None and bool(wrong.any()):
            mismatch = _first(name, due, got, wrong)
            reason = _reason(mismatch)
    return Comparison(FamilyResult(reference.family, reference.seed, *worst), reason, mismatch)


def limit_for(eager_error: float, tolerance: Tolerance) -> float:
    """Return the largest error, in units, that is still right."""
    return tolerance.factor * max(eager_error, 1.0) + tolerance.floor_ulps


def _form(due: Due, got: torch.Tensor | None) -> str | None:
    if got is None:
        return "missing_output"
    if got.shape != due.expected.shape:
        return "wrong_shape"
    if str(got.dtype) != f"torch.{due.dtype}":
        return "wrong_dtype"
    return None


def _eager_error(due: Due) -> float:
    """Largest error of eager PyTorch among the elements where it and the answer are finite.

    Where nothing moves the answer, an error of eager PyTorch is no measure for what others may do.
    """
    if due.unit is None or due.eager.numel() == 0:
        return 0.0
    both = torch.isfinite(due.eager) & torch.isfinite(due.expected)
    errors = torch.where(both & (due.unit > 0.0), _scaled(due, due.unit, due.eager), 0.0)
    return float(errors.max())


def _errors(due: Due, got: torch.Tensor) -> torch.Tensor:
    """Return the error of each element in units: infinite where a NaN, an infinity or a discrete value is wrong."""
    if due.unit is None:
        right = got == due.expected
        if due.alternatives is not None:
            right |= (due.alternatives == got).any(0)
        if due.ranking is not None:
            right |= due.ranking.accepts(got, due.expected)
        return torch.where(right, 0.0, torch.inf)
    special = ~torch.isfinite(due.expected) | torch.isnan(got)
    same = _same_class(got, due.expected)
    errors = torch.where(special, torch.where(same, 0.0, torch.inf), _scaled(due, due.unit, got))
    rounded = due.expected.to(got.dtype)
    overflowed = ~_same_class(due.eager, rounded) & _same_class(got, due.eager)
    return torch.where(overflowed & ~(torch.isfinite(rounded) & torch.isfinite(got)), 0.0, errors)


def _scaled(due: Due, unit: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    kind = torch.finfo(got.dtype)
    distance = (got.double() - due.expected).abs()
    infinite = torch.isinf(got)
    if bool(infinite.any()):  # seldom, and the numbers below take memory
        overflow = kind.max * ((1 - kind.eps / 4) / (1 - kind.eps / 2))
        distance = torch.where(infinite, torch.relu(overflow - due.expected * got.sign()), distance)
    distance = torch.where(distance <= kind.tiny, 0.0, distance)
    return torch.where(distance == 0.0, 0.0, distance / unit)


def _same_class(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Where both are NaN, both the same infinity, or both finite."""
    infinite = torch.isinf(left) | torch.isinf(right)
    return (torch.isnan(left) == torch.isnan(right)) & (~infinite | (left == right))


def _first(name: str, due: Due, got: torch.Tensor, wrong: torch.Tensor) -> Mismatch:
    flat = int(wrong.reshape(-1).to(torch.uint8).argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), wrong.shape)) if wrong.dim() else ()
    return Mismatch(
        output=name,
        index=index,
        expected=float(due.expected.reshape(-1)[flat]),
        got=float(got.reshape(-1)[flat]),
        wrong=int(wrong.sum()),
        total=wrong.numel(),
    )


def _reason(mismatch: Mismatch) -> str:
    due_nan, is_nan = mismatch.expected != mismatch.expected, mismatch.got != mismatch.got
    if is_nan and not due_nan:
        return "unexpected_nan"
    if due_nan and not is_nan:
        return "swallowed_nan"
    if abs(mismatch.got) == float("inf"):
        return "unexpected_infinity"
    return "wrong_value"
