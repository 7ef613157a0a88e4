"""A task as the baseline's process gets it: in a file that holds text and tensors, and no code to unpickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warpsmith.records import Task, TensorSpec, Tolerance
from warpsmith.task.sourcefile import split


@dataclass(frozen=True, eq=False)
class Parcel:
    """What is needed to call the original module.

    `text` is the source of a module's file, or where there is none (the task comes from a live module) of its
    functional form: `functional` tells. `inputs` are what it is called with; masks are among them for the functional
    form only. `file` is the absolute name that errors show and beside which imports are looked for. `draws` says
    whether the source can draw inputs; otherwise `examples` holds what to resample. `state` belongs to the functional
    form. `set_bytes` counts the arguments and results of one call of the task.
    """

    text: str
    file: str
    class_name: str | None
    functional: bool
    draws: bool
    inputs: tuple[TensorSpec, ...]
    state: Mapping[str, torch.Tensor]
    examples: Mapping[str, torch.Tensor]
    set_bytes: int
    tolerance: Tolerance


def write_parcel(task: Task, path: Path) -> None:
    """Write what `read_parcel` reads. Tensors that the process does not need stay here."""
    functional = task.source == task.functional_source
    file, class_name = split(task.origin)
    graph, tolerance = task.graph, task.tolerance
    # The module draws its masks itself, which is part of what it is timed for; its functional form is given them.
    inputs = graph.inputs if functional else graph.given
    head = {
        "text": task.source,
        "file": task.origin if functional else str(Path(file).absolute()),
        "class_name": None if functional else class_name,
        "functional": functional,
        "draws": task.module_inputs,
        "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in inputs],
        "set_bytes": sum(spec.nbytes for spec in graph.arguments + graph.results),
        "tolerance": [tolerance.factor, tolerance.floor_ulps, tolerance.matmul_tf32, tolerance.conv_tf32],
    }
    state = _detached(task.state) if functional else {}
    held = {} if task.module_inputs else {spec.name: task.examples[spec.name] for spec in inputs}
    torch.save({"head": json.dumps(head), "state": state, "examples": _detached(held)}, path)


def read_parcel(path: Path) -> Parcel:
    """Read a task back. Tensors are on the CPU."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    head = json.loads(content["head"])
    return Parcel(
        text=head["text"],
        file=head["file"],
        class_name=head["class_name"],
        functional=head["functional"],
        draws=head["draws"],
        inputs=tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in head["inputs"]),
        state=content["state"],
        examples=content["examples"],
        set_bytes=head["set_bytes"],
        tolerance=Tolerance(*head["tolerance"]),
    )


def _detached(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies, since `torch.save` writes the whole storage of which a tensor may be a small view."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
