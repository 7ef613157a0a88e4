"""Child processes: they answer, they are ended with all that they started, and they leave words behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from warpsmith import wire
from warpsmith.child import Child

Spawn = Callable[..., Child]
_HEAD = "import os, signal, sys, time\nfrom warpsmith import wire\nreads, writes = map(int, sys.argv[-2:])\n"
ECHO = """
while True:
    try:
        message, blobs = wire.receive(reads)
    except wire.Closed:
        print("no more messages")
        sys.exit(7)
    wire.send(writes, message, *blobs)
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start children that run a script; they are gone when the test is over."""
    children: list[Child] = []

    def start(script: str, **options: Any) -> Child:
        path = tmp_path / f"child{len(children)}.py"
        path.write_text(_HEAD + script, encoding="utf-8")
        children.append(Child([sys.executable, str(path)], **options))
        return children[-1]

    yield start
    for child in children:
        child.kill()


def gone(pid: int) -> bool:
    """Whether a process has ended; waits for it, since a killed one takes a moment."""
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_a_child_answers_again_and_again(spawn: Spawn) -> None:
    child = spawn(ECHO)
    for number in range(3):
        assert child.ask({"number": number}, b"abc", seconds=30.0) == ({"number": number}, [b"abc"])
    assert child.alive


def test_more_bytes_than_are_asked_for_are_refused(spawn: Spawn) -> None:
    with pytest.raises(wire.Nonsense):
        spawn(ECHO).ask({}, b"x" * 100, seconds=30.0, max_blob=99)


def test_a_child_that_hangs_is_late_and_one_that_ends_is_gone(spawn: Spawn) -> None:
    with pytest.raises(wire.Late):
        spawn("time.sleep(60)").ask({}, seconds=0.1)
    with pytest.raises(wire.Closed):
        spawn("").receive(30.0)


def test_a_child_that_reads_nothing_is_late_however_much_it_is_sent(spawn: Spawn) -> None:
    child = spawn("time.sleep(60)")
    # Ends the wait of a test that would never end otherwise.
    rescue = threading.Timer(2.0, os.kill, (child.pid, signal.SIGKILL))
    rescue.start()
    try:
        with pytest.raises(wire.Late):
            child.ask({}, bytes(1 << 20), seconds=0.1)
    finally:
        rescue.cancel()


def test_what_a_child_started_ends_with_it(spawn: Spawn) -> None:
    child = spawn(
        "if not os.fork():\n    time.sleep(60)\n"
        "pid = os.fork()\nif not pid:\n    time.sleep(60)\n"
        "wire.send(writes, {'pid': pid})\ntime.sleep(60)"
    )
    grandchild = child.receive(30.0)[0]["pid"]
    child.kill()
    assert gone(child.pid) and gone(grandchild)


def test_what_a_child_started_ends_also_when_the_child_has_ended_by_itself(spawn: Spawn) -> None:
    child = spawn("pid = os.fork()\nif not pid:\n    time.sleep(60)\nwire.send(writes, {'pid': pid})")
    grandchild = child.receive(30.0)[0]["pid"]
    child.wait(30.0)
    assert not child.alive
    child.kill()
    assert gone(grandchild)


def test_leaving_the_context_ends_the_child_and_killing_again_is_safe(spawn: Spawn) -> None:
    with spawn("time.sleep(60)") as child:
        assert child.alive
    assert gone(child.pid) and not child.alive
    child.kill()


def test_a_child_whose_messages_end_can_end_by_itself(spawn: Spawn) -> None:
    child = spawn(ECHO)
    child.close()
    child.wait(30.0)
    assert child.epitaph() == "ended with code 7: no more messages"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('out of paper', file=sys.stderr)\nsys.exit(3)", "ended with code 3: out of paper"),
        ("print('before')\nos.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV: before"),
        ("os._exit(0)", "ended with code 0"),
        ("sys.stdout.buffer.write(b'\\xff\\n')\nsys.exit(1)", "ended with code 1: \ufffd"),
    ],
)
def test_the_epitaph_says_how_it_ended_and_what_it_said_last(spawn: Spawn, script: str, words: str) -> None:
    child = spawn(script)
    child.wait(30.0)
    assert child.epitaph() == words


def test_the_epitaph_knows_signals_without_a_name(spawn: Spawn) -> None:
    child = spawn("os.kill(os.getpid(), 40)")
    child.wait(30.0)
    assert "40" in child.epitaph()


def test_the_epitaph_of_one_that_talks_much_is_the_end_of_it(spawn: Spawn) -> None:
    child = spawn("print('first words', 'x' * 10000, 'last words')")
    child.wait(30.0)
    assert child.epitaph().endswith("last words") and "first words" not in child.epitaph()
    assert len(child.epitaph()) < 2100


def test_the_epitaph_of_one_that_lives_says_so(spawn: Spawn) -> None:
    child = spawn("print('thinking')\nwire.send(writes, {})\ntime.sleep(60)")
    child.receive(30.0)
    assert child.epitaph() == "does not answer: thinking"


def test_a_relative_python_path_means_the_same_folder_there(
    spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("WHERE = 'found'\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["here", "", *([before] if before else [])]))
    child = spawn(
        "import only_here\nwire.send(writes, {'where': only_here.WHERE, 'in': os.getcwd(), 'path': sys.path})"
    )
    told, _ = child.receive(30.0)
    assert told["where"] == "found" and told["in"] == "/"
    assert "/" not in told["path"], "an empty entry means the child's own folder, which is another"


def test_only_what_is_needed_of_the_environment_is_handed_on(
    spawn: Spawn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WARPSMITH_SECRET", "42")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    script = "wire.send(writes, {'environment': dict(os.environ), 'in': os.getcwd()})"
    told, _ = spawn(script, extra={"ADDED": "1"}, cwd=str(tmp_path)).receive(30.0)
    environment = told["environment"]
    assert "WARPSMITH_SECRET" not in environment, "what runs there must not see keys and passwords"
    assert environment["ADDED"] == "1" and environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert Path(told["in"]).samefile(tmp_path)


def test_children_do_not_hold_each_others_pipes_open(spawn: Spawn) -> None:
    first = spawn(ECHO)
    second = spawn("wire.send(writes, {})\ntime.sleep(60)")
    second.receive(30.0)
    first.close()
    first.wait(30.0)
    assert not first.alive, "the second child holds the first one's messages open"
