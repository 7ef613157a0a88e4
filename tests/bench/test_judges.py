"""A task's judges are forked from what the task has imported, and hold nothing of it open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.test_child import gone

PROBE = """
import os

MARK = "as imported"


def look(pipe, private):
    try:
        os.fstat(private)
    except OSError:
        private = None
    pipe.send({"mark": MARK, "private": private, "parent": os.getppid()})
"""
SCRIPT = """
import json, multiprocessing, os, signal
from warpsmith.bench.judges import fork_server
import probe

context = multiprocessing.get_context("forkserver")

def ask():
    ours, theirs = context.Pipe()
    process = context.Process(target=probe.look, args=(theirs, private))
    process.start()
    theirs.close()
    said = ours.recv()
    process.join()
    return said | {"code": process.exitcode}

private, other = os.pipe()
os.dup2(private, 200)  # no number that a judge opens by itself
private = 200
probe.MARK = "as it was when the server was forked"
fork_server(private)
first, second = ask(), ask()
os.kill(first["parent"], signal.SIGKILL)
os.waitid(os.P_PID, first["parent"], os.WEXITED | os.WNOWAIT)
print(json.dumps([first, second, ask()]))
"""


def test_judges_come_from_a_fork_of_the_task_which_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second, later = json.loads(done.stdout)
    assert first == second, "one server makes all"
    assert first["mark"] == "as it was when the server was forked", "else each task imports PyTorch twice"
    assert first["private"] is None, "a judge that holds the task's pipe open hides that the task has crashed"
    assert later["mark"] == "as imported" and later["code"] == 0, "a server that was killed is made again"
    assert gone(later["parent"]) and gone(first["parent"])
