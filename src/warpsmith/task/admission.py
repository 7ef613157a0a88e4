"""Is a task worth judging? Only if its outputs depend on its arguments by more than a judge tolerates.

A softmax that is then averaged is a constant; a matrix product in front of a norm that cancels it need not be
computed. On such a task a program that skips work passes, so it must be known before anyone is praised for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from warpsmith.records import Graph, Task
from warpsmith.task.evaluate import evaluate, refs_of
from warpsmith.task.inputs import draw, families_for
from warpsmith.task.trace import looks_at_shape_only

_MARGIN = 10.0
_SEED = 1


@dataclass(frozen=True, slots=True)
class Admission:
    """Which arguments matter, and on which inputs.

    `matters` pairs every argument that the graph reads with the tried families on which redrawing it alone changes
    an output by more than ten times the judge's limit; families are tried, `nominal` first, until one is found.
    `degenerate` are the arguments for which none was found, `constant` the outputs that no argument changes, `unused`
    the inputs that forward never reads. `nominal` tells whether nominal inputs alone would do; where it is false the
    task is to be marked. `families` is what to judge on: those that discriminate come first. Lifted constants are
    not tried: they are part of the task's text.
    """

    admitted: bool
    nominal: bool
    matters: tuple[tuple[str, tuple[str, ...]], ...]
    degenerate: tuple[str, ...]
    constant: tuple[str, ...]
    unused: tuple[str, ...]
    families: tuple[str, ...]


def admit(task: Task) -> Admission:
    """Try every input, parameter and buffer of `task`, one at a time, family by family, in float64."""
    families = families_for(task)
    reached = _reached(task.graph)
    names = [spec.name for spec in task.graph.inputs + task.graph.parameters + task.graph.buffers]
    matters: dict[str, list[str]] = {name: [] for name in names if reached[name]}
    moved: set[str] = set()
    for family in families:
        waiting = [name for name, found in matters.items() if not found]
        if not waiting and moved == {spec.name for spec in task.graph.results}:
            break
        probe = _Probe(task, family)
        for name in waiting or matters:
            changed = probe.changed_by(name) & reached[name]
            moved |= changed
            if changed:
                matters[name].append(family)
    degenerate = tuple(name for name, found in matters.items() if not found)
    constant = tuple(spec.name for spec in task.graph.results if spec.name not in moved)
    telling = {family for found in matters.values() for family in found}
    return Admission(
        admitted=not degenerate and not constant,
        nominal=all(found[:1] == ["nominal"] for found in matters.values()) and not constant,
        matters=tuple((name, tuple(found)) for name, found in matters.items()),
        degenerate=degenerate,
        constant=constant,
        unused=tuple(spec.name for spec in task.graph.inputs if not reached[spec.name]),
        families=tuple(sorted(families, key=lambda family: family not in telling)),
    )


class _Probe:
    """The outputs on one draw of a family, what a judge would tolerate on them, and a second draw to borrow from."""

    def __init__(self, task: Task, family: str) -> None:
        self.graph = task.graph
        self.arguments = draw(task, family, _SEED)
        self.others = draw(task, family, _SEED + 1)
        for name, _ in task.graph.masks:
            if torch.equal(self.arguments[name], self.others[name]):
                # Two draws of a short mask are often the same one.
                self.others[name] = ~self.arguments[name]
        self.reference = evaluate(task.graph, self.arguments, "float64")
        eager = evaluate(task.graph, self.arguments, "task")
        self.limits = {
            spec.name: _limit(task, eager[spec.name], self.reference[spec.name]) for spec in task.graph.results
        }

    def changed_by(self, name: str) -> set[str]:
        """Return the outputs that change when the argument `name` alone is redrawn."""
        result = evaluate(self.graph, {**self.arguments, name: self.others[name]}, "float64")
        return {
            output for output, value in result.items() if _differ(value, self.reference[output], self.limits[output])
        }


def _limit(task: Task, eager: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the error that the task's tolerance lets pass, for the whole output; 0 for integers."""
    if not eager.dtype.is_floating_point:
        return 0.0
    finite = torch.isfinite(reference) & torch.isfinite(eager)
    if not finite.any():
        return 0.0
    error = float((eager.double() - reference)[finite].abs().max())
    size = float(reference[finite].abs().max())
    return task.tolerance.factor * error + task.tolerance.floor_ulps * torch.finfo(eager.dtype).eps * size


def _differ(a: torch.Tensor, b: torch.Tensor, limit: float) -> bool:
    a, b = a.double(), b.double()
    if not torch.equal(torch.isnan(a), torch.isnan(b)):
        return True
    change = torch.where(a == b, 0.0, a - b).abs().nan_to_num(nan=0.0, posinf=torch.inf)
    return bool(float(change.max()) > _MARGIN * limit)


def _reached(graph: Graph) -> Mapping[str, set[str]]:
    """Return, for every argument, the outputs whose values it can reach.

    An operator that looks at a shape only, such as `zeros_like`, does not count as reading.
    """
    reached: dict[str, set[str]] = {spec.name: set() for spec in graph.arguments}
    reached |= {node.name: set() for node in graph.nodes}
    for spec, ref in graph.outputs:
        reached[ref.name].add(spec.name)
    for node in reversed(graph.nodes):
        if not looks_at_shape_only(node):
            for ref in refs_of(node):
                reached[ref.name] |= reached[node.name]
    return reached
