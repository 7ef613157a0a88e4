"""Draws that no single family gives: two families in one tensor, edits of a draw, and its mirror image.

A kernel that samples its inputs (the first row is constant, so all are) or keys a cache on a few of them is right on
every family that looks the same everywhere. `equal+normal` holds one third of the first family in front of two
thirds of the second; `nominal+edited` is a nominal draw of which a handful of elements in the middle are replaced;
`offset+mirrored` lies around -5, so that a maximum that starts from 0 shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from warpsmith.records import Task
from warpsmith.task import draw

EDITED = "edited"
MIRRORED = "mirrored"
EDITS = 5


def draw_any(task: Task, family: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw all arguments of a task from a family or from a mixture `first+second`. The same call, the same bits."""
    first, _, second = family.partition("+")
    if not second:
        return draw(task, family, seed)
    if second == EDITED:
        return _edited(task, draw(task, first, seed), draw(task, first, seed + 1))
    if second == MIRRORED:
        return _mirrored(draw(task, first, seed), {spec.name for spec in task.graph.inputs})
    return _joined(draw(task, first, seed), draw(task, second, seed), {spec.name for spec in task.graph.inputs})


def _joined(
    front: Mapping[str, torch.Tensor], back: Mapping[str, torch.Tensor], inputs: set[str]
) -> dict[str, torch.Tensor]:
    mixed = {name: value.clone() for name, value in back.items()}
    for name in inputs:
        third = (front[name].numel() + 2) // 3
        mixed[name].view(-1)[:third] = front[name].reshape(-1)[:third]
    return mixed


def _mirrored(base: Mapping[str, torch.Tensor], inputs: set[str]) -> dict[str, torch.Tensor]:
    """Negate every floating input; what lies in [0, 1], as probabilities must, stays there."""
    mirrored = dict(base)
    for name in inputs:
        values = base[name]
        if values.is_floating_point() and values.numel():
            inside = bool((values >= 0.0).all() and (values <= 1.0).all())
            mirrored[name] = 1.0 - values if inside else -values
    return mirrored


def _edited(task: Task, base: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replace `EDITS` elements of every input, none of them near either end, by those of another draw."""
    edited = {name: value.clone() for name, value in base.items()}
    for spec in task.graph.inputs:
        places = [spec.numel * (2 * step + 3) // (2 * EDITS + 6) for step in range(EDITS)] if spec.numel else []
        for place in places:
            edited[spec.name].view(-1)[place] = other[spec.name].reshape(-1)[place]
    return edited
