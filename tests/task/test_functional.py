"""The functional source is what people and language models read: it must run, be natural, and be checked."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warpsmith.errors import TaskError
from warpsmith.records import Ref
from warpsmith.task import draw, evaluate, families_for, task_from_module
from warpsmith.task.functional import check, emit, run

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


class Apply(nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor, i: torch.Tensor) -> object:
        return self.function(x, y, i)


def task_of(function: Callable[..., object]):
    return task_from_module(
        Apply(function), [torch.rand(2, 4, 6, 6) + 0.1, torch.rand(2, 4, 6, 6), torch.randint(6, (2, 4))]
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_source_of_every_example_equals_its_graph_on_every_family(example, path: Path) -> None:
    task = example(path)
    compile(task.functional_source, "functional", "exec")
    for family in families_for(task):
        arguments = draw(task, family, 1)
        got, due = run(task.functional_source, task.graph, arguments), evaluate(task.graph, arguments, "task")
        assert got.keys() == due.keys()
        for name in due:
            torch.testing.assert_close(got[name], due[name], rtol=0, atol=0, equal_nan=True)


POINTWISE = [
    lambda x, y, i: x + y * 2 - (x / y) ** 2,
    lambda x, y, i: torch.add(x, y, alpha=3) + torch.div(x, y, rounding_mode="floor") - 1.5 + torch.rsub(x, y),
    lambda x, y, i: (x > 0.5) & (y <= 0.25) | (x == y) ^ (x != 1),
    lambda x, y, i: torch.where(x > y, x, 0.0) + x.clamp(0.2, 0.8) + y.clamp(min=0.5) + x.minimum(y) - x.maximum(y),
    lambda x, y, i: (
        x.exp() + x.log() + x.sqrt() + x.rsqrt() + x.sin() + x.cos() + x.tanh() + x.erf() + x.abs() - x.neg()
    ),
    lambda x, y, i: (
        F.silu(x) + F.mish(x) + F.elu(x) + F.selu(x) + F.softplus(x, 2.0) + F.leaky_relu(x, 0.1) + F.relu6(x)
    ),
    lambda x, y, i: (
        F.hardtanh(x) + F.hardswish(x) + F.hardsigmoid(x) + F.logsigmoid(x) + F.softsign(x) + F.softshrink(x)
    ),
    lambda x, y, i: F.gelu(x) + F.gelu(y, approximate="tanh") + x.floor() + x.ceil() + x.round() + x.sign() + x.pow(y),
    lambda x, y, i: (
        x.masked_fill(y > 0.5, float("-inf")).softmax(-1) + x.lerp(y, 0.3) + torch.addcmul(x, x, y, value=2)
    ),
    lambda x, y, i: x.to(torch.float64) + y.half().float().double() + torch.full_like(x, 2.0) + torch.zeros_like(y),
    lambda x, y, i: i % 4 + i // 2 + (i << 1) + (i & 3) + i.bitwise_not() - i.to(torch.int32),
    lambda x, y, i: torch.relu(x) + x.exp2() + x.expm1() + x.log2() + x.log10() + x.log1p() + x.tan() + x.square(),
    lambda x, y, i: (
        (x / 2).asin() + (x / 2).acos() + x.atan() + x.atan2(y) + x.sinh() + x.cosh() + x.asinh() + (x + 1).acosh()
    ),
    lambda x, y, i: (x / 2).atanh() + x.erfc() + x.trunc() + x.frac() + x.reciprocal() + x.clamp(max=0.5) + x.xlogy(y),
    lambda x, y, i: (
        x.fmod(y) + torch.addcdiv(x, y, x + 1, value=2) + F.celu(x, 0.5) + F.hardshrink(x) + F.prelu(x, y[0, 0, 0, :4])
    ),
    lambda x, y, i: (x.isinf() | x.isfinite().logical_and(y > 0.5)).logical_or(x > y).logical_xor(y > 0.1),
    lambda x, y, i: (
        torch.ones_like(x) + torch.zeros(6) + torch.ones(6) + torch.full((6,), 2.0) + torch.arange(6) + torch.eye(6)
    ),
    lambda x, y, i: torch.nan_to_num(x / 0.0) + torch.isnan(y).float() + torch.logical_not(x > 0.5).float(),
]
REDUCING = [
    lambda x, y, i: (
        x.cummin(1).values,
        torch.std_mean(x, 1),
        x.median(1).values,
        x.count_nonzero(1),
        x.norm(dim=(1, 2)),
    ),
    lambda x, y, i: (
        x.sum(),
        x.sum(1),
        x.mean((2, 3), keepdim=True),
        x.amax(1),
        x.amin((0, 1)),
        x.prod(2),
        x.max(),
        x.min(),
    ),
    lambda x, y, i: (x.max(1), x.min(2, keepdim=True).values, x.argmax(1), x.argmin(), (x > 0.5).any(1), (x > 0).all()),
    lambda x, y, i: (
        x.var(1),
        x.std((1, 2), correction=0),
        torch.var_mean(x, 1),
        x.norm(),
        x.norm(1, dim=1),
        x.logsumexp((1, 2)),
    ),
    lambda x, y, i: (x.cumsum(1), x.cumprod(2), x.cummax(1).values, x.softmax(1), x.log_softmax(-1), F.normalize(x)),
    lambda x, y, i: (
        F.layer_norm(x, (6, 6)),
        F.group_norm(x, 2),
        F.instance_norm(x),
        F.rms_norm(x, (6,)),
        F.local_response_norm(x, 2),
    ),
    lambda x, y, i: (
        x.sort(1).values,
        x.topk(2, 1),
        torch.linalg.vector_norm(x, 3, 1),
        x.softmax(1, dtype=torch.float64),
    ),
    lambda x, y, i: (F.mse_loss(x, y), F.l1_loss(x, y, reduction="sum"), F.smooth_l1_loss(x, y), F.huber_loss(x, y)),
    lambda x, y, i: (
        F.kl_div(x.log(), y),
        F.binary_cross_entropy(x.sigmoid(), y),
        F.cosine_similarity(x, y),
        F.pairwise_distance(x, y),
    ),
    lambda x, y, i: (
        F.cross_entropy(x[:, :, 0].flatten(0, 1), i.flatten()),
        F.nll_loss(x[:, 0, 0], i[:, 0], reduction="none"),
    ),
    lambda x, y, i: (
        F.cross_entropy(x[:, 0, 0], i[:, 0], weight=y[0, 0, 0], label_smoothing=0.1),
        F.triplet_margin_loss(x, y, x * y),
    ),
]
MOVING = [
    lambda x, y, i: (
        torch.scatter_add(x, 3, i[:, :, None, None], y),
        x.index_add(2, i[0], y[:, :, :4]),
        x.narrow(1, 1, 2),
    ),
    lambda x, y, i: (
        x.transpose(1, 2),
        x.permute(0, 2, 3, 1),
        x.reshape(2, -1),
        x.flatten(1),
        x.unsqueeze(2).squeeze(2),
        x[..., 0],
    ),
    lambda x, y, i: (x[:, 1:3], x[:, :, ::2], x[:, 1, 2:], x[0], x[:, -1], x[None], x[..., 1:-1]),
    lambda x, y, i: (
        torch.cat([x, y], 1),
        torch.stack([x, y]),
        x.split(2, 1),
        x.chunk(2, 2),
        x.unbind(1),
        x.repeat(1, 2, 1, 1),
    ),
    lambda x, y, i: (
        F.pad(x, (1, 2)),
        F.pad(x, (1, 1, 1, 1), mode="reflect"),
        F.pad(x, (2, 0), value=3.0),
        x.roll(1, 2),
        x.flip(3),
    ),
    lambda x, y, i: (
        x.gather(3, i[:, :, None, None].expand(2, 4, 6, 1)),
        x.index_select(2, i[0]),
        F.embedding(i, x[0, 0]),
        x[:, :, i[0]],
    ),
    lambda x, y, i: (
        F.one_hot(i, 7),
        x.tril(),
        x.triu(1),
        F.pixel_shuffle(x, 2),
        F.pixel_unshuffle(x, 2),
        x.diagonal(0, 2, 3),
    ),
    lambda x, y, i: (
        torch.scatter(x, 3, i[:, :, None, None], 0.5),
        x.unfold(2, 3, 1),
        x.expand(3, 2, 4, 6, 6),
        x[:, 0].mT,
    ),
    lambda x, y, i: (F.interpolate(x, scale_factor=2), F.interpolate(x, size=(9, 9), mode="bilinear"), F.unfold(x, 3)),
]
NORMS = [
    lambda x, y, i: F.batch_norm(x, y[0, 0, 0, :4], y[0, 1, 0, :4] + 1.0, y[0, 2, 0, :4], y[0, 3, 0, :4]),
    lambda x, y, i: F.instance_norm(x, weight=y[0, 0, 0, :4], bias=y[0, 1, 0, :4], eps=1e-3),
]
CONTRACTING = [
    lambda x, y, i: (
        torch.outer(x[0, 0, 0], y[0, 0, 0]),
        torch.baddbmm(x[0], x[0], y[0], beta=0.5),
        F.bilinear(x, y, x[0, :, :6]),
    ),
    lambda x, y, i: (
        F.conv_transpose1d(x[0], y[0, 0, :, :, None]),
        F.adaptive_avg_pool1d(x[0], 2),
    ),
    lambda x, y, i: (F.conv_transpose3d(x[None], y[:, :, None, :2, :2]), F.adaptive_avg_pool3d(x, 2)),
    lambda x, y, i: (
        x @ y,
        x[0, 0] @ y[0, 0],
        torch.bmm(x[0], y[0]),
        x[0, 0] @ y[0, 0, 0],
        torch.dot(x[0, 0, 0], y[0, 0, 0]),
    ),
    lambda x, y, i: (
        F.linear(x, y[0, 0]),
        torch.addmm(x[0, 0], x[0, 1], y[0, 1]),
        torch.einsum("bchw,bcxw->bhx", x, y),
    ),
    lambda x, y, i: (
        F.conv2d(x, y[:, :, :3, :3], stride=2, padding=1),
        F.conv1d(x[0], y[0, :, :, :3]),
    ),
    lambda x, y, i: (
        F.conv_transpose2d(x, y.transpose(0, 1)[:, :, :3, :3]),
        F.conv2d(x, y[0, :, None, :3, :3], groups=4),
    ),
    lambda x, y, i: (
        F.conv3d(x[None], y[:, :2, None, :2, :2]),
        F.conv2d(x, y[:, :, :3, :3], padding="same"),
    ),
    lambda x, y, i: (
        F.max_pool2d(x, 2),
        F.avg_pool2d(x, 3, 2, 1),
        F.max_pool2d(x, 2, return_indices=True),
        F.adaptive_avg_pool2d(x, 1),
    ),
    lambda x, y, i: (
        F.avg_pool1d(x[0], 2),
        F.max_pool1d(x[0], 3),
        F.avg_pool3d(x, 2),
        F.max_pool3d(x, 2),
        F.adaptive_max_pool2d(x, 2),
    ),
    lambda x, y, i: (
        F.scaled_dot_product_attention(x, y, x),
        F.scaled_dot_product_attention(x, y, y, is_causal=True),
        F.glu(x),
    ),
]


@pytest.mark.parametrize("function", POINTWISE + REDUCING + MOVING + NORMS + CONTRACTING)
def test_operators_are_written_so_that_they_run(function: Callable[..., object]) -> None:
    """Loading executes the source and compares it; here also on other values than those it was made with."""
    task = task_of(function)
    arguments = {**task.state, **draw(task, "nominal", 3)}
    got, due = run(task.functional_source, task.graph, arguments), evaluate(task.graph, arguments, "task")
    for name in due:
        torch.testing.assert_close(got[name], due[name], rtol=1e-6, atol=1e-7, equal_nan=True)


def test_common_operators_are_written_as_people_write_them() -> None:
    def function(x, y, i):
        z = F.softmax((x @ y) * 0.5 + x, dim=-1)[:, 1:3]
        return torch.relu(F.linear(z, y[0, 0])).reshape(2, -1).to(torch.float16)

    body = task_of(function).functional_source.split('"""')[-1]
    assert "torch.ops" not in body
    for part in (
        "= x @ y",
        "* 0.5",
        "F.softmax(",
        "[:, 1:3]",
        "F.linear(",
        "torch.relu(",
        ".reshape(",
        ".to(torch.float16)",
    ):
        assert part in body


def test_the_docstring_gives_every_shape_and_dtype(example) -> None:
    task = example(EXAMPLES[0].parent / "batchnorm.py")
    (function,) = [node for node in ast.parse(task.functional_source).body if isinstance(node, ast.FunctionDef)]
    text = ast.get_docstring(function) or ""
    for spec in task.graph.arguments + task.graph.results:
        assert f"{spec.name}: {spec.dtype}{list(spec.shape)}" in text
    assert [argument.arg for argument in function.args.args] == [spec.name for spec in task.graph.arguments]


def test_a_wrong_functional_form_is_refused() -> None:
    module = nn.Linear(4, 3)
    task = task_from_module(module, torch.rand(2, 4))
    with torch.no_grad():
        due = module(task.examples["input"])
    check(task, [due], {})
    node = task.graph.nodes[0]
    wrong = replace(task.graph, nodes=(replace(node, args=(Ref("input"), Ref("weight"))),))
    with pytest.raises(TaskError, match="computes another out: it differs by"):
        check(replace(task, functional_source=emit(wrong, "wrong")), [due], {})
    with pytest.raises(TaskError, match=r"shape \(2, 3\) instead of \(3, 2\)"):
        check(task, [due.t()], {})
    with pytest.raises(TaskError, match="dtype"):
        check(task, [due.double()], {})
    with pytest.raises(TaskError, match="NaN or infinity"):
        check(task, [due / 0], {})
    with pytest.raises(TaskError, match="changes bias"):
        check(task, [due], {"bias": task.state["bias"] + 1})
