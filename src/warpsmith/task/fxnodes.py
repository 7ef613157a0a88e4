"""What the nodes of an exported graph say of themselves: what is needed, what says nothing, names and lines."""

from __future__ import annotations

import re

import torch

UNREAD = frozenset({"aten.copy.default", "aten.bernoulli.p"})
"""Operators that take nothing of their first operand but its shape and dtype."""


def reachable(graph: torch.fx.Graph) -> set[torch.fx.Node]:
    """Return the nodes that some output needs. A random operator whose result is unused does no harm."""
    todo = [node for node in graph.nodes if node.op == "output"]
    seen: set[torch.fx.Node] = set()
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            unread = str(node.target) in UNREAD
            todo += [arg for arg in node.args[1:] if isinstance(arg, torch.fx.Node)] if unread else node.all_input_nodes
    return seen


def says_nothing(argument: torch._C.Argument, value: object) -> bool:
    """Whether a value is an argument's default, or one for a library that nobody will ask."""
    if not argument.has_default_value():
        return False
    return argument.name.startswith("cudnn_enable") or bool(value == argument.default_value)


def same_dtype(node: torch.fx.Node) -> bool:
    """Whether the result has the dtype of the first operand."""
    source = node.args[0]
    return isinstance(source, torch.fx.Node) and bool(source.meta["val"].dtype == node.meta["val"].dtype)


def readable(target: torch._ops.OpOverload) -> str:
    """Return what to call the result of an operator."""
    name = target._schema.name.split("::")[1].strip("_")
    if name.startswith("native_batch_norm"):
        return "batch_norm"
    return {"to_copy": "cast", "cross_entropy_loss": "loss"}.get(name, name)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without its module."""
    return str(dtype).removeprefix("torch.")


def line_of_node(node: torch.fx.Node, file: str | None) -> int | None:
    """Return the line of `file` that a node comes from; None where the exporter does not know it."""
    if file is None:
        return None
    trace = node.meta.get("stack_trace") or ""
    lines = [int(line) for place, line in re.findall(r'File "([^"]+)", line (\d+)', trace) if place == file]
    return lines[-1] if lines else None
