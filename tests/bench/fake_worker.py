"""Stands in for the process of a task: does what the name of the task says. Run as a script, so that it starts fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from warpsmith import wire

READS, WRITES = int(sys.argv[-2]), int(sys.argv[-1])


def row(status: str = "passed", **changes: object) -> dict[str, object]:
    """A message with the row that the order calls for."""
    values: dict[str, object] = {
        "name": "said by the process",
        "source_hash": "said by the process",
        "fingerprint": "said by the process",
        "status": status,
        "device": "H200",
        "spent": 0.1,
        "finished": "2026-01-01T00:00:00+00:00",
    }
    if status == "passed":
        values |= {"kind": "pure", "seconds": 2e-6, "interval": [1.9e-6, 2.1e-6], "timing": "estimated", "bound": 1e-6}
    return {"row": json.dumps(values | changes)}


def stop_politely(*_: object) -> None:
    """Answer an interrupt with what was found."""
    wire.send(WRITES, {**row(), "last": True})
    os._exit(0)


def seen(order: dict[str, Any]) -> str:
    """What the process was given, as JSON text."""
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS")
    given = {name: os.environ[name] for name in names if name in os.environ}
    return json.dumps({**given, "workers": json.loads(order["settings"])["workers"]})


def wait_for(count: int, folder: Path, pattern: str) -> None:
    """Wait until so many files are there."""
    while len(list(folder.glob(pattern))) < count:
        time.sleep(0.01)


def write_to_archive(path: str, first: int) -> None:
    """Add candidates with verdicts, as a search does."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.archive.writer import write_candidates

    class Deaf:
        def send(self, text: str) -> None:
            pass

    write_candidates(Path(path), first, 30, Deaf())  # type: ignore[arg-type]


def main() -> None:
    message, _ = wire.receive(READS)
    order = json.loads(message["order"])
    what = order["name"].rpartition("/")[2].rpartition("_")[2]
    Path(order["results"]).parent.mkdir(parents=True, exist_ok=True)
    with (Path(order["results"]).parent / "started.txt").open("a") as file:
        file.write(f"{order['name']}\n")
    Path(order["results"]).with_suffix(".here").touch()
    wire.send(WRITES, {"note": "working"})
    if what == "crash":
        print("some lines before\nthe reason is printed here", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(0)
    elif what == "hang":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        wire.send(WRITES, {"note": "ready to be stopped"})
        time.sleep(600)
    elif what == "slow":
        signal.signal(signal.SIGINT, stop_politely)
        wire.send(WRITES, {"note": "ready to be stopped"})
        time.sleep(600)
    elif what.startswith("meet"):  # comes to an end only once so many tasks have begun
        wait_for(int(what[4:]), Path(order["results"]).parent, "*.here")
        wire.send(WRITES, {**row(marks=[seen(order)]), "last": True})
    elif what == "tell":
        wire.send(WRITES, {**row(marks=[seen(order)]), "last": True})
    elif what == "archive":
        wait_for(3, Path(order["results"]).parent, "*.here")
        write_to_archive(json.loads(order["settings"])["archive"], 20 * order["number"])
        wire.send(WRITES, {**row(), "last": True})
    elif what == "orphan":
        # In a session of its own, as the compiler and the runner are.
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(order["results"]).with_suffix(".pid").write_text(str(left.pid))
        for _ in range(2):  # after each, whoever waits looks around
            wire.send(WRITES, {"note": "started one"})
        while not Path(order["results"]).with_suffix(".seen").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "hog":
        held = bytearray(os.urandom(1 << 20) * 300)
        time.sleep(600)
        print(len(held))
    elif what == "nonsense":
        wire.send(WRITES, {"row": "{}", "last": True})
    elif what == "noise":
        os.write(WRITES, b"\xff" * 64)
    elif what == "draft":
        wire.send(WRITES, row(timing="measured"))
        os._exit(7)
    elif what in ("wrong", "unsupported", "task-error", "machine-error"):
        wire.send(WRITES, {**row(what.replace("-", "_"), message=f"{what}, in a sentence"), "last": True})
    else:
        wire.send(WRITES, {**row(), "last": True})


main()
