"""How a person would write each operator: `x + y`, `F.linear(x, w, b)`, `torch.sum(x, [1], True)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from warpsmith.records import Arg, Node

Show = Callable[[Arg], str]

_INFIX: Mapping[str, str] = {
    "aten.add.Tensor": "+",
    "aten.add.Scalar": "+",
    "aten.sub.Tensor": "-",
    "aten.sub.Scalar": "-",
    "aten.mul.Tensor": "*",
    "aten.mul.Scalar": "*",
    "aten.div.Tensor": "/",
    "aten.div.Scalar": "/",
    "aten.pow.Tensor_Scalar": "**",
    "aten.pow.Tensor_Tensor": "**",
    "aten.remainder.Scalar": "%",
    "aten.remainder.Tensor": "%",
    "aten.mm.default": "@",
    "aten.bmm.default": "@",
    "aten.matmul.default": "@",
    "aten.mv.default": "@",
    "aten.gt.Scalar": ">",
    "aten.gt.Tensor": ">",
    "aten.ge.Scalar": ">=",
    "aten.ge.Tensor": ">=",
    "aten.lt.Scalar": "<",
    "aten.lt.Tensor": "<",
    "aten.le.Scalar": "<=",
    "aten.le.Tensor": "<=",
    "aten.eq.Scalar": "==",
    "aten.eq.Tensor": "==",
    "aten.ne.Scalar": "!=",
    "aten.ne.Tensor": "!=",
    "aten.bitwise_and.Tensor": "&",
    "aten.bitwise_or.Tensor": "|",
    "aten.bitwise_xor.Tensor": "^",
}

# Functions of torch.nn.functional that take their arguments in the order of the operator's schema.
_FUNCTIONAL = """
    linear conv1d conv2d conv3d gelu silu mish elu selu celu softplus hardtanh hardswish hardsigmoid leaky_relu relu6
    glu layer_norm rms_norm group_norm avg_pool2d avg_pool3d max_pool2d max_pool3d
    pad prelu pixel_shuffle pixel_unshuffle adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d one_hot
    scaled_dot_product_attention pairwise_distance cosine_similarity bilinear
"""

# Functions of torch that take their arguments in the order of the operator's schema.
_TORCH = """
    relu sigmoid tanh exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan atan2 sinh cosh asinh
    acosh atanh erf erfc abs neg sign floor ceil round trunc frac square reciprocal clamp clamp_min clamp_max minimum
    maximum where sum mean prod amax amin max min argmax argmin all any cumsum cumprod cummax cummin flip roll var std
    var_mean std_mean logsumexp cat stack split chunk unbind transpose permute squeeze unsqueeze flatten select
    index_select gather scatter scatter_add tril triu einsum addmm baddbmm addcmul addcdiv lerp softmax log_softmax
    isnan isinf isfinite logical_and logical_or logical_not logical_xor bitwise_not sort topk diagonal outer dot
    masked_fill zeros_like ones_like full_like zeros ones full arange eye conv_transpose1d
    conv_transpose2d conv_transpose3d xlogy fmod nan_to_num multiply subtract divide diag diag_embed trace inner logit
    frac logaddexp addmv repeat_interleave take_along_dim channel_shuffle count_nonzero
"""

# Methods whose arguments follow the tensor in the order of the schema.
_METHODS: Mapping[str, str] = {
    "aten.view.default": "reshape",
    "aten.expand.default": "expand",
    "aten.expand_as.default": "expand_as",
    "aten.repeat.default": "repeat",
    "aten.unfold.default": "unfold",
}
_TO_THE_END = 2**62
_REDUCTIONS = ("none", "mean", "sum")


def phrase(node: Node, show: Show) -> str:
    """Return the right-hand side of the assignment that computes `node`."""
    base = node.op.split(".")[1]
    special = _FIRST_ONLY[node.op] if gives_first_only(node) else _SPECIAL.get(node.op)
    if special is not None:
        text = special(node, show)
        if text is not None:
            return text
    if node.op in _INFIX and len(node.args) == 2 and not node.kwargs:
        return f"{show(node.args[0])} {_INFIX[node.op]} {show(node.args[1])}"
    if node.op in _METHODS and not node.kwargs:
        first, *rest = node.args
        return f"{show(first)}.{_METHODS[node.op]}({', '.join(map(show, rest))})"
    return f"{_function(node, base)}({_arguments(node, show)})"


def _function(node: Node, base: str) -> str:
    if base in _FUNCTIONAL.split():
        return f"F.{base}"
    if base in _TORCH.split():
        return f"torch.{base}"
    return f"torch.ops.{node.op}"


def _arguments(node: Node, show: Show) -> str:
    return ", ".join([*map(show, node.args), *(f"{name}={show(value)}" for name, value in node.kwargs)])


def _cast(node: Node, show: Show) -> str | None:
    kwargs = dict(node.kwargs)
    return f"{show(node.args[0])}.to({show(kwargs['dtype'])})" if set(kwargs) == {"dtype"} else None


def _embedding(node: Node, show: Show) -> str:
    # Padding and scaling concern gradients only.
    weight, indices, *_ = node.args
    return f"F.embedding({show(indices)}, {show(weight)})"


def _softmax(node: Node, show: Show) -> str | None:
    base = node.op.split(".")[1]
    if len(node.args) != 2 or node.kwargs:
        return None
    return f"F.{base}({show(node.args[0])}, dim={show(node.args[1])})"


def _slice(node: Node, show: Show) -> str | None:
    defaults: tuple[Arg, ...] = (0, None, None, 1)
    dim, start, end, step = (*node.args[1:], *defaults[len(node.args) - 1 :])
    if not isinstance(dim, int) or dim < 0:
        return None
    low = "" if start in (None, 0) else show(start)
    high = "" if end is None or (isinstance(end, int) and end >= _TO_THE_END) else show(end)
    stride = "" if step == 1 else f":{show(step)}"
    return f"{show(node.args[0])}[{':, ' * dim}{low}:{high}{stride}]"


def _select(node: Node, show: Show) -> str | None:
    source, dim, index = node.args
    if not isinstance(dim, int) or dim < 0:
        return None
    return f"{show(source)}[{':, ' * dim}{show(index)}]"


def _loss(name: str) -> Callable[[Node, Show], str | None]:
    """A loss whose third argument is the reduction as a number."""

    def write(node: Node, show: Show) -> str | None:
        if len(node.args) > 3 or node.kwargs:
            return None
        number = node.args[2] if len(node.args) == 3 else 1
        if not isinstance(number, int):
            return None
        return f'F.{name}({show(node.args[0])}, {show(node.args[1])}, reduction="{_REDUCTIONS[number]}")'

    return write


def _cross_entropy(node: Node, show: Show) -> str | None:
    defaults: tuple[Arg, ...] = (None, 1, -100, 0.0)
    logits, target, *rest = node.args
    weight, number, ignore, smoothing = (*rest, *defaults[len(rest) :])
    if not isinstance(number, int) or node.kwargs:
        return None
    parts = [show(logits), show(target)]
    parts += [] if weight is None else [f"weight={show(weight)}"]
    parts += [] if ignore == -100 else [f"ignore_index={show(ignore)}"]
    parts += [f'reduction="{_REDUCTIONS[number]}"']
    parts += [] if smoothing == 0.0 else [f"label_smoothing={show(smoothing)}"]
    return f"F.cross_entropy({', '.join(parts)})"


def _instance_norm(node: Node, show: Show) -> str | None:
    source, weight, bias, mean, variance, from_input, momentum, eps, *_ = node.args
    given = {"running_mean": mean, "running_var": variance, "weight": weight, "bias": bias}
    parts = [show(source), *(f"{name}={show(value)}" for name, value in given.items() if value is not None)]
    parts += [] if from_input is True else [f"use_input_stats={show(from_input)}"]
    return f"F.instance_norm({', '.join([*parts, f'momentum={show(momentum)}', f'eps={show(eps)}'])})"


def _batch_norm(node: Node, show: Show) -> str | None:
    source, weight, bias, mean, variance, _, eps = node.args
    return f"F.batch_norm({', '.join(map(show, (source, mean, variance, weight, bias)))}, eps={show(eps)})"


def gives_first_only(node: Node) -> bool:
    """Tell nodes of several results of which only the first is used, and whose phrase gives just that one."""
    return node.op in _FIRST_ONLY and [spec is not None for spec in node.outputs] == [True, False, False]


_FIRST_ONLY: Mapping[str, Callable[[Node, Show], str | None]] = {
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
}
_SPECIAL: Mapping[str, Callable[[Node, Show], str | None]] = {
    "aten._to_copy.default": _cast,
    "aten.embedding.default": _embedding,
    "aten.instance_norm.default": _instance_norm,
    "aten.softmax.int": _softmax,
    "aten.log_softmax.int": _softmax,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.mse_loss.default": _loss("mse_loss"),
    "aten.l1_loss.default": _loss("l1_loss"),
    "aten.cross_entropy_loss.default": _cross_entropy,
}
