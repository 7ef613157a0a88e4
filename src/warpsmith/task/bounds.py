"""The speed of light of a task: the bytes and operations that no program can do without.

Bytes: every argument that is read is read once, as far as it is needed (a slice, the rows of an embedding that can
be asked for), and every output is written once. Operations: direct algorithms; a fused multiply-add counts as two,
a special function as one. Peaks are datasheet figures. A float32 matrix product may run on tensor cores in three
passes over operands split in two (TF32 or half), and is then as accurate as float32; the bound allows for that.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from warpsmith.records import DTYPE_BYTES, Bound, GpuSpec, Graph, Node, Ref, Task, Tolerance
from warpsmith.task.equation import equation_of, least_operations, parse_equation
from warpsmith.task.evaluate import refs_of
from warpsmith.task.trace import base_name, looks_at_shape_only

_MOVES = """
    view expand expand_as unsqueeze squeeze permute transpose t select slice split split_with_sizes chunk unbind
    flatten repeat flip roll narrow movedim diagonal unfold pad constant_pad_nd cat stack embedding gather index
    index_select select_scatter slice_scatter scatter index_put zeros ones full zeros_like ones_like full_like new_zeros
    new_ones new_full arange tril triu pixel_shuffle pixel_unshuffle channel_shuffle im2col
    diag diag_embed eye take_along_dim index_fill meshgrid fill linspace one_hot upsample_nearest1d upsample_nearest2d
    upsample_nearest3d copy as_strided masked_fill repeat_interleave
"""
# Operators that read no more of their first operand than they give back.
_PARTIAL = frozenset(("slice", "select", "narrow", "embedding", "gather", "index_select", "index", "diagonal", "diag"))
# Position of the stride; padding and dilation follow.
_WINDOWS = {"conv1d": 3, "conv2d": 3, "conv3d": 3, "max_pool2d": 2, "max_pool3d": 2}
_PER_ELEMENT_OF_INPUT = {
    **dict.fromkeys(("sum", "mean", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all"), 1),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "linalg_vector_norm", "logsumexp"), 2),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "softmax", "log_softmax", "cross_entropy_loss"), 3),
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), 4),
    **dict.fromkeys(("_native_batch_norm_legit_functional", "_native_batch_norm_legit"), 4),
    **dict.fromkeys(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "nll_loss_nd"), 2),
}


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of one node: those of contractions, which tensor cores can do, and all others."""

    contraction: int = 0
    other: int = 0


def bound(task: Task, gpu: GpuSpec) -> Bound:
    """Return the least bytes, operations and time of one call of `task` on `gpu`.

    The time is that of the slowest of memory, tensor cores and ordinary cores, each busy at its peak all the time.
    """
    graph = task.graph
    read = sum(_needed_bytes(graph, name) for name in (spec.name for spec in graph.arguments))
    written = sum(spec.nbytes for spec in graph.results)
    total, contraction_seconds, other = 0, 0.0, 0
    for node in graph.nodes:
        work = work_of(graph, node)
        total += work.contraction + work.other
        other += work.other
        contraction_seconds += work.contraction / _contraction_peak(node, task.tolerance, gpu)
    memory = (read + written) / gpu.memory_bandwidth
    arithmetic = max(contraction_seconds, other / gpu.fp32_flops)
    return Bound(
        bytes_read=read,
        bytes_written=written,
        operations=total,
        device=gpu.name,
        seconds=max(memory, arithmetic),
        limit="memory" if memory >= arithmetic else "arithmetic",
    )


def work_of(graph: Graph, node: Node) -> Work:
    """Count the operations of one node."""
    base = base_name(node)
    if base in _MOVES.split():
        return Work()
    if base in _CONTRACTIONS and not _scales(graph, node):
        return Work(contraction=_CONTRACTIONS[base](graph, node))
    results = sum(spec.numel for spec in node.outputs if spec is not None)
    refs = refs_of(node)
    if base in _PER_ELEMENT_OF_INPUT and refs:
        return Work(other=_PER_ELEMENT_OF_INPUT[base] * graph.spec_of(refs[0]).numel)
    if "pool" in base and refs:
        return Work(other=_pool(graph, node))
    if base in ("sort", "topk", "argsort") and refs:
        elements = graph.spec_of(refs[0])
        return Work(other=elements.numel * max(1, math.ceil(math.log2(elements.shape[-1] if elements.shape else 1))))
    return Work(other=results)


def _scales(graph: Graph, node: Node) -> bool:
    """Whether a matrix product is one with a diagonal matrix, made from a vector: one operation an element."""
    if base_name(node) not in ("mm", "matmul"):
        return False
    makers = {maker.name: maker for maker in graph.nodes if base_name(maker) == "diag"}
    used = [makers[ref.name] for ref in refs_of(node) if ref.name in makers]
    return any(len(_shape(graph, maker, 0)) == 1 for maker in used)


def _shape(graph: Graph, node: Node, index: int) -> tuple[int, ...]:
    arg = node.args[index]
    assert isinstance(arg, Ref)
    return graph.spec_of(arg).shape


def _product(graph: Graph, node: Node) -> int:
    return 2 * node.spec.numel * _shape(graph, node, 0)[-1]


def _added_product(graph: Graph, node: Node) -> int:
    return 2 * node.spec.numel * _shape(graph, node, 1)[-1]


def _convolution(graph: Graph, node: Node) -> int:
    return 2 * node.spec.numel * math.prod(_shape(graph, node, 1)[1:])


def _transposed_convolution(graph: Graph, node: Node) -> int:
    """Count the products that reach an output: none with inserted zeros, none that padding cuts off."""
    reach = _reach(graph, node)
    lead = _shape(graph, node, 0)[: -len(reach)]
    pairs = math.prod(sum(len(inputs) for inputs in line) for line in reach)
    return 2 * math.prod(lead) * _shape(graph, node, 1)[1] * pairs


def _reach(graph: Graph, node: Node) -> list[list[range]]:
    """Return, for each dimension of a transposed convolution and each tap, which inputs it carries to an output."""
    kernel = _shape(graph, node, 1)[2:]
    rank = len(kernel)

    def numbers(position: int, default: int) -> list[int]:
        given = node.args[position] if position < len(node.args) else default
        values = [v for v in (given if isinstance(given, tuple) else (given,)) if isinstance(v, int)]
        return values * rank if len(values) == 1 else values

    lines = zip(
        _shape(graph, node, 0)[-rank:], kernel, node.spec.shape[-rank:], numbers(3, 1), numbers(4, 0), numbers(7, 1)
    )
    reach = []
    for source, taps, out, stride, padding, dilation in lines:
        # Input i meets output i * stride + shift.
        shifts = [tap * dilation - padding for tap in range(taps)]
        reach.append([range(max(0, -(shift // stride)), min(source, -((shift - out) // stride))) for shift in shifts])
    return reach


def _attention(graph: Graph, node: Node) -> int:
    query, key, value = (_shape(graph, node, i) for i in range(3))
    rows, cols = query[-2], key[-2]
    causal = dict(node.kwargs).get("is_causal", node.args[5] if len(node.args) > 5 else False)
    pairs = sum(min(row + 1, cols) for row in range(rows)) if causal else rows * cols
    return 2 * math.prod(query[:-2]) * pairs * (query[-1] + value[-1])


def _recurrence(graph: Graph, node: Node) -> int:
    """Every weight matrix is applied once in every step to every sequence; in the last layer, as far as it is read."""
    _, _, weights, _, layers, _, _, bidirectional, batch_first = node.args
    assert isinstance(weights, tuple) and isinstance(layers, int)
    shapes = [graph.spec_of(ref).shape for ref in weights if isinstance(ref, Ref)]
    sizes = [math.prod(shape) for shape in shapes if len(shape) == 2]
    time = 1 if batch_first else 0
    steps, batch = _shape(graph, node, 0)[time], _shape(graph, node, 0)[1 - time]
    ways = 2 if bidirectional else 1
    each = len(sizes) // (layers * ways)
    below = len(sizes) - ways * each
    read = _steps_read(graph, node, time, steps)
    last = sum(sum(sizes[below + way * each : below + (way + 1) * each]) * read[way] for way in range(ways))
    return 2 * batch * (sum(sizes[:below]) * steps + last)


def _steps_read(graph: Graph, node: Node, time: int, steps: int) -> tuple[int, int]:
    """Return how many steps from the beginning, and from the end, the readers of a recurrence's output depend on."""
    output = Ref(node.name)
    readers = [user for user in graph.nodes if output in refs_of(user)]
    if any(spec is not None for spec in node.outputs[1:]) or any(ref == output for _, ref in graph.outputs):
        return steps, steps
    if any(base_name(user) != "select" or user.args[1] != time for user in readers):
        return steps, steps
    places = [place % steps for _, _, place in (user.args for user in readers) if isinstance(place, int)]
    return max(places, default=0) + 1, steps - min(places, default=0)


def _einsum(graph: Graph, node: Node) -> int:
    equation, operands = equation_of(graph, node)
    return least_operations(equation, [graph.spec_of(ref).shape for ref in operands])


def _bilinear(graph: Graph, node: Node) -> int:
    """Three operands in the cheapest order; the bias is not counted."""
    x, y, weight = (_shape(graph, node, i) for i in range(3))
    return least_operations(parse_equation("...i,oij,...j->...o", (len(x), 3, len(y))), (x, weight, y))


def _chain(graph: Graph, node: Node) -> int:
    """Matrices in a row, in the cheapest order; those at the ends may be vectors."""
    shapes = [graph.spec_of(ref).shape for ref in refs_of(node)]
    names = string.ascii_letters[: len(shapes) + 1]
    terms = [names[n : n + 2] for n in range(len(shapes))]
    if len(shapes[0]) == 1:
        terms[0] = terms[0][1:]
    if len(shapes[-1]) == 1:
        terms[-1] = terms[-1][:1]
    return least_operations(parse_equation(",".join(terms), [len(shape) for shape in shapes]), shapes)


def _product_of_shapes(graph: Graph, node: Node) -> int:
    """Two operands and a result say together how many elements each sum has: |a|·|b| = |result|·(summed extents)²."""
    if base_name(node) == "linalg_vecdot":
        return 2 * max(graph.spec_of(ref).numel for ref in refs_of(node))
    pairs = math.prod(_shape(graph, node, 0)) * math.prod(_shape(graph, node, 1))
    return 2 * math.isqrt(pairs * node.spec.numel)


def _pool(graph: Graph, node: Node) -> int:
    window = node.args[1] if len(node.args) > 1 else None
    source = graph.spec_of(refs_of(node)[0])
    if base_name(node).startswith("adaptive") or not isinstance(window, tuple):
        return source.numel
    spatial = len(node.spec.shape) - len(source.shape) + 2 if base_name(node).endswith("2d") else len(window)
    extents = [extent for extent in window if isinstance(extent, int)]
    return node.spec.numel * math.prod(extents * spatial if len(extents) == 1 else extents)


_CONTRACTIONS: Mapping[str, Callable[[Graph, Node], int]] = {
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "linear"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), _recurrence),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
    "bilinear": _bilinear,
    "linalg_multi_dot": _chain,
    **dict.fromkeys(("inner", "linalg_vecdot", "tensordot"), _product_of_shapes),
}


def _contraction_peak(node: Node, tolerance: Tolerance, gpu: GpuSpec) -> float:
    dtype = next((spec.dtype for spec in node.outputs if spec is not None), "float32")
    if dtype in ("float16", "bfloat16"):
        return gpu.half_flops
    if dtype == "float64":
        return gpu.fp64_flops
    allowed = tolerance.conv_tf32 if base_name(node).startswith("conv") else tolerance.matmul_tf32
    split = max(gpu.fp32_flops, gpu.tf32_flops / 3, gpu.half_flops / 3)
    return max(split, gpu.tf32_flops) if allowed else split


def _needed_bytes(graph: Graph, name: str) -> int:
    """Return how much of the argument `name` must be read at least: nothing, some of it or all of it."""
    spec = next(spec for spec in graph.arguments if spec.name == name)
    if any(ref.name == name for _, ref in graph.outputs):
        return spec.nbytes
    needed = 0
    for node in graph.nodes:
        if Ref(name) not in refs_of(node) or looks_at_shape_only(node):
            continue
        if base_name(node) in _PARTIAL and node.args[0] == Ref(name):
            # Several partial readers may read the same part.
            needed = max(needed, node.spec.numel * DTYPE_BYTES[spec.dtype])
        else:
            needed = max(needed, int(spec.nbytes * _share(graph, node, name)))
    return min(needed, spec.nbytes)


def _share(graph: Graph, node: Node, name: str) -> float:
    """Return the share of its input that a window operator touches: a stride beyond the window leaves gaps."""
    base = base_name(node)
    if base.startswith("conv_transpose") and node.args[0] == Ref(name):
        return _share_reached(graph, node)
    if base not in _WINDOWS or node.args[0] != Ref(name):
        return 1.0
    position = _WINDOWS[base]
    window = _shape(graph, node, 1)[2:] if base.startswith("conv") else node.args[1]
    stride, padding, dilation = (node.args[i] if i < len(node.args) else () for i in range(position, position + 3))
    source, result = _shape(graph, node, 0), node.spec.shape
    if not (isinstance(window, tuple) and isinstance(stride, tuple) and isinstance(padding, tuple)):
        return 1.0
    if len(window) != len(stride):
        return 1.0
    share = 1.0
    for i in range(-len(window), 0):
        extent, step, pad = window[i], stride[i], padding[i] if padding else 0
        assert isinstance(extent, int) and isinstance(step, int) and isinstance(pad, int)
        # Dilated windows may touch the same element twice, so that only one element of each is certain.
        touched = result[i] * (1 if dilation else extent) - 2 * pad
        if step > extent:
            share *= min(1.0, max(0, touched) / source[i])
    return share


def _share_reached(graph: Graph, node: Node) -> float:
    """Return the share of its input that a transposed convolution uses: padding may cut off all that one adds."""
    reach = _reach(graph, node)
    share = 1.0
    for line, source in zip(reach, _shape(graph, node, 0)[-len(reach) :]):
        touched, seen = 0, 0
        # Later taps reach earlier inputs, so that ranges come in ascending order from the last on.
        for inputs in reversed(line):
            first = max(inputs.start, seen)
            touched += max(0, inputs.stop - first)
            seen = max(seen, inputs.stop)
        share *= touched / source
    return share
