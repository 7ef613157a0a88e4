"""Every kind of operator that the built-in author lowers computes what PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import Checker

torch.manual_seed(0)
X = torch.randn(6, 20)
Y = torch.randn(6, 20)
P = torch.rand(6, 20) + 0.1
SPECIAL = torch.tensor([[0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e-40, 88.5, -104.0]])
IMAGE = torch.randn(2, 6, 9, 7)
LONG = torch.randn(3, 700)
INTEGERS = torch.randint(-50, 50, (6, 20))
CLASSES = torch.randint(0, 20, (6,))
IGNORED = torch.tensor([3, -100, 5, 0, -100, 19])
HALF = torch.randn(4, 33).half()
BRAIN = torch.randn(4, 34).bfloat16()
DOUBLE = torch.randn(5, 11, dtype=torch.float64)

CASES: dict[str, tuple[Callable[..., object], tuple[torch.Tensor, ...]]] = {
    "arithmetic": (lambda x, y: (x + 2 * y - y / 3) * (1 - x), (X, Y)),
    "alpha": (lambda x, y: torch.add(x, y, alpha=3) + torch.sub(x, y, alpha=0.5) + torch.rsub(x, 2), (X, Y)),
    "broadcast": (lambda x, y: x[:, None] * y[None] + 1, (X[:, 0], Y[0])),
    "exponentials": (lambda x: torch.exp(x) + torch.expm1(x) + torch.exp2(x) + torch.log1p(x.abs()), (X,)),
    "logarithms": (lambda x: torch.log(x) + torch.log2(x) + torch.log10(x), (P,)),
    "roots": (lambda x: x.sqrt() + x.rsqrt() + x.reciprocal() + x**0.5 + x**3 + x**-1 + x**2.5, (P,)),
    "powers": (lambda x, y: torch.pow(x, y) + torch.pow(2.0, y), (P, Y)),
    "trigonometry": (lambda x: x.sin() + x.cos() + x.tan() + x.sinh() + x.cosh() + x.tanh() + x.atan(), (X,)),
    "inverse trigonometry": (lambda x: (x * 0.5).asin() + (x * 0.5).acos(), (P,)),
    "error functions": (lambda x: x.erf() + x.erfc(), (X,)),
    "rounding": (lambda x: x.floor() + 2 * x.ceil() + 3 * x.round() + 5 * x.trunc() + x.sign(), (X * 5,)),
    "remainders": (lambda x, y: torch.remainder(x, 0.7) + torch.fmod(x, y) + torch.floor_divide(x, y), (X, Y)),
    "rounded division": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (X, Y)),
    "integers": (lambda x: (x * 3 - 7) // 4 + x % 5 + x.abs() + (x & 12) + (x | 3) + (x ^ 9), (INTEGERS,)),
    "integer to float": (lambda x: x / 3 + x.float().mean(), (INTEGERS,)),
    "comparisons": (lambda x, y: ((x < y) & (x > 0)) | (x >= 1) | ~(y <= 0), (X, Y)),
    "where": (lambda x, y: torch.where(x > y, x, 0.5) + torch.where(x == y, y, x), (X, Y)),
    "masked_fill": (lambda x: x.masked_fill(x < 0, -1.0) + x.masked_fill(x.isnan(), 0.0), (X,)),
    "clamps": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp_max(1.0) + F.hardtanh(x) + F.relu6(x), (X,)),
    "extremes": (lambda x, y: torch.maximum(x, y) - torch.minimum(x, y), (X, Y)),
    "special values": (lambda x: (x.relu(), x.sigmoid(), x.tanh(), x.exp(), F.gelu(x), x.abs(), x.log()), (SPECIAL,)),
    "special extremes": (lambda x: (x.amax(1), x.amin(1), x.argmax(1), torch.maximum(x, x.flip(1))), (SPECIAL,)),
    "softmax of special values": (lambda x: x.softmax(1), (SPECIAL[:, 4:].repeat(2, 9),)),
    "gelu": (lambda x: F.gelu(x) + F.gelu(x, approximate="tanh"), (X,)),
    "gates": (lambda x: F.silu(x) + F.mish(x) + F.hardswish(x) + F.hardsigmoid(x) + F.logsigmoid(x), (X,)),
    "rectifiers": (
        lambda x: F.elu(x) + F.selu(x) + F.celu(x, 0.7) + F.leaky_relu(x, 0.1) + F.threshold(x, 0.2, -1),
        (X,),
    ),
    "soft functions": (lambda x: F.softplus(x, 2.0) + F.softsign(x) + F.tanhshrink(x), (X,)),
    "addcmul": (lambda x, y: torch.addcmul(x, x, y, value=0.3) + torch.lerp(x, y, 0.25), (X, Y)),
    "reshape": (lambda x: x.view(2, 3, 4, 5).flatten(1).reshape(8, 15) * 2, (X,)),
    "permute": (lambda x: x.permute(0, 3, 1, 2).contiguous() + 1, (IMAGE,)),
    "transpose": (lambda x, y: x.t() @ y * 1.0 + 0, (X, Y)),
    "slices": (lambda x: x[1:5, 3::2] + x[-4:, -17::2], (X,)),
    "select": (lambda x: x[2] + x[:, 3].sum() + x.narrow(1, 2, 20 - 2).sum(), (X,)),
    "cat": (lambda x, y: torch.cat([x, y[:, :7], x[:, :1]], 1) * 2, (X, Y)),
    "stack": (lambda x, y: torch.stack([x, y, x * y], 1), (X, Y)),
    "split": (lambda x: torch.split(x, 7, 1)[1] + torch.chunk(x, 3, 1)[0], (X[:, :19],)),
    "unbind": (lambda x: x.unbind(0)[0] * x.unbind(0)[5] + sum(x.unbind(0)[1:5]), (X,)),
    "pad": (lambda x: F.pad(x, (2, 1, 0, 3), value=1.5) + 1, (IMAGE,)),
    "negative pad": (lambda x: F.pad(x, (-2, 1)), (X,)),
    "circular pad": (lambda x: F.pad(x, (1, 2, 1, 1), mode="circular"), (IMAGE,)),
    "roll and flip": (lambda x: x.roll(3, 1) + x.roll((1, 2), (0, 1)) + x.flip(0, 1) + x.roll(5), (X,)),
    "repeat": (lambda x: x.repeat(2, 3) + x.tile(3).repeat(2, 1), (X[:, :4],)),
    "expand": (lambda x: x[:, :, None].expand(6, 20, 3) * torch.arange(3), (X,)),
    "triangles": (lambda x: x.tril(1) - x.triu(-1), (X,)),
    "factories": (
        lambda x: x + torch.ones(20) * torch.full((20,), 2.0) + torch.arange(1, 21, dtype=torch.float32),
        (X,),
    ),
    "sums": (lambda x: (x.sum(), x.sum(0), x.sum(1, keepdim=True), x.mean((0, 1)), x.mean(1)), (X,)),
    "image sums": (lambda x: (x.sum((0, 2, 3)), x.mean((2, 3)), x.sum(1), x.sum((1, 3))), (IMAGE,)),
    "products": (lambda x: (x.prod(1), x.prod(0, keepdim=True)), (P,)),
    "integer sums": (lambda x: (x.sum(), x.sum(1), (x > 3).sum(0), x.amax(0), x.amin(1)), (INTEGERS,)),
    "any and all": (lambda x: ((x > 2).any(1), (x > -2).all(0), (x > 9).any()), (X,)),
    "argmax": (lambda x: (x.argmax(1), x.argmin(0), x.argmax(), x.argmax(1, keepdim=True)), (X,)),
    "first of equals": (lambda x: ((x > 0).float().argmax(1), x.round().argmin(1)), (LONG,)),
    "max with index": (lambda x: (*x.max(1), *x.min(0)), (X,)),
    "variance": (lambda x: (x.var(1), x.std(0), x.var(unbiased=False), x.var(1, keepdim=True)), (X + 10,)),
    "norms": (
        lambda x: (x.norm(dim=1), x.norm(1, dim=1), x.norm(float("inf"), dim=0), x.norm(3, dim=1), x.norm()),
        (X,),
    ),
    "normalize": (lambda x: F.normalize(x, dim=1) + x / x.abs().mean(1, keepdim=True), (X,)),
    "softmax": (lambda x: x.softmax(1) + x.softmax(0) + x.log_softmax(1), (X,)),
    "long softmax": (lambda x: x.softmax(1), (LONG,)),
    "logsumexp": (lambda x: (x.logsumexp(1), x.logsumexp((0, 1)), x.logsumexp(0, keepdim=True)), (X,)),
    "two norms": (lambda x: F.layer_norm(F.rms_norm(x, (20,)) + x, (20,)), (X,)),
    "layer norm": (lambda x: F.layer_norm(x, (9, 7)), (IMAGE,)),
    "group norm": (lambda x: F.group_norm(x, 3).relu(), (IMAGE,)),
    "instance norm": (lambda x: F.instance_norm(x) + 1, (IMAGE,)),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), (IMAGE,)),
    "max pool": (
        lambda x: F.max_pool2d(x, 3, 2, 1) + F.max_pool2d(x, (2, 1), (2, 2), dilation=1)[..., :5, :4].sum(),
        (IMAGE,),
    ),
    "dilated pool": (lambda x: F.max_pool2d(x, 2, 1, dilation=2), (IMAGE,)),
    "average pool": (lambda x: F.avg_pool2d(x, 3, 2, 1) * 2, (IMAGE,)),
    "pools of other ranks": (
        lambda x: F.max_pool1d(x[0], 3, 2).sum() + F.avg_pool1d(x[0], 2) + F.max_pool3d(x, 2).sum(),
        (IMAGE,),
    ),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, (3, 1)), (IMAGE,)),
    "gather": (lambda x, i: x.gather(1, i[:, None]) + x[:, :1], (X, CLASSES)),
    "index select": (lambda x, i: x.index_select(1, i) * 2, (X, CLASSES)),
    "fancy index": (lambda x, i: x.t()[i] + x[:6, i].t(), (X, CLASSES)),
    "embedding": (lambda w, i: F.embedding(i, w) * 0.5, (torch.randn(20, 12), CLASSES.view(2, 3))),
    "cross entropy": (lambda x, t: (F.cross_entropy(x, t), F.cross_entropy(x, t, reduction="none")), (X, CLASSES)),
    "ignored classes": (lambda x, t: (F.cross_entropy(x, t), F.nll_loss(x, t, reduction="sum")), (X, IGNORED)),
    "image cross entropy": (lambda x, t: F.cross_entropy(x, t), (IMAGE, torch.randint(0, 6, (2, 9, 7)))),
    "regression losses": (
        lambda x, y: F.mse_loss(x, y) + F.l1_loss(x, y) + F.smooth_l1_loss(x, y) + F.huber_loss(x, y),
        (X, Y),
    ),
    "divergences": (lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"), (X, Y)),
    "binary cross entropy": (lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()), (X, Y)),
    "triplet": (lambda x, y: F.triplet_margin_loss(x, y, x.flip(0)), (X, Y)),
    "cosine": (lambda x, y: F.cosine_similarity(x, y, dim=1), (X, Y)),
    "half": (lambda x: F.gelu(x) + x.softmax(1), (HALF,)),
    "bfloat16": (lambda x: F.layer_norm(x, (34,)) * 2, (BRAIN,)),
    "double": (lambda x: x.softmax(1) + x.exp().sum(0) + x.var(1, keepdim=True), (DOUBLE,)),
    "scalar input": (lambda x: x * 2 + 1, (torch.tensor(3.0),)),
    "identity": (lambda x: (x, x.t()), (X,)),
}
# Half precisions round once on the way out; everything else is float32 arithmetic.
_LIMITS = {"half": 1e-3, "bfloat16": 8e-3, "double": 1e-13}


class _Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_compute_the_operator(checker: Checker, name: str) -> None:
    function, inputs = CASES[name]
    task = checker.task(_Wrapped(function), *inputs)
    error = checker.largest_error(task, checker.compile(task), sanitize=True)
    assert error < _LIMITS.get(name, 4e-6)
