"""A model that explains what changes taught, through all stages: asked, paid, kept, and told for similar tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic_ai.exceptions import ModelAPIError

from tests.author.llm.kit import QUICK
from tests.evolve.worlds import GPU
from warpsmith.archive import Archive
from warpsmith.author.llm import FakeModel, LlmAuthor
from warpsmith.optimize import Result
from warpsmith.pipeline import Pursuit, blocking
from warpsmith.records import Candidate, Stage, Timing, Verdict
from warpsmith.settings import load_settings

LESSON = "Each step that was left out saved one pass over memory."
PROGRAM = """One thread copies one element.

```cuda
extern "C" __global__ void copy(const float* input, float* out, int count) {
  const int index = blockIdx.x * 256 + threadIdx.x;
  if (index < count) out[index] = input[index] + STEP;
}
```

```toml
[[launch]]
kernel = "copy"
grid = ["ceil_div(input.numel, 256)"]
block = ["256"]
args = ["input", "out", "input.numel"]
```
"""


class Climber:
    """Writes a faster program each time: the steps of what it is shown last, and one more. Explains, as it is told."""

    def __init__(self, lesson: str | Exception = LESSON) -> None:
        self.lesson = lesson
        self.count = 0

    def __call__(self, prompt: str) -> str:
        if "What is the lesson?" in prompt:
            if isinstance(self.lesson, Exception):
                raise self.lesson
            return self.lesson
        self.count += 1
        return PROGRAM.replace("STEP", f"{self.count}.0f")


class Judge:
    """Programs pass; the later one is written, the faster it is."""

    async def judge(self, candidate: Candidate) -> Verdict:
        step = float(candidate.program.source.split("input[index] + ")[1].split("f;")[0])
        seconds = 1e-3 / 2.0**step
        timing = Timing((seconds,), seconds, (seconds, seconds), "estimated", GPU.name)
        return Verdict(candidate.key, candidate.task_key, Stage.PROFILE, None, timing)

    def close(self) -> None:
        pass


def optimize(folder: Path, write: Callable[[str], str], size: int = 64, **values: Any) -> tuple[Result, FakeModel]:
    model = FakeModel(write, "openai:gpt-5")
    settings = load_settings(
        archive=str(folder / "archive.db"),
        workers=1,
        device="H100",
        max_usd=values.pop("max_usd", 10.0),
        max_candidates=values.pop("candidates", 28),
        **values,
    )
    module, x = torch.nn.Softmax(-1), torch.randn(4, size)
    author = LlmAuthor(model, QUICK)
    return blocking(Pursuit(module, x, settings, [author], None, lambda *_: Judge())), model


def explained(folder: Path, result: Result) -> list[dict[str, Any]]:
    with Archive.open(folder / "archive.db") as archive:
        return [dict(data) for data in archive.told(result.task.key, "explained")]


def questions(model: FakeModel) -> list[str]:
    return [prompt for prompt in model.prompts if "What is the lesson?" in prompt]


def test_a_lesson_is_asked_once_stored_counted_and_told(tmp_path: Path) -> None:
    result, model = optimize(tmp_path, Climber())
    stored = explained(tmp_path, result)
    assert len(questions(model)) == len(stored) >= 1
    assert len({data["candidate"] for data in stored}) == len(stored)
    known = {judged.candidate.key: judged.seconds for judged in result.history}
    for data in stored:
        assert LESSON in data["lesson"] and data["reply"] == LESSON
        assert known[data["parent"]] > known[data["candidate"]]
        assert 0.0 < data["cost_usd"] < 0.1
    with Archive.open(tmp_path / "archive.db") as archive:
        (end,) = archive.told(result.task.key, "stopped")
        spent = archive.spent(result.task.key)
    assert end["usd"] == pytest.approx(spent)
    assert spent == pytest.approx(
        sum(judged.candidate.lineage.cost_usd for judged in result.history) + sum(each["cost_usd"] for each in stored)
    )
    assert result.outcome.lessons == tuple(data["lesson"] for data in stored)
    asked_later = [prompt for prompt in model.prompts if stored[0]["lesson"] in prompt]
    assert asked_later and not set(asked_later) & set(questions(model))


def test_after_a_resume_it_is_remembered_and_not_asked_again(tmp_path: Path) -> None:
    first, _ = optimize(tmp_path, Climber())
    before = explained(tmp_path, first)
    second, model = optimize(tmp_path, Climber(), candidates=8)
    after = explained(tmp_path, second)
    assert after[: len(before)] == before and len(after) - len(before) == len(questions(model))
    assert len({data["candidate"] for data in after}) == len(after)
    assert LESSON in model.prompts[0]


def test_a_similar_task_is_told_what_was_learnt(tmp_path: Path) -> None:
    small, _ = optimize(tmp_path, Climber())
    _, model = optimize(tmp_path, Climber(), size=128, candidates=4)
    assert f"- {small.task.name}: " in model.prompts[0] and LESSON in model.prompts[0]


@pytest.mark.parametrize("lesson", ["", ModelAPIError("gpt-5", "the provider is down")], ids=["empty", "down"])
def test_a_lesson_that_does_not_come_costs_its_price_and_no_more(tmp_path: Path, lesson: str | Exception) -> None:
    result, model = optimize(tmp_path, Climber(lesson))
    stored = explained(tmp_path, result)
    assert stored and all(data["lesson"] == "" and data["note"] for data in stored)
    assert all((data["cost_usd"] > 0.0) == isinstance(lesson, str) for data in stored)
    assert len(result.history) == 28, "the search did not go on"
    assert not any("What was learnt so far" in prompt and "the lesson is empty" in prompt for prompt in model.prompts)
