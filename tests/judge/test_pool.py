"""All outputs of a series are checked at once, and still no wrong one slips through and no right one is refused."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from tests.judge.kernels import BATCH_NORM, LINEAR, SOFTMAX, SQUARE, Kernel, task_of
from warpsmith.judge.pool import MOST_MEMBERS, Pool, Wrong, members_for
from warpsmith.judge.references import References
from warpsmith.records import Task
from warpsmith.task import evaluate, task_from_module

SLOTS = 7
Outputs = dict[str, torch.Tensor]


class Best(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.topk(x, 5, dim=-1).indices


class Positive(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x > 0.0


class Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


class Advance(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * x[:, :0]


def best_task() -> Task:
    """Rows of few values, so that almost every index could as well be another."""
    x = torch.randint(0, 6, (30, 40), generator=torch.Generator().manual_seed(3)).float()
    return task_from_module(Best(), (x,), name="best")


@cache
def pool_of(task: Task, count: int = 4, seed: int = 0) -> Pool:
    return Pool(task, References(task, 0).get("nominal", 0), seed, count, "cpu")


def outputs_of(pool: Pool, members: torch.Tensor) -> Outputs:
    """What eager PyTorch computes in every slot."""
    each = [
        evaluate(pool.task.graph, {name: stacked[member] for name, stacked in pool.arguments.items()}, "task")
        for member in members.tolist()
    ]
    return {name: torch.stack([outputs[name] for outputs in each]) for name in each[0]}


def check(task: Task, slots: list[int] | None = None) -> tuple[Pool, Outputs, torch.Tensor, list[int]]:
    """A pool, right outputs of every slot, their members, and the order of calls."""
    pool = pool_of(task)
    members = pool.members(SLOTS, 5)
    return pool, outputs_of(pool, members), members, slots or [3, 0, 6, 2, 5, 1, 4]


# -------------------------------------------------------------------------------------------------------------- members


def test_draws_differ_and_depend_on_the_judges_seed() -> None:
    pool, other = pool_of(task_of(SQUARE)), pool_of(task_of(SQUARE), seed=1)
    assert len(set(pool.seeds)) == 4 and not set(pool.seeds) & set(other.seeds)
    x = pool.arguments["x"]
    assert all(not torch.equal(x[i], x[j]) for i in range(4) for j in range(i))
    assert not torch.equal(x, other.arguments["x"])
    again = Pool(pool.task, References(pool.task, 0).get("nominal", 0), 0, 4, "cpu")
    assert torch.equal(again.arguments["x"], x), "a report can be checked again"


def test_parameters_are_drawn_anew_with_the_inputs() -> None:
    arguments = pool_of(task_of(LINEAR)).arguments
    for name in ("weight", "bias"):
        assert not torch.equal(arguments[name][0], arguments[name][1]), "a kernel could keep what it made of weights"


def test_every_slot_gets_a_member_and_all_members_are_used() -> None:
    pool = pool_of(task_of(SQUARE))
    for slots in (1, 3, 4, 11):
        members = pool.members(slots, 9)
        assert members.shape == (slots,) and members.dtype == torch.int64
        counts = torch.bincount(members, minlength=4)
        assert int(counts.max() - counts.min()) <= 1


def test_who_gets_which_member_changes_from_series_to_series() -> None:
    pool = pool_of(task_of(SQUARE))
    assert len({tuple(pool.members(SLOTS, series).tolist()) for series in range(12)}) > 6
    assert torch.equal(pool.members(SLOTS, 3), pool.members(SLOTS, 3))


def test_neighbours_get_different_members() -> None:
    pool = pool_of(task_of(SQUARE))
    for series in range(50):
        members = pool.members(SLOTS, series)
        assert not bool((members[1:] == members[:-1]).any()), f"series {series}: {members.tolist()}"


def test_a_pool_of_one_serves_all_slots() -> None:
    assert pool_of(task_of(SQUARE), 1).members(3, 1).tolist() == [0, 0, 0]


def test_the_pool_is_as_large_as_memory_allows_and_never_empty() -> None:
    task = task_of(SQUARE)
    # Per member 1003 floats in, and out as float32 and float64.
    each = 1003 * 16
    assert members_for(task, 10 * 5 * each) == 5
    assert members_for(task, 1) == 1 and members_for(task, 1 << 40) == MOST_MEMBERS


# ------------------------------------------------------------------------------------------------------- right and wrong


@pytest.mark.parametrize("kernel", [SQUARE, SOFTMAX, LINEAR, BATCH_NORM], ids=lambda kernel: kernel.name)
def test_what_pytorch_computes_is_right(kernel: Kernel) -> None:
    pool, got, members, slots = check(task_of(kernel))
    assert pool.wrong(got, slots, members) is None


def test_another_order_of_summation_is_right() -> None:
    pool, got, members, slots = check(task_of(SOFTMAX))
    x = pool.arguments["x"][members]
    powers = torch.exp(x - x.amax(-1, keepdim=True))
    name = next(iter(got))
    got[name] = powers / powers.flip(-1).cumsum(-1)[..., -1:]
    assert pool.wrong(got, slots, members) is None


def spoiled(kind: str, out: torch.Tensor) -> None:
    """Do to the outputs of slot 2 [slots, ...] what a wrong program does; no other slot changes."""
    if kind == "dropped tail":
        out[2].view(-1)[-1] = float("nan")
    elif kind == "stale slot":
        out[2] = out[3]
    elif kind == "zeros":
        out[2].zero_()
    elif kind == "one element is off":
        out[2].view(-1)[5] += 1e-3
    elif kind == "infinity":
        out[2].view(-1)[0] = float("inf")


@pytest.mark.parametrize("kind", ["dropped tail", "stale slot", "zeros", "one element is off", "infinity"])
@pytest.mark.parametrize("kernel", [SQUARE, SOFTMAX, LINEAR], ids=lambda kernel: kernel.name)
def test_a_wrong_call_is_found_and_told_with_the_seed_of_its_draw(kernel: Kernel, kind: str) -> None:
    pool, got, members, slots = check(task_of(kernel))
    assert members[2] != members[3]
    spoiled(kind, got["out"])
    wrong = pool.wrong(got, slots, members)
    assert isinstance(wrong, Wrong) and wrong.seed == pool.seeds[int(members[2])]
    assert wrong.mismatch.output == "out" and wrong.mismatch.total == got["out"][0].numel()
    assert wrong.reason == {"dropped tail": "unexpected_nan", "infinity": "unexpected_infinity"}.get(
        kind, "wrong_value"
    )


def test_results_in_each_others_slots_are_found() -> None:
    pool, got, members, slots = check(task_of(SQUARE))
    out = got["out"]
    out[2], out[3] = out[3].clone(), out[2].clone()
    assert pool.wrong(got, slots, members) is not None


def test_every_output_is_looked_at() -> None:
    pool, got, members, slots = check(task_of(BATCH_NORM))
    assert "new_num_batches_tracked" in got and len(got) == 4
    for name, value in got.items():
        spoiled_outputs = {**got, name: value.clone()}
        spoiled_outputs[name][4] += 1
        wrong = pool.wrong(spoiled_outputs, slots, members)
        assert wrong is not None and wrong.mismatch.output == name


def test_slots_that_were_not_called_do_not_count() -> None:
    pool, got, members, _ = check(task_of(SQUARE))
    got["out"][2] = float("nan")
    assert pool.wrong(got, [0, 1, 3], members) is None
    assert pool.wrong(got, [0, 1, 2], members) is not None


def test_where_nan_and_infinity_are_due_they_are_right_and_nothing_else_is() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0] * 8)
    pool, got, members, slots = check(task_from_module(Logarithm(), (x,), name="logarithm"))
    (name,) = got
    assert bool(got[name].isnan().any()) and bool(got[name].isinf().any())
    assert pool.wrong(got, slots, members) is None
    for old in (torch.isnan, torch.isinf):
        changed = got[name].clone()
        changed[2] = torch.where(old(changed[2]), 0.0, changed[2])
        assert pool.wrong({name: changed}, slots, members) is not None


# ------------------------------------------------------------------------------------------------ integers and booleans


def other_best(x: torch.Tensor) -> torch.Tensor:
    """The indices of the five largest, of equal ones the last instead of the first."""
    return x.shape[-1] - 1 - torch.topk(x.flip(-1), 5, dim=-1).indices


def test_of_equal_values_any_index_is_right() -> None:
    pool, got, members, slots = check(best_task())
    (name,) = got
    other = other_best(pool.arguments["x"][members])
    assert not torch.equal(other, got[name])
    assert pool.wrong(got, slots, members) is None and pool.wrong({name: other}, slots, members) is None


def test_a_stale_index_is_wrong() -> None:
    pool, got, members, slots = check(best_task())
    (name,) = got
    got[name][slots[0]] = got[name][slots[1]]
    assert pool.wrong(got, slots, members) is not None


def test_a_wrong_call_behind_many_that_are_right_in_another_way_is_found() -> None:
    pool, got, members, slots = check(best_task())
    (name,) = got
    other = other_best(pool.arguments["x"][members])
    other[slots[5]] = other[slots[4]]
    assert members[slots[5]] != members[slots[4]]
    assert pool.wrong({name: other}, slots, members) is not None


def test_booleans_are_compared() -> None:
    pool, got, members, slots = check(task_from_module(Positive(), (torch.randn(50),), name="positive"))
    (name,) = got
    assert pool.wrong(got, slots, members) is None
    got[name][4, 7] ^= True
    assert pool.wrong(got, slots, members) is not None


def advance_task(start: int) -> Task:
    return task_from_module(Advance(), (start + torch.arange(50),), name="advance")


def test_integers_are_compared_exactly() -> None:
    pool, got, members, slots = check(advance_task(0))
    (name,) = got
    assert pool.wrong(got, slots, members) is None
    got[name][4, 7] += 1
    assert pool.wrong(got, slots, members) is not None


def test_large_integers_are_compared_exactly() -> None:
    pool, got, members, slots = check(advance_task(1 << 60))
    (name,) = got
    got[name][4, 7] += 1
    assert pool.wrong(got, slots, members) is not None


def test_an_output_without_elements_is_right() -> None:
    task = task_from_module(Nothing(), (torch.randn(5, 4),), name="nothing")
    pool = Pool(task, References(task, 0).get("nominal", 0), 0, 2, "cpu")
    members = pool.members(3, 1)
    assert pool.wrong(outputs_of(pool, members), [0, 1, 2], members) is None
