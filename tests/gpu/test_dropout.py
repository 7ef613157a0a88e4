"""Masks on a real GPU, where PyTorch draws them in another operator than on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.gpu.bench import needs_gpu
from warpsmith.records import Task
from warpsmith.task import draw, load, task_from_module

pytestmark = needs_gpu


def dropping() -> Task:
    torch.manual_seed(0)
    layers = nn.Linear(32, 48), nn.Dropout(0.3), nn.Dropout(0.1, inplace=True), nn.Dropout1d(0.5)
    return task_from_module(nn.Sequential(*layers), torch.ones(64, 32))


def test_a_module_that_is_run_on_the_gpu_is_given_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large modules are run there; the task must not depend on which device there was."""
    on_cpu = dropping()
    monkeypatch.setattr(load, "_LARGE", 0)
    on_gpu = dropping()
    assert on_gpu.key == on_cpu.key and len(on_gpu.graph.masks) == 3
    assert all(torch.equal(on_gpu.examples[name], on_cpu.examples[name]) for name, _ in on_cpu.graph.masks)


def test_masks_drawn_on_the_gpu_have_their_probability() -> None:
    drawn = draw(task_from_module(nn.Dropout(0.2), torch.ones(100, 200)), "normal", 1, "cuda")
    assert drawn["mask"].is_cuda and abs(float(drawn["mask"].double().mean()) - 0.8) < 0.015
