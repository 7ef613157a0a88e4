"""Layers that are alike share kernels: the results stay right, and a deep network stays short."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.author.conftest import Checker
from tests.author.modules import Wrapped
from warpsmith.author.builtin import Compiled, Recipe
from warpsmith.author.builtin import compile as compiling
from warpsmith.author.builtin.compile import usual_cuts
from warpsmith.author.builtin.constants import Constants
from warpsmith.author.builtin.kernels.emission import Kernels
from warpsmith.author.builtin.sharing import shared
from warpsmith.author.builtin.skeleton import take_apart
from warpsmith.records import Launch, Program, Task, frozen

_generator = torch.Generator().manual_seed(3)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator)


class Chain(nn.Module):
    """Linear layers of the widths given, each followed by a ReLU."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


class Branches(nn.Module):
    """The same function of each input."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(self.function, inputs))


def _rows(checker: Checker, *widths: int) -> Task:
    """Normalise rows: the mean divides by the width as a floating-point number."""
    inputs = [_normal(5, width) for width in widths]
    return checker.task(Branches(lambda x: (x - x.mean(1, keepdim=True)) / (x * x).mean(1, keepdim=True)), *inputs)


def _compile(checker: Checker, task: Task, tunables: Mapping[str, int] | None = None) -> Compiled:
    return checker.compile(task, Recipe(usual_cuts(task.graph), tunables=frozen(tunables)))


def _kernels(compiled: Compiled) -> int:
    return compiled.program.source.count("__global__")


def _launched(program: Program) -> list[str]:
    return [launch.kernel for launch in program.plan.launches]


def _unshared(monkeypatch: pytest.MonkeyPatch, checker: Checker, task: Task) -> Compiled:
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "shared", lambda kernels: kernels)
        return _compile(checker, task)


def test_equal_layers_launch_one_kernel_with_their_own_tensors(checker: Checker) -> None:
    task = checker.task(Chain(32, 32, 32, 32, 32), _normal(17, 32))
    compiled = _compile(checker, task)
    launches = compiled.program.plan.launches
    assert _kernels(compiled) == 1
    assert len(launches) == 4
    assert len({launch.kernel for launch in launches}) == 1
    for number, launch in enumerate(launches):
        assert {f"layers_{number}_weight", f"layers_{number}_bias"} < set(launch.args)
    assert "Launched 4 times" in compiled.program.source
    assert "layers_0" not in compiled.program.source, "a kernel of many layers must not name the first one's tensors"
    assert checker.largest_error(task, compiled, sanitize=True) < 1e-5


def test_equal_layers_share_their_tunables(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    task = checker.task(Chain(32, 32, 32, 32), _normal(9, 32))
    compiled, apart = _compile(checker, task), _unshared(monkeypatch, checker, task)
    assert 3 * len(compiled.program.plan.tunables) == len(apart.program.plan.tunables)
    for name, values in compiled.program.plan.tunables:
        assert checker.largest_error(task, _compile(checker, task, {name: values[-1]})) < 1e-5


def test_layers_of_different_sizes_share_a_template(checker: Checker) -> None:
    task = _rows(checker, 260, 520, 780)
    compiled = _compile(checker, task)
    source = compiled.program.source
    assert _kernels(compiled) == 3
    assert source.count("__device__ __forceinline__ void") == 1
    assert source.count("_body<") == 3
    assert len(set(_launched(compiled.program))) == 3
    assert checker.largest_error(task, compiled, sanitize=True) < 1e-5


def test_few_variants_keep_tunables_of_their_own(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    task = _rows(checker, 260, 520, 780)
    compiled, apart = _compile(checker, task), _unshared(monkeypatch, checker, task)
    assert compiled.program.plan.tunables == apart.program.plan.tunables
    mixed = {name: v[at % len(v)] for at, (name, v) in enumerate(compiled.program.plan.tunables)}
    assert checker.largest_error(task, _compile(checker, task, mixed)) < 1e-5


def test_many_sizes_become_arguments_of_one_kernel(checker: Checker) -> None:
    depths = (64, 96, 128, 160, 192, 224)
    weights = [_normal(depth, 24) for depth in depths]

    def products(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(x @ w for x, w in zip(inputs[::2], inputs[1::2]))

    pairs = [t for depth, w in zip(depths, weights) for t in (_normal(20, depth), w)]
    task = checker.task(Wrapped(products), *pairs)
    compiled = _compile(checker, task)
    given = [[arg for arg in launch.args if arg.isdigit()] for launch in compiled.program.plan.launches]
    assert _kernels(compiled) == 1
    assert [str(depth) in numbers for depth, numbers in zip(depths, given)] == [True] * len(depths)
    assert checker.largest_error(task, compiled, sanitize=True) < 1e-5


def test_layers_that_name_their_tensors_in_another_order_share_a_kernel(checker: Checker) -> None:
    class Named(nn.Module):
        """Weights that sort before and behind what is computed, so that signatures differ in order."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.q, self.z = (nn.Linear(32, 32, bias=False) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in (self.a, self.q, self.z):
                x = layer(x).tanh()
            return x

    task = checker.task(Named(), _normal(9, 32))
    compiled = _compile(checker, task)
    assert _kernels(compiled) == 1
    places = [[w in arg for arg in launch.args].index(True) for w, launch in _weights(compiled)]
    assert len(set(places)) == 1, "every launch must pass its weight where the kernel takes it"
    assert checker.largest_error(task, compiled) < 1e-5


def _weights(compiled: Compiled) -> list[tuple[str, Launch]]:
    return list(zip(("a_weight", "q_weight", "z_weight"), compiled.program.plan.launches, strict=True))


def test_scratch_memory_follows_the_tunables_of_the_kernel_that_is_shared(checker: Checker) -> None:
    task = checker.task(Branches(lambda x: x.sum(1)), *(_normal(2, 8192) for _ in range(3)))
    regions = [region for region, genes in _compile(checker, task).genes.items() if genes]
    genes = frozen({region: frozen({"algorithm": "split"}) for region in regions})
    apart = checker.compile(task, Recipe(genes=genes))
    (splits,) = (name for name, _ in apart.program.plan.tunables if name.endswith("SPLITS"))
    for value in dict(apart.program.plan.tunables)[splits]:
        compiled = checker.compile(task, Recipe(genes=genes, tunables=frozen({splits: value})))
        assert _kernels(compiled) == 2
        assert len({buffer.name for buffer in compiled.program.plan.buffers}) == 3
        assert {buffer.shape[1] for buffer in compiled.program.plan.buffers} == {splits}
        assert checker.largest_error(task, compiled) < 1e-5


def test_a_layer_that_is_written_otherwise_keeps_a_kernel_of_its_own(checker: Checker) -> None:
    task = checker.task(Chain(32, 32, 32, 32), _normal(9, 32))
    alike = _compile(checker, task)
    region = next(iter(alike.genes))
    other = next(gene for gene in alike.genes[region] if gene.name == "algorithm").choices[1]
    mixed = checker.compile(task, Recipe(usual_cuts(task.graph)).choosing(region, "algorithm", other))
    assert (_kernels(alike), _kernels(mixed)) == (1, 2)
    assert checker.largest_error(task, mixed) < 1e-5


def test_the_recipe_of_a_shared_program_gives_it_again(checker: Checker) -> None:
    task = checker.task(Chain(32, 32, 32, 32), _normal(9, 32))
    compiled = _compile(checker, task)
    again = checker.compile(task, Recipe.from_json(compiled.recipe.to_json()))
    assert again.program == compiled.program
    assert again.tunables == compiled.tunables


def test_a_program_without_likenesses_does_not_change(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Varied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(64, 48), nn.LayerNorm(48)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.norm(self.layer(x).relu())
            return y.softmax(0), y.cumsum(1)

    task = checker.task(Varied(), _normal(20, 64))
    assert len(_launched(_compile(checker, task).program)) > 2
    assert _compile(checker, task).program == _unshared(monkeypatch, checker, task).program


def test_vectors_of_different_widths_are_not_alike(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of a vector makes the code: its register arrays, its loops. It must not become the name of a size."""
    task = checker.task(Branches(torch.tanh), _normal(3, 8), _normal(3, 6))
    assert "Vec<float, 4>" in _compile(checker, task).program.source
    assert _compile(checker, task).program == _unshared(monkeypatch, checker, task).program


KERNEL = """// 4 rows of 30.
extern "C" __global__ void __launch_bounds__(BLOCK) rows_kernel(const float* __restrict__ x, float* __restrict__ out) {
    constexpr int ROWS = 4, COLS = 30, LAST = COLS;  // columns
    constexpr int ITEMS = (COLS + BLOCK - 1) / BLOCK;
    float x_r[ITEMS];
    for (int j = threadIdx.x; j < LAST; j += BLOCK) out[j * 5 + 6] = x[j / 7 * 8 + j % 9] / 30.0f;
    #pragma unroll
    for (int k = 0; k < 3; ++k) {
        x_r[k] = min(ROWS, 11);
    }
}"""


def test_only_what_the_compiler_need_not_know_is_free() -> None:
    (function,) = (
        take_apart(KERNEL, (Launch("rows_kernel", ("1",), ("BLOCK",), ("x", "out")),), frozenset({"BLOCK"})) or ()
    )
    free = Constants(function).free()
    said = len([t for line in function.comment for t in line if t.kind == "size"])
    sizes = {(value, slot in free) for slot, value in enumerate(function.sizes) if slot >= said}
    # COLS is the extent of an array by way of ITEMS; ROWS is only read; 7 and 9 divide; 3 and 11 are structure.
    assert sizes == {(4, True), (30, False), (5, True), (6, True), (7, False), (8, True), (9, False), (30, True)}


def test_text_that_is_no_plain_kernel_is_left_alone() -> None:
    launch = Launch("rows_kernel", ("1",), ("BLOCK",), ("x", "out"))
    assert take_apart(KERNEL, (launch,), frozenset({"BLOCK"})) is not None
    assert (
        take_apart(f"__device__ int twice(int x) {{ return 2 * x; }}\n\n{KERNEL}", (launch,), frozenset({"BLOCK"}))
        is None
    )
    assert take_apart(KERNEL, (launch, launch), frozenset({"BLOCK"})) is None
    assert take_apart(KERNEL, (Launch("rows_kernel", ("1",), ("BLOCK",), ("x", "x")),), frozenset({"BLOCK"})) is None


def _divided(number: int) -> Kernels:
    """A kernel with more sizes than a template should have; all differ from those of another number."""
    sum_of = " + ".join(f"i / {3 + 20 * number + step}" for step in range(14))
    name, macro = f"layer_{number}_kernel", f"LAYER_{number}_BLOCK"
    head = f'extern "C" __global__ void __launch_bounds__({macro}) {name}(float* __restrict__ out{number}) {{'
    body = [f"const int i = blockIdx.x * {macro} + threadIdx.x;", f"out{number}[i] = {sum_of};"]
    source = "\n".join(["// Sums.", head, *(f"    {line}" for line in body), "}"])
    return Kernels(source, (Launch(name, ("2",), (macro,), (f"out{number}",)),), ((macro, (64, 32)),))


def test_kernels_that_share_only_their_tunables_name_those_that_are_declared() -> None:
    changed = shared([_divided(number) for number in range(6)])
    declared = {name for each in changed for name, _ in each.tunables}
    assert declared == {"LAYER_0_BLOCK"}
    for number, each in enumerate(changed):
        assert set(re.findall(r"LAYER_\d_BLOCK", each.source)) == declared
        assert each.launches[0].block == ("LAYER_0_BLOCK",)
        assert f" layer_{number}_kernel(" in each.source
        assert f"/ {3 + 20 * number})" in each.source or f"/ {3 + 20 * number} " in each.source
