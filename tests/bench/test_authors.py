"""Who is asked in a task of a run, and with what: keys of models must get there, and go nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.bench.stories import MACHINE, TASK
from warpsmith.bench import Options, Row, Watcher, discover, run_bench, work
from warpsmith.bench.attempt import authors_environment
from warpsmith.bench.order import Order, empty_row
from warpsmith.errors import NothingPassed
from warpsmith.optimize import optimize
from warpsmith.settings import load_settings


def order(tmp_path: Path) -> Order:
    settings = load_settings(archive=str(tmp_path / "archive.db"), cache=tmp_path / "cache").model_dump_json()
    return Order("relu", "relu.py", "hash", "print", settings, str(tmp_path / "results"), None, None, None)


@pytest.mark.parametrize("builtin", [True, False])
def test_an_order_says_who_is_asked_and_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builtin: bool
) -> None:
    given: dict[str, Any] = {}

    def search(target: str, **options: Any) -> None:
        given.update(options)
        raise NothingPassed("nothing")

    monkeypatch.setattr("warpsmith.bench.work.optimize", search)
    asked = replace(order(tmp_path), builtin=builtin, retrieve=False, without=("cross",))
    work.work(asked, lambda message: None)
    assert [author.name for author in given["authors"]] == (["builtin"] if builtin else [])
    assert (given["retrieve"], given["without"]) == (False, ("cross",))


def test_optimize_hands_on_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def pursuit(*arguments: Any, **options: Any) -> None:
        given.update(options)
        raise NothingPassed("nothing")

    monkeypatch.setattr("warpsmith.pipeline.Pursuit", pursuit)
    with pytest.raises(NothingPassed):
        optimize("relu.py", retrieve=False, without=("cross",))
    assert given == {"retrieve": False, "without": ("cross",)}


@pytest.mark.parametrize(
    ("settings", "seen"),
    [({}, False), ({"models": ("openai:gpt-5",)}, True), ({"agent_command": ("coder",)}, True)],
)
def test_keys_reach_tasks_that_ask_models_or_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], seen: bool
) -> None:
    environments: list[Mapping[str, str]] = []

    def attempt(asked: Order, device: str, *rest: Any) -> Row:
        environments.append(rest[4])
        return empty_row(asked, device, "wrong", "nothing passed", 1.0)

    monkeypatch.setattr("warpsmith.bench.run.attempt", attempt)
    monkeypatch.setattr("warpsmith.nursery.Nursery.prepare", lambda self: None)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (tmp_path / "plus.py").write_text(TASK)
    loaded = load_settings(device="H200", simulate=True, cache=tmp_path / "cache", **settings)
    entries = discover(tmp_path)
    run_bench(tmp_path, entries, tmp_path / "run", loaded, Watcher(Console(quiet=True)), Options(), MACHINE)
    assert [each.get("OPENAI_API_KEY") for each in environments] == ["secret" if seen else None]
    assert "PATH" not in authors_environment(loaded), "what every child sees is not for this to say"
