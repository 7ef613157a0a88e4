"""A judge that lacks memory of the GPU lets go of its own, and waits where others hold some."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from warpsmith.errors import MachineError
from warpsmith.judge import crowd
from warpsmith.judge.crowd import says_so, with_patience
from warpsmith.records import Failure, Stage, Verdict

JUDGED = Verdict("candidate", "task", Stage.NUMERICS, Failure(Stage.NUMERICS, "wrong_value", "of no matter here"), None)
FULL = Verdict("candidate", "task", Stage.RUN, Failure(Stage.RUN, "out_of_memory", "buffers do not fit"), None)
SHORT = torch.OutOfMemoryError("CUDA out of memory.")
Answer = Verdict | Exception


class Gpu:
    """A GPU of which others hold some gigabytes, for so many looks; `slept` are seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *taken: int) -> None:
        self.taken, self.slept = list(taken), 0.0
        self.told: list[bool] = []
        self.device: Any = SimpleNamespace(waits=self.told.append)
        monkeypatch.setattr(crowd, "taken_bytes", lambda _: self.taken.pop(0) * 10**9 if self.taken else 0)
        monkeypatch.setattr(crowd, "time", SimpleNamespace(sleep=self.sleep, monotonic=lambda: self.slept))

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def answers(*given: Answer) -> Callable[[], Verdict]:
    left = list(given)

    def judge() -> Verdict:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return judge


def test_what_it_holds_itself_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    forgotten: list[int] = []
    found = with_patience(answers(SHORT, JUDGED), lambda: forgotten.append(1), gpu.device, "gelu", says_so)
    assert found is JUDGED and len(forgotten) == 1 and gpu.slept == 0.0


@pytest.mark.parametrize(
    "short",
    [SHORT, FULL, torch.AcceleratorError("CUDA error: out of memory"), MachineError("x: CUDA_ERROR_OUT_OF_MEMORY")],
)
def test_it_waits_while_others_hold_memory_and_its_clock_stands_still(
    monkeypatch: pytest.MonkeyPatch, short: Answer
) -> None:
    gpu = Gpu(monkeypatch, 60, 60)
    assert with_patience(answers(short, short, short, JUDGED), lambda: None, gpu.device, "gelu", says_so) is JUDGED
    assert gpu.slept == 2 * crowd.PAUSE and gpu.told == [True, False, True, False]


def test_a_program_that_has_the_gpu_for_itself_and_does_not_fit_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_patience(answers(FULL), lambda: None, Gpu(monkeypatch).device, "gelu", says_so) is FULL


def test_in_the_end_it_says_how_much_others_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, *[60] * 200)
    with pytest.raises(MachineError, match="gelu does not fit into the GPU's memory beside 60 GB"):
        with_patience(answers(SHORT), lambda: None, gpu.device, "gelu", says_so)
    assert crowd.PATIENCE <= gpu.slept < crowd.PATIENCE + 2 * crowd.PAUSE


def test_a_task_too_large_for_the_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    with pytest.raises(MachineError, match=r"gelu does not fit into the GPU's memory$"):
        with_patience(answers(SHORT), lambda: None, gpu.device, "gelu", says_so)
    assert gpu.slept == 0.0


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="lost"):
        with_patience(answers(MachineError("the GPU is lost")), lambda: None, Gpu(monkeypatch).device, "gelu", says_so)
