"""The table of lowerings and the walk over the graph that uses it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

from warpsmith.author.builtin.lowering.joins import joined
from warpsmith.author.builtin.values import Stored, Value
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import Arg, DTypeArg, Graph, Node, Ref, TensorSpec

Lowering = Callable[..., Value | tuple[Value | None, ...]]
_Function = TypeVar("_Function", bound=Lowering)
_TABLE: dict[str, Lowering] = {}


def lowers(*operators: str) -> Callable[[_Function], _Function]:
    """Register a function as the lowering of ATen operators, named with their overload: `add.Tensor`.

    The function takes a `Site` and the operator's arguments in the order of its schema, tensors as values.
    """

    def register(function: _Function) -> _Function:
        for operator in operators:
            _TABLE[f"aten.{operator}"] = function
        return function

    return register


@dataclass(frozen=True)
class Site:
    """Where a lowering stands: the node, and its results as the exporter saw them."""

    node: Node

    @property
    def spec(self) -> TensorSpec:
        """Shape and dtype of the first result. Raises UnsupportedOperator where only others are wanted."""
        if self.node.outputs[0] is None:
            raise UnsupportedOperator(f"{self.node.op} for its later results alone")
        return self.node.spec

    def name(self, suffix: str = "") -> str:
        """A unique name for a value of this node."""
        return f"{self.node.name}.{suffix}" if suffix else self.node.name


@dataclass(frozen=True)
class Lowered:
    """A graph as tensor values: what it computes, and everything that a region may be cut at."""

    graph: Graph
    outputs: tuple[tuple[TensorSpec, Value], ...]
    stored: tuple[Stored, ...]
    values: dict[str, Value] = field(default_factory=dict)


def operators_of(subject: str) -> frozenset[str]:
    """Return the operators whose lowerings one of the modules beside this one defines, such as `views`."""
    home = f"{__name__.rpartition('.')[0]}.{subject}"
    return frozenset(op for op, function in _TABLE.items() if function.__module__ == home)


def lower(graph: Graph, cuts: Collection[str] = ()) -> Lowered:
    """Lower a graph; the first results of the nodes named in `cuts` are stored, and read back by all who use them.

    Raises UnsupportedOperator, naming the operator, where there is no lowering.
    """
    values: dict[tuple[str, int], Value | None] = {
        (spec.name, 0): Stored(spec.name, spec.shape, spec.dtype) for spec in graph.arguments
    }
    named: dict[str, Value] = {}
    stored: list[Stored] = []
    for node in joined(graph).nodes:
        function = _TABLE.get(node.op)
        if function is None:
            raise UnsupportedOperator(f"the built-in author has no lowering for {node.op}", node=node.name)
        try:
            results = _call(function, node, values)
        except UnsupportedOperator as error:
            raise UnsupportedOperator(error.message, node=node.name) from error
        for number, result in enumerate(results):
            values[node.name, number] = result
        first = results[0]
        if first is not None:
            named[node.name] = first
            if node.name in cuts:
                cut = Stored(f"{node.name}_stored", first.shape, first.dtype)
                values[node.name, 0] = cut
                stored.append(cut)
    outputs = tuple((spec, _value(values, ref)) for spec, ref in graph.outputs)
    return Lowered(graph, outputs, tuple(stored), named)


def _call(function: Lowering, node: Node, values: dict[tuple[str, int], Value | None]) -> tuple[Value | None, ...]:
    def argument(arg: Arg) -> Any:
        if isinstance(arg, Ref):
            return _value(values, arg)
        if isinstance(arg, DTypeArg):
            return arg.name
        if isinstance(arg, tuple):
            return [argument(a) for a in arg]
        return arg

    parameters = inspect.signature(function).parameters
    kwargs = {name: argument(value) for name, value in node.kwargs if name in parameters}
    result = function(Site(node), *(argument(a) for a in node.args), **kwargs)
    return result if isinstance(result, tuple) else (result,)


def _value(values: dict[tuple[str, int], Value | None], ref: Ref) -> Value:
    value = values.get((ref.name, ref.index))
    if value is None:
        raise UnsupportedOperator(f"the built-in author does not compute result {ref.index} of {ref.name}")
    return value
