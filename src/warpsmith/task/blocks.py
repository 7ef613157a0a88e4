"""A task cut along its batch: the same function of a few rows, where every row of the results needs its own row only.

Float64 references of the largest tasks do not fit into a GPU. Where dimension 0 of the inputs is carried through to
dimension 0 of every result and no operator mixes rows, the reference of a block of rows is that block of the
reference. This is decided operator by operator from the graph; what is not known to keep rows apart is taken to mix
them, so a task is never cut wrongly, only not at all: batch norm in training mode, a loss over the batch, a scan along
dimension 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from warpsmith.records import Arg, Graph, Node, Ref, Task, TensorSpec
from warpsmith.task.evaluate import refs_of
from warpsmith.task.trace import base_name

_POINTWISE_TEXT = """
    add sub mul div neg abs exp log sqrt rsqrt reciprocal pow sigmoid tanh relu gelu silu mish softplus softsign elu
    selu celu leaky_relu hardtanh hardswish hardsigmoid relu6 clamp clamp_min clamp_max maximum minimum where erf sin
    cos square sign floor ceil round masked_fill eq ne lt le gt ge logical_and logical_or logical_not to_copy _to_copy
    addcmul addcdiv lerp rsub log1p expm1 logsigmoid log_sigmoid threshold hardshrink softshrink tanhshrink
"""
_POINTWISE = frozenset(_POINTWISE_TEXT.split())
_FIRST_BATCHED_TEXT = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear max_pool1d max_pool2d max_pool3d
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d
    layer_norm group_norm pixel_shuffle upsample_nearest2d rms_norm
"""
_FIRST_BATCHED = frozenset(_FIRST_BATCHED_TEXT.split())
"""Operators whose first operand carries the batch in dimension 0 and whose others do not."""
_ALONG = {
    **dict.fromkeys(("sum", "mean", "amax", "amin", "prod", "logsumexp", "var", "std", "any", "all"), 1),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod", "argmax", "argmin", "_softmax", "cat"), 1),
    **dict.fromkeys(("max", "min", "unsqueeze", "squeeze", "slice", "select", "flip"), 1),
}
"""Operators along a dimension, and where among their arguments it stands."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a graph can be cut: rows in the batch, and the names of all tensors that hold one row for each."""

    rows: int
    batched: frozenset[str]


def cut_of(graph: Graph) -> Cut | None:
    """Say how `graph` can be cut along dimension 0, or None where it cannot."""
    if not graph.inputs or not graph.inputs[0].shape or graph.updates:
        return None
    rows = graph.inputs[0].shape[0]
    batched = {spec.name for spec in graph.inputs if spec.shape and spec.shape[0] == rows}
    if rows < 2 or len(batched) != len(graph.inputs):
        return None
    for node in graph.nodes:
        carried = [ref for ref in refs_of(node) if ref.name in batched]
        if not carried:
            continue
        if not _keeps_rows(graph, node, frozenset(batched), rows):
            return None
        batched.add(node.name)
    if any(ref.name not in batched or spec.shape[:1] != (rows,) for spec, ref in graph.outputs):
        return None
    return Cut(rows, frozenset(batched))


def block_of(task: Task, cut: Cut, rows: int) -> Task:
    """Return the task for a block of `rows` rows."""
    graph = task.graph

    def spec(old: TensorSpec) -> TensorSpec:
        return replace(old, shape=(rows, *old.shape[1:]))

    nodes = [_shrunk(node, cut, rows) if node.name in cut.batched else node for node in graph.nodes]
    inner = replace(
        graph,
        inputs=tuple(spec(each) if each.name in cut.batched else each for each in graph.inputs),
        nodes=tuple(nodes),
        outputs=tuple((spec(each), ref) for each, ref in graph.outputs),
    )
    return replace(task, graph=inner)


def _shrunk(node: Node, cut: Cut, rows: int) -> Node:
    outputs = tuple(replace(each, shape=(rows, *each.shape[1:])) if each is not None else None for each in node.outputs)
    args = node.args
    if base_name(node) in ("view", "expand") and isinstance(args[1], tuple):
        args = (args[0], (rows, *args[1][1:]), *args[2:])
    return replace(node, args=args, outputs=outputs)


def _keeps_rows(graph: Graph, node: Node, batched: frozenset[str], rows: int) -> bool:
    if any(spec is not None and spec.shape[:1] != (rows,) for spec in node.outputs):
        return False
    base = base_name(node)
    if base in _POINTWISE:
        return _pointwise(graph, node, batched)
    if base in _FIRST_BATCHED:
        first, *others = refs_of(node)
        whole = all(ref.name not in batched for ref in others)
        return first.name in batched and whole and len(graph.spec_of(first).shape) >= _least_rank(base, node)
    if base in _ALONG:
        return _along(graph, node, batched, _ALONG[base])
    rule = _RULES.get(base)
    return rule is not None and rule(graph, node, batched)


def _pointwise(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    """Every operand has a row for each row, or is broadcast over all rows."""
    rank = len(node.spec.shape)
    for ref in refs_of(node):
        shape = graph.spec_of(ref).shape
        if ref.name in batched:
            if len(shape) != rank:
                return False
        elif len(shape) == rank and shape[0] != 1:
            return False
    return True


def _least_rank(base: str, node: Node) -> int:
    """Return from how many dimensions on the first of them is the batch."""
    if base in ("layer_norm", "rms_norm"):
        shape = node.args[1]
        return 1 + (len(shape) if isinstance(shape, tuple) else 1)
    return 2 + int(base[-2]) if base.startswith("conv") else 2


def _along(graph: Graph, node: Node, batched: frozenset[str], position: int) -> bool:
    refs = refs_of(node)
    if any(ref.name not in batched for ref in refs) or len(node.args) <= position:
        return False
    rank = len(graph.spec_of(refs[0]).shape) + (base_name(node) == "unsqueeze")
    given: Arg = node.args[position]
    dims = given if isinstance(given, tuple) else (given,)
    return bool(dims) and all(isinstance(dim, int) and dim % rank != 0 for dim in dims)


def _view(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    """Dimension 0 stays as it is, so what is regrouped lies within rows."""
    source, shape = node.args[0], node.args[1]
    assert isinstance(source, Ref)
    return isinstance(shape, tuple) and shape[:1] == graph.spec_of(source).shape[:1]


def _permute(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    dims = node.args[1]
    return isinstance(dims, tuple) and dims[:1] == (0,)


def _transpose(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    rank = len(node.spec.shape)
    return all(isinstance(dim, int) and dim % rank != 0 for dim in node.args[1:3])


def _product(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    """Rows of the left operand, and a right operand that all rows share."""
    left, right = refs_of(node)[:2]
    return left.name in batched and right.name not in batched and len(graph.spec_of(right).shape) == 2


def _added_product(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    added, left, right = refs_of(node)[:3]
    own = added.name not in batched and graph.spec_of(added).shape[:-1] in ((), (1,))
    return own and left.name in batched and right.name not in batched


def _batched_product(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    return all(ref.name in batched for ref in refs_of(node))


def _pad(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    amounts = node.args[1]
    return isinstance(amounts, tuple) and len(amounts) // 2 < len(node.spec.shape)


def _flatten(graph: Graph, node: Node, batched: frozenset[str]) -> bool:
    return len(node.args) > 1 and isinstance(node.args[1], int) and node.args[1] > 0


_RULES: Mapping[str, Callable[[Graph, Node, frozenset[str]], bool]] = {
    "view": _view,
    "expand": _view,
    "permute": _permute,
    "transpose": _transpose,
    "mm": _product,
    "matmul": _product,
    "addmm": _added_product,
    "bmm": _batched_product,
    "flatten": _flatten,
    "pad": _pad,
    "constant_pad_nd": _pad,
}
