"""TF32 where a task allows it: which operators, and what PyTorch would compute with it on a GPU.

Convolutions of float32 run in TF32 on a GPU unless PyTorch is told otherwise. On a CPU they do not, so that eager
PyTorch's own error would be no measure there for programs that use what the task allows. Operands are rounded
instead: the products of two TF32 numbers are exact in float32, and the sums are float32 in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from warpsmith.records import Tolerance

MATRIX_PRODUCTS = frozenset({"mm", "bmm", "mv", "dot"})
_ADDED = frozenset({"addmm", "addmv", "baddbmm"})
_DROPPED = 1 << 12
"""Half of the least significand bit that TF32 keeps, as an integer in the place of a float32."""


def operators_in_tf32(tolerance: Tolerance) -> frozenset[str]:
    """Return the names of the operators whose operands may be rounded to TF32."""
    products = MATRIX_PRODUCTS if tolerance.matmul_tf32 else frozenset()
    return products | (frozenset({"convolution"}) if tolerance.conv_tf32 else frozenset())


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Round float32 values to the eleven significant bits of TF32, to nearest; infinities and NaN stay."""
    bits = x.contiguous().view(torch.int32)
    kept = ((bits + _DROPPED) & ~(2 * _DROPPED - 1)).view(torch.float32)
    return torch.where(x.isfinite(), kept, x)


@contextmanager
def precision_policy(tolerance: Tolerance) -> Iterator[None]:
    """Let PyTorch compute in the reduced precision that the task allows on a GPU, and in no other."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32, convolutions.allow_tf32 = tolerance.matmul_tf32, tolerance.conv_tf32
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


@contextmanager
def policy_of_a_gpu(tolerance: Tolerance) -> Iterator[None]:
    """Let PyTorch compute in the reduced precision that the task allows on a GPU, on a CPU too."""
    with precision_policy(tolerance), _Rounding(tolerance):
        yield


class _Rounding(TorchDispatchMode):
    """Rounds operands on the CPU; a GPU does so itself."""

    def __init__(self, tolerance: Tolerance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operators = operators_in_tf32(tolerance) | (_ADDED if tolerance.matmul_tf32 else frozenset())

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Round the two factors, then call."""
        name = func._schema.name.partition("::")[2]
        if name in self._operators:
            first = 1 if name in _ADDED else 0
            args = tuple(
                rounded(arg) if first <= place < first + 2 and _is_float32_on_cpu(arg) else arg
                for place, arg in enumerate(args)
            )
        return func(*args, **(kwargs or {}))


def _is_float32_on_cpu(arg: Any) -> bool:
    return isinstance(arg, torch.Tensor) and arg.dtype == torch.float32 and arg.device.type == "cpu"
