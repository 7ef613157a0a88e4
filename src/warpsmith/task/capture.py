"""From a module to a `Graph`, by way of `torch.export`.

The export is decomposed with an empty table: it becomes functional, while composite operators (linear, layer_norm,
conv2d, gru, attention) stay whole. What says nothing about values is taken out: copies, assertions, devices, layouts.
Dropout in training mode becomes a product with a mask, which is an input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from warpsmith.errors import TaskError
from warpsmith.records import DTYPE_BYTES, Arg, DTypeArg, Graph, Node, Ref, TensorSpec
from warpsmith.task.chance import mask_probability, unreproducible
from warpsmith.task.fxnodes import dtype_name, line_of_node, reachable, readable, same_dtype, says_nothing
from warpsmith.task.names import Names

_IDENTITY = frozenset(
    {
        "aten.clone.default",
        "aten.detach.default",
        "aten.alias.default",
        "aten.contiguous.default",
        "aten.lift_fresh_copy.default",
        "aten.lift_fresh.default",
    }
)
_ONE_NAME = {"aten._unsafe_view.default": "aten.view.default", "aten.reshape.default": "aten.view.default"}
# Arguments that say where values lie, or in which order an einsum comes to them, and nothing of what they are.
_MEMORY_ONLY = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking", "path"})


@dataclass(frozen=True)
class Captured:
    """A graph, the values of its parameters, buffers and constants by name, and its names by the module's own.

    `lines` are the lines of the module's file that nodes come from, where the exporter knows them.
    """

    graph: Graph
    state: Mapping[str, torch.Tensor]
    names: Mapping[str, str]
    lines: Mapping[str, int]


def capture(exported: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], file: str | None) -> Captured:
    """Convert an exported program to a graph.

    `inputs` names the tensor inputs and `outputs` the tensor outputs, in the order of the export.
    """
    return _Capture(exported, file).graph(inputs, outputs)


class _Capture:
    def __init__(self, exported: ExportedProgram, file: str | None) -> None:
        self.exported = exported
        self.file = file
        self.names = Names()
        self.refs: dict[torch.fx.Node, Ref] = {}
        self.nodes: list[Node] = []
        self.masks: list[tuple[TensorSpec, float]] = []
        self.drawn: dict[torch.fx.Node, Ref] = {}
        self.lines: dict[str, int] = {}
        self.state: dict[str, torch.Tensor] = {}
        self.by_target: dict[str, str] = {}
        self.by_placeholder: dict[str, str] = {}
        self.live = reachable(exported.graph_module.graph)

    def graph(self, inputs: Sequence[str], outputs: Sequence[str]) -> Captured:
        groups = self._arguments(inputs)
        output_names = [self.names.take(name) for name in outputs]
        for fx_node in self.exported.graph_module.graph.nodes:
            if fx_node.op == "call_function" and fx_node in self.live:
                self._convert(fx_node)
        results, updates = self._results(output_names)
        graph = Graph(
            inputs=(*groups[InputKind.USER_INPUT], *(spec for spec, _ in self.masks)),
            parameters=tuple(groups[InputKind.PARAMETER]),
            buffers=tuple(groups[InputKind.BUFFER]),
            constants=tuple(groups[InputKind.CONSTANT_TENSOR]),
            nodes=tuple(self.nodes),
            outputs=tuple(results),
            updates=tuple(updates),
            masks=tuple((spec.name, keep) for spec, keep in self.masks),
        )
        given = dict(zip(inputs, (spec.name for spec in graph.inputs)))
        return Captured(graph, self.state, self.by_target | given, self.lines)

    def _arguments(self, inputs: Sequence[str]) -> dict[InputKind, list[TensorSpec]]:
        placeholders = {node.name: node for node in self.exported.graph_module.graph.nodes if node.op == "placeholder"}
        groups: dict[InputKind, list[TensorSpec]] = {kind: [] for kind in InputKind}
        tensors = [s for s in self.exported.graph_signature.input_specs if isinstance(s.arg, TensorArgument)]
        users = [spec for spec in tensors if spec.kind == InputKind.USER_INPUT]
        if len(users) != len(inputs):
            raise TaskError(
                f"the export has {len(users)} tensor inputs, forward was given {len(inputs)}", file=self.file
            )
        for spec, wish in zip(users, inputs):
            placeholder = placeholders[spec.arg.name]
            self._bind(placeholder, self.names.take(wish), groups[spec.kind])
            self.by_placeholder[spec.arg.name] = self.refs[placeholder].name
        for spec in tensors:
            placeholder = placeholders[spec.arg.name]
            if spec.kind == InputKind.USER_INPUT or placeholder not in self.live:
                continue
            if spec.target is None:
                raise TaskError(
                    f"the export lifts {spec.arg.name}, which is not a tensor of the module", file=self.file
                )
            name = self.names.take(re.sub(r"^lifted_tensor_", "constant_", spec.target.replace(".", "_")))
            self._bind(placeholder, name, groups[spec.kind])
            self.by_target[spec.target] = name
            self.state[name] = self._value(spec.target)
        return groups

    def _bind(self, placeholder: torch.fx.Node, name: str, group: list[TensorSpec]) -> None:
        self.refs[placeholder] = Ref(name)
        group.append(self._spec(name, placeholder.meta["val"], placeholder))

    def _value(self, target: str) -> torch.Tensor:
        holder = self.exported.state_dict if target in self.exported.state_dict else self.exported.constants
        value = holder[target]
        if not isinstance(value, torch.Tensor):
            raise TaskError(f"the module's attribute {target} is not a tensor", file=self.file)
        return value.detach().clone(memory_format=torch.contiguous_format)

    def _results(self, names: Sequence[str]) -> tuple[list[tuple[TensorSpec, Ref]], list[tuple[str, str]]]:
        last = next(iter(reversed(self.exported.graph_module.graph.nodes)))
        results: list[tuple[TensorSpec, Ref]] = []
        changed: list[tuple[TensorSpec, Ref]] = []
        updates: list[tuple[str, str]] = []
        wanted = iter(names)
        for spec, value in zip(self.exported.graph_signature.output_specs, last.args[0]):
            if not isinstance(value, torch.fx.Node):
                continue
            ref = self.refs[value]
            if spec.kind == OutputKind.USER_OUTPUT:
                results.append((self._spec(next(wanted), value.meta["val"], value), ref))
                continue
            holder = self.by_placeholder if spec.kind == OutputKind.USER_INPUT_MUTATION else self.by_target
            if spec.target is None or spec.target not in holder:
                raise TaskError(f"forward changes {spec.target}, which cannot be followed", file=self.file)
            old = holder[spec.target]
            name = self.names.take(f"new_{old}")
            changed.append((self._spec(name, value.meta["val"], value), ref))
            updates.append((old, name))
        return results + changed, updates

    def _convert(self, node: torch.fx.Node) -> None:
        op = str(node.target)
        if node in self.refs:
            return
        if op == "<built-in function getitem>":
            source, index = node.args
            assert isinstance(source, torch.fx.Node) and isinstance(index, int)
            self.refs[node] = Ref(self.refs[source].name, index)
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            raise self._error(node, f"{op} is control flow or a higher-order operator, which no graph here can hold")
        if op in _IDENTITY or (op == "aten._to_copy.default" and same_dtype(node)):
            source = node.args[0]
            assert isinstance(source, torch.fx.Node)
            self.refs[node] = self.refs[source]
            return
        if op == "aten.copy.default":
            self._copy(node)
            return
        keep = mask_probability(node)
        if keep is not None:
            self._draw(node, keep)
            return
        problem = unreproducible(node)
        if problem:
            raise self._error(node, problem)
        name = self.names.take(readable(node.target))
        self.refs[node] = Ref(name)
        args, kwargs = self._canonical(node)
        self._append(node, Node(name, _ONE_NAME.get(op, op), args, kwargs, self._outputs(name, node)))

    def _append(self, node: torch.fx.Node, made: Node) -> None:
        self.nodes.append(made)
        line = line_of_node(node, self.file)
        if line is not None:
            self.lines[made.name] = line

    def _add(
        self, node: torch.fx.Node, wish: str, op: str, args: tuple[Arg, ...], value: torch.Tensor, **kwargs: Arg
    ) -> Ref:
        """Add an operator that the export does not have; `value` has the shape and dtype of its result."""
        spec = self._spec(self.names.take(wish), value, node)
        self._append(node, Node(spec.name, op, args, tuple(kwargs.items()), (spec,)))
        return Ref(spec.name)

    def _copy(self, node: torch.fx.Node) -> None:
        """Writing a tensor over another one is a cast and a broadcast of what is written."""
        source = node.args[1]
        assert isinstance(source, torch.fx.Node)
        ref, have, due = self.refs[source], source.meta["val"], node.meta["val"]
        if have.dtype != due.dtype:
            ref = self._cast(node, ref, due.new_empty(have.shape))
        if have.shape != due.shape:
            ref = self._add(node, "expand", "aten.expand.default", (ref, tuple(due.shape)), due)
        self.refs[node] = ref

    def _cast(self, node: torch.fx.Node, ref: Ref, value: torch.Tensor) -> Ref:
        return self._add(node, "cast", "aten._to_copy.default", (ref,), value, dtype=DTypeArg(dtype_name(value.dtype)))

    def _draw(self, node: torch.fx.Node, keep: float) -> None:
        """A mask that is drawn is an input, and dropout is a product with it, which keeps infinity times zero NaN."""
        value, source = node.meta["val"], node.args[0]
        assert isinstance(source, torch.fx.Node)
        if str(node.target) == "aten.bernoulli.p":
            mask = self._mask(node, value, keep)
            self.refs[node] = mask if value.dtype == torch.bool else self._cast(node, mask, value)
            return
        if not isinstance(value, (tuple, list)):
            self.refs[node] = self._dropped(node, source, keep)
            return
        for user in (user for user in node.users if user in self.live):
            # Of `native_dropout`: the product is its first result, the mask its second.
            assert user.args[1] in (0, 1)
            first = user.args[1] == 0
            self.refs[user] = self._dropped(node, source, keep) if first else self._mask(node, value[1], keep)

    def _dropped(self, node: torch.fx.Node, source: torch.fx.Node, keep: float) -> Ref:
        ref, value = self.refs[source], source.meta["val"]
        if keep == 1.0:
            return ref
        if keep == 0.0:
            return self._add(node, "dropout", "aten.mul.Tensor", (ref, 0.0), value)
        mask = self._mask(node, value, keep)
        masked = self._add(node, "masked", "aten.mul.Tensor", (ref, mask), value)
        return self._add(node, "dropout", "aten.mul.Tensor", (masked, 1.0 / keep), value)

    def _mask(self, node: torch.fx.Node, like: torch.Tensor, keep: float) -> Ref:
        """Return the mask of a draw: an input, or a constant where nothing is left to chance."""
        like = like.new_empty(like.shape, dtype=torch.bool)
        if keep in (0.0, 1.0):
            args = (tuple(like.shape), keep == 1.0)
            return self._add(node, "full", "aten.full.default", args, like, dtype=DTypeArg("bool"))
        if node not in self.drawn:
            spec = self._spec(self.names.take("mask"), like, node)
            self.masks.append((spec, keep))
            self.drawn[node] = Ref(spec.name)
        return self.drawn[node]

    def _outputs(self, name: str, node: torch.fx.Node) -> tuple[TensorSpec | None, ...]:
        value = node.meta.get("val")
        if not isinstance(value, (tuple, list)):
            return (self._spec(name, value, node),)
        used = {user.args[1] for user in node.users if user in self.live}
        return tuple(
            self._spec(f"{name}_{i}" if i else name, item, node) if i in used and item is not None else None
            for i, item in enumerate(value)
        )

    def _spec(self, name: str, value: object, node: torch.fx.Node) -> TensorSpec:
        if not isinstance(value, torch.Tensor):
            raise self._error(node, f"{node.target} reads a value out of a tensor, which cannot be part of a kernel")
        if any(not isinstance(extent, int) for extent in value.shape):
            raise self._error(node, f"{node.target} gives a shape that depends on the values of tensors")
        dtype = dtype_name(value.dtype)
        if dtype not in DTYPE_BYTES:
            raise self._error(node, f"{node.target} works in {dtype}, which is not supported")
        return TensorSpec(name, tuple(value.shape), dtype)

    def _canonical(self, node: torch.fx.Node) -> tuple[tuple[Arg, ...], tuple[tuple[str, Arg], ...]]:
        """Leave out trailing defaults and what concerns memory only; state the dtype where it would be implied."""
        assert isinstance(node.target, torch._ops.OpOverload)
        schema = node.target._schema.arguments
        args = list(node.args)
        while args and says_nothing(schema[len(args) - 1], args[-1]):
            args.pop()
        defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
        kwargs = {
            name: value
            for name, value in node.kwargs.items()
            if name not in _MEMORY_ONLY and not (name in defaults and value == defaults[name])
        }
        value = node.meta.get("val")
        makes_new = not node.all_input_nodes and isinstance(value, torch.Tensor)
        if makes_new and "dtype" in defaults and isinstance(value, torch.Tensor):
            kwargs["dtype"] = value.dtype
        return (
            tuple(self._arg(arg, node) for arg in args),
            tuple((name, self._arg(arg, node)) for name, arg in kwargs.items()),
        )

    def _arg(self, value: object, node: torch.fx.Node) -> Arg:
        if isinstance(value, torch.fx.Node):
            if not isinstance(value.meta.get("val"), torch.Tensor):
                raise self._error(
                    value, f"{value.target} reads a value out of a tensor, which cannot be part of a kernel"
                )
            return self.refs[value]
        if isinstance(value, torch.dtype):
            return DTypeArg(dtype_name(value))
        if isinstance(value, (list, tuple)):
            return tuple(self._arg(item, node) for item in value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise self._error(node, f"{node.target} has an argument of type {type(value).__name__}, which is not supported")

    def _error(self, node: torch.fx.Node, message: str) -> TaskError:
        return TaskError(message, file=self.file, line=line_of_node(node, self.file))
