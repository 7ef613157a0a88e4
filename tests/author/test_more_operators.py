"""Attention, sums of products, windows, updates of a part and losses compute what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Recipe, compile_graph
from warpsmith.errors import UnsupportedOperator
from warpsmith.task import task_from_module
from warpsmith.task.bounds import work_of
from warpsmith.task.exact import exact_roles

torch.manual_seed(0)
X = torch.randn(6, 20)
Y = torch.randn(6, 20)
P = torch.rand(6, 20) * 0.8 + 0.1
SQUARE = torch.randn(7, 7)
IMAGE = torch.randn(2, 6, 9, 8)
QUERY, KEY, VALUE = torch.randn(2, 4, 10, 8), torch.randn(2, 4, 12, 8), torch.randn(2, 4, 12, 6)
HIDDEN = torch.cat([torch.zeros(5, 12), torch.randn(5, 12)]) > 0.3
CLASSES = torch.randint(0, 20, (6,))
SIGNS = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
SPECIAL = torch.tensor([[0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.5, -2.25, 3e38]])

Case = tuple[Callable[..., object], tuple[torch.Tensor, ...]]


def _einsum(equation: str, *operands: torch.Tensor) -> Case:
    return (lambda *given: torch.einsum(equation, *given)), operands


def _attention(**options: object) -> Callable[..., torch.Tensor]:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)


def _assigned(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(6, 20)
    y[:, 3:15:3] = x[:, :4]
    y[2] += 1
    y[4] = 0.5
    y[x < -1] = 9.0
    return y


def _segments(decay: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    total = decay.cumsum(-1)
    gaps = total[..., :, None] - total[..., None, :]
    hidden = ~torch.ones(20, 20, dtype=torch.bool).tril()
    return torch.einsum("bln,bsn,bls,bsp->blp", b, b, gaps.masked_fill(hidden, -torch.inf).exp(), x)


def _shifted_windows(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Attention with two heads in windows of 2x2, which are moved by one pixel; a bias for each distance."""
    batch, height, width, channels = x.shape
    y = x.roll((-1, -1), (1, 2)).view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    y = y.reshape(-1, 4, 2, channels // 2).transpose(1, 2)
    places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
    distance = (places[:, :, None] - places[:, None] + 1).mul(torch.tensor([3, 1])[:, None, None]).sum(0)
    bias = table[distance.view(-1)].view(4, 4, 2).permute(2, 0, 1)
    y = F.scaled_dot_product_attention(y, y, y, bias[None]).transpose(1, 2)
    y = y.reshape(batch, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return x + y.reshape(batch, height, width, channels).roll((1, 1), (1, 2))


CASES: dict[str, Case] = {
    "binary extremes": (lambda x, y: torch.min(x, y) * 2 + torch.max(x, torch.tensor(0.5)), (X, Y)),
    "other names of operators": (
        lambda x, y: torch.multiply(x, y) + torch.subtract(x, y) + torch.divide(x, y) + torch.negative(x).absolute(),
        (X, Y),
    ),
    "diagonal in a product": (
        lambda a, x: (torch.diag(a) @ x, x.t() @ torch.diag(a), torch.diag(a) @ a, a @ torch.diag(a)),
        (X[:, 0], X),
    ),
    "diagonals off the middle": (lambda a: (torch.diag(a, 2), torch.diag(a, -1), torch.diag_embed(a)), (X[:, 0],)),
    "diagonals of matrices": (
        lambda x: (torch.diag(x), torch.diag(x, 3), torch.diag(x, -2), x.diagonal(1, 1, 0)),
        (X,),
    ),
    "trace and identity": (lambda x: torch.trace(x) + x * torch.eye(7), (SQUARE,)),
    "einsum of a tensor and a matrix": _einsum("bijl,lk->bijk", QUERY, torch.randn(8, 5)),
    "einsum of heads": _einsum("bqhd,bkhd->bhqk", QUERY, torch.randn(2, 7, 10, 8)),
    "einsum without an arrow": _einsum("ba,cb", torch.randn(4, 3), torch.randn(5, 4)),
    "einsum with ellipses": _einsum("...ij,...jk->...ik", QUERY, torch.randn(4, 8, 3)),
    "einsum over an ellipsis": _einsum("b...i,b...i->...", QUERY, QUERY),
    "einsum of a chain": _einsum("ij,kj,kl->il", X, Y, torch.randn(6, 3)),
    "einsum of a trace": _einsum("ii->", SQUARE),
    "einsum of repeated names": _einsum("iij,j->i", torch.randn(4, 4, 6), torch.randn(6)),
    "einsum that permutes": _einsum("ijkl->ljik", QUERY),
    "einsum that sums alone": _einsum("ijk,jl->il", torch.randn(3, 5, 4), torch.randn(5, 6)),
    "einsum of equal shapes": _einsum("ij,ij->i", X, Y),
    "einsum without a sum": _einsum("i,j,ij->ji", X[:, 0], X[0], Y),
    "einsum that stretches": _einsum("bij,bjk->bik", torch.randn(1, 3, 4), torch.randn(5, 4, 6)),
    "epilogue behind einsum": (
        lambda a, b: torch.einsum("bij,jk->bki", a, b).relu() + 1,
        (QUERY[0], torch.randn(8, 5)),
    ),
    "products of vectors": (
        lambda x, y: (
            torch.outer(x[0], y[0]),
            torch.inner(x, y),
            torch.linalg.vecdot(x, y),
            torch.addmv(x[:, 0], x, y[0]),
        ),
        (X, Y),
    ),
    "products of matrices": (
        lambda x, y: (torch.linalg.multi_dot([x, y.t(), x]), torch.tensordot(x, y, ([0], [0]))),
        (X, Y),
    ),
    "bilinear": (F.bilinear, (X[:, :5], Y[:, :4], torch.randn(3, 5, 4), torch.randn(3))),
    "convolution of a single image": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=2).relu(),
        (IMAGE[0], torch.randn(4, 3, 3, 3), torch.randn(4)),
    ),
    "attention": (_attention(), (QUERY, KEY, VALUE)),
    "causal attention": (_attention(is_causal=True, scale=0.3), (QUERY, KEY, VALUE)),
    "attention with nothing to see": (_attention(), (QUERY, KEY, VALUE, HIDDEN)),
    "attention with a bias": (_attention(), (QUERY, KEY, VALUE, torch.randn(2, 1, 10, 12))),
    "attention with shared heads": (_attention(enable_gqa=True), (QUERY, KEY[:, :2].clone(), VALUE[:, :2].clone())),
    "long causal attention": (_attention(is_causal=True), (torch.randn(1, 150, 8),) * 3),
    "state space of segments": (_segments, (-P, torch.randn(6, 20, 3), torch.randn(6, 20, 3))),
    "attention in shifted windows": (_shifted_windows, (torch.randn(2, 8, 8, 6), torch.randn(9, 2))),
    "windows along dimensions": (lambda x: x.unfold(2, 3, 3).unfold(3, 4, 2) * 1, (IMAGE,)),
    "windows as columns": (lambda x: F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=2), (IMAGE,)),
    "pixels and channels": (
        lambda x: (F.pixel_shuffle(x[:, :4], 2), F.pixel_unshuffle(x[:, :, 1:], 2), F.channel_shuffle(x, 3)),
        (IMAGE,),
    ),
    "repetition": (lambda x: x.repeat_interleave(3, 1)[:, :20] + x.repeat_interleave(2)[:20], (X,)),
    "reflection": (lambda x: F.pad(x, (1, 2, 3, 1), "reflect") + F.pad(x, (1, 2, 3, 1), "replicate"), (IMAGE,)),
    "nearest pixels": (lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, size=(18, 16)), (IMAGE,)),
    "between pixels": (
        lambda x: (
            F.interpolate(x, size=(13, 5), mode="bilinear"),
            F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
            F.interpolate(x[0], scale_factor=3, mode="linear"),
        ),
        (IMAGE,),
    ),
    "uncounted padding": (
        lambda x: (
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.max_pool2d(x, 3, 2, ceil_mode=True),
        ),
        (IMAGE,),
    ),
    "unequal windows": (lambda x: (F.adaptive_avg_pool2d(x, (4, 5)), F.adaptive_max_pool2d(x, (4, 3))), (IMAGE,)),
    "assignment to a part": (_assigned, (X,)),
    "filled positions": (lambda x: x.index_fill(1, torch.tensor([1, -2]), 3.0), (X,)),
    "index tensors apart": (lambda x, i: x[i[:3] % 2, :, i[:3] % 8] + x[0, :3, :6], (IMAGE, CLASSES)),
    "positions that broadcast": (lambda x, i: torch.take_along_dim(x, i[:, None], 1), (X, CLASSES)),
    "factories": (
        lambda x: x * torch.linspace(-1, 2, 20) + torch.stack(torch.meshgrid(x[:, 0], x[0], indexing="ij")).sum(0),
        (X,),
    ),
    "infinite sums": (lambda x: x.masked_fill(x < 1.5, -torch.inf).logsumexp(1), (X,)),
    "one hot": (lambda i: F.one_hot(i, 20), (CLASSES,)),
    "moments together": (lambda x: (*torch.var_mean(x, 1), torch.std_mean(x, 1, correction=0)[1]), (X,)),
    "only the position": (lambda x: x.max(1).indices, (X,)),
    "count": (lambda x: (x > 0).count_nonzero(1), (X,)),
    "limits of numbers": (
        lambda x: (x.nan_to_num(1, 2, 3), x.isfinite(), x.isinf(), torch.logaddexp(x, x)),
        (SPECIAL,),
    ),
    "formulas": (
        lambda x: (torch.logit(x, 0.2), torch.xlogy(x, x), torch.special.entr(x), (x * 9).frac()),
        (P,),
    ),
    "gated halves": (lambda x: F.glu(x) + F.glu(x, 0).sum(), (X,)),
    "slopes of channels": (F.prelu, (IMAGE, torch.rand(6))),
    "addcdiv": (lambda x, y: torch.addcdiv(x, y, x.abs() + 1, value=0.3), (X, Y)),
    "margins": (
        lambda x, y: (
            F.margin_ranking_loss(x, y, y.sign(), 0.2),
            F.hinge_embedding_loss(x, y.sign()),
            F.soft_margin_loss(x, y.sign()),
            (1 - x * y).clamp(min=0).mean(),
        ),
        (X, Y),
    ),
    "cosine embedding": (lambda x, y, t: F.cosine_embedding_loss(x, y, t, 0.1), (X, Y, SIGNS)),
    "logits": (
        lambda x, y, w: (
            F.binary_cross_entropy_with_logits(x, y),
            F.binary_cross_entropy_with_logits(x, y, weight=w, pos_weight=y[0] * 2, reduction="sum"),
            F.binary_cross_entropy(x.sigmoid(), y, weight=w),
        ),
        (X, P, P[:, :1]),
    ),
    "counts": (
        lambda x, y: (F.poisson_nll_loss(x, y * 4, full=True), F.poisson_nll_loss(y, y, log_input=False)),
        (X, P),
    ),
    "soft classes": (lambda x, y: F.cross_entropy(x, y.softmax(1), label_smoothing=0.1), (X, Y)),
    "smooth classes": (lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1, ignore_index=3), (X, CLASSES)),
    "weighted classes": (lambda x, t, w: (F.cross_entropy(x, t, w), F.nll_loss(x, t, w)), (X, CLASSES, P[0])),
}


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_compute_the_operator(checker: Checker, name: str) -> None:
    function, inputs = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    assert checker.largest_error(task, checker.compile(task), sanitize=True) < 4e-6


def test_attention_in_half_precision_keeps_scores_in_float32(checker: Checker) -> None:
    # Scores near 60 in half precision would be off by 0.03 each, and the shares by 3 %.
    inputs = tuple(8 * t.half() for t in (QUERY, KEY, VALUE))
    task = checker.task(Wrapped(_attention(scale=0.125)), *inputs)
    assert checker.largest_error(task, checker.compile(task)) < 1e-3


@pytest.mark.parametrize(
    ("function", "inputs", "named"),
    [
        (lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"), (IMAGE,), "whole extents"),
        (lambda x, i, v: x.index_put((i,), v), (X, CLASSES % 6, Y), "positions from tensors"),
    ],
)
def test_what_cannot_be_lowered_says_so(
    function: Callable[..., object], inputs: tuple[torch.Tensor, ...], named: str
) -> None:
    task = task_from_module(Wrapped(function), inputs)
    with pytest.raises(UnsupportedOperator, match=named):
        compile_graph(task.graph, Recipe(), GPU)


@pytest.mark.parametrize(
    ("case", "operations"),
    [
        ("einsum of a tensor and a matrix", 2 * 2 * 4 * 10 * 8 * 5),
        ("einsum with ellipses", 2 * 2 * 4 * 10 * 8 * 3),
        ("einsum of a chain", 2 * 6 * 20 * 3 + 2 * 6 * 20 * 3),
        ("einsum of equal shapes", 2 * 6 * 20),
        ("bilinear", 6 * 5 * 4 + 2 * 6 * 3 * 5 * 4),
        ("products of matrices", 2 * (6 * 20 * 6) * 2 + 2 * 20 * 6 * 20),
        ("causal attention", 2 * 2 * 4 * sum(range(1, 11)) * (8 + 6)),
        ("attention", 2 * 2 * 4 * 10 * 12 * (8 + 6)),
    ],
)
def test_the_speed_of_light_counts_the_products(case: str, operations: int) -> None:
    function, inputs = CASES[case]
    graph = task_from_module(Wrapped(function), inputs).graph
    assert sum(work_of(graph, node).contraction for node in graph.nodes) == operations


def test_a_product_with_a_diagonal_matrix_sums_nothing(checker: Checker) -> None:
    function, inputs = (lambda a, x: torch.diag(a) @ x), (X[:, 0], X)
    task = checker.task(Wrapped(function), *inputs)
    assert sum(work_of(task.graph, node).other for node in task.graph.nodes) == X.numel()
    assert not checker.compile(task).hosts, "no kernel reduces or contracts"


def test_an_einsum_of_two_arguments_is_probed_for_lost_precision() -> None:
    graph = task_from_module(
        Wrapped(lambda a, b: torch.einsum("bij,jk->bik", a, b)), (QUERY[0], torch.randn(8, 5))
    ).graph
    first, second = (spec.name for spec in graph.inputs)
    for seed, roles in ((0, ("integers", "ones")), (1, ("ones", "integers"))):
        found = exact_roles(graph, seed)
        assert (found[first].role, found[second].role) == roles
        assert found[first].terms == found[second].terms == 8
