"""Attention in one kernel: whoever wrote it, in every precision, with every tile; and apart where a recipe says so."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.author.conftest import GPU, Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe, compile_graph
from warpsmith.author.builtin.compile import usual_cuts
from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.attention_range import Range, visible
from warpsmith.author.builtin.scalar import Literal, Local, apply, position
from warpsmith.device.catalog import GPUS
from warpsmith.records import Graph, Node, Ref, TensorSpec

Case = tuple[Callable[..., object], tuple[torch.Tensor, ...], float]
_generator = torch.Generator().manual_seed(11)
INF = float("inf")
FLOAT32, FLOAT16, BFLOAT16 = 2e-6, 1e-3, 8e-3


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


def _sdpa(**options: object) -> Callable[..., torch.Tensor]:
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)  # type: ignore[arg-type]


def _scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.shape[-1]))


def _masked_softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    return F.softmax(_scores(q, k).masked_fill(hidden, -INF), dim=-1) @ v


def _heads(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As models of the GPT family write it: one product for all three operands, a triangle of ones as a buffer."""
    batch, length, width = x.shape
    q, k, v = (t.view(batch, length, 2, width // 2).transpose(1, 2) for t in F.linear(x, w, b).split(width, dim=2))
    scores = _scores(q, k).masked_fill(mask[:, :, :length, :length] == 0, -INF)
    return F.softmax(scores, dim=-1) @ v


def _relu_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    length = q.shape[-2]
    return F.relu(_scores(q, k).masked_fill(torch.tril(torch.ones(length, length)) == 0, -INF)) @ v


def _window(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    length = q.shape[-2]
    near = torch.ones(length, length).tril(0).triu(-4)
    return F.softmax(_scores(q, k).masked_fill(near == 0, -INF), dim=-1) @ v


def _weighted(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """What is left to do to each share after the softmax."""
    return (F.softmax(_scores(q, k), dim=-1) * w) @ v


def _transposed_result(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bcj,bij->bci", v, F.softmax(torch.einsum("bdi,bdj->bij", q, k), dim=-1))


Q, K, V = _normal(2, 2, 20, 16), _normal(2, 2, 24, 16), _normal(2, 2, 24, 12)
SQUARE = tuple(_normal(1, 2, 37, 8) for _ in range(3))
SEEN = torch.rand(20, 24, generator=_generator) > 0.4
SEEN[3] = False

CASES: dict[str, Case] = {
    "float32": (_sdpa(), (Q, K, V), FLOAT32),
    "float16": (_sdpa(), (Q.half(), K.half(), V.half()), FLOAT16),
    "bfloat16": (_sdpa(scale=0.3), (Q.bfloat16(), K.bfloat16(), V.bfloat16()), BFLOAT16),
    "causal": (_sdpa(is_causal=True), SQUARE, FLOAT32),
    "causal, more keys than queries": (_sdpa(is_causal=True), (Q, K, V), FLOAT32),
    "a mask that hides a whole row": (_sdpa(), (Q, K, V, SEEN), FLOAT32),
    "the same by hand: that row is no number": (_masked_softmax, (Q, K, V, ~SEEN), FLOAT32),
    "a mask to add": (_sdpa(), (Q, K, V, _normal(2, 1, 20, 24)), FLOAT32),
    "shared heads": (_sdpa(enable_gqa=True), (_normal(1, 4, 9, 8), _normal(1, 2, 11, 8), _normal(1, 2, 11, 8)), FLOAT32),
    "one head for all queries": (_sdpa(), (_normal(1, 4, 9, 8), _normal(1, 1, 11, 8), _normal(1, 1, 11, 8)), FLOAT32),
    "by hand, in float16": (_masked_softmax, (Q.half(), K.half(), V.half(), ~SEEN[:1]), FLOAT16),
    "no softmax": (_relu_attention, SQUARE, FLOAT32),
    "no softmax, bfloat16": (_relu_attention, tuple(t.bfloat16() for t in SQUARE), BFLOAT16),
    "no softmax, float16, shares that half cannot hold": (
        lambda q, k, v: F.relu(q @ k.transpose(-2, -1)) @ v,
        (100 * Q.half(), 100 * K.half(), V.half() / 100), FLOAT16,
    ),
    "a window": (_window, SQUARE, FLOAT32),
    "weights behind the softmax": (_weighted, (Q, K, V, _normal(20, 24)), FLOAT32),
    "shares on the right": (_transposed_result, (_normal(2, 6, 9), _normal(2, 6, 10), _normal(2, 5, 10)), FLOAT32),
    "odd lengths and widths": (_sdpa(), (_normal(3, 7, 9), _normal(3, 13, 9), _normal(3, 13, 5)), FLOAT32),
    "odd lengths and widths, float16": (
        _sdpa(), (_normal(3, 7, 9).half(), _normal(3, 13, 9).half(), _normal(3, 13, 5).half()), FLOAT16,
    ),
    "wide heads": (_sdpa(), (_normal(1, 18, 260), _normal(1, 21, 260), _normal(1, 21, 268)), FLOAT32),
    "wide heads, float16": (_sdpa(), tuple(_normal(1, 19, 512).half() for _ in range(3)), FLOAT16),
    "work in front and behind": (
        lambda q, k, v, r: F.gelu(F.scaled_dot_product_attention(q * 2 + 1, k.sin(), v.exp()) + r),
        (Q, K, V, _normal(2, 2, 20, 12)), FLOAT32,
    ),
    "large scores": (_sdpa(), (64 * Q, K, V), FLOAT32 * 64),
}  # fmt: skip


def attention_of(compiled: Compiled) -> str:
    """The name of the region that is an attention."""
    (name,) = (
        r
        for r, genes in compiled.genes.items()
        if genes and "/" in str(genes[0].choices[0]) and genes[0].name == "tile"
    )
    return name


@pytest.mark.parametrize("name", CASES)
def test_one_kernel_computes_what_pytorch_computes(checker: Checker, name: str) -> None:
    function, inputs, limit = CASES[name]
    task = checker.task(Wrapped(function), *inputs)
    compiled = checker.compile(task)
    assert len(compiled.program.plan.launches) == 1
    assert attention_of(compiled)
    assert checker.largest_error(task, compiled, sanitize=True) <= limit


def _relative(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, table: torch.Tensor, weight: torch.Tensor, index: torch.Tensor
) -> torch.Tensor:
    """Windows of Swin: what is added to the scores is a product too, looked up by the distance of two positions."""
    bias = F.linear(F.relu(table), weight)[index.view(-1)].view(*index.shape, -1).permute(2, 0, 1)
    return F.softmax(_scores(q, k) + 16 * torch.sigmoid(bias), dim=-1) @ v


def test_a_product_that_is_looked_up_is_not_taken_for_the_scores(checker: Checker) -> None:
    index = torch.randint(0, 40, (37, 37), generator=_generator)
    task = checker.task(Wrapped(_relative), *SQUARE, _normal(40, 24), _normal(2, 24), index)
    compiled = checker.compile(task)
    assert attention_of(compiled)
    assert "scores of 8 products" in compiled.program.source
    assert checker.largest_error(task, compiled, sanitize=True) <= FLOAT32


def test_keys_that_are_looked_up_are_not_looked_up_beyond_the_last(checker: Checker) -> None:
    """A tile of keys sticks out behind the 37th, where the index ends as well."""
    index = torch.randint(0, 50, (37,), generator=_generator)
    task = checker.task(
        Wrapped(lambda q, table, v, index: F.softmax(q @ table[index].T, dim=-1) @ v), *_LOOKED_UP, index
    )
    compiled = checker.compile(task)
    assert attention_of(compiled) and "copy_async" in compiled.program.source
    assert checker.largest_error(task, compiled, sanitize=True) <= FLOAT32


_LOOKED_UP = (_normal(37, 8), _normal(50, 8), _normal(37, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [24, 200])
def test_every_kind_of_tile_is_another_program_and_right(checker: Checker, dtype: torch.dtype, width: int) -> None:
    inputs = tuple(_normal(1, 37, width).to(dtype) for _ in range(3))
    task = checker.task(Wrapped(_sdpa(is_causal=True)), *inputs)
    default = checker.compile(task)
    region = attention_of(default)
    tiles, *others = default.genes[region]
    # One for each number of tiles in shared memory: each is another order of copies and barriers.
    chosen = {text.rpartition("/")[2]: text for text in map(str, reversed(tiles.choices))}
    assert {"1", "2", "4"} == set(chosen)
    recipes = [Recipe().choosing(region, "tile", text) for text in chosen.values()]
    recipes += [Recipe().choosing(region, gene.name, gene.choices[-1]) for gene in others]
    sources = {default.program.source}
    for recipe in recipes:
        compiled = checker.compile(task, recipe)
        limit = FLOAT32 if dtype == torch.float32 else BFLOAT16
        assert checker.largest_error(task, compiled, sanitize=True) <= limit, recipe
        sources.add(compiled.program.source)
    assert len(sources) >= len(recipes)


def test_the_usual_recipe_leaves_attention_whole(checker: Checker) -> None:
    """Operands are stored once, as before any contraction; but not what stands between the two products."""
    mask = torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32)
    task = checker.task(Wrapped(_heads), _normal(2, 17, 16), _normal(48, 16) / 4, _normal(48), mask)
    compiled = checker.compile(task, Recipe(cuts=usual_cuts(task.graph)))
    assert [launch.kernel for launch in compiled.program.plan.launches] == ["linear_kernel", "matmul_1_kernel"]
    assert checker.largest_error(task, compiled, sanitize=True) <= FLOAT32


def test_a_recipe_can_take_it_apart(checker: Checker) -> None:
    task = checker.task(Wrapped(lambda q, k, v: F.relu(F.scaled_dot_product_attention(q, k, v))), Q, K, V)
    whole = checker.compile(task)
    mix, scores = whole.hosts
    launches = {}
    for name in whole.hosts:
        apart = checker.compile(task, Recipe(unfused=frozenset({name})))
        assert checker.largest_error(task, apart) <= FLOAT32
        launches[name] = len(apart.program.plan.launches)
        assert {mix, scores} <= set(apart.hosts), "so that another recipe can join it again"
    assert launches == {scores: 3, mix: 4}, "its own name also leaves the mix without epilogue"


def test_scores_that_someone_else_needs_are_not_taken_away(checker: Checker) -> None:
    def both(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shares = F.softmax(_scores(q, k), dim=-1)
        return shares @ v, shares

    task = checker.task(Wrapped(both), Q, K, V)
    compiled = checker.compile(task)
    assert len(compiled.program.plan.launches) > 1
    assert checker.largest_error(task, compiled) <= FLOAT32


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x, a, b: F.relu(x @ a) @ b, (_normal(18, 20), _normal(20, 24), _normal(24, 16))),
        (_sdpa(), (Q.double(), K.double(), V.double())),
    ],
)
def test_layers_of_a_network_and_float64_are_no_attention(
    checker: Checker, function: Callable[..., object], inputs: tuple[torch.Tensor, ...]
) -> None:
    compiled = checker.compile(checker.task(Wrapped(function), *inputs))
    assert len(compiled.program.plan.launches) > 1


def test_masks_of_positions_bound_the_keys_to_look_at() -> None:
    query, key = Axis("m", 64), Axis("key", 64)
    score, hidden = Local("score", "float32", frozenset({query, key})), Literal(-INF, "float32")
    q, k = position(query), position(key)
    causal = apply("where", apply("le", k, q), score, hidden, dtype="float32")
    assert visible(causal, query, key, -INF) == Range(None, 0)
    ahead = apply("where", apply("gt", k, position(lift(query) + 2)), hidden, causal, dtype="float32")
    assert visible(ahead, query, key, -INF) == Range(None, 0)
    near = apply("where", apply("lt", position(lift(key) + 5), q), hidden, causal, dtype="float32")
    assert visible(near, query, key, -INF) == Range(-5, 0)
    biased = apply("add", causal, score)
    assert visible(biased, query, key, -INF) == Range(None, 0)
    ones = apply("where", apply("le", k, q), Literal(1.0, "float32"), Literal(0.0, "float32"), dtype="float32")
    filled = apply("where", apply("eq", ones, Literal(0.0, "float32")), hidden, score, dtype="float32")
    assert visible(filled, query, key, -INF) == Range(None, 0)
    # A mask that a factor or another choice may lift says nothing.
    lifted = apply("where", apply("lt", score, hidden), score, causal, dtype="float32")
    assert visible(lifted, query, key, -INF) == Range()
    assert visible(apply("mul", causal, score), query, key, -INF) == Range()
    assert visible(apply("mul", ones, score), query, key, 0.0) == Range(None, 0)


def test_a_causal_mask_ends_the_loop_over_keys(checker: Checker) -> None:
    """Otherwise half of the work would be done for keys that no query of the block sees."""
    source = checker.compile(checker.task(Wrapped(_sdpa(is_causal=True)), *SQUARE)).program.source
    assert "start < last" in source
    assert "start < last" not in checker.compile(checker.task(Wrapped(_sdpa()), *SQUARE)).program.source


def _graph(batch: int, length: int, width: int, dtype: str) -> Graph:
    q, k, v, out = (TensorSpec(name, (batch, length, width), dtype) for name in ("q", "k", "v", "out"))
    node = Node("sdpa", "aten.scaled_dot_product_attention.default", (Ref("q"), Ref("k"), Ref("v")), (), (out,))
    return Graph((q, k, v), (), (), (), (node,), ((out, Ref("sdpa")),))


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_gpu_has_room_for_the_widest_heads(gpu: str, dtype: str) -> None:
    compiled = compile_graph(_graph(4, 512, 1024, dtype), Recipe(), GPUS[gpu])
    (launch,) = compiled.program.plan.launches
    assert int(launch.shared) <= GPUS[gpu].shared_per_block


@pytest.mark.parametrize(
    ("batch", "length", "width", "dtype"),
    [(96, 1024, 64, "float32"), (96, 1024, 64, "float16"), (64, 2048, 128, "bfloat16"), (64, 512, 1024, "float16")],
)
def test_the_first_tile_builds_without_spills(
    checker: Checker, batch: int, length: int, width: int, dtype: str
) -> None:
    compiled = compile_graph(_graph(batch, length, width, dtype), Recipe(), GPU)
    build = checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90")
    assert build.ok, build.diagnostics
    assert [r.spill_loads for r in build.resources] == [0]


def test_tensors_beyond_32_bit_offsets_compile_with_wide_indices(checker: Checker) -> None:
    compiled = compile_graph(_graph(40_000, 1000, 64, "float16"), Recipe(), GPU)
    assert "ptrdiff_t" in compiled.program.source
    assert checker.builder.build(compiled.program, dict(compiled.tunables), "sm_90").ok


class _Named(torch.nn.Module):
    """Its inputs are called like variables of the kernel."""

    def forward(
        self, row: torch.Tensor, key: torch.Tensor, score: torch.Tensor, c: torch.Tensor, end: torch.Tensor
    ) -> torch.Tensor:
        hidden = torch.ones(24, 24).triu(1) != 0
        return F.softmax(_scores(row, key).masked_fill(hidden, -INF) + end, dim=-1) @ score + c


def test_inputs_may_be_called_like_variables_of_the_kernel(checker: Checker) -> None:
    task = checker.task(_Named(), K, K.flip(0), V, V.flip(0), _normal(24, 24))
    compiled = checker.compile(task)
    assert checker.largest_error(task, compiled, sanitize=True) <= FLOAT32
