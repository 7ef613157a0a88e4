"""Transposed convolutions compute what PyTorch computes, with every parameter and every algorithm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe

_generator = torch.Generator().manual_seed(11)
Case = tuple[Callable[..., object], tuple[torch.Tensor, ...]]


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


CASES: dict[str, Case] = {
    "one dimension, stride one": (lambda x, w: F.conv_transpose1d(x, w), (_normal(2, 3, 9), _normal(3, 5, 4))),
    "one dimension, strided": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, 3, 1, 2), (_normal(2, 3, 7), _normal(3, 5, 4), _normal(5)),
    ),
    "padding beyond the kernel": (
        lambda x, w: F.conv_transpose1d(x, w, stride=2, padding=4), (_normal(2, 3, 9), _normal(3, 4, 3)),
    ),
    "two dimensions, stride one": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, padding=1), (_normal(2, 4, 6, 5), _normal(4, 8, 3, 3), _normal(8)),
    ),
    "twice as large": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), (_normal(2, 4, 6, 4), _normal(4, 8, 4, 4)),
    ),
    "an odd extent": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), (_normal(2, 4, 5, 6), _normal(4, 8, 3, 3)),
    ),
    "output padding": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
        (_normal(2, 4, 5, 4), _normal(4, 8, 3, 3)),
    ),
    "other numbers along each dimension": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, (1, 3), (2, 0), (0, 1), 1, (3, 2)),
        (_normal(2, 4, 5, 4), _normal(4, 6, 3, 5), _normal(6)),
    ),
    "a stride beyond the kernel": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=3), (_normal(1, 4, 5, 4), _normal(4, 6, 2, 1), _normal(6)),
    ),
    "stride and dilation without a common divisor": (
        lambda x, w: F.conv_transpose2d(x, w, stride=(3, 5), padding=(1, 3), dilation=2),
        (_normal(2, 4, 5, 4), _normal(4, 6, 4, 3)),
    ),
    "stride and dilation with a common divisor": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=(2, 4), padding=(1, 3), dilation=(2, 6)).relu(),
        (_normal(2, 4, 5, 4), _normal(4, 6, 3, 3), _normal(6)),
    ),
    "outputs that no input reaches": (
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2, padding=1, dilation=2),
        (_normal(2, 3, 2), _normal(3, 4, 1), _normal(4)),
    ),
    "groups": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 3), (_normal(2, 6, 4, 5), _normal(6, 4, 3, 3), _normal(12)),
    ),
    "depthwise": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=5), (_normal(2, 5, 4, 5), _normal(5, 1, 3, 3)),
    ),
    "three dimensions": (
        lambda x, w, b: F.conv_transpose3d(x, w, b, 2, (1, 2, 3), 1), (_normal(1, 3, 3, 4, 4), _normal(3, 4, 3, 5, 7), _normal(4)),
    ),
    "three dimensions, dilated": (
        lambda x, w: F.conv_transpose3d(x, w, stride=2, padding=1, dilation=(1, 2, 3), groups=2),
        (_normal(1, 4, 3, 2, 4), _normal(4, 3, 3, 3, 2)),
    ),
    "no batch": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (_normal(3, 4, 5), _normal(3, 4, 3, 3), _normal(4)),
    ),
    "functions in front and behind": (
        lambda x, w, b, r: torch.tanh(F.conv_transpose2d(x.relu(), w * 2, b, stride=2, padding=1)) * 0.5 + r,
        (_normal(2, 3, 4, 5), _normal(3, 6, 3, 3), _normal(6), _normal(2, 6, 7, 9)),
    ),
    "a reduction behind": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2).softmax(1), (_normal(2, 3, 4, 4), _normal(3, 6, 3, 3)),
    ),
    "two in a row": (
        lambda x, v, w: F.conv_transpose1d(F.gelu(F.conv_transpose1d(x, v, stride=2)), w, stride=2),
        (_normal(2, 4, 6), _normal(4, 6, 3), _normal(6, 5, 3)),
    ),
}  # fmt: skip


def _anchor(compiled: Compiled) -> str:
    return next(name for name, genes in compiled.genes.items() if "direct" in genes[0].choices)


@pytest.mark.parametrize("name", CASES)
def test_transposed_convolutions_compute_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    assert checker.largest_error(task, checker.compile(task), sanitize=True) < 2e-6


@pytest.mark.parametrize(
    ("algorithm", "genes"),
    [
        ("tiled", {"depth": "split", "stages": 2}),
        ("tiled", {"vec": 4}),
        ("direct", {"vec": 4, "per_thread": 4}),
        ("dot", {"depth": "split", "team": "block"}),
        ("dot", {"per_thread": 4}),
    ],
)
def test_every_algorithm_leaves_out_what_lies_beyond_the_last_phase(
    checker: Checker, algorithm: str, genes: dict[str, str | int]
) -> None:
    """13 outputs are no whole number of phases: the last must write nothing, and read nothing of what is fused."""
    task = checker.task(
        Wrapped(lambda x, w, r: F.silu(F.conv_transpose2d(x, w, stride=(2, 1), padding=1)) + r),
        _normal(2, 72, 7, 4), _normal(72, 6, 3, 3), _normal(2, 6, 13, 4),
    )  # fmt: skip
    region = _anchor(checker.compile(task))
    recipe = Recipe().choosing(region, "algorithm", algorithm)
    for gene, choice in genes.items():
        recipe = recipe.choosing(region, gene, choice)
    compiled = checker.compile(task, recipe)
    chosen = compiled.recipe.genes[region]
    assert {"algorithm": algorithm, **genes}.items() <= dict(chosen).items()
    assert checker.largest_error(task, compiled, sanitize=True) < 2e-6


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float64, 1e-14)])
def test_other_dtypes(checker: Checker, dtype: torch.dtype, limit: float) -> None:
    task = checker.task(
        Wrapped(lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2)),
        *(v.to(dtype) for v in (_normal(2, 5, 6), _normal(5, 4, 3), _normal(4))),
    )
    assert checker.largest_error(task, checker.compile(task), sanitize=True) < limit


def test_the_tail_joins_the_convolution(checker: Checker) -> None:
    """One kernel and no tensor in between, although the extents are odd."""
    task = checker.task(
        Wrapped(lambda x, w, b: F.hardswish(F.conv_transpose2d(x, w, b, stride=2) * 2)),
        _normal(2, 3, 4, 5), _normal(3, 6, 3, 3), _normal(6),
    )  # fmt: skip
    plan = checker.compile(task).program.plan
    assert len(plan.launches) == 1
    assert not plan.buffers


def test_inserted_zeros_are_not_multiplied(checker: Checker) -> None:
    """A sum runs over the taps of one phase, 2 x 2 of a kernel of 4 x 4, not over the whole kernel."""
    task = checker.task(
        Wrapped(lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1)), _normal(1, 3, 4, 4), _normal(3, 5, 4, 4)
    )
    assert "sums of 12 products" in checker.compile(task).program.source


def test_infinities_stay_where_they_reach(checker: Checker) -> None:
    """A tap that is beyond the kernel must not make NaN of an infinite input."""
    x = _normal(1, 2, 5)
    x[0, 0, 2] = float("inf")
    task = checker.task(Wrapped(lambda x, w: F.conv_transpose1d(x, w, stride=2)), x, _normal(2, 3, 3).abs())
    assert checker.largest_error(task, checker.compile(task), sanitize=True) < 2e-6
