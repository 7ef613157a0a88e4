"""Large inputs that were drawn on a GPU do not travel with the task: they are drawn again by whoever needs them.

The device `meta` shows where they would be drawn, and the CPU stands for a GPU where numbers are needed.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from warpsmith.task import draw, load_task, sourcefile
from warpsmith.task.sourcefile import place_of_inputs

TEXT = """
import torch

COUNT = 0


class Model(torch.nn.Module):
    def forward(self, x, mask, small):
        return torch.where(mask, x, small)


def get_inputs():
    global COUNT
    COUNT += 1
    return [torch.rand({rows}, 1024) + COUNT, torch.rand({rows}, 1024) < 0.25, torch.rand(1024)]
"""
LARGE, SMALL = TEXT.format(rows=1 << 14), TEXT.format(rows=4)


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_large_inputs_are_drawn_on_a_gpu(with_a_gpu: None) -> None:
    assert place_of_inputs(LARGE, "task.py") == "cuda"
    assert place_of_inputs(SMALL, "task.py") == "cpu"


def test_without_a_gpu_all_are_drawn_on_the_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert place_of_inputs(LARGE, "task.py") == "cpu"


@pytest.mark.parametrize(
    "line",
    [
        "return [torch.rand(1 << 14, 1024) * torch.rand(1).item()]",
        "import numpy; return [torch.from_numpy(numpy.ones((4, 8)))]",
        "return [torch.rand(1 << 14, 1024), torch.ones(4, device='cpu')]",
    ],
)
def test_inputs_that_cannot_be_drawn_elsewhere_stay_on_the_cpu(with_a_gpu: None, line: str) -> None:
    head = LARGE.partition("def get_inputs")[0]
    assert place_of_inputs(f"{head}def get_inputs():\n    {line}\n", "task.py") == "cpu"


def test_what_is_left_out_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "task.py"
    file.write_text(SMALL)
    whole = load_task(file)
    monkeypatch.setattr("warpsmith.task.load._kept", lambda task, example: not example.is_floating_point())
    task = load_task(file)
    assert sorted(task.examples) == ["mask"]
    assert task.key == whole.key
    again = draw(task, "nominal", 0)
    for name, example in whole.examples.items():
        assert torch.equal(again[name], example), name


def test_asking_for_the_place_is_not_a_call_that_counts(with_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sourcefile, "LARGE", 1)
    namespace = sourcefile.execute(LARGE, "task.py")
    place_of_inputs(LARGE, "task.py")
    assert namespace.COUNT == 0
