"""A task on which skipping work goes unnoticed is recognised before anybody is praised for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from warpsmith.task import admit, families_for, task_from_module

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_admitted_on_nominal_inputs(example, path: Path) -> None:
    task = example(path)
    admission = admit(task)
    assert admission.admitted
    assert admission.nominal
    assert {name for name, _ in admission.matters} == {spec.name for spec in task.graph.arguments}
    assert set(admission.families) == set(families_for(task))


class AveragedSoftmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.softmax(dim=1).mean(dim=1)


def test_averaged_softmax_is_a_constant() -> None:
    admission = admit(task_from_module(AveragedSoftmax(), torch.randn(8, 32)))
    assert not admission.admitted
    assert admission.degenerate == ("x",)
    assert admission.constant == ("out",)


class CancelledBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.InstanceNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def test_a_bias_that_a_norm_cancels_is_named() -> None:
    admission = admit(task_from_module(CancelledBias(), torch.randn(2, 3, 9, 9)))
    assert not admission.admitted
    assert admission.degenerate == ("conv_bias",)
    assert admission.constant == ()


class Saturated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 10.0).relu()


def test_what_is_degenerate_on_nominal_inputs_only_is_admitted_and_marked() -> None:
    admission = admit(task_from_module(Saturated(), torch.rand(64)))
    assert admission.admitted
    assert not admission.nominal
    ((name, found),) = admission.matters
    assert name == "x"
    assert "nominal" not in found
    assert admission.families[0] == found[0]


class Ignoring(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + torch.ones_like(y)


def test_inputs_that_are_never_read_are_listed() -> None:
    admission = admit(task_from_module(Ignoring(), [torch.rand(3), torch.rand(3)]))
    assert admission.unused == ("y",)
    assert admission.admitted


class Constant(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, torch.ones(3)


def test_an_output_that_nothing_changes_is_named() -> None:
    admission = admit(task_from_module(Constant(), torch.rand(3)))
    assert admission.constant == ("out1",)
    assert not admission.admitted


class TinyTerm(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 1e-9 * y


def test_a_change_within_tolerance_is_no_change() -> None:
    task = task_from_module(TinyTerm(), [torch.rand(64), torch.rand(64)])
    admission = admit(task)
    matters = dict(admission.matters)
    assert matters["x"][0] == "nominal"
    assert "nominal" not in matters["y"]
    assert "normal" not in matters["y"]
