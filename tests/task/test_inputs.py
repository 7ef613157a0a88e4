"""Input families: what they promise about values, and that they are the same everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from warpsmith.task import FAMILIES, draw, evaluate, families_for, load_task, task_from_module

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    state = hashlib.sha256()
    for name, tensor in tensors.items():
        state.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


@pytest.fixture(scope="module")
def gelu():
    return load_task(FOLDER / "gelu.py")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_argument_is_drawn_as_declared(example, path: Path) -> None:
    task = example(path)
    for family in families_for(task):
        drawn = draw(task, family, 2)
        assert list(drawn) == [spec.name for spec in task.graph.arguments]
        for spec in task.graph.arguments:
            tensor = drawn[spec.name]
            assert tuple(tensor.shape) == spec.shape
            assert str(tensor.dtype) == f"torch.{spec.dtype}"
            assert tensor.is_contiguous()
            assert not tensor.requires_grad
            assert tensor.is_floating_point() <= bool(torch.isfinite(tensor).all())


def test_another_process_draws_the_same_bits() -> None:
    path = FOLDER / "cross_entropy.py"
    task = load_task(path)
    families = ("nominal", "heavy_tail", "exact", "zeros_subnormals")
    here = [fingerprint(draw(task, family, 3)) for family in families]
    script = (
        "from test_inputs import draw, fingerprint, load_task\n"
        f"task = load_task({str(path)!r})\n"
        f"print(*[fingerprint(draw(task, family, 3)) for family in {families!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert done.stdout.split() == here


def test_drawing_leaves_the_callers_generator_alone(gelu) -> None:
    torch.manual_seed(3)
    due = torch.rand(2)
    torch.manual_seed(3)
    for family in families_for(gelu):
        draw(gelu, family, 1)
    assert torch.equal(torch.rand(2), due)


def test_seeds_and_families_differ(gelu) -> None:
    assert len({fingerprint(draw(gelu, family, seed)) for family in families_for(gelu) for seed in range(3)}) == 36


def test_unknown_family_is_refused(gelu) -> None:
    with pytest.raises(ValueError, match="unknown input family 'ones'; known are nominal"):
        draw(gelu, "ones", 0)


def test_nominal_seed_0_is_the_module_itself_and_others_are_not(example) -> None:
    task = example(FOLDER / "layernorm.py")
    own = draw(task, "nominal", 0)
    assert torch.equal(own["x"], task.examples["x"])
    assert torch.equal(own["norm_weight"], torch.ones(768))
    own["x"].zero_()
    assert task.examples["x"].any()
    later = draw(task, "nominal", 1)
    assert not torch.equal(later["x"], task.examples["x"])
    assert ((later["norm_weight"] - 1).abs() > 0.05).float().mean() > 0.5
    assert (later["norm_bias"].abs() > 0.05).float().mean() > 0.5


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_default_gains_and_biases_never_survive(example, family: str) -> None:
    task = example(FOLDER / "layernorm.py")
    drawn = draw(task, family, 0)
    assert drawn["norm_weight"].std() > 0.1
    assert drawn["norm_bias"].std() > 0.1


def test_values_of_each_family(gelu) -> None:
    value = {family: draw(gelu, family, 1)["x"] for family in families_for(gelu)}
    assert abs(value["normal"].std() - 1) < 0.01
    assert 0 < value["small"].abs().max() < 0.01
    assert 50 < value["large"].std() < 80
    assert abs(value["offset"].mean() - 5) < 0.01
    assert value["heavy_tail"].abs().max() == 1000
    assert value["equal"].unique().numel() == 1
    assert (value["alternating"][:, ::2] >= 0).all()
    assert (value["alternating"][:, 1::2] <= 0).all()
    scales = value["row_scale"].std(dim=1)
    assert scales.max() / scales.min() > 1e4
    assert (value["sorted"].diff(dim=1) >= 0).all()
    assert value["duplicates"].unique().numel() == 4
    tiny = value["zeros_subnormals"]
    assert (tiny.abs() < torch.finfo(torch.float32).smallest_normal).all()
    assert 0.2 < (tiny != 0).float().mean() < 0.5
    zeros = tiny[tiny == 0]
    assert 0.4 < torch.signbit(zeros).float().mean() < 0.6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_subnormals_exist_in_every_dtype(dtype: torch.dtype) -> None:
    task = task_from_module(nn.ReLU(), torch.rand(100, dtype=dtype))
    tiny = draw(task, "zeros_subnormals", 1)["input"]
    assert (tiny.abs() < torch.finfo(dtype).smallest_normal).all()
    assert (tiny != 0).any()


def test_running_statistics_stay_plausible(example) -> None:
    task = example(FOLDER / "batchnorm.py")
    drawn = draw(task, "large", 1)
    assert drawn["norm_running_var"].min() >= 0.5
    assert drawn["norm_running_var"].std() > 0.1
    assert drawn["norm_running_mean"].abs().max() < 5
    assert 0 <= drawn["norm_num_batches_tracked"].item() < 100


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 4)

    def forward(self, tokens, picks, rows, targets, free, mask):
        x = self.table(tokens.view(-1).unsqueeze(0))[0]
        y = x.gather(1, picks).masked_fill(mask, 0.0) + x[rows].sum() + free
        return F.cross_entropy(y, targets), F.one_hot(rows, 9)


@pytest.fixture(scope="module")
def indexed():
    torch.manual_seed(0)
    mask = torch.rand(6, 3) < 0.25
    inputs = [torch.zeros(2, 3).long(), torch.zeros(6, 3).long(), torch.zeros(5).long(), torch.zeros(6).long()]
    return task_from_module(Indexed(), [*inputs, torch.tensor([[-7], [9], [2], [0], [1], [1]]), mask])


def test_integers_stay_in_the_range_that_their_use_allows(indexed) -> None:
    limits = {"tokens": 11, "picks": 4, "rows": 6, "targets": 3}
    largest = dict.fromkeys(limits, -1)
    for family in families_for(indexed):
        for seed in range(1 if family == "nominal" else 8):
            drawn = draw(indexed, family, seed)
            evaluate(indexed.graph, drawn, "task")
            for name, limit in limits.items():
                assert 0 <= drawn[name].min() <= drawn[name].max() < limit
                largest[name] = max(largest[name], int(drawn[name].max()))
            assert -7 <= drawn["free"].min() <= drawn["free"].max() <= 9
    assert largest == {name: limit - 1 for name, limit in limits.items()}


class Masked(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(mask, 0.0)


def test_masks_keep_their_density() -> None:
    task = task_from_module(Masked(), [torch.rand(40, 50), torch.rand(40, 50) < 0.1])
    for family in families_for(task):
        mask = draw(task, family, 1)["mask"]
        assert mask.dtype == torch.bool
        assert 0.05 < mask.float().mean() < 0.15


def test_live_modules_are_resampled_from_their_examples() -> None:
    x = torch.rand(200) * 2 + 3
    drawn = draw(task_from_module(nn.ReLU(), x), "nominal", 1)["input"]
    assert not torch.equal(drawn, x)
    assert torch.isin(drawn, x).all()


def test_probabilities_stay_probabilities() -> None:
    class Loss(nn.Module):
        def forward(self, p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return F.binary_cross_entropy(p, target)

    task = task_from_module(Loss(), [torch.rand(8), torch.rand(8)])
    for family in families_for(task):
        assert torch.isfinite(evaluate(task.graph, draw(task, family, 1), "task")["out"])


def test_additive_masks_and_tables_keep_their_structure() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.triu(torch.full((5, 5), float("-inf")), 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.mask).softmax(-1)

    task = task_from_module(Biased(), torch.rand(5, 5))
    assert torch.equal(draw(task, "normal", 1)["mask"], task.state["mask"])


def test_state_that_starts_at_zero_is_randomised() -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("average", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.average.mul_(0.9).add_(0.1 * x.mean(0))
            return x - self.average

    task = task_from_module(Average(), torch.rand(3, 4))
    assert task.graph.updates == (("average", "new_average"),)
    assert (draw(task, "normal", 1)["average"] != 0).all()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 1, 3, 1)])
def test_small_and_odd_shapes_have_every_family(shape: tuple[int, ...]) -> None:
    task = task_from_module(nn.ReLU(), torch.rand(shape))
    for family in families_for(task):
        assert draw(task, family, 1)["input"].shape == shape


def test_half_precision_families_leave_room_for_sums() -> None:
    task = task_from_module(nn.ReLU(), torch.rand(1000, dtype=torch.float16))
    for family in families_for(task):
        assert draw(task, family, 1)["input"].abs().max() <= 64


def test_integer_tasks_have_families_too() -> None:
    class Count(nn.Module):
        def forward(self, n: torch.Tensor) -> torch.Tensor:
            return n.cumsum(0)

    task = task_from_module(Count(), torch.randint(-5, 5, (30,)))
    assert families_for(task) == ("nominal", "equal", "sorted", "duplicates")
    assert draw(task, "equal", 1)["n"].unique().numel() == 1
    assert (draw(task, "sorted", 1)["n"].diff() >= 0).all()


def rounded_to_tf32(x: torch.Tensor) -> torch.Tensor:
    bits = x.view(torch.int32) + 0x1000
    return (bits & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize("name", ["matmul", "conv2d_relu"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_exactness_probe_tells_float32_from_tf32(example, name: str, seed: int) -> None:
    task = example(FOLDER / f"{name}.py")
    drawn = draw(task, "exact", seed)
    narrow = evaluate(task.graph, drawn, "task")["out"]
    wide = evaluate(task.graph, drawn, "float64")["out"]
    assert torch.equal(narrow.double(), wide)
    rounded = {key: rounded_to_tf32(value) for key, value in drawn.items()}
    assert (evaluate(task.graph, rounded, "task")["out"] != narrow).float().mean() > 0.3


def test_exactness_probes_each_operand_in_turn(example) -> None:
    task = example(FOLDER / "matmul.py")
    for seed, integers, ones in ((0, "a", "b"), (1, "b", "a")):
        drawn = draw(task, "exact", seed)
        assert set(drawn[ones].unique().tolist()) == {0.0, 1.0}
        assert (drawn[integers].abs() % 2 == 1).all()
        assert drawn[integers].abs().max() > 2048


def test_exactness_holds_for_long_sums() -> None:
    class Long(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a @ b

    task = task_from_module(Long(), [torch.rand(3, 40_000), torch.rand(40_000, 2)])
    drawn = draw(task, "exact", 0)
    assert torch.equal(
        evaluate(task.graph, drawn, "task")["out"].double(), evaluate(task.graph, drawn, "float64")["out"]
    )
    assert drawn["a"].abs().T.double().mul(drawn["b"].double().sum(1, keepdim=True)).sum() < 2 * 3 * 2**24


def test_exactness_is_offered_for_contractions_of_arguments_only(example) -> None:
    offered = {path.stem for path in EXAMPLES if "exact" in families_for(example(path))}
    assert offered == {"matmul", "conv2d_relu", "linear_gelu", "residual_block"}
