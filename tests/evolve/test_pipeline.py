"""The four stages with a real task and a real archive; only the author and the judge are synthetic."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

import warpsmith
from tests.evolve.worlds import Bench, Hill
from warpsmith import pipeline
from warpsmith.archive import Archive
from warpsmith.device.catalog import gpu
from warpsmith.device.choose import Choice
from warpsmith.device.cuda.gpus import Present
from warpsmith.errors import NothingPassed, TaskError
from warpsmith.evolve import events
from warpsmith.judge import JUDGE_VERSION
from warpsmith.optimize import Result
from warpsmith.pipeline import INTERRUPTED, Pursuit, authors_of, blocking
from warpsmith.records import Candidate, Failure, Stage, Verdict
from warpsmith.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """A shell starts what runs in the background with Ctrl-C ignored; here it must mean what it means at a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def settings(folder: Path, **values: Any) -> Settings:
    given = {"max_candidates": 40, "workers": 2, "device": "H100", "seed": 3} | values
    return load_settings(archive=str(folder / "archive.db"), **given)


def optimize(folder: Path, bench: Bench, observer: events.Observer = events.ignore, **values: Any) -> Result:
    module, x = torch.nn.ReLU(), torch.randn(4)
    pursuit = Pursuit(
        module, x, settings(folder, **values), [Hill()], observer, lambda task, choice, chosen, thorough: bench
    )
    return blocking(pursuit)


class Interrupting(Bench):
    """The user presses Ctrl-C while the candidate numbered `at` is judged."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    async def judge(self, candidate: Candidate) -> Verdict:
        if len(self.keys) == self.at:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep(5)
        return await super().judge(candidate)


def test_all_four_stages_are_told_in_order(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    result = optimize(tmp_path, Bench(), seen.append)
    assert [event.stage for event in seen if isinstance(event, events.StageStarted)] == [
        "functionalize",
        "translate",
        "evolve",
        "archive",
    ]
    assert [event.stage for event in seen if isinstance(event, events.StageFinished)] == [
        "functionalize",
        "translate",
        "evolve",
        "archive",
    ]
    assert result.stop_reason == "40 candidates judged"
    assert not result.interrupted
    assert len(result.history) == 40
    assert result.best.seconds == min(judged.seconds for judged in result.history)
    assert result.lineage[-1].candidate.key == result.best.candidate.key or result.best in result.lineage
    assert result.bound.device == "H100"


def test_everything_judged_is_in_the_archive(tmp_path: Path) -> None:
    result = optimize(tmp_path, Bench())
    with Archive.open(result.archive) as archive:
        archived = archive.judged(result.task.key)
        assert {judged.candidate.key for judged in archived} == {judged.candidate.key for judged in result.history}
        [stopped] = [event for event in archive.events(result.run) if event.kind == "stopped"]
        assert stopped.data["reason"] == "40 candidates judged"
        best = archive.best(result.task.key)
        assert best is not None and best.seconds == result.best.seconds


def test_ctrl_c_returns_the_best_so_far_and_the_next_call_goes_on(tmp_path: Path) -> None:
    seen: list[events.Event] = []
    first = optimize(tmp_path, Interrupting(at=25), seen.append)
    assert first.interrupted and first.stop_reason == INTERRUPTED
    assert events.Stopped(INTERRUPTED) in seen
    assert 23 <= len(first.history) <= 25
    with Archive.open(first.archive) as archive:
        assert len(archive.judged(first.task.key)) == len(first.history)
    bench = Bench()
    second = optimize(tmp_path, bench)
    before = {judged.candidate.key for judged in first.history}
    assert before <= {judged.candidate.key for judged in second.history}
    assert not before & set(bench.keys), "a candidate of the first run was judged again"
    assert second.best.seconds <= first.best.seconds


def test_ctrl_c_before_anything_passed_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        optimize(tmp_path, Interrupting(at=0))


def test_it_can_be_called_where_an_event_loop_is_running(tmp_path: Path) -> None:
    async def notebook() -> Result:
        return optimize(tmp_path, Bench())

    assert len(asyncio.run(notebook()).history) == 40


def test_a_target_fraction_ends_the_search_early(tmp_path: Path) -> None:
    result = optimize(tmp_path, Bench(lambda genes, tunables: 1e-11), target_fraction=0.5)
    assert result.stop_reason == "within 50% of the bound"
    assert len(result.history) < 40


def test_the_budget_limits_the_time(tmp_path: Path) -> None:
    result = optimize(tmp_path, Bench(delay=lambda index: 0.5), budget=3.0, max_candidates=100_000)
    assert result.stop_reason == "time is up (2.55 s)"
    assert len(result.history) < 16, "two at once at half a second each"


def test_where_nothing_passes_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(NothingPassed, match="wrong_value"):
        optimize(tmp_path, Bench(lambda genes, tunables: math.inf))


def test_a_live_module_needs_inputs() -> None:
    with pytest.raises(TaskError, match="example_inputs"):
        warpsmith.optimize(torch.nn.ReLU())


def test_a_file_draws_its_own_inputs(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="live module"):
        warpsmith.optimize(tmp_path / "model.py", torch.zeros(2))


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "new")
    with pytest.raises(TaskError):
        warpsmith.optimize(tmp_path / "missing.py", settings=chosen)
    assert list(tmp_path.iterdir()) == []


def test_the_executor_is_closed_whatever_happens(tmp_path: Path) -> None:
    class Closing(Interrupting):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    for at in (10**9, 20):
        bench = Closing(at)
        optimize(tmp_path, bench)
        assert bench.closed == 1


class Thorough(Bench):
    """Lets pass everything but the candidates that it is told to stop."""

    def __init__(self, bench: Bench, stopped: int) -> None:
        super().__init__()
        self.bench, self.stopped, self.asked = bench, stopped, list[str]()

    async def judge(self, candidate: Candidate) -> Verdict:
        self.asked.append(candidate.key)
        verdict = await self.bench.judge(candidate)
        if len(self.asked) > self.stopped:
            return verdict
        failure = Failure(Stage.SANITIZE, "shared_race", "two threads")
        return replace(verdict, stage=Stage.SANITIZE, failure=failure, timing=None)


def confirmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stopped: int, **chosen: object
) -> tuple[Result, Thorough, list[str]]:
    """Optimize as on a GPU, where the `stopped` fastest fail when they are looked at thoroughly."""
    here = Choice(gpu("H100"), Present(0, "GPU-0", "H100", gpu("H100")))
    monkeypatch.setattr(pipeline, "choose", lambda name, simulate: here)
    bench = Bench()
    thorough = Thorough(bench, stopped)
    stages: list[str] = []

    def watch(event: events.Event) -> None:
        if isinstance(event, events.StageFinished):
            stages.append(event.stage)

    module, x = torch.nn.ReLU(), torch.randn(4)
    make = lambda task, choice, chosen, careful: thorough if careful else bench  # noqa: E731
    result = blocking(Pursuit(module, x, settings(folder, **chosen), [Hill()], watch, make))
    return result, thorough, stages


def test_on_a_gpu_the_winner_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, thorough, stages = confirmed(tmp_path, monkeypatch, 0)
    assert stages == ["functionalize", "translate", "evolve", "confirm", "archive"]
    assert thorough.asked == [result.best.candidate.key]
    assert result.best.seconds == min(judged.seconds for judged in result.history)


def test_whoever_is_in_a_hurry_can_leave_that_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, thorough, stages = confirmed(tmp_path, monkeypatch, 99, confirm=False)
    assert "confirm" not in stages and thorough.asked == []
    assert result.best.verdict.passed


def test_a_winner_that_fails_a_thorough_look_is_not_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, thorough, _ = confirmed(tmp_path, monkeypatch, 2)
    fastest = sorted((j for j in result.history if j.verdict.passed), key=lambda j: j.seconds)
    assert thorough.asked == [judged.candidate.key for judged in fastest[:3]]
    assert result.best.candidate.key == fastest[2].candidate.key
    with Archive.open(str(tmp_path / "archive.db")) as archive:
        kept = archive.judged(result.task.key, judge_version=f"{JUDGE_VERSION} thorough")
    assert [judged.verdict.passed for judged in kept] == [False, False, True]


def test_where_no_winner_stands_a_thorough_look_nothing_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NothingPassed, match="thorough"):
        confirmed(tmp_path, monkeypatch, 99)


def test_the_settings_limit_what_models_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "warpsmith.author.llm.ensemble", lambda names, limits, hybrid: given.append((names, limits)) or []
    )
    settings = load_settings(
        models=("a:b",), model_timeout=7.0, requests_per_minute=3.0, model_prompt_tokens=900, model_reply_tokens=80
    )
    authors_of(settings)
    ((names, limits),) = given
    assert names == ("a:b",)
    assert (limits.timeout_s, limits.requests_per_minute) == (7.0, 3.0)
    assert (limits.max_prompt_tokens, limits.max_reply_tokens) == (900, 80)
