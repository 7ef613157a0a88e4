"""Strips: depthwise convolutions and pooling in which every thread slides its window over several outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Recipe, compile_graph
from warpsmith.records import Graph, Node, Ref, TensorSpec

_generator = torch.Generator().manual_seed(11)
Convolution = Callable[..., torch.Tensor]


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


CASES: dict[str, tuple[Convolution, tuple[torch.Tensor, ...]]] = {
    "padded": (lambda x, w: F.conv2d(x, w, padding=1, groups=3), (_normal(2, 3, 8, 9), _normal(3, 1, 3, 3))),
    "strided, with bias and activation": (
        lambda x, w, b: F.relu(F.conv2d(x, w, b, stride=2, padding=2, groups=2)),
        (_normal(2, 2, 15, 17), _normal(2, 1, 5, 5), _normal(2)),
    ),
    "dilated as it is strided": (
        lambda x, w: F.conv2d(x, w, stride=2, dilation=2, groups=2), (_normal(1, 2, 19, 17), _normal(2, 1, 3, 3)),
    ),
    "a tall window": (lambda x, w: F.conv2d(x, w, groups=2), (_normal(2, 2, 12, 5), _normal(2, 1, 5, 1))),
    "one channel": (lambda x, w: F.conv2d(x, w, padding=1), (_normal(3, 1, 8, 8), _normal(1, 1, 3, 3))),
    "several channels into one": (lambda x, w: F.conv2d(x, w), (_normal(2, 4, 10, 9), _normal(1, 4, 3, 3))),
    "three dimensions": (
        lambda x, w: F.conv3d(x, w, padding=1, groups=2), (_normal(1, 2, 4, 4, 5), _normal(2, 1, 3, 3, 3)),
    ),
    "largest": (lambda x: F.max_pool2d(x, 3, 2, 1), (_normal(2, 3, 16, 11),)),
    "mean, fused behind": (lambda x: F.avg_pool2d(x, 3, 1, 1).sigmoid() * 2, (_normal(2, 3, 8, 9),)),
    "mean without the border": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), (_normal(2, 3, 15, 13),)),
    "largest of a volume": (lambda x: F.max_pool3d(x, 3, 2), (_normal(2, 2, 9, 9, 11),)),
    "several windows": (lambda x: F.max_pool2d(x, 3, 1) - F.avg_pool2d(x, 3, 1), (_normal(1, 2, 10, 9),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_strips_of_every_length_compute_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    start = compile_graph(task.graph, Recipe(), GPU)
    (region,) = [r for r, genes in start.genes.items() if any("strip" in g.choices for g in genes)]
    (choices,) = [g.choices for g in start.genes[region] if g.name == "strip"]
    assert len(choices) > 1
    for length in choices:
        recipe = start.recipe.choosing(region, "algorithm", "strip").choosing(region, "strip", length)
        compiled = compile_graph(task.graph, recipe, GPU)
        assert f"OUTPUTS = {length}" in compiled.program.source
        assert checker.largest_error(task, compiled) < 1e-6


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x, w: F.conv2d(x, w, padding=1), (_normal(1, 3, 8, 8), _normal(4, 3, 3, 3))),
        (lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=2), (_normal(1, 2, 6, 6), _normal(2, 1, 4, 4))),
        (lambda x, w: F.conv2d(x, w, dilation=2, groups=2), (_normal(1, 2, 12, 11), _normal(2, 1, 3, 3))),
        (lambda x: F.max_pool2d(x, 2), (_normal(1, 2, 8, 8),)),
        (lambda x: x.softmax(1), (_normal(8, 3),)),
        (lambda a, b: a @ b, (_normal(8, 8), _normal(8, 1))),
    ],
)
def test_strips_are_offered_only_where_windows_slide_for_one_channel(
    function: Convolution, inputs: tuple[torch.Tensor, ...], checker: Checker
) -> None:
    start = compile_graph(checker.task(Wrapped(function), *inputs).graph, Recipe(), GPU)
    assert not any("strip" in gene.choices for genes in start.genes.values() for gene in genes)


@pytest.mark.parametrize("op", ["aten.conv2d.default", "aten.avg_pool2d.default"])
def test_places_in_tensors_beyond_32_bits_are_wide(checker: Checker, op: str) -> None:
    """Where a row has 2^29 elements, the fifth below one is further away than an int can say."""
    x, w, out = (
        TensorSpec(name, shape, "float32")
        for name, shape in (("x", (1, 2, 8, 1 << 29)), ("w", (2, 1, 3, 3)), ("out", (1, 2, 8, 1 << 29)))
    )
    convolution = op == "aten.conv2d.default"
    args = (Ref("x"), Ref("w"), None, (1, 1), (1, 1), (1, 1), 2) if convolution else (Ref("x"), (3, 3), (1, 1), (1, 1))
    inputs = (x, w) if convolution else (x,)
    graph = Graph(inputs, (), (), (), (Node("slide", op, args, (), (out,)),), ((out, Ref("slide")),))
    compiled = compile_graph(graph, Recipe(), GPU)
    assert "OUTPUTS = 8" in compiled.program.source
    for variable in ("y", "i"):
        assert f"for (ptrdiff_t {variable} = 0" in compiled.program.source
    assert checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90").ok
