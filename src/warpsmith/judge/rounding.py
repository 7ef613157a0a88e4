"""How far rounding alone may carry an output: Monte Carlo arithmetic over the task's graph.

The graph is evaluated in float64 several times, and each time every arithmetic result is moved by a random relative
amount of about one unit roundoff `u` of the arithmetic that an honest program may use (Parker, "Monte Carlo
Arithmetic", 1997). How much an output element then scatters is the *unit* in which errors at that element are counted.
It needs no table of condition numbers: a cancelling subtraction, a small variance, a flat softmax all show as scatter.

Composite operators are taken apart first (layer norm into mean, variance, rsqrt ...), so that what happens inside
them scatters too. A sum of K products moves by `u * sqrt(K) * sum |a||b|`, whatever the order of summation: that is
the probabilistic bound of Higham and Mary (2019), and honest float32 stays below it, while half accumulation, a
skipped 1/64 of K and one-pass TF32 do not. Where the terms are correlated (all equal, sorted, duplicated) their
rounding errors add up instead of averaging out, and `K` stands in place of its root.

Where a task allows TF32, operands of a product move by a rounding to TF32 each, once for all results that they go
into: what such a convolution does to the variance of a channel is no average of independent errors.

A sum of integers that fits the significand is exact in every order, so it does not move at all. That is what makes
the exactness probes sharp: odd 12-bit integers against zeros and ones are exact in float32 and not in TF32.

Covered: every operator that PyTorch can dispatch; those not named below move by one unit roundoff. Not covered: the
rounding inside an unnamed operator that sums many terms (its error then counts in eager PyTorch's own error).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch._decomp import get_decompositions
from torch.utils._python_dispatch import TorchDispatchMode

from warpsmith.judge import passes
from warpsmith.judge.tf32 import operators_in_tf32
from warpsmith.records import Graph, Task
from warpsmith.task import evaluate

UNIT_ROUNDOFF: Mapping[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
MOST_REPLICAS = 8
LEAST_REPLICAS = 4
"""With fewer, chance alone would make some element's scatter a thirtieth of what it should be."""
TF32_ROUNDOFF = 2.0**-11
_TF32_USUAL = 0.5 * TF32_ROUNDOFF
"""Root mean square of the relative errors of rounding to TF32 (0.43 unit roundoffs), rounded up."""
CORRELATED = frozenset({"equal", "alternating", "sorted", "duplicates", "zeros_subnormals"})

_aten = torch.ops.aten
_COMPOSITES: dict[Any, Callable[..., Any]] = get_decompositions(
    [
        _aten.native_layer_norm,
        _aten.native_group_norm,
        _aten.native_batch_norm,
        _aten._native_batch_norm_legit,
        _aten._native_batch_norm_legit_functional,
        _aten._native_batch_norm_legit_no_training,
        _aten._fused_rms_norm,
        _aten._softmax,
        _aten._log_softmax,
        _aten._safe_softmax,
        _aten.logsumexp,
        _aten.gelu,
        _aten.silu,
        _aten.mish,
        _aten.softplus,
        _aten.elu,
        _aten.hardswish,
        _aten.nll_loss_forward,
        _aten.mse_loss,
        _aten.smooth_l1_loss,
        _aten.huber_loss,
        _aten.binary_cross_entropy,
        _aten.var,
        _aten.std,
        _aten.var_mean,
        _aten.std_mean,
        _aten.linalg_vector_norm,
        _aten.norm,
        _aten.addmm,
        _aten.addmv,
        _aten.baddbmm,
        _aten._scaled_dot_product_flash_attention_for_cpu,
    ]
)

# Operators that move or choose values and do no arithmetic: their results are as exact as what they were given.
_MOVES_TEXT = """
abs neg relu clamp clamp_min clamp_max hardtanh maximum minimum amax amin max min where masked_fill gather index
index_select embedding cat stack constant_pad_nd clone copy copy_ _to_copy to contiguous expand view _unsafe_view
reshape permute transpose t squeeze unsqueeze slice select flip roll repeat topk sort max_pool1d max_pool2d
max_pool3d max_pool2d_with_indices max_pool3d_with_indices broadcast_in_dim tril triu zeros ones full empty arange
lift_fresh lift_fresh_copy detach alias sign floor ceil round trunc scatter reflection_pad1d reflection_pad2d
replication_pad1d replication_pad2d unfold im2col convert_element_type squeeze_copy as_strided split
split_with_sizes chunk unbind real diagonal cummax cummin upsample_nearest2d
"""
_MOVES = frozenset(_MOVES_TEXT.split())


def _extent(result: torch.Tensor, args: Sequence[Any]) -> int:
    operand = args[0]
    return max(1, operand.numel() // max(1, result.numel())) if isinstance(operand, torch.Tensor) else 1


def _inner(result: torch.Tensor, args: Sequence[Any]) -> int:
    return int(args[0].shape[-1])


def _filter(result: torch.Tensor, args: Sequence[Any]) -> int:
    """Terms of a convolution's result; of a transposed one, only the taps that fall on an input and not beside it."""
    weight = args[1]
    if not (len(args) > 8 and args[6]):
        return max(1, int(weight.numel()) // max(1, int(weight.shape[0])))
    terms = int(weight.shape[0]) // int(args[8])
    for number, taps in enumerate(weight.shape[2:]):
        stride, dilation = (int(of[number % len(of)]) for of in (args[3], args[5]))
        terms *= -(-int(taps) * math.gcd(stride, dilation) // stride)
    return max(1, terms)


def _mean_magnitude(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """Return the mean of the absolute values that a variance is taken of, in its shape."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    magnitude: torch.Tensor = args[0].abs()
    return magnitude.mean(dims, keepdim=bool(kwargs.get("keepdim", False)))


def _window(result: torch.Tensor, args: Sequence[Any]) -> int:
    return int(math.prod(args[1]))


def _along(result: torch.Tensor, args: Sequence[Any]) -> int:
    return int(args[0].shape[args[1]]) if args[0].dim() else 1


# Operators that add up many terms, and how many terms go into one result.
_SUMS: Mapping[str, Callable[[torch.Tensor, Sequence[Any]], int]] = {
    "mm": _inner,
    "bmm": _inner,
    "mv": _inner,
    "dot": _inner,
    "convolution": _filter,
    "sum": _extent,
    "mean": _extent,
    "var": _extent,
    "prod": _extent,
    "cumsum": _along,
    "cumprod": _along,
    "avg_pool1d": _window,
    "avg_pool2d": _window,
    "avg_pool3d": _window,
    "_adaptive_avg_pool2d": _extent,
    "_adaptive_avg_pool3d": _extent,
}
_POOL = 1 << 20
_OPERATIONS = 4000
_MEANS = frozenset({"mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"})
_SQUARES = frozenset({"var"})


@cache
def _pool(device: torch.device) -> torch.Tensor:
    """Random amounts, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return _amounts(torch.rand(_POOL, generator=generator, dtype=torch.float64)).to(device)


def _amounts(uniform: torch.Tensor) -> torch.Tensor:
    """Turn numbers between 0 and 1 into amounts of either sign and a magnitude between 0.5 and 1.5.

    None is near zero, and no two are equal: in a difference, such as that of two logits, they do not cancel.
    """
    centred = uniform.mul_(2).sub_(1)
    return centred.add_(centred.sign(), alpha=0.5)


class Scatter(TorchDispatchMode):
    """Moves every arithmetic result by about one unit roundoff, times `amplitude`, while it is entered.

    `operations` counts what was dispatched so far.
    """

    def __init__(self, task: Task, seed: int, *, correlated: bool, amplitude: float = 1.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self._places = random.Random(seed)
        self._seed = seed
        self._large: torch.Generator | None = None
        self._unit = working_roundoff(task.graph) * amplitude
        self._significand = 1.0 / working_roundoff(task.graph)
        self._correlated = correlated
        self._tf32 = operators_in_tf32(task.tolerance)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take composites apart; move the results of the rest."""
        kwargs = kwargs or {}
        decomposition = _COMPOSITES.get(func)
        if decomposition is not None:
            with self:
                return decomposition(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        moves = name in _MOVES or func.is_view or func._schema.is_mutable
        if not moves and name not in _SUMS:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if name in self._tf32:
            args = (*(self._in_tf32(operand) for operand in args[:2]), *args[2:])
        result = func(*args, **kwargs)
        self.operations += 1
        if moves:
            return result
        if isinstance(result, (tuple, list)):
            return tuple(self._moved(one) for one in result)
        if name in _SUMS and isinstance(result, torch.Tensor) and result.is_floating_point():
            return self._move_sum(func, name, result, args, kwargs)
        return self._moved(result)

    def move(self, values: torch.Tensor) -> torch.Tensor:
        """Move each value that is not an integer by about one relative unit roundoff up or down."""
        if passes.suits(values):
            return passes.moved(values, self._unit, self._places.getrandbits(64))
        moved = torch.addcmul(values, values, self._draw(values), value=self._unit)
        return torch.where(values == values.round(), values, moved)

    def _in_tf32(self, operand: torch.Tensor) -> torch.Tensor:
        """Move an operand as rounding to TF32 does. Where its values repeat, so do their errors: all move together."""
        draw = self._draw(operand)
        if self._correlated:
            draw = draw + self._draw(operand.new_empty(()))
        return torch.addcmul(operand, operand, draw, value=_TF32_USUAL)

    def _moved(self, result: Any) -> Any:
        floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        return self.move(result) if floating else result

    def _draw(self, like: torch.Tensor) -> torch.Tensor:
        """Return a random amount for each element: from a random place of a pool, or all new for large tensors."""
        if passes.suits(like):
            return passes.amounts(like, self._places.getrandbits(64))
        pool, count = _pool(like.device), like.numel()
        if 2 * count > pool.numel():
            if self._large is None:
                self._large = torch.Generator(like.device).manual_seed(self._seed)
            return _amounts(torch.rand(like.shape, generator=self._large, dtype=like.dtype, device=like.device))
        start = self._places.randrange(pool.numel() - count)
        return pool[start : start + count].view(like.shape)

    def _move_sum(
        self, func: Any, name: str, result: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        operands = [a for a in args if isinstance(a, torch.Tensor)]
        if name in _SQUARES:
            magnitude = result.abs()
        else:
            magnitude = func(*[a.abs() if isinstance(a, torch.Tensor) else a for a in args], **kwargs)
        terms = _SUMS[name](result, args)
        largest = magnitude * terms if name in _MEANS else magnitude
        if name not in self._tf32 and name not in _SQUARES and self._exact(operands, largest):
            return self.move(result)
        spread = self._unit * (terms / 2 if self._correlated and terms > 4 else math.sqrt(terms))
        if name in self._tf32:
            spread += 2 * TF32_ROUNDOFF / (1.0 if self._correlated else math.sqrt(terms))
        moved = result + self._draw(result) * magnitude * spread
        if name in _SQUARES:
            # A mean that is off by d makes every squared deviation, and so the variance, larger by d * d.
            moved += (_mean_magnitude(args, kwargs) * spread) ** 2
        return moved

    def _exact(self, operands: Sequence[torch.Tensor], bound: torch.Tensor) -> bool:
        """Whether every partial sum, in any order, is an integer that the significand holds."""
        if not all(bool((operand == operand.round()).all()) for operand in operands):
            return False
        return bound.numel() == 0 or bool(bound.max() <= self._significand)


def working_roundoff(graph: Graph) -> float:
    """Unit roundoff of the arithmetic that an honest program may use: float32, or float64 where the task is."""
    dtypes = {spec.dtype for spec in graph.arguments + graph.results}
    return UNIT_ROUNDOFF["float64"] if "float64" in dtypes else UNIT_ROUNDOFF["float32"]


def scattered(
    task: Task,
    arguments: Mapping[str, torch.Tensor],
    seed: int,
    *,
    correlated: bool,
    move_arguments: bool = True,
    amplitude: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Evaluate the task in float64 with every rounding error drawn anew from `seed`.

    Arguments move as well unless `move_arguments` is false: a program that returns the exact answer for inputs that
    differ from ours by a rounding error is right.
    """
    return _scatter(Scatter(task, seed, correlated=correlated, amplitude=amplitude), task, arguments, move_arguments)


def scatterings(
    task: Task, arguments: Mapping[str, torch.Tensor], seed: int, *, correlated: bool
) -> Iterator[dict[str, torch.Tensor]]:
    """Evaluate the task several times, each time with other rounding errors: fewer times the longer its graph."""
    count = most = MOST_REPLICAS
    for replica in range(most):
        if replica >= count:
            return
        mode = Scatter(task, seed * most + replica, correlated=correlated)
        yield _scatter(mode, task, arguments, True)
        count = max(LEAST_REPLICAS, min(most, _OPERATIONS // max(1, mode.operations)))


def _scatter(
    mode: Scatter, task: Task, arguments: Mapping[str, torch.Tensor], move_arguments: bool
) -> dict[str, torch.Tensor]:
    given = {
        name: mode.move(value.double()) if move_arguments and value.is_floating_point() else value
        for name, value in arguments.items()
    }
    with torch.no_grad(), mode:
        return evaluate(task.graph, given, "float64")
