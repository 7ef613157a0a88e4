"""What timed calls are given, and how all of their outputs are checked at once.

A pool holds several draws of the task's own inputs, parameters redrawn with them, stacked along dimension 0, each with
its answer in float64. Every call of a series gets a draw; neighbours get different ones while there are enough. The
limit for an output is that of `numerics`, with the largest unit and the largest error of eager PyTorch over all of its
elements in place of those at each: coarser, so what it refuses is held against its own reference, element by element,
before it counts as wrong. The numerics stage has already been passed; here the question is whether the call computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from warpsmith.judge.mixtures import draw_any
from warpsmith.judge.numerics import compare
from warpsmith.judge.references import Reference, refer
from warpsmith.judge.tf32 import policy_of_a_gpu
from warpsmith.records import Mismatch, Task, Tolerance, digest
from warpsmith.task import evaluate

MOST_MEMBERS = 32
FAMILY = "nominal"


@dataclass(frozen=True, eq=False)
class Answers:
    """One output of all members: float64 answers, eager PyTorch's outputs, and the largest error that is right."""

    expected: torch.Tensor
    eager: torch.Tensor
    limit: float


@dataclass(frozen=True, slots=True)
class Wrong:
    """A timed call whose output is not right."""

    reason: str
    mismatch: Mismatch
    seed: int


class Pool:
    """`count` draws on `device`, where they are computed when first needed. `unit` scales limits: see `limits`."""

    def __init__(self, task: Task, base: Reference, seed: int, count: int, device: str) -> None:
        self.task = task
        self.seeds = [1 + int(digest("pool", task.key, str(seed), str(i))[:7], 16) for i in range(count)]
        drawn = [draw_any(task, FAMILY, each, device) for each in self.seeds]
        answers: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in task.graph.results}
        eager: dict[str, list[torch.Tensor]] = {spec.name: [] for spec in task.graph.results}
        for arguments in drawn:
            for name, value in evaluate(task.graph, arguments, "float64").items():
                answers[name].append(value)
            with policy_of_a_gpu(task.tolerance):
                for name, value in evaluate(task.graph, arguments, "task").items():
                    eager[name].append(value)
        self.arguments: Mapping[str, torch.Tensor] = {
            spec.name: torch.stack([arguments[spec.name] for arguments in drawn]) for spec in task.graph.arguments
        }
        drawn.clear()
        self.names = tuple(answers)
        self.answers = {name: self._answers(name, base, answers.pop(name), eager.pop(name)) for name in list(answers)}

    def _answers(self, name: str, base: Reference, expected: list[torch.Tensor], eager: list[torch.Tensor]) -> Answers:
        due, stacked, plain = base.due[name], torch.stack(expected), torch.stack(eager)
        return Answers(stacked, plain, coarse_limit(due.unit, plain, stacked, self.task.tolerance))

    def members(self, slots: int, series: int) -> torch.Tensor:
        """Return for each slot which member it gets in a series: int64 [slots]. Neighbours differ, if it can be."""
        count = len(self.seeds)
        device = next(iter(self.arguments.values())).device if self.arguments else torch.device("cpu")
        generator = torch.Generator().manual_seed(series)
        rounds: list[torch.Tensor] = []
        for _ in range(-(-slots // count)):
            order = torch.randperm(count, generator=generator)
            if rounds and count > 1 and int(order[0]) == int(rounds[-1][-1]):
                order = order.flip(0)
            rounds.append(order)
        return torch.cat(rounds)[:slots].to(device)

    def wrong(self, got: Mapping[str, torch.Tensor], slots: list[int], members: torch.Tensor) -> Wrong | None:
        """Check outputs [slots, *shape] of the called slots; return the first call that is not right."""
        called = torch.tensor(slots, device=members.device)
        chosen = members[called]
        suspects: list[int] = []
        for name, answers in self.answers.items():
            if answers.expected.numel():
                suspects += _suspects(got[name], answers, called, chosen)
        for position in sorted(set(suspects)):
            found = self._examine(got, slots[position], int(chosen[position]))
            if found is not None:
                return found
        return None

    def _examine(self, got: Mapping[str, torch.Tensor], slot: int, member: int) -> Wrong | None:
        arguments = {name: stacked[member] for name, stacked in self.arguments.items()}
        reference = refer(self.task, FAMILY, self.seeds[member], arguments)
        comparison = compare(reference, {n: value[slot].clone() for n, value in got.items()}, self.task.tolerance)
        if comparison.mismatch is None:
            return None
        return Wrong(comparison.reason or "wrong_value", comparison.mismatch, self.seeds[member])


def coarse_limit(unit: torch.Tensor | None, eager: torch.Tensor, expected: torch.Tensor, tolerance: Tolerance) -> float:
    """Return the largest error that is right for all elements of an output; 0 where it holds no floating values."""
    if unit is None or not unit.numel():
        return 0.0
    most = float(unit.nan_to_num(0.0, 0.0, 0.0).max())
    error = float((eager.double() - expected).abs().nan_to_num(0.0, 0.0, 0.0).max())
    return tolerance.factor * max(error, most) + tolerance.floor_ulps * most


_AT_ONCE = 1 << 26
"""Elements that are compared at once: more would need too much memory beside them."""


def _suspects(got: torch.Tensor, answers: Answers, called: torch.Tensor, chosen: torch.Tensor) -> list[int]:
    """Return the positions among the called slots at which some element is farther off than the limit."""
    each = max(1, answers.expected[0].numel())
    step, found = max(1, _AT_ONCE // each), []
    for start in range(0, len(called), step):
        slots, members = called[start : start + step], chosen[start : start + step]
        values, expected = got.index_select(0, slots), answers.expected.index_select(0, members)
        if not values.is_floating_point():
            right = values == expected
        else:
            right = (values.double() - expected).abs_() <= answers.limit
        if not bool(right.all()):
            eager = answers.eager.index_select(0, members)
            right |= (values == eager) | (torch.isnan(values) & torch.isnan(eager))
        bad = ~right.reshape(len(slots), -1).all(1)
        found += [start + i for i in bad.nonzero().flatten().tolist()]
    return found


def members_for(task: Task, memory_bytes: int) -> int:
    """Return how many draws to hold: within a tenth of the memory, at most 32, at least one."""
    arguments = sum(spec.nbytes for spec in task.graph.arguments)
    results = sum(spec.nbytes + 8 * spec.numel for spec in task.graph.results)
    return max(1, min(MOST_MEMBERS, memory_bytes // 10 // max(1, arguments + results)))
