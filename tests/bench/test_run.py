"""A night's run must survive whatever one task does, and must go on in the morning where it stopped."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.stories import FAKE, MACHINE, TASK
from warpsmith.bench import Bench, LiveWatcher, Options, PlainWatcher, Watcher, discover, load_bench, run_bench
from warpsmith.bench.row import NOT_COMPARED
from warpsmith.errors import SettingsError
from warpsmith.settings import load_settings

OPTIONS = Options(grace=30.0, worker=FAKE, command=("warpsmith", "bench", "suite"))


class Recorder(PlainWatcher):
    """Keeps what is printed; interrupts this process when a task says something, as often as it is told to."""

    def __init__(self, interrupts: int = 0) -> None:
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))
        self.interrupts = interrupts

    def note(self, name: str, text: str) -> None:
        super().note(name, text)
        if self.interrupts and (text == "ready to be stopped" or "again ends the run" in text):
            self.interrupts -= 1
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()


def run(
    tmp_path: Path, *tasks: str, watcher: Watcher | None = None, options: Options = OPTIONS, **settings: object
) -> Bench:
    suite = tmp_path / "suite"
    suite.mkdir(exist_ok=True)
    for number, task in enumerate(tasks, 1):
        file = suite / f"{number}_{task}.py"
        if not file.exists():
            file.write_text(TASK)
    loaded = load_settings(device="H200", simulate=True, cache=tmp_path / "cache", workers=1, **settings)
    return run_bench(suite, discover(suite), tmp_path / "run", loaded, watcher or Recorder(), options, MACHINE)


def started(tmp_path: Path) -> list[str]:
    return (tmp_path / "run" / "results" / "started.txt").read_text().split()


def outcomes(bench: Bench) -> dict[str, str]:
    return {row.name.partition("_")[2]: row.status for row in bench.rows}


def test_no_task_ends_the_run(tmp_path: Path) -> None:
    watcher = Recorder()
    names = (
        "crash",
        "exit",
        "nonsense",
        "noise",
        "wrong",
        "unsupported",
        "task-error",
        "machine-error",
        "draft",
        "good",
    )
    bench = run(tmp_path, *names, watcher=watcher)
    assert outcomes(bench) == {
        "crash": "crashed",
        "exit": "crashed",
        "nonsense": "crashed",
        "noise": "crashed",
        "wrong": "wrong",
        "unsupported": "unsupported",
        "task-error": "task_error",
        "machine-error": "machine_error",
        "draft": "passed",
        "good": "passed",
    }
    rows = {row.name.partition("_")[2]: row for row in bench.rows}
    assert "SIGSEGV: the reason is printed here" in rows["crash"].message
    assert rows["wrong"].message == "wrong, in a sentence"
    assert NOT_COMPARED in rows["draft"].marks, "what was found before the crash must not count as compared"
    assert "ended with code 7" in rows["draft"].message
    assert {row.fingerprint for row in bench.rows} == {bench.record.fingerprint}, (
        "a process must not say whose row it is"
    )
    assert "10/10  10_good: 2.00 µs estimated for H200, 50% of the bound" in watcher.text.getvalue()
    assert [session.how for session in bench.record.sessions] == ["finished"]
    assert bench.record.sessions[0].command == OPTIONS.command


def test_the_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run(tmp_path, "good", "machine-error", "wrong")
    watcher = Recorder()
    run(tmp_path, "good", "machine-error", "wrong", "exit", watcher=watcher)
    assert started(tmp_path) == ["1_good", "2_machine-error", "3_wrong", "4_exit"]
    assert "4 tasks, 3 of them done already" in watcher.text.getvalue()
    run(tmp_path, options=Options(grace=30.0, worker=FAKE, retry=True))
    assert started(tmp_path)[4:] == ["2_machine-error", "4_exit"]
    (tmp_path / "suite" / "3_wrong.py").write_text(TASK + "# edited\n")
    bench = run(tmp_path)
    assert started(tmp_path)[6:] == ["3_wrong"]
    assert len(bench.rows) == 4
    assert len(bench.record.sessions) == 4
    with pytest.raises(SettingsError, match="holds another run"):
        run(tmp_path, budget=1.0)
    with pytest.raises(SettingsError, match="holds another run"):
        run(tmp_path, hybrid=True)


class Clock:
    """The clock of whoever waits for a task; it can be put forward, so that no test has to wait."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Hurried(Recorder):
    """Puts the clock forward once a task is ready to be stopped, and again while it is being stopped."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def note(self, name: str, text: str) -> None:
        super().note(name, text)
        if text == "ready to be stopped" or (text == "stopping" and name == "2_hang"):
            self.clock.ahead += 100.0


def test_a_task_that_takes_too_long_is_asked_and_then_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("warpsmith.bench.attempt.time", clock)
    bench = run(tmp_path, "slow", "hang", "good", watcher=Hurried(clock), budget=60.0)
    slow, hang, good = bench.rows
    assert slow.passed and slow.marks == ("stopped at the time limit",)
    assert hang.status == "timeout"
    assert "not done after 90 s; did not stop within 30 s" in hang.message
    assert good.passed and good.marks == ()


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
def test_what_a_crashed_task_started_does_not_outlive_it(tmp_path: Path) -> None:
    class Watching(Recorder):
        def note(self, name: str, text: str) -> None:
            if text == "started one" and self.under_way[name].said == text:
                (tmp_path / "run" / "results" / "1_orphan.seen").touch()
            super().note(name, text)

    bench = run(tmp_path, "orphan", watcher=Watching())
    assert outcomes(bench) == {"orphan": "crashed"}
    pid = int((tmp_path / "run" / "results" / "1_orphan.pid").read_text())
    assert not alive(pid)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_task_cannot_have_all_the_memory(tmp_path: Path) -> None:
    bench = run(tmp_path, "hog", "good", options=Options(worker=FAKE, memory=200_000_000))
    hog, good = bench.rows
    assert hog.status == "crashed" and "200 MB are allowed" in hog.message
    assert good.passed


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_one_task_and_what_it_found_counts(tmp_path: Path) -> None:
    bench = run(tmp_path, "slow", "good", watcher=Recorder(interrupts=1))
    slow, good = bench.rows
    assert slow.passed and slow.marks == ("ended early by Ctrl-C",)
    assert good.passed


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_ends_the_run_which_then_goes_on(tmp_path: Path) -> None:
    class Impatient(Recorder):
        def note(self, name: str, text: str) -> None:
            Watcher.note(self, name, text)
            if text == "ready to be stopped":
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            elif "again ends the run" in text:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.0)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "good", "hang", "wrong", watcher=Impatient())
    bench = load_bench(tmp_path / "run")
    assert outcomes(bench) == {"good": "passed"}
    assert bench.record.sessions[-1].how == "interrupted"
    assert bench.missing == ("2_hang", "3_wrong")
    (tmp_path / "suite" / "2_hang.py").unlink()
    again = run(tmp_path)
    assert outcomes(again)["wrong"] == "wrong"


def test_the_live_panel_shows_the_task_under_way(tmp_path: Path) -> None:
    text = io.StringIO()
    watcher = LiveWatcher(Console(file=text, force_terminal=True, width=120))
    run(tmp_path, "good", "wrong", watcher=watcher)
    watcher.start("3_more")
    watcher.note("3_more", "evolve: 12 judged")
    watcher.console.print(watcher.panel())
    for part in ("2 of 2", "1 passed", "1 wrong", "3_more", "evolve: 12 judged", "wrong, in a sentence"):
        assert part in text.getvalue()
