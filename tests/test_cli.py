"""The command line: what it prints, where, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.explore.stories import EVENTS, HISTORY, OUTCOME
from tests.samples import TASK
from warpsmith.archive import Archive
from warpsmith.cli import app
from warpsmith.errors import NothingPassed, TaskError, WorkerDied
from warpsmith.optimize import Result
from warpsmith.program import write_program

CLI = CliRunner()


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WARPSMITH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WARPSMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
    return tmp_path


def fill(path: str = "warpsmith-out/archive.db", device: str = "H200") -> None:
    with Archive.open(path) as archive:
        run = archive.start_run(TASK, "{}")
        for judged in HISTORY:
            archive.add_candidate(run, judged.candidate)
            archive.add_verdict(run, judged.verdict, judge_version="1", device=device)


class Optimizer:
    """Stands for `warpsmith.optimize`: tells the story and returns it, or raises."""

    def __init__(self, error: BaseException | None = None, interrupted: bool = False) -> None:
        self.error = error
        self.interrupted = interrupted
        self.calls: list[tuple[object, object]] = []

    def __call__(self, target: object, *, settings: object, authors: object, observer: object) -> Result:
        self.calls.append((target, settings))
        for event in EVENTS:
            observer(event)  # type: ignore[operator]
        if self.error is not None:
            raise self.error
        return Result(
            task=OUTCOME.task,
            bound=OUTCOME.bound,
            best=HISTORY[-1],
            lineage=OUTCOME.lineage,
            history=HISTORY,
            device="H200",
            run=1,
            archive="warpsmith-out/archive.db",
            stop_reason="time is up (60 s)",
            interrupted=self.interrupted,
            seconds=60.0,
        )


def use(monkeypatch: pytest.MonkeyPatch, optimizer: Optimizer) -> Optimizer:
    # By module, since the package's own name `optimize` is the function.
    monkeypatch.setattr(sys.modules["warpsmith.optimize"], "optimize", optimizer)
    return optimizer


def test_optimize_hands_its_flags_on_and_ends_with_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = use(monkeypatch, Optimizer())
    flags = {
        "budget": 7.0,
        "device": "A100",
        "seed": 3,
        "workers": 1,
        "out": Path("results"),
        "archive": "tried.db",
        "max_candidates": 9,
        "target_fraction": 0.5,
    }
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = CLI.invoke(app, ["optimize", "relu.py", "--hybrid", *words])
    assert done.exit_code == 0, done.output
    ((target, settings),) = optimizer.calls
    assert target == "relu.py"
    assert {name: getattr(settings, name) for name in flags} == flags and settings.hybrid  # type: ignore[attr-defined]
    assert (Path("results") / "relu" / "report.html").is_file()
    assert "relu: 20.0 ns estimated for H200" in done.stdout
    assert done.stderr == ""


def test_interrupted_optimize_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Optimizer(interrupted=True))
    done = CLI.invoke(app, ["optimize", "relu.py"])
    assert done.exit_code == 130
    assert "20.0 ns estimated" in done.stdout
    assert Path("warpsmith-out/relu/kernel.cu").is_file()


@pytest.mark.parametrize(
    ("error", "code"),
    [(NothingPassed("no program passed the judge"), 3), (KeyboardInterrupt(), 130)],
)
def test_a_search_without_a_winner_leaves_a_report(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    use(monkeypatch, Optimizer(error))
    with Archive.open("warpsmith-out/archive.db") as archive:
        run = archive.start_run(TASK, "{}")
        archive.add_candidate(run, HISTORY[2].candidate)
        archive.add_verdict(run, HISTORY[2].verdict, judge_version="1", device="H200")
    done = CLI.invoke(app, ["optimize", "relu.py"])
    assert done.exit_code == code
    assert "nothing passed among 1 candidates" in done.stdout
    assert Path("warpsmith-out/relu/report.html").is_file()
    assert not Path("warpsmith-out/relu/kernel.cu").exists()


def test_ctrl_c_before_the_run_began_is_just_that(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Optimizer(KeyboardInterrupt()))
    done = CLI.invoke(app, ["optimize", "relu.py"])
    assert (done.exit_code, done.stderr) == (130, "warpsmith: interrupted\n")
    assert not Path("warpsmith-out/relu").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskError("no class Model", file="relu.py", line=3), 2),
        (WorkerDied("a worker died twice"), 3),
    ],
)
def test_what_goes_wrong_is_one_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    use(monkeypatch, Optimizer(error))
    done = CLI.invoke(app, ["optimize", "relu.py"])
    assert done.exit_code == code
    assert done.stderr == f"warpsmith: {error}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimize", "relu.py", "--budget", "-1"], "budget = -1.0 (given)"),
        (["archive", "list"], "there is no archive at warpsmith-out/archive.db"),
        (["archive", "show", "beef", "--archive", "none.db"], "there is no archive at none.db"),
        (["report", "--device", "H2000"], "H2000"),
        (["judge", ".", "--task", "relu.py", "--set", "BLOCK"], "--set BLOCK: expected NAME=VALUE"),
        (["judge", ".", "--task", "missing.py"], "missing.py"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(words: list[str], message: str) -> None:
    done = CLI.invoke(app, words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_archive_list_and_show() -> None:
    fill()
    listed = CLI.invoke(app, ["archive", "list"])
    assert listed.exit_code == 0
    assert TASK.key[:8] in listed.stdout
    shown = CLI.invoke(app, ["archive", "show", TASK.key[:8]])
    assert shown.exit_code == 0
    assert "aten.relu" in shown.stdout
    missing = CLI.invoke(app, ["archive", "show", "zz"])
    assert (missing.exit_code, "no key" in missing.stderr) == (2, True)


@pytest.mark.parametrize("key", [[], [TASK.key[:6]]])
def test_report_writes_the_results_anew(key: list[str]) -> None:
    fill()
    done = CLI.invoke(app, ["report", *key, "--out", "again"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "again/relu/\n"
    assert Path("again/relu/report.html").is_file()


def test_report_on_what_was_measured_on_another_machine() -> None:
    fill(device="NVIDIA H100 80GB HBM3")
    done = CLI.invoke(app, ["report", "--out", "again"])
    assert done.exit_code == 0, done.output
    assert "NVIDIA H100 80GB HBM3" in Path("again/relu/report.html").read_text()


def test_report_on_a_device_where_nothing_was_judged() -> None:
    fill()
    done = CLI.invoke(app, ["report", "--device", "A100"])
    assert done.exit_code == 2
    assert "no task in the archive was judged on A100" in done.stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["archive", "list"]])
def test_a_quick_look_does_not_wait_for_pytorch(words: list[str]) -> None:
    fill()
    script = (
        "import sys; from warpsmith.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


RELU = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)

def get_inputs():
    return [torch.randn(64, 128)]

def get_init_inputs():
    return []
"""


def test_judge_passes_a_right_program_and_says_what_is_wrong_with_another() -> None:
    Path("relu.py").write_text(RELU)
    program = HISTORY[0].candidate.program
    write_program(Path("right"), program)
    write_program(Path("wrong"), replace(program, source=program.source.replace("0.0f", "0.5f")))
    words = ["--task", "relu.py", "--set", "BLOCK=128"]
    done = CLI.invoke(app, ["judge", "right", *words])
    assert done.exit_code == 0, done.output
    assert "estimated" in done.stdout
    done = CLI.invoke(app, ["judge", "wrong", *words])
    assert done.exit_code == 1, done.output
    for part in ("numerics", "expected", "got", "family"):
        assert part in done.stdout
