"""Modules that draw masks, as dropout in training mode does: to a task each mask is an input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.samples import TASK
from torch import nn

from warpsmith.errors import TaskError
from warpsmith.judge.mixtures import draw_any
from warpsmith.records import Task, TensorSpec
from warpsmith.task import FAMILIES, admit, draw, evaluate, load_task, task_from_module
from warpsmith.task.functional import run
from warpsmith.task.masks import draw_mask

X = torch.linspace(-2.0, 2.0, 24).reshape(4, 6)
IMAGE = torch.linspace(-2.0, 2.0, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        return self.function(x)


def task_of(function, x: torch.Tensor = X) -> Task:
    return task_from_module(Calls(function), x)


def answers(task: Task) -> list[torch.Tensor]:
    return list(run(task.functional_source, task.graph, {**task.state, **task.examples}).values())


def masks(task: Task) -> list[tuple[str, tuple[int, ...], float]]:
    return [
        (name, spec.shape, keep)
        for spec, (name, keep) in zip(task.graph.inputs[len(task.graph.given) :], task.graph.masks)
    ]


@pytest.fixture(scope="module")
def halved() -> Task:
    return task_of(lambda x: F.dropout(x, 0.5))


@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_multiplies_by_a_mask_that_is_an_input(inplace: bool) -> None:
    task = task_of(lambda x: F.dropout(x + 1.0, 0.2, inplace=inplace))
    assert masks(task) == [("mask", (4, 6), 0.8)]
    assert [spec.name for spec in task.graph.given] == ["x"]
    mask = task.examples["mask"]
    assert mask.dtype == torch.bool and mask.any() and not mask.all()
    torch.testing.assert_close(answers(task)[0], (X + 1.0) * mask / 0.8)


def test_dropout_in_place_on_an_input_changes_that_input() -> None:
    """The input after the call is an output like any other, under the same mask."""
    task = task_of(lambda x: nn.Dropout(0.5, inplace=True)(x) + 1.0)
    out, changed = answers(task)
    assert task.graph.updates == (("x", "new_x"),)
    assert torch.equal(changed, X * task.examples["mask"] * 2.0) and torch.equal(out, changed + 1.0)


def test_dropout_of_nothing_or_all_leaves_nothing_to_chance() -> None:
    task = task_of(lambda x: tuple(F.dropout(x * 1.0, p, inplace=way) for p in (0.0, 1.0) for way in (False, True)))
    assert masks(task) == [] and task.restrictions == ()
    assert all(torch.equal(got, due) for got, due in zip(answers(task), (X, X, X * 0.0, X * 0.0), strict=True))


def test_what_is_dropped_from_infinity_is_nan_as_in_pytorch() -> None:
    task = task_of(lambda x: F.dropout(x / 0.0, 0.5), torch.ones(64))
    (out,) = answers(task)
    assert torch.equal(out.isnan(), ~task.examples["mask"]) and out[task.examples["mask"]].isinf().all()
    wide = evaluate(task.graph, {**task.state, **task.examples}, "float64")["out"]
    assert torch.equal(wide.isnan(), out.isnan())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_stays_half(dtype: torch.dtype) -> None:
    task = task_of(lambda x: F.dropout(F.dropout(x, 0.1) + 0.0, 0.1, inplace=True), X.to(dtype))
    assert answers(task)[0].dtype == dtype and len(task.graph.masks) == 2


def test_two_dropouts_have_masks_in_the_order_of_their_calls() -> None:
    """Were they mixed up, the functional form would not agree with the module."""
    task = task_of(lambda x: F.dropout(F.dropout(x, 0.5).exp(), 0.25))
    assert masks(task) == [("mask", (4, 6), 0.5), ("mask_1", (4, 6), 0.75)]
    first, second = task.examples["mask"], task.examples["mask_1"]
    assert not torch.equal(first, second)
    torch.testing.assert_close(answers(task)[0], (X * first * 2.0).exp() * second / 0.75)


def test_masks_of_whole_channels_have_their_shape() -> None:
    task = task_of(lambda x: F.dropout2d(x, 0.4), IMAGE)
    assert masks(task) == [("mask", (2, 3, 1, 1), 0.6)]
    torch.testing.assert_close(answers(task)[0], IMAGE * task.examples["mask"] / 0.6)


def test_stochastic_depth_is_a_mask_of_rows() -> None:
    def depth(x: torch.Tensor) -> torch.Tensor:
        noise = torch.empty((x.shape[0], 1)).bernoulli_(0.6)
        return x + torch.tanh(x) * noise.div_(0.6)

    task = task_of(depth)
    assert masks(task) == [("mask", (4, 1), 0.6)]
    torch.testing.assert_close(answers(task)[0], X + torch.tanh(X) * task.examples["mask"] / 0.6)


def test_the_mask_may_be_a_result_itself() -> None:
    task = task_of(lambda x: torch.native_dropout(x, 0.5, True))
    out, mask = answers(task)
    assert torch.equal(mask, task.examples["mask"]) and torch.equal(out, X * mask * 2.0)
    quiet = task_of(lambda x: (*torch.native_dropout(x, 0.5, False), *torch.native_dropout(x, 1.0, True)))
    assert [value.unique().tolist() for value in answers(quiet)[1:]] == [[True], [0.0], [False]]


def test_attention_written_out_draws_the_mask_of_its_weights() -> None:
    module = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)
    task = task_from_module(module, (IMAGE.reshape(2, 10, 6),) * 3)
    assert masks(task) == [("mask", (4, 10, 10), 0.7)]


@pytest.mark.parametrize(
    ("expression", "operator"),
    [
        ("nn.functional.alpha_dropout(x, 0.5, True)", "bernoulli"),
        ("x / torch.empty_like(x).bernoulli_(0.5)", "bernoulli"),
        ("nn.functional.rrelu(x, training=True)", "rrelu"),
        ("nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)", "scaled_dot_product_attention"),
        ("self.rnn(x)[0]", "lstm"),
    ],
)
def test_what_does_more_with_chance_is_refused_with_its_line(write, expression: str, operator: str) -> None:
    file = write(
        f"""
        import torch
        from torch import nn
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(6, 6, 2, dropout=0.5)
            def forward(self, x):
                x = nn.functional.dropout(x, 0.5)
                return {expression}
        def get_inputs():
            return [torch.randn(3, 4, 6)]
        """
    )
    with pytest.raises(TaskError, match=operator) as caught:
        load_task(file)
    # The LSTM of PyTorch is called from a file of its own, by the user's line.
    assert caught.value.line == 9 and "random" in caught.value.message


class Restless(nn.Module):
    """Calls dropout once in the first call, twice in the second, and so on; or over ever more elements."""

    def __init__(self, wider: bool) -> None:
        super().__init__()
        self.wider = wider
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        if self.wider:
            return F.dropout(x[:, : self.count], 0.5).sum()
        for _ in range(self.count):
            x = F.dropout(x, 0.5)
        return x


@pytest.mark.parametrize("wider", [False, True])
def test_a_module_that_draws_other_masks_at_every_call_is_refused(wider: bool) -> None:
    with pytest.raises(TaskError, match=r"draws 1 mask \[.*\] when it is called, but .* in its export"):
        task_from_module(Restless(wider), X)


def test_a_mask_that_nobody_uses_does_no_harm_alone() -> None:
    def idle(x: torch.Tensor) -> torch.Tensor:
        F.dropout(x, 0.5)
        return x * 2.0

    assert masks(task_of(idle)) == []
    with pytest.raises(TaskError, match="draws 2 masks"):
        task_of(lambda x: F.dropout(idle(x), 0.5))


def test_the_callers_random_numbers_are_left_alone_and_loading_twice_gives_the_same_task(halved: Task) -> None:
    state = torch.get_rng_state()
    again = task_of(lambda x: F.dropout(x, 0.5))
    assert torch.equal(torch.get_rng_state(), state)
    assert again.key == halved.key and torch.equal(again.examples["mask"], halved.examples["mask"])


def test_state_that_dropout_passes_through_is_found() -> None:
    """A hidden state that is kept must not be told from a constant by the masks of two calls."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.zeros(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = F.dropout(x, 0.5)
            return self.last * 2.0

    assert task_from_module(Keeps(), X).graph.buffers == ()


# ------------------------------------------------------------------------------------------------------------- records


def test_graphs_without_masks_keep_the_keys_that_archives_know() -> None:
    assert (TASK.graph.key, TASK.key) == ("3aefb19d2039f97d", "c0d90d69530197f4")


def test_the_probability_is_part_of_the_key(halved: Task) -> None:
    assert replace(halved.graph, masks=(("mask", 0.25),)).key != halved.graph.key


@pytest.mark.parametrize("masks", [(("x", 0.5),), (("mask", 1.0),), (("mask", 0.5), ("mask", 0.5))])
def test_masks_that_make_no_sense_cannot_be_built(masks: tuple[tuple[str, float], ...]) -> None:
    inputs = (*TASK.graph.inputs, TensorSpec("mask", (4,), "bool"))
    with pytest.raises(ValueError, match="mask"):
        replace(TASK.graph, inputs=inputs, masks=masks)


def test_the_functional_form_says_how_each_mask_is_drawn() -> None:
    source = task_of(lambda x: F.dropout2d(F.dropout(x, 0.2), 0.5), IMAGE).functional_source
    assert "mask: bool[2, 3, 4, 5] = torch.empty([2, 3, 4, 5], dtype=torch.bool).bernoulli_(0.8)\n" in source
    assert "mask_1: bool[2, 3, 1, 1] = torch.empty([2, 3, 1, 1], dtype=torch.bool).bernoulli_(0.5)\n" in source


def test_who_reads_masks_is_said_of_files_and_of_live_modules(write, halved: Task) -> None:
    """A live module is timed in its functional form, which is given masks as programs are."""
    file = write(
        """
        import torch
        from torch import nn
        class Model(nn.Dropout):
            pass
        def get_inputs():
            return [torch.ones(8)]
        """
    )
    (of_file,), (live,) = load_task(file).restrictions, halved.restrictions
    assert of_file.endswith("one byte an element; the baseline draws its own numbers")
    assert live.endswith("one byte an element; so does the baseline")


# -------------------------------------------------------------------------------------------------------------- inputs


@pytest.fixture(scope="module")
def large() -> Task:
    return task_of(lambda x: F.dropout(x, 0.2), torch.randn(100, 200))


@pytest.mark.parametrize("family", [*FAMILIES, "equal+normal", "offset+mirrored"])
def test_masks_keep_their_probability_in_every_family(large: Task, family: str) -> None:
    """An honest program may rely on it; one that ignores the mask must meet it everywhere."""
    drawn = [draw_any(large, family, seed)["mask"] for seed in (1, 2)]
    for mask in drawn:
        assert mask.dtype == torch.bool and abs(float(mask.double().mean()) - 0.8) < 0.015
        # No rows, no order, no repetition: every stretch looks like the whole.
        assert all(abs(float(part.double().mean()) - 0.8) < 0.05 for part in mask.view(-1).chunk(10))
    assert not torch.equal(*drawn)


def test_masks_of_a_mixture_are_those_of_one_draw(large: Task) -> None:
    assert torch.equal(draw_any(large, "equal+normal", 3)["mask"], draw(large, "normal", 3)["mask"])


def test_a_file_draws_its_inputs_and_not_its_masks(write) -> None:
    file = write(
        """
        import torch
        from torch import nn
        class Model(nn.Module):
            def forward(self, x, y):
                return nn.functional.dropout(x + y, 0.2)
        def get_inputs():
            return [torch.rand(50, 40), 2.0 + torch.rand(50, 40)]
        """
    )
    task = load_task(file)
    first, second = draw(task, "nominal", 0), draw(task, "nominal", 7)
    assert list(second) == ["x", "y", "mask"] and first["mask"] is not task.examples["mask"]
    assert torch.equal(first["mask"], task.examples["mask"]) and not torch.equal(second["mask"], first["mask"])
    assert second["y"].min() >= 2.0 > second["x"].max()
    assert abs(float(second["mask"].double().mean()) - 0.8) < 0.05


@pytest.mark.parametrize("keep", [0.0001, 0.9999])
def test_a_short_mask_is_not_all_alike(keep: float) -> None:
    """All ones would let a program that ignores the mask pass."""
    for seed in range(8):
        mask = draw_mask((2, 3), keep, torch.Generator().manual_seed(seed))
        assert mask.sum() == (1 if keep < 0.5 else 5)
    assert draw_mask((), keep, torch.Generator()).shape == ()


def test_masks_matter_and_few_elements_show_it_on_the_tasks_own_inputs() -> None:
    found = admit(task_of(lambda x: F.dropout(x, 0.5), torch.randn(2)))
    assert found.admitted and found.nominal
    assert dict(found.matters)["mask"] == ("nominal",)


def test_a_mask_over_a_constant_is_named() -> None:
    """Softmax over one element is 1 whatever was dropped before."""
    found = admit(task_of(lambda x: F.dropout(x, 0.2).mean(1, keepdim=True).softmax(1)))
    assert not found.admitted and set(found.degenerate) == {"x", "mask"}
