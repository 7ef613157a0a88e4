"""Runners that crash, hang, lie or do not start are told apart, ended and replaced; each test's runner is a script."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from warpsmith.device.cuda.process import Fault, RunnerProcess
from warpsmith.errors import MachineError

HEAD = """
import os, signal, sys, time
from warpsmith import wire
reads, writes = map(int, sys.argv[-2:])
"""
OBEDIENT = (
    HEAD
    + """
wire.send(writes, {"ready": True})
while True:
    try:
        message, blobs = wire.receive(reads)
    except wire.Closed:
        if len(sys.argv) > 3:
            open(sys.argv[1], "w").write("the report")
        break
    do = message["do"]
    if do == "echo":
        wire.send(writes, {"pid": os.getpid(), "got": message}, *blobs)
    elif do == "exit":
        print("the last words")
        os._exit(3)
    elif do == "signal":
        os.kill(os.getpid(), message["number"])
    elif do == "hang":
        time.sleep(120)
    elif do == "say":
        os.write(writes, blobs[0])
    elif do == "refuse":
        wire.send(writes, {"error": "CUDA_ERROR_ILLEGAL_ADDRESS", "call": "softmax: CUDA_ERROR_ILLEGAL_ADDRESS"})
"""
)
Make = Callable[..., RunnerProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make runners that run a script in place of ours; all are ended when the test is over."""
    made: list[RunnerProcess] = []

    def runner(script: str = OBEDIENT, *arguments: str, spare: bool = False) -> RunnerProcess:
        path = tmp_path / f"runner{len(made)}.py"
        path.write_text(script, encoding="utf-8")
        made.append(RunnerProcess(0, spare=spare))
        made[-1]._command = [sys.executable, str(path), *arguments]
        return made[-1]

    yield runner
    for each in made:
        each.close()


def gone(pid: int) -> bool:
    """Whether a process has ended; waits for it, since a killed one takes a moment."""
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


def pid_of(runner: RunnerProcess) -> int:
    """The process that answers."""
    return int(runner.ask({"do": "echo"}, seconds=30.0)[0]["pid"])


def fault_of(runner: RunnerProcess, message: dict[str, object], *blobs: bytes, seconds: float = 30.0) -> Fault:
    with pytest.raises(Fault) as caught:
        runner.ask(message, *blobs, seconds=seconds)
    return caught.value


def test_a_runner_starts_when_it_is_first_asked_and_stays(make: Make) -> None:
    runner = make()
    assert runner.pid is None and runner.started == 0
    answer, data = runner.ask({"do": "echo", "slot": 3}, b"cubin", seconds=30.0)
    assert answer["got"] == {"do": "echo", "slot": 3} and data == [b"cubin"]
    assert pid_of(runner) == answer["pid"] == runner.pid and runner.started == 1


@pytest.mark.parametrize(
    ("message", "blob", "name", "words"),
    [
        ({"do": "exit"}, b"", "died", "ended with code 3: the last words"),
        ({"do": "signal", "number": 11}, b"", "died", "SIGSEGV"),
        ({"do": "signal", "number": 9}, b"", "died", "SIGKILL"),
        ({"do": "unheard of"}, b"", "timeout", "0.5 s"),
        ({"do": "hang"}, b"", "timeout", "0.5 s"),
        ({"do": "say"}, b"\xff" * 64, "nonsense", "bytes"),
        ({"do": "say"}, b"\0\0\0\0\0\0\0\2{}", "nonsense", "no JSON object"),
        ({"do": "refuse"}, b"", "CUDA_ERROR_ILLEGAL_ADDRESS", "softmax"),
    ],
)
def test_a_fault_says_what_happened_and_the_next_question_meets_a_fresh_runner(
    make: Make, message: dict[str, object], blob: bytes, name: str, words: str
) -> None:
    runner = make()
    first = pid_of(runner)
    fault = fault_of(runner, message, blob, seconds=0.5 if name == "timeout" else 30.0)
    assert fault.name == name and words in fault.message
    assert runner.pid is None and gone(first), "after a fault a process is never used again"
    assert pid_of(runner) != first and runner.started == 2


def test_an_answer_larger_than_was_asked_for_is_refused(make: Make) -> None:
    runner = make()
    with pytest.raises(Fault) as caught:
        runner.ask({"do": "echo"}, bytes(100), seconds=30.0, max_blob=99)
    assert caught.value.name == "nonsense" and runner.pid is None


def test_a_runner_that_died_between_programs_is_replaced_and_nobody_is_blamed(make: Make) -> None:
    runner = make()
    first = pid_of(runner)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    runner.start()
    assert runner.started == 2 and runner.pid != first


def test_no_question_is_answered_by_a_runner_that_knows_nothing_of_the_ones_before(make: Make) -> None:
    runner = make()
    os.kill(pid_of(runner), signal.SIGKILL)
    os.waitid(os.P_PID, runner.pid or 0, os.WEXITED | os.WNOWAIT)
    # "Call the program on slot 3" means nothing to a fresh one: it would say that all is well, with nothing written.
    assert fault_of(runner, {"do": "echo", "slot": 3}).name == "died"


def test_the_next_runner_is_ready_before_it_is_needed(make: Make) -> None:
    runner = make(spare=True)
    runner.start()
    spare = runner._spare
    assert spare is not None and spare.pid != runner.pid
    fault_of(runner, {"do": "exit"})
    assert pid_of(runner) == spare.pid, "the spare takes over"
    assert runner._spare is not None and runner._spare.pid != spare.pid, "and another one waits"


def test_a_spare_that_died_is_no_end(make: Make) -> None:
    runner = make(spare=True)
    runner.start()
    assert runner._spare is not None
    os.kill(runner._spare.pid, signal.SIGKILL)
    os.waitid(os.P_PID, runner._spare.pid, os.WEXITED | os.WNOWAIT)
    fault_of(runner, {"do": "exit"})
    assert pid_of(runner)


def test_closing_ends_the_runner_and_the_spare(make: Make) -> None:
    runner = make(spare=True)
    first = pid_of(runner)
    assert runner._spare is not None
    spare = runner._spare.pid
    runner.close()
    runner.close()
    assert gone(first) and gone(spare)


def test_without_a_spare_only_one_process_is_there(make: Make) -> None:
    runner = make()
    runner.start()
    assert runner._spare is None, "two processes under a profiler would write to one report"


def test_a_runner_can_end_by_itself_so_that_a_profiler_writes_its_report(make: Make, tmp_path: Path) -> None:
    report = tmp_path / "report"
    runner = make(OBEDIENT, str(report))
    runner.start()
    runner.finish()
    assert report.read_text(encoding="utf-8") == "the report" and runner.pid is None


def test_one_that_does_not_end_by_itself_is_ended(make: Make) -> None:
    runner = make(HEAD + "wire.send(writes, {'ready': True})\ntime.sleep(120)")
    runner.start()
    pid = runner.pid or 0
    runner.finish(0.2)
    assert gone(pid)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('no module named cuda')\nsys.exit(5)", "does not start.*ended with code 5: no module named cuda"),
        ("wire.send(writes, {'error': 'CUDA_ERROR_NO_DEVICE', 'call': 'cuInit: no device'})", "cannot be used: cuInit"),
        ("wire.send(writes, {'ready': True}, b'unexpected')", "does not start"),
        ("os.write(writes, b'hello, world')", "does not start"),
    ],
)
def test_a_runner_that_does_not_start_is_the_machines_fault_not_the_candidates(
    make: Make, script: str, words: str
) -> None:
    runner = make(HEAD + script)
    with pytest.raises(MachineError, match=words):
        runner.ask({"do": "call", "slot": 0}, seconds=30.0)
    assert runner.pid is None


def test_a_runner_can_be_started_under_a_tool(tmp_path: Path) -> None:
    tool = tmp_path / "tool.py"
    tool.write_text(
        HEAD + "print(*sys.argv[1:-2])\nwire.send(writes, {'error': ' '.join(sys.argv[1:])})", encoding="utf-8"
    )
    runner = RunnerProcess(3, prefix=[sys.executable, str(tool)])
    with pytest.raises(MachineError, match=r"-P -m warpsmith\.device\.cuda\.runner 3 \d+ \d+"):
        runner.start()
    runner.close()


def test_our_own_runner_says_that_there_is_no_such_gpu() -> None:
    runner = RunnerProcess(999)
    with pytest.raises(MachineError, match="the GPU"):
        runner.start()
    assert runner.pid is None
    runner.close()
