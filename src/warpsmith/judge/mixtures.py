"""Draws that no single family gives: two families in one tensor, and the mirror image of one.

A kernel that samples its inputs (the first row is constant, so all are) is right on every family that looks the same
everywhere. `equal+normal` holds one third of the first family in front of two thirds of the second; `offset+mirrored`
lies around -5, so that a maximum that starts from 0 shows. Masks that the
module draws stay as they are: they look the same in every family.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from warpsmith.records import Task
from warpsmith.task import draw

MIRRORED = "mirrored"


def draw_any(task: Task, family: str, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Draw all arguments of a task from a family or from a mixture `first+second`. The same call, the same bits."""
    first, _, second = family.partition("+")
    if not second:
        return draw(task, family, seed, device)
    if second == MIRRORED:
        return _mirrored(draw(task, first, seed, device), {spec.name for spec in task.graph.given})
    front, back = draw(task, first, seed, device), draw(task, second, seed, device)
    return _joined(front, back, {spec.name for spec in task.graph.given})


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
