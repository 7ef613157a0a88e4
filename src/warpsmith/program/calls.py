"""Library calls for given shapes: views that lie within their tensors, shapes and dtypes that fit the operator.

What is let through can only compute: it reads the tensors that it names, within their bounds, and writes every element
of one view, each once, in a tensor that it does not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from warpsmith.errors import ProgramError
from warpsmith.program.arithmetic import INT64_MAX
from warpsmith.program.expressions import evaluate_at
from warpsmith.program.hints import suggest
from warpsmith.program.library import FLOATING, LIBRARY, Operator, Options
from warpsmith.records import BoundCall, BoundView, Call, TensorSpec, Tolerance, View


def bind_call(
    place: str, call: Call, names: Mapping[str, int], tensors: Mapping[str, TensorSpec], tolerance: Tolerance
) -> BoundCall:
    """Evaluate a call. `names` holds symbols, tunables and device properties, `tensors` also the plan's buffers.

    Raises ExpressionError and ProgramError that begin with `place`.
    """
    operator = LIBRARY[call.op]
    args = tuple(_view(f"{place}: args[{i}]", view, names, tensors) for i, view in enumerate(call.args))
    out = _view(f"{place}: out", call.out, names, tensors)
    dtype = _common_dtype(place, (*args, out), tensors)
    if any(view.tensor == out.tensor for view in args):
        raise ProgramError(f"{place}: reads {out.tensor} and writes it; the library must not see both")
    if not _apart(out):
        raise ProgramError(f"{place}: out: several elements of the view lie in one place of {out.tensor}")
    options = {
        name: tuple(evaluate_at(f"{place}: options.{name}[{i}]", text, names, tensors) for i, text in enumerate(texts))
        for name, texts in call.options
    }
    full = _checked(place, operator, args, out, options)
    return BoundCall(
        call.op,
        args,
        out,
        tuple(full.items()),
        dtype,
        tolerance.conv_tf32 if operator.kind == "conv" else tolerance.matmul_tf32,
        call.after,
    )


def _view(place: str, view: View, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> BoundView:
    """Evaluate a view. It may not reach out of its tensor."""
    spec = tensors.get(view.tensor)
    if spec is None:
        raise ProgramError(f"{place}: unknown tensor {view.tensor!r}{suggest(view.tensor, tensors)}")
    if not view.shape:
        return BoundView(spec.name, spec.shape, _row_major(spec.shape), 0)

    def numbers(what: str, texts: Sequence[str]) -> tuple[int, ...]:
        found = tuple(evaluate_at(f"{place}: {what}[{i}]", text, names, tensors) for i, text in enumerate(texts))
        if any(number < 0 for number in found):
            raise ProgramError(f"{place}: {what} is {list(found)}; nothing may be negative")
        return found

    shape = numbers("shape", view.shape)
    strides = numbers("strides", view.strides) if view.strides else _row_major(shape)
    (offset,) = numbers("offset", (view.offset,))
    last = offset + sum((extent - 1) * stride for extent, stride in zip(shape, strides)) if math.prod(shape) else -1
    if last >= spec.numel or math.prod(shape) > INT64_MAX:
        raise ProgramError(f"{place}: the view ends at element {last} of {spec.name}, which has {spec.numel} elements")
    return BoundView(spec.name, shape, strides, offset if math.prod(shape) else 0)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(1, shape[axis + 1])
    return tuple(strides)


def _common_dtype(place: str, views: Sequence[BoundView], tensors: Mapping[str, TensorSpec]) -> str:
    dtypes = list(dict.fromkeys(tensors[view.tensor].dtype for view in views))
    if len(dtypes) > 1:
        told = ", ".join(f"{view.tensor} is {tensors[view.tensor].dtype}" for view in views)
        raise ProgramError(f"{place}: the tensors of a call are of one dtype, but {told}")
    if dtypes[0] not in FLOATING:
        raise ProgramError(f"{place}: cannot compute in {dtypes[0]}; calls take {', '.join(FLOATING)}")
    return dtypes[0]


def _apart(view: BoundView) -> bool:
    """Whether no two elements of a view share a place."""
    reach = 0
    for stride, extent in sorted((s, e) for s, e in zip(view.strides, view.shape) if e > 1):
        if stride <= reach:
            return False
        reach += stride * (extent - 1)
    return True


def _checked(
    place: str, operator: Operator, args: Sequence[BoundView], out: BoundView, given: Mapping[str, tuple[int, ...]]
) -> Options:
    """Spell out the options, and compare the shape of the result with that of `out`."""
    shapes = [view.shape for view in args]
    defaults = {name: (default,) for name, default in operator.options.items()}
    try:
        options = operator.complete(shapes, {**defaults, **given})
        due = operator.result(shapes, options)
    except ProgramError as error:
        raise ProgramError(f"{place}: {error.message}") from error
    if due != out.shape:
        raise ProgramError(f"{place}: out has shape {list(out.shape)}, but the result is {list(due)}")
    return options
