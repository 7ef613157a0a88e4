"""How a task's tensors and a solution's correspond: arguments of the constructor and of forward, state, results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warpsmith.errors import TaskError
from warpsmith.judge.foreign.driver import encode
from warpsmith.records import Task, TensorSpec
from warpsmith.task.binding import bind
from warpsmith.task.sourcefile import SEED, call_if_defined, example_inputs, module_class, seed_all, seeded, split
from warpsmith.task.usercode import execute, importing_from, line_of


@dataclass(frozen=True)
class Form:
    """Arguments of the constructor and of forward, as `driver.encode` writes them, and which inputs forward changes.

    `updated` pairs a buffer with the output that it becomes.
    """

    init: Any
    call: Any
    updated: tuple[tuple[str, str], ...]
    written: tuple[int, ...]
    order: tuple[TensorSpec, ...]
    """The results in the order in which the driver gives them: returned ones, updated buffers, changed inputs."""


def form_of(task: Task, init: Sequence[Any] | Mapping[str, Any] | None = None) -> Form:
    """Read from the task's file how its module is constructed and called; `init` overrides what the file says.

    Where the task was made of a live module, the constructor gets nothing but `init`, and forward the inputs in order.
    Raises TaskError where an argument is no tensor, number, text or container of those, and where the module draws
    masks.
    """
    if task.graph.masks:
        raise TaskError(
            f"{task.name} uses dropout in training mode: a solution with host code draws masks of its own, so its "
            "outputs cannot be compared with those due; only programs, which take masks as inputs, can be judged",
            file=split(task.origin)[0],
        )
    inputs = [spec.name for spec in task.graph.inputs]
    if task.module_inputs:
        init_of_file, call = _from_file(task)
        init = init_of_file if init is None else init
    else:
        call = ((*(task.examples[name] for name in inputs),), {})
    given: Any = ((), dict(init)) if isinstance(init, Mapping) else (tuple(init or ()), {})
    try:
        tensors: list[torch.Tensor] = []
        encoded_call, encoded_init = encode(call, tensors), encode(given, [])
    except TypeError as error:
        raise TaskError(f"{error} cannot be given to a solution in another process") from error
    if len(tensors) != len(inputs) or "tensor" in str(encoded_init):
        raise TaskError("a foreign solution can be given tensors in its call only, as many as the task has")
    changed = dict(task.graph.updates)
    results = [spec for spec in task.graph.results if spec.name not in changed.values()]
    by_name = {spec.name: spec for spec in task.graph.results}
    buffers = tuple((old, new) for old, new in task.graph.updates if old not in inputs)
    written = tuple((inputs.index(old), new) for old, new in task.graph.updates if old in inputs)
    order = (*results, *(by_name[new] for _, new in buffers), *(by_name[new] for _, new in written))
    return Form(encoded_init, encoded_call, buffers, tuple(place for place, _ in written), order)


def _from_file(task: Task) -> tuple[Any, Any]:
    file, class_name = split(task.origin)
    with seeded(SEED), importing_from(Path(file).parent):
        namespace = execute(task.source, file)
        seed_all(SEED)
        init = call_if_defined(namespace, "get_init_inputs", file)
        drawn = example_inputs(namespace, file)
        found = module_class(namespace, class_name, file)
    signature = inspect.signature(found.forward)
    unbound = signature.replace(parameters=[*signature.parameters.values()][1:])
    call = bind(unbound, drawn, file, line_of(found.forward, file))
    return init, (call.args, call.kwargs)


def matched(task: Task, described: Sequence[Sequence[Any]]) -> dict[str, str] | None:
    """Return the solution's name for each parameter and buffer of the task; None where they do not correspond.

    By name (`fc.weight` for `fc_weight`) where shapes agree, else by order where kinds, shapes and dtypes all agree.
    What a solution says of itself is only used to give it values, never to judge it.
    """
    theirs = [(str(kind), str(name), tuple(map(int, shape)), str(dtype)) for kind, name, shape, dtype in described]
    ours = [("parameter", spec) for spec in task.graph.parameters] + [("buffer", spec) for spec in task.graph.buffers]
    by_name = {name.replace(".", "_"): (name, shape, dtype) for _, name, shape, dtype in theirs}
    pairs: dict[str, str] = {}
    for _, spec in ours:
        name, shape, dtype = by_name.get(spec.name, ("", (), ""))
        if name and (shape, dtype) == (spec.shape, spec.dtype):
            pairs[spec.name] = name
    if len(pairs) == len(ours):
        return pairs
    if [(kind, spec.shape, spec.dtype) for kind, spec in ours] == [(kind, *rest) for kind, _, *rest in theirs]:
        return {spec.name: name for (_, spec), (_, name, _, _) in zip(ours, theirs)}
    return None
