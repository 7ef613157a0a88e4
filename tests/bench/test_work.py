"""The process of a task turns whatever a search does into a row that says so."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console

from tests.bench.stories import MACHINE, compared
from tests.samples import BOUND, DROPPING, TASK, candidate, failed, passed
from warpsmith import wire
from warpsmith.bench import Options, PlainWatcher, discover, run_bench, work
from warpsmith.bench.compare import modes_named
from warpsmith.bench.order import Order, decode_order, encode_order
from warpsmith.bench.row import NOT_COMPARED, Row, decode_row
from warpsmith.bench.run import NO_GPU
from warpsmith.errors import MachineError, NothingPassed, SettingsError, TaskError, UnsupportedOperator
from warpsmith.evolve import CandidateJudged, CandidateLost, Observer, TaskLoaded
from warpsmith.optimize import Result
from warpsmith.records import Baseline, Call, Judged, Launch, Mode, Plan, Program, Timing, View
from warpsmith.settings import Settings, load_settings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def order(tmp_path: Path) -> Order:
    settings = load_settings(archive=str(tmp_path / "archive.db"), cache=tmp_path / "cache").model_dump_json()
    return Order("level1/1_relu", "relu.py", "hash", "print", settings, str(tmp_path / "results"), 1, 1, None)


def result(source: str = "estimated") -> Result:
    drawn = candidate()
    verdict = passed(drawn)
    assert verdict.timing is not None
    timing = Timing((2e-6,), 2e-6, (2e-6, 2e-6), source, "H200")  # type: ignore[arg-type]
    best = Judged(drawn, replace(verdict, timing=timing))
    return Result(TASK, BOUND, best, (best,), (best,), "H200", 1, "archive", "time is up", False, 1.0)


def done(
    monkeypatch: pytest.MonkeyPatch, order: Order, outcome: object, events: object = (), **hooks: object
) -> tuple[Row, list[wire.Message]]:
    """Do an order where `optimize` tells `events`, then returns or raises `outcome`."""
    told: list[wire.Message] = []

    def optimize(
        target: object, *, settings: object, authors: object, observer: Observer, retrieve: bool, without: object
    ) -> object:
        for event in events:  # type: ignore[attr-defined]
            observer(event)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("warpsmith.bench.work.optimize", optimize)
    hooks.setdefault("examine", lambda result: ())
    return work.work(order, told.append, **hooks), told  # type: ignore[arg-type]


def no_memory() -> TaskError:
    try:
        try:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        except RuntimeError as error:
            raise TaskError("get_inputs() raised RuntimeError", file="relu.py", line=3) from error
    except TaskError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            UnsupportedOperator("aten.foo is not supported", file="relu.py", line=4),
            "unsupported",
            "relu.py:4: aten.foo",
        ),
        (TaskError("forward returns a list", file="relu.py"), "task_error", "forward returns a list"),
        (no_memory(), "machine_error", "relu.py:3"),
        (SettingsError("no such GPU"), "machine_error", "no such GPU"),
        (MachineError("the driver went away"), "machine_error", "MachineError: the driver went away"),
        (MemoryError(), "machine_error", "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 6 GiB"), "machine_error", "not enough memory: CUDA out"),
        (KeyboardInterrupt(), "timeout", "stopped before anything passed"),
    ],
)
def test_every_failure_is_a_row(
    monkeypatch: pytest.MonkeyPatch, order: Order, error: BaseException, status: str, said: str
) -> None:
    row, _ = done(monkeypatch, order, error)
    assert row.status == status
    assert said in row.message


def test_only_the_modes_that_were_asked_for_are_measured(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    asked: list[object] = []

    def compare(found: Result, settings: Settings, modes: tuple[Mode, ...]) -> object:
        asked.append(modes)
        return (), (compared("eager", 2.0),)

    chosen = decode_order(encode_order(replace(order, baselines=("eager",))))
    done(monkeypatch, chosen, result("measured"), compare=compare)
    assert asked == [("eager",)]


@pytest.mark.parametrize("confirm", [False, True])
def test_a_winner_that_was_not_confirmed_is_marked(
    monkeypatch: pytest.MonkeyPatch, order: Order, confirm: bool
) -> None:
    hurried = load_settings(confirm=confirm).model_dump_json()
    row, _ = done(monkeypatch, replace(order, settings=hurried, baselines=()), result("measured"))
    assert ("not confirmed" in row.marks) != confirm
    estimated, _ = done(monkeypatch, replace(order, settings=hurried), result())
    assert "not confirmed" not in estimated.marks, "a simulation has nothing to confirm"


def test_modes_are_named_as_pytorch_has_them() -> None:
    assert modes_named(None) == modes_named([]) == ("eager", "compile", "max-autotune")
    assert modes_named(["compile", "eager"]) == ("eager", "compile")
    with pytest.raises(SettingsError, match="no mode egaer"):
        modes_named(["egaer"])


def test_baselines_are_left_alone_where_no_comparison_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, order: Order
) -> None:
    def compare(found: Result, settings: Settings, modes: tuple[Mode, ...]) -> NoReturn:
        raise AssertionError("a baseline was measured")

    row, _ = done(monkeypatch, replace(order, baselines=()), result("measured"), compare=compare)
    assert row.passed and not row.baselines and NOT_COMPARED in row.marks


def test_a_bug_is_not_taken_for_a_result(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    with pytest.raises(RuntimeError, match="a bug of ours"):
        done(monkeypatch, order, RuntimeError("a bug of ours"))


def test_nothing_passed_says_why_and_whose_fault_it_is(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    drawn = candidate()
    wrong = [TaskLoaded(TASK, BOUND), *[CandidateJudged(Judged(drawn, failed(drawn)), 0, False)] * 3]
    row, _ = done(monkeypatch, order, NothingPassed("the search ended before a program passed"), wrong)
    assert row.status == "wrong" and "3 candidates judged (wrong value ×3)" in row.message
    assert (row.judged, row.bound) == (3, BOUND.seconds)
    lost = [CandidateLost(drawn, 0, "a worker died")]
    row, _ = done(monkeypatch, order, NothingPassed("the search ended"), lost)
    assert row.status == "machine_error" and "1 lost by the machine (last: a worker died)" in row.message
    row, _ = done(monkeypatch, order, NothingPassed("time is up; a larger budget may help"))
    assert row.status == "timeout" and "larger budget" in row.message, "what was never judged is not wrong"
    slow = [CandidateJudged(Judged(drawn, failed(drawn, "timeout")), 0, False)]
    row, _ = done(monkeypatch, order, NothingPassed("time is up"), slow)
    assert row.status == "timeout", "what could not be judged to the end is not wrong"
    known = [CandidateJudged(Judged(drawn, failed(drawn)), 0, True)]
    row, _ = done(monkeypatch, order, NothingPassed("nothing new is proposed any more"), known)
    assert row.status == "wrong"


def test_an_estimate_is_compared_with_nothing(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    drawn = candidate()
    events = [CandidateJudged(Judged(drawn, passed(drawn)), 0, True)]
    row, told = done(monkeypatch, order, result(), events)
    assert (row.status, row.kind, row.timing, row.seconds) == ("passed", "pure", "estimated", 2e-6)
    assert row.baselines == () and row.comparisons == () and NOT_COMPARED not in row.marks
    assert row.marks == ("goes on from an earlier search",), "what an earlier run found is not this run's speed"
    assert row.first_pass is not None and row.first_pass <= row.spent
    assert (Path(order.results) / "kernel.cu").is_file()
    assert NOT_COMPARED not in decode_row(str(next(each["row"] for each in told if "row" in each))).marks


def test_the_comparison_of_a_measured_program(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    timing = Timing((4e-6,), 4e-6, (3e-6, 5e-6), "measured", "H200")
    baselines = (Baseline("eager", False, timing), Baseline("compile", True, None, "no graph"))
    row, told = done(
        monkeypatch,
        order,
        result("measured"),
        compare=lambda found, settings, modes: (baselines, (compared("eager", 2.0),)),
    )
    best = row.against("best")
    assert best is not None and best.ratio == 2.0
    assert [(each.name, each.seconds, each.problem) for each in row.baselines] == [
        ("eager", 4e-6, ""),
        ("compile graph", None, "no graph"),
    ]
    assert NOT_COMPARED not in row.marks
    first = decode_row(str(next(each["row"] for each in told if "row" in each)))
    assert first.marks == (NOT_COMPARED,), "the row that stands should the comparison crash"


@pytest.mark.parametrize("error", [MachineError("no baseline: it hangs"), MemoryError(), KeyboardInterrupt()])
def test_a_comparison_that_fails_does_not_cost_what_was_found(
    monkeypatch: pytest.MonkeyPatch, order: Order, error: BaseException
) -> None:
    def compare(found: Result, settings: object, modes: object) -> object:
        raise error

    row, _ = done(monkeypatch, order, result("measured"), compare=compare)
    assert row.passed and NOT_COMPARED in row.marks and row.message.startswith("passed, but")
    assert row.retriable


def test_what_a_reader_must_know_of_the_task_is_a_mark(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    row, _ = done(monkeypatch, order, result(), examine=lambda found: ("degenerate: bias",))
    assert row.marks == ("degenerate: bias",)
    huge = replace(result(), bound=replace(BOUND, operations=10**12))
    assert work.dependence(huge) == ("dependence on inputs not examined",)


def test_masks_that_the_baseline_does_not_read_are_a_mark(monkeypatch: pytest.MonkeyPatch, order: Order) -> None:
    """A ratio to the module is not one of equals where only the program reads masks."""
    row, (first, *_) = done(monkeypatch, order, replace(result(), task=DROPPING))
    assert [mark.split(":")[0] for mark in row.marks] == ["dropout masks are inputs"]
    assert "the baseline draws its own numbers" in row.marks[0]
    assert decode_row(first["row"]).marks == row.marks


def test_a_step_that_is_no_launch_makes_a_program_hybrid() -> None:
    launch = Launch("k", ("1",), ("32",), ("out",))
    call = Call("aten.mm", (View("x"), View("y")), View("out"))
    assert work.kind_of(Program("", Plan((), (), (), (launch,)))) == "pure"
    assert work.kind_of(Program("", Plan((), (), (), (launch,), calls=(call,)))) == "hybrid"


def test_an_order_comes_back(order: Order) -> None:
    assert decode_order(encode_order(order)) == order


def test_one_example_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked from a process that has everything imported: else each task of a suite pays for importing PyTorch."""
    monkeypatch.setattr("warpsmith.nursery.fresh", lambda beginning: pytest.fail("a process was started afresh"))
    settings = load_settings(
        device="H200", simulate=True, budget=600.0, max_candidates=1, workers=1, cache=tmp_path / "cache"
    )
    entries = discover(EXAMPLES, select=["gelu"])
    watcher = PlainWatcher(Console(file=io.StringIO()))
    bench = run_bench(EXAMPLES, entries, tmp_path / "run", settings, watcher, Options(), MACHINE)
    (row,) = bench.rows
    assert row.passed, row.message
    assert (row.name, row.device, row.timing, row.kind, row.judged) == ("gelu", "H200", "estimated", "pure", 1)
    assert row.share is not None and 0.0 < row.share <= 1.0
    assert (tmp_path / "run" / "results" / "gelu" / "report.html").is_file()
    assert bench.record.regime == "other"


def test_warming_up_asks_for_no_gpu_and_a_fork_is_like_a_fresh_process() -> None:
    """A process that is forked from one that has asked CUDA for anything cannot use CUDA."""
    script = """
import os
import numpy
import torch
from warpsmith.bench import untouched, work

def is_available(ask=torch.cuda.is_available):
    torch._C._cuda_getDeviceCount = driver  # by which PyTorch sees that it has CUDA
    try:
        return ask()
    finally:
        del torch._C._cuda_getDeviceCount

def driver():
    raise SystemExit("the driver was asked")

torch.cuda.is_available = is_available
threads = torch.get_num_threads()
wake = work.warm_up()
assert not torch.cuda.is_initialized() and not untouched.driver_in_use()
assert torch.get_num_threads() == 1, "threads do not survive a fork"
os.environ.pop("OMP_NUM_THREADS", None)
state, other = torch.get_rng_state(), numpy.random.get_state()
drawn = set()
for _ in range(2):  # two forks, which begin with the same state
    torch.set_rng_state(state)
    numpy.random.set_state(other)
    wake()
    drawn.add((torch.rand(1).item(), numpy.random.rand()))
assert len({one for one, _ in drawn}) == len({two for _, two in drawn}) == 2
assert torch.get_num_threads() == threads
os.environ["OMP_NUM_THREADS"] = "3,2"
wake()
assert torch.get_num_threads() == 3
torch.cuda._is_in_bad_fork = lambda: True
try:
    wake()
except work.MachineError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | NO_GPU, capture_output=True, text=True, check=False)
    assert "no process may be forked" in done.stdout, done.stderr
