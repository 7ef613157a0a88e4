"""Candidate and baselines take turns, and whom to compare with is chosen from all that run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.judge.kernels import SOFTMAX, candidate_of, task_of
from warpsmith.device.catalog import gpu
from warpsmith.judge import duel as duelling
from warpsmith.judge.baseline import BaselineKey, Baselines
from warpsmith.judge.baseline.baselines import names_of
from warpsmith.judge.duel import BLOCKS, duel
from warpsmith.records import MODES, Baseline, Mode, Timing

SECONDS = {"eager": 8e-6, "eager graph": 5e-6, "compile": 6e-6, "compile graph": 3e-6, "max-autotune": 7e-6}


class Others:
    """Baselines with known times; what cannot run has none. `log` is shared with the candidate."""

    log: ClassVar[list[str]] = []
    measured: ClassVar[list[str]] = []

    def __init__(self, *_: object, modes: Sequence[Mode] = MODES, **__: object) -> None:
        self.modes = modes
        self.key = BaselineKey("task", "GPU", "driver", "torch", "cuda", names_of(modes), 1)

    def __enter__(self) -> Others:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, mode: str, graph: bool) -> Baseline:
        name = f"{mode} graph" if graph else mode
        self.measured.append(name)
        if name not in SECONDS:
            return Baseline(mode, graph, None, "cannot be captured")  # type: ignore[arg-type]
        seconds = SECONDS[name]
        return Baseline(mode, graph, Timing((seconds,), seconds, (seconds, seconds), "measured", "GPU"))  # type: ignore[arg-type]

    def all(self) -> tuple[Baseline, ...]:
        return tuple(self.measure(mode, graph) for mode in self.modes for graph in (False, True))

    best = staticmethod(Baselines.best)

    def series(self, mode: str, graph: bool) -> float:
        name = f"{mode} graph" if graph else mode
        self.log.append(name)
        return SECONDS[name]


class Judging:
    """A judge whose candidate takes 4 µs."""

    task = task_of(SOFTMAX)

    def __init__(self) -> None:
        self.gpu = SimpleNamespace(exclusive=self._hold, where="cuda:0", spec=gpu("H200"))

    def _hold(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def stopwatch(self, candidate: object) -> Iterator[Any]:
        def sample() -> float:
            Others.log.append("candidate")
            return 4e-6

        yield SimpleNamespace(sample=sample)


@pytest.fixture(autouse=True)
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    Others.log, Others.measured = [], []
    monkeypatch.setattr(duelling, "Baselines", Others)


def fight(cache: Path | None = None, modes: Sequence[Mode] = MODES) -> duelling.Duel:
    return duel(Judging(), candidate_of(SOFTMAX), seconds=1.0, cache=cache, modes=modes)  # type: ignore[arg-type]


def test_it_is_compared_with_eager_the_best_compiled_and_the_best_of_all() -> None:
    found = fight()
    assert dict(found.roles) == {"eager": "eager", "compile": "compile", "best": "compile graph"}
    ratios = {each.baseline: each.ratio for each in found.comparisons}
    assert ratios == pytest.approx({"eager": 2.0, "compile": 1.5, "compile graph": 0.75})
    assert [each.gain for each in found.comparisons] == [True, True, False]
    assert len(found.baselines) == 6 and sum(bool(each.problem) for each in found.baselines) == 1


def test_blocks_alternate_and_neither_always_goes_first() -> None:
    fight()
    of_eager = [name for name in Others.log if name in ("candidate", "eager")][: 2 * BLOCKS * duelling.SERIES_IN_BLOCK]
    blocks = of_eager[:: duelling.SERIES_IN_BLOCK]
    assert blocks[:8] == ["candidate", "eager", "eager", "candidate", "candidate", "eager", "eager", "candidate"]
    assert blocks.count("candidate") == blocks.count("eager") == BLOCKS


def test_the_cache_says_whom_to_fight_but_a_comparison_measures_anew(tmp_path: Path) -> None:
    first = fight(tmp_path)
    assert len(Others.measured) == 6
    Others.log.clear()
    again = fight(tmp_path)
    assert len(Others.measured) == 6, "known baselines are not timed again"
    assert again.baselines == first.baselines
    assert Others.log.count("compile graph") == BLOCKS * duelling.SERIES_IN_BLOCK


def test_where_some_modes_are_chosen_the_others_are_neither_timed_nor_taken_from_the_cache(tmp_path: Path) -> None:
    fight(tmp_path)
    Others.measured.clear()
    found = fight(tmp_path, ("eager",))
    assert Others.measured == ["eager", "eager graph"]
    assert dict(found.roles) == {"eager": "eager", "best": "eager graph"}
    assert [each.name for each in found.baselines] == ["eager", "eager graph"]


def test_what_lacked_memory_is_said_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Baseline("eager", True, None, "running Model raised OutOfMemoryError: CUDA out of memory.")
    measured = Others.all
    monkeypatch.setattr(Others, "all", lambda self: (*measured(self)[:1], full, *measured(self)[2:]))
    assert duelling.lacked_memory(fight(tmp_path))
    monkeypatch.setattr(Others, "all", measured)
    again = fight(tmp_path)
    assert not duelling.lacked_memory(again), "what was full then is not taken from the cache"
