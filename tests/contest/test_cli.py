"""The command: what it prints, what it leaves, and what it says of a wrong flag."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.bench.stories import TASK
from tests.contest.machine import Attempts, suite, use
from warpsmith.cli import app

CLI = CliRunner()
FLAGS = ("--repeats", "1", "--max-candidates", "9", "--device", "H100", "--simulate", "--workers", "1", "--out", "run")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WARPSMITH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")


def test_a_contest_ends_with_its_table_and_report_shows_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = use(monkeypatch, Attempts(real=True))
    suite(tmp_path, "small", "large")
    given = ("--arm", "builtin", "--arm", "both=builtin+model", "--model", "a:b", "--max-usd", "0.02", "--seed", "5")
    done = CLI.invoke(app, ["contest", "suite", "--select", "small", *given, *FLAGS])
    assert done.exit_code == 0, done.output
    assert "1/2  small, builtin, seed 5: " in done.stdout
    assert "2 arms, 1 task, 1 seed; times estimated for H100; ratios against builtin" in done.stdout
    assert "figures: run/contest.json" in done.stdout
    assert attempts.settings("models") == [[], ["a:b"]] and attempts.settings("max_usd") == [0.02, 0.02]
    figures = json.loads(Path("run/contest.json").read_text(encoding="utf-8"))
    assert [arm["arm"] for arm in figures["arms"]] == ["builtin", "both"] and figures["arms"][1]["usd"] > 0.0
    again = CLI.invoke(app, ["report", "run"])
    table = done.stdout[done.stdout.index("2 arms, ") :]
    assert (again.exit_code, again.stdout) == (0, table)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--arm", "builtin", "--arm", "modle"), "arm 'modle': 'modle' is no author"),
        (("--arm", "builtin"), "a contest needs two arms"),
        (("--select", "tiny"), "'tiny' names none of the 1 tasks"),
        (("--budget", "-1"), "budget = -1.0 (given)"),
    ],
)
def test_a_wrong_flag_is_a_line(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    suite(tmp_path, "small")
    done = CLI.invoke(app, ["contest", "suite", "--simulate", *flags])
    assert done.exit_code == 2 and done.stderr.startswith("warpsmith: ") and said in done.stderr
    assert not Path("warpsmith-out").exists()


def test_a_bench_and_a_contest_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Attempts())
    suite(tmp_path, "small")
    assert CLI.invoke(app, ["contest", "suite", *FLAGS]).exit_code == 0
    done = CLI.invoke(app, ["bench", "suite", "--simulate", "--device", "H100", "--out", "run"])
    assert done.exit_code == 2 and "run holds another run (" in done.stderr
    assert "arms" in done.stderr and ", now not set" in done.stderr


def test_a_contest_in_the_simulator(tmp_path: Path) -> None:
    """Nothing is made up here: processes, compiler, judge."""
    Path("suite").mkdir()
    Path("suite/plus.py").write_text(TASK)
    flags = ("--repeats", "1", "--max-candidates", "2", "--device", "H200", "--simulate", "--workers", "1")
    arms = ("--arm", "builtin", "--arm", "builtin -retrieval -cross")
    done = CLI.invoke(app, ["contest", "suite", *flags, *arms, "--budget", "240", "--out", "run"])
    assert done.exit_code == 0, done.output
    figures = json.loads(Path("run/contest.json").read_text(encoding="utf-8"))
    first, second = figures["arms"]
    assert (first["solved"], second["solved"], second["ties"]) == (1, 1, 1), "the same seed, and nothing to retrieve"
    assert (second["mean"], first["judged"], second["judged"]) == (1.0, 2, 2)
    assert {row["timing"] for row in figures["rows"]} == {"estimated"}
    assert {(each["author"], each["operator"]) for each in figures["operators"]} >= {("builtin", "create")}
    assert list(Path("run").rglob("cache")) == [], "compiled programs are of no use any more"
