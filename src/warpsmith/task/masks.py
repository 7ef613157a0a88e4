"""Masks that a module draws, such as those of dropout in training mode: how they are drawn here instead.

No program can draw the numbers that PyTorch draws, nor need it: to a task each mask is an input like any other. While
a module runs within `Dealer` its draws are answered with masks of ours, the same ones in every run, and noted; the
export must have drawn the same ones, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from warpsmith.errors import TaskError
from warpsmith.records import Graph
from warpsmith.task.chance import probability
from warpsmith.task.sourcefile import SEED


@dataclass(frozen=True, eq=False)
class Dealt:
    """A mask that a module was given, of dtype bool and on the CPU, and the probability of a one."""

    mask: torch.Tensor
    keep: float


def draw_mask(shape: tuple[int, ...], keep: float, g: torch.Generator) -> torch.Tensor:
    """Draw a mask on the device of `g`, of dtype bool, whose elements are true with the probability `keep`.

    Where all of several elements come out alike, one of them is turned: else a short mask, or one that is nearly
    always true, would often not show whether a program reads it.
    """
    mask = torch.empty(shape, dtype=torch.bool, device=g.device).bernoulli_(keep, generator=g)
    if mask.numel() > 1 and bool(mask.all() | ~mask.any()):
        turned = int(torch.randint(mask.numel(), (), generator=g, device=g.device))
        mask.view(-1)[turned].logical_not_()
    return mask


class Dealer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which whoever draws a mask is given the next one of a fixed sequence. `dealt` holds them in order.

    The generators of PyTorch are not asked for them. Other random numbers are drawn as always.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dealt: list[Dealt] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keep = probability(func, args, kwargs or {})
        if keep is None or not 0.0 < keep < 1.0:
            return func(*args, **(kwargs or {}))
        source: torch.Tensor = args[0]
        mask = self._deal(tuple(source.shape), keep).to(source.device)
        match str(func):
            case "aten.bernoulli_.float":
                return source.copy_(mask)
            case "aten.bernoulli.p":
                return mask.to(source.dtype)
        # A product, and not a choice, so that infinity times zero is NaN as it is in PyTorch.
        product = source.mul(mask).mul_(1.0 / keep)
        return (product, mask) if str(func) == "aten.native_dropout.default" else product

    def _deal(self, shape: tuple[int, ...], keep: float) -> torch.Tensor:
        mask = draw_mask(shape, keep, torch.Generator().manual_seed(SEED + len(self.dealt)))
        self.dealt.append(Dealt(mask, keep))
        return mask


def named_masks(graph: Graph, dealt: Sequence[Dealt], file: str | None, line: int | None) -> Mapping[str, torch.Tensor]:
    """Return the masks of one run by their names in `graph`. Raises TaskError where the graph draws others."""
    if not graph.masks:
        return {}
    specs = graph.inputs[len(graph.given) :]
    due = [(spec.shape, keep) for spec, (_, keep) in zip(specs, graph.masks)]
    got = [(tuple(each.mask.shape), each.keep) for each in dealt]
    if got != due:
        raise TaskError(
            f"forward draws {_listed(got)} when it is called, but {_listed(due)} in its export; it must draw the same "
            "masks at every call, and use each of them",
            file=file,
            line=line,
        )
    return {name: each.mask for (name, _), each in zip(graph.masks, dealt)}


def _listed(draws: Sequence[tuple[tuple[int, ...], float]]) -> str:
    shapes = ", ".join(f"{list(shape)} (ones with {keep:g})" for shape, keep in draws)
    return f"{len(draws)} mask{'' if len(draws) == 1 else 's'} [{shapes}]"
