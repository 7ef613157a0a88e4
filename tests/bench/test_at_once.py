"""Several tasks at once: they must share GPUs, cores and the folder, and neither harm nor outlive each other."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.bench.stories import FAKE, MACHINE, TASK, passed
from tests.samples import TASK as SAMPLE
from warpsmith.archive import Archive
from warpsmith.bench import (
    Bench,
    BenchFolder,
    LiveWatcher,
    Options,
    PlainWatcher,
    Row,
    Watcher,
    discover,
    load_bench,
    run_bench,
)
from warpsmith.bench.gpus import Gpus, names_of, usable_gpus
from warpsmith.bench.interrupts import Interrupts
from warpsmith.cli import app
from warpsmith.device.catalog import GPUS
from warpsmith.device.choose import Choice
from warpsmith.device.cuda.gpus import Present
from warpsmith.errors import SettingsError
from warpsmith.settings import load_settings, usable_cores

TWO = Options(grace=30.0, worker=FAKE, at_once=2)
THREE = replace(TWO, at_once=3)


def run(
    tmp_path: Path, *tasks: str, watcher: Watcher | None = None, options: Options = TWO, **settings: object
) -> Bench:
    suite = tmp_path / "suite"
    suite.mkdir(parents=True, exist_ok=True)
    for number, task in enumerate(tasks, 1):
        (suite / f"{number}_{task}.py").write_text(TASK)
    loaded = load_settings(device="H200", simulate=True, cache=tmp_path / "cache", **settings)
    watcher = watcher or PlainWatcher(Console(file=io.StringIO()))
    return run_bench(suite, discover(suite), tmp_path / "run", loaded, watcher, options, MACHINE)


def started(tmp_path: Path) -> list[str]:
    return (tmp_path / "run" / "results" / "started.txt").read_text().split()


def seen(row: Row) -> dict[str, Any]:
    """What the process of a task was given."""
    given: dict[str, Any] = json.loads(row.marks[0])
    return given


def statuses(bench: Bench) -> dict[str, str]:
    return {row.name: row.status for row in bench.rows}


def children() -> set[int]:
    """The processes that this one has started and that still run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] not in "ZX":
                found.add(int(stat.parent.name))
    return found


# ------------------------------------------------------------------------------------------------------- side by side


def test_so_many_are_under_way_together_and_no_more(tmp_path: Path) -> None:
    class Counting(PlainWatcher):
        most = 0

        def start(self, name: str) -> None:
            super().start(name)
            self.most = max(self.most, len(self.under_way))

    text = io.StringIO()
    watcher = Counting(Console(file=text, width=200))
    bench = run(tmp_path, "meet3", "meet3", "meet3", "good", "good", watcher=watcher, options=THREE)
    assert set(statuses(bench).values()) == {"passed"}, "each of the first three ends only once all three have begun"
    assert watcher.most == 3
    assert "5 tasks, 3 at once" in text.getvalue() and "5/5  " in text.getvalue()


def test_a_crash_beside_them_does_not_hurt_the_others(tmp_path: Path) -> None:
    bench = run(tmp_path, "meet4", "crash", "noise", "good", "crash")
    assert statuses(bench) == {
        "1_meet4": "passed",
        "2_crash": "crashed",
        "3_noise": "crashed",
        "4_good": "passed",
        "5_crash": "crashed",
    }


def test_rows_come_in_the_order_of_finishing_and_a_run_goes_on_with_another_number(tmp_path: Path) -> None:
    run(tmp_path, "meet3", "good", "machine-error")
    lines = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    names = [json.loads(line)["name"] for line in lines]
    assert names.index("2_good") < names.index("1_meet3"), "the first waits for the third, which waits for the second"
    bench = run(tmp_path, "meet3", "good", "machine-error", options=replace(THREE, retry=True))
    assert started(tmp_path)[3:] == ["3_machine-error"]
    assert len(bench.record.sessions) == 2 and len(bench.rows) == 3


def test_all_write_to_one_archive(tmp_path: Path) -> None:
    bench = run(tmp_path, "archive", "archive", "archive", options=THREE)
    assert set(statuses(bench).values()) == {"passed"}, [row.message for row in bench.rows]
    with Archive.open(tmp_path / "run" / "archive.db", create=False) as archive:
        (standing,) = archive.standings()
        assert (len(list(archive.runs(SAMPLE.key))), standing.judged) == (3, 70), "of 90, 20 are drawn twice"


def test_no_tasks_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tasks at once"):
        Options(at_once=0)


# ------------------------------------------------------------------------------------------------ GPUs, cores, seconds


def gpu(ordinal: int, name: str = "NVIDIA H100") -> Present:
    return Present(ordinal, f"GPU-{ordinal}", name, GPUS["H100"])


def test_each_task_sees_one_gpu_and_the_free_one_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpsmith.bench.run.usable_gpus", lambda choice, visible: ("GPU-a", "GPU-b"))
    bench = run(tmp_path, "meet5", "tell", "tell", "tell", "tell")
    first, *others = [seen(row)["CUDA_VISIBLE_DEVICES"] for row in bench.rows]
    assert {first, *others} == {"GPU-a", "GPU-b"}
    assert len(set(others)) == 1, "while the first task goes on, the others belong on the other GPU"


def test_gpus_are_shared_evenly_where_there_are_more_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpsmith.bench.run.usable_gpus", lambda choice, visible: ("GPU-a", "GPU-b"))
    bench = run(tmp_path, *["meet4"] * 4, options=replace(TWO, at_once=4))
    assert Counter(seen(row)["CUDA_VISIBLE_DEVICES"] for row in bench.rows) == {"GPU-a": 2, "GPU-b": 2}


def test_a_number_of_a_gpu_means_the_same_one_to_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpsmith.bench.run.usable_gpus", lambda choice, visible: names_of([gpu(0)], visible))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (row,) = run(tmp_path, "tell", options=replace(TWO, at_once=1)).rows
    given = seen(row)
    assert (given["CUDA_VISIBLE_DEVICES"], given["CUDA_DEVICE_ORDER"]) == ("3", "PCI_BUS_ID")


def test_one_after_the_other_all_run_on_the_first_gpu() -> None:
    gpus = Gpus(("GPU-a", "GPU-b"))
    for _ in range(3):
        with gpus.one() as environment:
            assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-a"}
    with Gpus(()).one() as environment:
        assert environment == {}, "without GPUs nothing is said of them"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ("GPU-0", "GPU-1")),
        ("3,5", ("3", "5")),
        ("GPU-8932f937, MIG-1", ("GPU-8932f937", "MIG-1")),
        ("2,1,-1,0", ("2", "1")),
    ],
)
def test_gpus_are_chosen_among_those_that_the_environment_shows(visible: str | None, names: tuple[str, ...]) -> None:
    assert names_of([gpu(0), gpu(1)], visible) == names


def test_only_gpus_of_the_model_that_was_chosen_are_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    present = (gpu(0, "NVIDIA A100"), gpu(1), gpu(2))
    monkeypatch.setattr("warpsmith.bench.gpus.present_gpus", lambda: present)
    assert usable_gpus(Choice(GPUS["H100"], present[1]), None) == ("GPU-1", "GPU-2")
    assert usable_gpus(Choice(GPUS["H100"], present[1]), "7,8,9") == ("8", "9")
    assert usable_gpus(Choice(GPUS["H100"], None), "7,8,9") == (), "the simulator needs none"


def test_cores_are_divided_unless_the_user_has_said_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpsmith.settings.os.sched_getaffinity", lambda pid: range(12))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("WARPSMITH_WORKERS", raising=False)
    assert usable_cores() == 12
    alone = run(tmp_path / "alone", "tell", options=replace(TWO, at_once=1))
    assert seen(alone.rows[0])["workers"] == 12 and "OMP_NUM_THREADS" not in seen(alone.rows[0])
    shared = run(tmp_path / "shared", "tell", options=THREE)
    assert (seen(shared.rows[0])["workers"], seen(shared.rows[0])["OMP_NUM_THREADS"]) == (4, "4")
    assert shared.record.fingerprint == alone.record.fingerprint, "rows of both belong into one table"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    said = run(tmp_path / "said", "tell", options=THREE, workers=5)
    assert (seen(said.rows[0])["workers"], seen(said.rows[0])["OMP_NUM_THREADS"]) == (5, "7")


def test_the_command_divides_the_memory_that_the_user_has_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options] = []

    def noted(*arguments: object) -> None:
        asked.extend(each for each in arguments if isinstance(each, Options))
        raise SettingsError("enough is known")

    monkeypatch.setattr("warpsmith.bench.run_bench", noted)
    monkeypatch.setattr("warpsmith.bench.default_memory", lambda: 80_000_000_000)
    (tmp_path / "task.py").write_text(TASK)
    for more in ((), ("--at-once", "4"), ("--at-once", "4", "--task-memory", "30")):
        CliRunner().invoke(app, ["bench", str(tmp_path), *more])
    assert [each.memory for each in asked] == [80_000_000_000, 20_000_000_000, 30_000_000_000]
    assert [each.at_once for each in asked] == [1, 4, 4]


class Clock:
    """The clock of whoever waits for a task; it can be put forward, so that no test has to wait."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def test_tasks_that_share_a_machine_have_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hurried(PlainWatcher):
        def note(self, name: str, text: str) -> None:
            super().note(name, text)
            clock.ahead += 200.0 if text in ("ready to be stopped", "stopping") else 0.0

    clock = Clock()
    monkeypatch.setattr("warpsmith.bench.attempt.time", clock)
    bench = run(tmp_path, "hang", watcher=Hurried(Console(file=io.StringIO())), budget=60.0)
    assert "not done after 120 s" in bench.rows[0].message


# ---------------------------------------------------------------------------------------------------------- interrupts


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupting(PlainWatcher):
    """Interrupts this process once so many tasks are ready to be stopped; if `twice`, again once all are stopping."""

    def __init__(self, ready: int, twice: bool = False) -> None:
        self.text = io.StringIO()
        super().__init__(Console(file=self.text, width=200))
        self.begun: list[str] = []
        self.due = {"ready to be stopped": ready}
        if twice:
            self.due["stopping; Ctrl-C again ends the run"] = ready

    def start(self, name: str) -> None:
        super().start(name)
        self.begun.append(name)

    def note(self, name: str, text: str) -> None:
        super().note(name, text)
        if text in self.due:
            self.due[text] -= 1
            if self.due[text] == 0:
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_all_tasks_under_way_and_the_run_goes_on(tmp_path: Path) -> None:
    bench = run(tmp_path, "slow", "slow", "good", watcher=Interrupting(2))
    assert [row.marks for row in bench.rows] == [("ended early by Ctrl-C",)] * 2 + [()]
    assert bench.record.sessions[-1].how == "finished"


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
def test_a_second_ctrl_c_ends_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "hang", "hang", "good", watcher=(watcher := Interrupting(2, twice=True)))
    assert children() <= before
    stopped = load_bench(tmp_path / "run")
    assert stopped.rows == () and stopped.record.sessions[-1].how == "interrupted"
    assert sorted(watcher.begun) == ["1_hang", "2_hang"], "no other task may begin"
    assert watcher.text.getvalue() == "3 tasks, 2 at once\n", "nobody has ended these tasks one by one"
    for number in (1, 2):
        (tmp_path / "suite" / f"{number}_hang.py").unlink()
    assert statuses(run(tmp_path)) == {"3_good": "passed"}


def test_where_no_task_is_under_way_the_first_ctrl_c_ends_the_run() -> None:
    between = Interrupts()
    with between.task() as ended:
        pass
    between.pressed()
    assert between.over and not ended.stop
    late = Interrupts()
    with late.task() as first:
        late.pressed()
        with late.task() as second:
            assert first.stop and not second.stop and not late.over
            late.pressed()
            assert late.over, "the first is being stopped, so this is the second time"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
def test_a_row_that_cannot_be_kept_ends_the_run_and_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: BenchFolder, row: Row) -> None:
        raise SettingsError("cannot write: no space left on device")

    before = children()
    monkeypatch.setattr(BenchFolder, "add", full)
    with pytest.raises(SettingsError, match="no space left"):
        run(tmp_path, "hang", "meet2", "good")
    assert children() <= before
    assert "3_good" not in started(tmp_path)
    assert load_bench(tmp_path / "run").record.sessions[-1].how == "failed"


# ------------------------------------------------------------------------------------------------------------ watching


def test_the_live_panel_shows_all_tasks_under_way_on_a_line_each() -> None:
    text = io.StringIO()
    watcher = LiveWatcher(Console(file=text, force_terminal=True, width=100))
    watcher.begin(4, [], 2)
    watcher.start("1_first")
    watcher.start("2_second")
    watcher.note("2_second", "evolve: 12 judged, " + "and so on " * 20)
    watcher.console.print(watcher.panel())
    first, second = [line for line in text.getvalue().splitlines() if "_first" in line or "_second" in line]
    assert "1_first" in first and "0:00" in first
    assert "2_second" in second and "evolve: 12 judged" in second and "…" in second
    assert "Ctrl-C ends these tasks" in text.getvalue()


def test_what_remains_is_for_all_lanes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("warpsmith.bench.display.time", SimpleNamespace(monotonic=lambda: now[0]))
    watcher = Watcher(Console(file=io.StringIO()))
    watcher.begin(11, [passed("known", 1, 1.0)], 2)
    watcher.start("a")
    watcher.start("b")
    assert watcher.remaining is None
    now[0] = 10.0
    watcher.finish(passed("a", 1, 1.0))
    watcher.start("c")
    assert watcher.remaining == 40.0, "7 tasks wait and one begins, 10 s each, in two lanes; one is about to end"
    watcher.skip("b")
    now[0] = 16.0
    assert watcher.remaining == (7 * 10.0 + 4.0) / 2
    for name in "defghij":
        watcher.start(name)
    for name in "defghi":
        watcher.skip(name)
    assert watcher.remaining == 10.0, "the last one takes as long as any, however many lanes there are"
