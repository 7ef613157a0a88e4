"""The arguments of forward: matched to its parameters, named, made dense, and refused where they cannot be used."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from warpsmith.errors import TaskError
from warpsmith.records import DTYPE_BYTES


@dataclass(frozen=True)
class Call:
    """The arguments of one call of forward, and its tensors by name in the order in which export flattens them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def bind(
    signature: inspect.Signature, examples: object, file: str | None, line: int | None, device: str = "cpu"
) -> Call:
    """Match the example inputs to the parameters of forward, and name every tensor among them.

    They may be on the CPU and on `device`, and nowhere else.
    """
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if not isinstance(examples, (list, tuple, dict)):
        message = f"the inputs must be a tensor, a list, a tuple or a dict, not {type(examples).__name__}"
        raise TaskError(message, file=file)
    try:
        bound = signature.bind(**examples) if isinstance(examples, dict) else signature.bind(*examples)
    except TypeError as error:
        raise TaskError(f"the inputs do not fit forward{signature}: {error}", file=file, line=line) from None
    for key, value in bound.arguments.items():
        bound.arguments[key] = torch.utils._pytree.tree_map_only(torch.Tensor, _own, value)
    tensors: dict[str, torch.Tensor] = {}
    for key, value in bound.arguments.items():
        leaves = tree_flatten_with_path(value)[0]
        for path, leaf in leaves:
            label = key + "".join(f"_{part}" for part in keystr(path).strip("[]").replace("'", "").split("][") if part)
            if isinstance(leaf, torch.Tensor):
                _check_input(label, leaf, file, line, device)
                tensors[label] = leaf
            elif leaf is not None and not isinstance(leaf, (bool, int, float, str)):
                message = (
                    f"input {label} is of type {type(leaf).__name__}; inputs are tensors, numbers or lists of them"
                )
                raise TaskError(message, file=file, line=line)
    return Call(bound.args, bound.kwargs, tensors)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A dense copy. What is on a GPU was drawn for us, and may be too large to be there twice."""
    if tensor.layout != torch.strided:
        return tensor
    if tensor.device.type != "cpu":
        return tensor.detach().contiguous()
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _check_input(label: str, tensor: torch.Tensor, file: str | None, line: int | None, device: str) -> None:
    problem = None
    if tensor.layout != torch.strided:
        problem = f"has the layout {tensor.layout}; only dense tensors are supported"
    elif tensor.device.type not in ("cpu", torch.device(device).type):
        problem = f"is on {tensor.device}; draw inputs on the CPU"
    elif str(tensor.dtype).removeprefix("torch.") not in DTYPE_BYTES:
        problem = f"has the dtype {tensor.dtype}, which is not supported"
    elif tensor.numel() == 0:
        problem = f"is empty: its shape is {tuple(tensor.shape)}"
    if problem:
        raise TaskError(f"input {label} {problem}", file=file, line=line)
