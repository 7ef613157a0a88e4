"""The reference: a graph interpreted operator by operator, in the task's precision or in float64.

It runs where the arguments are: on the CPU or on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

import torch

from warpsmith.records import Arg, DTypeArg, Graph, Node, Ref, Task

Precision = Literal["task", "float64"]

# A view is a statement about values here, not about memory, so it must not fail on a transposed operand.
_INSTEAD: Mapping[str, Callable[..., Any]] = {"aten.view.default": torch.reshape}


def operator(op: str) -> Callable[..., Any]:
    """Return the callable of a full overload name such as `aten.add.Tensor`."""
    namespace, name, overload = op.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return _INSTEAD.get(op, found)


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype called `name`."""
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is not a dtype")
    return found


def evaluate(graph: Graph, arguments: Mapping[str, torch.Tensor], precision: Precision) -> dict[str, torch.Tensor]:
    """Compute every output of `graph`, contiguous, by name.

    `task` computes as eager PyTorch does on the arguments' device. `float64` takes the same values, upcasts every
    floating tensor, and carries float64 through, casts to narrower floating types included, so that the result is the
    mathematical one up to float64 rounding; integer and boolean results keep their dtype. Intermediates are freed
    after their last use.
    """
    wide = precision == "float64"
    values: dict[str, Any] = {}
    device = next((arguments[spec.name].device for spec in graph.arguments), torch.device("cpu"))
    for spec in graph.arguments:
        tensor = arguments[spec.name].detach()
        values[spec.name] = tensor.to(torch.float64) if wide and tensor.is_floating_point() else tensor
    dying = _last_uses(graph)
    with torch.no_grad():
        for node in graph.nodes:
            values[node.name] = _call(node, values, wide, device)
            for name in dying.get(node.name, ()):
                del values[name]
        results: dict[str, torch.Tensor] = {}
        for spec, ref in graph.outputs:
            result = _lookup(ref, values)
            if not wide:
                result = result.to(dtype_of(spec.dtype))
            # A result may share memory with an argument or with another result.
            results[spec.name] = result.clone(memory_format=torch.contiguous_format)
    return results


def eager(task: Task, arguments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the outputs of `task` as eager PyTorch does on the CPU."""
    return evaluate(task.graph, arguments, "task")


def refs_of(node: Node) -> tuple[Ref, ...]:
    """Return every tensor that `node` reads, in the order of its arguments."""
    found: list[Ref] = []

    def visit(arg: Arg) -> None:
        if isinstance(arg, Ref):
            found.append(arg)
        elif isinstance(arg, tuple):
            for item in arg:
                visit(item)

    for arg in node.args:
        visit(arg)
    for _, arg in node.kwargs:
        visit(arg)
    return tuple(found)


def _last_uses(graph: Graph) -> dict[str, list[str]]:
    kept = {ref.name for _, ref in graph.outputs}
    last: dict[str, str] = {}
    for node in graph.nodes:
        last[node.name] = node.name
        for ref in refs_of(node):
            last[ref.name] = node.name
    dying: dict[str, list[str]] = {}
    for name, user in last.items():
        if name not in kept:
            dying.setdefault(user, []).append(name)
    return dying


def _lookup(ref: Ref, values: Mapping[str, Any]) -> torch.Tensor:
    value = values[ref.name]
    found: torch.Tensor = value[ref.index] if isinstance(value, (tuple, list)) else value
    return found


def _call(node: Node, values: Mapping[str, Any], wide: bool, device: torch.device) -> Any:
    # PyTorch gives a true division or a square root of integers in float32; float64 must be asked for by the operand.
    promote = wide and _floating_from_integers(node, values)

    def convert(arg: Arg) -> Any:
        if isinstance(arg, Ref):
            tensor = _lookup(arg, values)
            return tensor.to(torch.float64) if promote and tensor.dtype != torch.bool else tensor
        if isinstance(arg, DTypeArg):
            dtype = dtype_of(arg.name)
            return torch.float64 if wide and dtype.is_floating_point else dtype
        if isinstance(arg, tuple):
            return [convert(item) for item in arg]
        return arg

    given = {name: convert(arg) for name, arg in node.kwargs}
    if device.type != "cpu" and not refs_of(node) and _takes_device(node.op):
        given["device"] = device
    return operator(node.op)(*map(convert, node.args), **given)


@cache
def _takes_device(op: str) -> bool:
    """Whether an operator makes a tensor out of nothing, and so must be told where."""
    schema = getattr(operator(op), "_schema", None)
    return schema is not None and any(argument.name == "device" for argument in schema.arguments)


def _floating_from_integers(node: Node, values: Mapping[str, Any]) -> bool:
    refs = refs_of(node)
    if not refs or any(isinstance(arg, DTypeArg) for _, arg in node.kwargs):
        return False
    if any(_lookup(ref, values).is_floating_point() for ref in refs):
        return False
    return any(spec is not None and dtype_of(spec.dtype).is_floating_point for spec in node.outputs)
