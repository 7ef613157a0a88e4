"""Processes from a nursery: they must be like fresh ones, in how they begin, in what they see, and in how they end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.test_child import ECHO, gone
from warpsmith import wire
from warpsmith.child import Child
from warpsmith.nursery import Nursery

Spawn = Callable[..., Child]
_HEAD = """
import atexit, os, random, signal, sys, tempfile, threading, time
from warpsmith import wire
"""
_TAIL = """
if __name__ == "__main__":
    main()
"""
HANG = "wire.send(writes, {'pid': os.getpid(), 'parent': os.getppid()})\ntime.sleep(60)"


class Ward:
    """Nurseries of modules that tests write, and the children from them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        self._nurseries: list[Nursery] = []

    def nursery(self, script: str, before: str = "", extra: dict[str, str] | None = None) -> Nursery:
        """A nursery of a module whose `main` is `script`; `before` stands outside of it."""
        name = f"brood{len(self._nurseries)}"
        lines = "reads, writes = map(int, sys.argv[-2:])\n" + script
        body = "def main():\n" + "".join(f"    {line}\n" for line in lines.strip().splitlines())
        (self._folder / f"{name}.py").write_text(_HEAD + before + "\n" + body + _TAIL, encoding="utf-8")
        self._nurseries.append(Nursery(name, extra))
        return self._nurseries[-1]

    def child(self, nursery: Nursery, **options: Any) -> Child:
        """A child from a nursery."""
        self._children.append(Child(nursery.command, start=nursery.start, **options))
        return self._children[-1]

    def end(self) -> None:
        """End everything."""
        for child in self._children:
            child.kill()
        for nursery in self._nurseries:
            nursery.close()


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *([before] if before else [])]))
    made = Ward(tmp_path)
    yield made
    made.end()


def hanging(child: Child) -> tuple[int, int]:
    """The numbers of a child that hangs and of the process that it was forked from."""
    told, _ = child.receive(30.0)
    return told["pid"], told["parent"]


# ------------------------------------------------------------------------------------------------------------ beginning


def test_children_answer_and_what_is_slow_to_import_is_imported_once(ward: Ward, tmp_path: Path) -> None:
    nursery = ward.nursery(ECHO, before=f"with open({str(tmp_path / 'imports')!r}, 'a') as file: file.write('x')")
    first, second = ward.child(nursery), ward.child(nursery)
    for child in (second, first):
        assert child.ask({"number": 1}, b"abc", seconds=30.0) == ({"number": 1}, [b"abc"])
        assert child.alive
    assert (tmp_path / "imports").read_text() == "x" and not nursery.trouble


def test_a_child_leads_a_session_of_its_own_in_the_folder_and_environment_that_were_asked_for(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARPSMITH_SECRET", "42")
    script = (
        "wire.send(writes, {'environment': dict(os.environ), 'in': os.getcwd(), 'leads': os.getsid(0) == os.getpid()"
        " == os.getpgrp(), 'arguments': len(sys.argv), 'input': os.readlink('/proc/self/fd/0')})"
    )
    nursery = ward.nursery(script, extra={"ONLY_WARM": "1"})
    for number in ("1", "2"):
        told, _ = ward.child(nursery, extra={"ADDED": number}, cwd=str(tmp_path)).receive(30.0)
        assert told["leads"] and told["arguments"] == 3 and told["input"] == os.devnull
        assert Path(told["in"]).samefile(tmp_path)
        assert told["environment"]["ADDED"] == number
        assert not {"WARPSMITH_SECRET", "ONLY_WARM"} & set(told["environment"])


def test_a_module_warms_up_once_and_every_child_begins_with_what_that_returned(ward: Ward) -> None:
    before = (
        "said = []\n"
        "def warm_up():\n    said.append(('warm', os.environ['WHERE'], os.getpid()))\n"
        "    return lambda: said.append(('wake', os.environ['WHERE'], os.getpid()))"
    )
    nursery = ward.nursery("wire.send(writes, {'said': said})", before, {"WHERE": "in the nursery"})
    told = [ward.child(nursery, extra={"WHERE": "in a child"}).receive(30.0)[0]["said"] for _ in range(2)]
    assert [[what, where] for what, where, _ in told[0]] == [["warm", "in the nursery"], ["wake", "in a child"]]
    assert told[0][0] == told[1][0] and told[0][1] != told[1][1]


def test_children_do_not_draw_the_same_random_numbers_or_names(ward: Ward) -> None:
    before = "random.random()\nnext(tempfile._get_candidate_names())"
    nursery = ward.nursery(
        "wire.send(writes, {'drawn': random.random(), 'name': next(tempfile._get_candidate_names())})", before
    )
    one, other = (ward.child(nursery).receive(30.0)[0] for _ in range(2))
    assert one["drawn"] != other["drawn"] and one["name"] != other["name"]


def test_signals_mean_to_a_child_what_they_mean_to_a_fresh_process(ward: Ward) -> None:
    nursery = ward.nursery(
        "try:\n    wire.send(writes, {})\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(5)"
    )
    child = ward.child(nursery)
    child.receive(30.0)
    os.kill(child.pid, signal.SIGINT)
    child.wait(30.0)
    assert child.epitaph() == "ended with code 5"


def test_children_do_not_hold_each_others_pipes_open(ward: Ward) -> None:
    echo = ward.nursery(ECHO)
    first, second = ward.child(echo), ward.child(echo)
    second.ask({}, seconds=30.0)
    first.close()
    first.wait(30.0)
    assert not first.alive and second.alive


# --------------------------------------------------------------------------------------------------------------- ending


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('out of paper', file=sys.stderr)\nsys.exit(3)", "ended with code 3: out of paper"),
        ("print('before')\nos.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV: before"),
        ("os._exit(0)", "ended with code 0"),
        ("atexit.register(print, 'handlers run')", "ended with code 0: handlers run"),
        ("threading.Thread(target=lambda: (time.sleep(0.05), print('threads end'))).start()", "code 0: threads end"),
        ("raise ValueError('a bug')", "ValueError: a bug"),
    ],
)
def test_the_epitaph_says_how_it_ended_and_what_it_said_last(ward: Ward, script: str, words: str) -> None:
    child = ward.child(ward.nursery(script))
    child.wait(30.0)
    assert words in child.epitaph()
    assert not child.alive
    if "bug" in script:
        assert child.epitaph().startswith("ended with code 1: Traceback")


def test_the_epitaph_of_one_that_lives_says_so(ward: Ward) -> None:
    child = ward.child(ward.nursery("print('thinking')\n" + HANG))
    child.receive(30.0)
    assert child.epitaph() == "does not answer: thinking"


def test_what_a_child_started_ends_with_it(ward: Ward) -> None:
    script = "pid = os.fork()\nif not pid:\n    time.sleep(60)\nwire.send(writes, {'pid': pid})\ntime.sleep(60)"
    child = ward.child(ward.nursery(script))
    grandchild = child.receive(30.0)[0]["pid"]
    child.kill()
    assert gone(child.pid) and gone(grandchild)
    child.kill()


def test_the_number_of_a_child_is_nobody_elses_until_it_is_killed(ward: Ward) -> None:
    """A tree of processes is found by the number of its root, also after that has crashed."""
    child = ward.child(ward.nursery("os._exit(1)"))
    child.wait(30.0)
    stat = Path(f"/proc/{child.pid}/stat")
    assert not child.alive and stat.read_text().rpartition(")")[2].split()[0] == "Z"
    child.kill()
    end = time.monotonic() + 20.0
    while stat.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not stat.exists()


# --------------------------------------------------------------------------------------------- the end of the warm process


def test_closing_the_nursery_ends_what_it_made(ward: Ward) -> None:
    nursery = ward.nursery(HANG)
    pid, warm = hanging(child := ward.child(nursery))
    nursery.close()
    assert gone(warm) and gone(pid)
    assert child.epitaph() == "was ended by SIGKILL"


def test_a_nursery_that_was_killed_takes_its_children_along_and_is_made_again(ward: Ward) -> None:
    nursery = ward.nursery(HANG)
    pid, warm = hanging(child := ward.child(nursery))
    os.kill(warm, signal.SIGKILL)
    assert gone(pid)
    with pytest.raises(wire.Closed):
        child.receive(30.0)
    assert child.epitaph() == "was ended by SIGKILL" and not child.alive
    _, other = hanging(ward.child(nursery))
    assert other not in (warm, os.getpid()) and not nursery.trouble


def test_one_that_dies_while_a_child_is_being_started_costs_nothing_but_time(ward: Ward, tmp_path: Path) -> None:
    before = (
        "def warm_up():\n    warm = os.getpid()\n    def wake():\n"
        f"        if not os.path.exists({str(tmp_path / 'died')!r}):\n"
        f"            open({str(tmp_path / 'died')!r}, 'w').close()\n            os.kill(warm, signal.SIGKILL)\n"
        "            time.sleep(60)\n"
        "    return wake"
    )
    nursery = ward.nursery(HANG, before)
    _, warm = hanging(ward.child(nursery))
    assert (tmp_path / "died").exists() and warm != os.getpid() and not nursery.trouble


def test_one_that_dies_while_many_wait_for_it_is_made_again_for_all(ward: Ward, tmp_path: Path) -> None:
    before = (
        f"died = {str(tmp_path / 'died')!r}\n"
        "def warm_up():\n    warm = os.getpid()\n    def wake():\n        if not os.path.exists(died):\n"
        "            time.sleep(0.3)\n            open(died, 'w').close()\n"
        "            os.kill(warm, signal.SIGKILL)\n            time.sleep(60)\n"
        "    return wake"
    )
    nursery = ward.nursery(HANG, before)
    with ThreadPoolExecutor(6) as lanes:
        children = list(lanes.map(lambda _: ward.child(nursery), range(6)))
    warm = {hanging(child)[1] for child in children}
    assert len(warm) == 1 and os.getpid() not in warm and not nursery.trouble


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("if sys.argv[0].endswith('nursery_process.py'): sys.exit('not today')", "not today"),
        ("def warm_up():\n    raise OSError('too cold')", "too cold"),
        ("def warm_up():\n    def wake():\n        os._exit(1)\n    return wake", "ended before it began"),
    ],
)
def test_where_nothing_can_be_forked_children_are_started_afresh(ward: Ward, before: str, why: str) -> None:
    nursery = ward.nursery(HANG, before)
    for _ in range(2):
        _, parent = hanging(ward.child(nursery))
        assert parent == os.getpid()
        assert why in nursery.trouble


def test_another_command_is_started_as_ever_and_wakes_nobody(ward: Ward, tmp_path: Path) -> None:
    nursery = ward.nursery(HANG, f"open({str(tmp_path / 'woken')!r}, 'w').close()")
    script = "import os, sys, time\nfrom warpsmith import wire\nwrites = int(sys.argv[-1])\n" + HANG
    (tmp_path / "other.py").write_text(script, encoding="utf-8")
    with Child([sys.executable, str(tmp_path / "other.py")], start=nursery.start) as child:
        assert hanging(child) == (child.pid, os.getpid())
    assert not (tmp_path / "woken").exists()


def test_when_whoever_has_the_nursery_is_killed_nothing_is_left(ward: Ward, tmp_path: Path) -> None:
    nursery = ward.nursery(HANG)
    script = (
        "import sys, time\nfrom warpsmith import wire\nfrom warpsmith.child import Child\n"
        "from warpsmith.nursery import Nursery\n"
        f"nursery = Nursery({nursery.command[-1]!r})\n"
        "child = Child(nursery.command, start=nursery.start)\n"
        "wire.send(int(sys.argv[-1]), child.receive(30.0)[0])\ntime.sleep(60)"
    )
    (tmp_path / "owner.py").write_text(script, encoding="utf-8")
    with Child([sys.executable, str(tmp_path / "owner.py")]) as owner:
        pid, warm = hanging(owner)
    assert gone(warm) and gone(pid)
