"""The warm process from which sandboxes are forked. It has PyTorch imported and never runs anything foreign.

    python -m warpsmith.judge.foreign.template SOCKET

Each request on the socket is a JSON object. `spawn` comes with three descriptors (requests, answers, prints) and is
answered with a process number; `reap` waits for one and is answered with how it ended. When the socket closes, this
process ends, and with it every sandbox that it made.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import tempfile
import traceback
from typing import Any

import torch

from warpsmith.judge.enter import Spec, close_in, tell
from warpsmith.judge.foreign.driver import serve, warm_up

_REQUEST = 1 << 18


def main(descriptor: int) -> None:
    """Answer requests until the socket closes."""
    torch.set_num_threads(1)  # Threads do not survive a fork; each driver chooses its own number.
    warm_up()
    gc.collect()
    gc.freeze()  # What all sandboxes share is never walked again, neither inside a clock nor while all should be quiet.
    with socket.socket(fileno=descriptor) as control:
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, _REQUEST, 3)
            if not data:
                return
            request = json.loads(data)
            answer = _spawn(request["spec"], descriptors) if request["do"] == "spawn" else _reap(request["pid"])
            control.send(json.dumps(answer).encode())


def _spawn(spec: dict[str, Any], descriptors: list[int]) -> dict[str, int]:
    child = os.fork()
    if not child:
        try:
            _become(spec, *descriptors)
        except OSError:
            traceback.print_exc()
        finally:
            os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    return {"pid": child}


def _become(spec: dict[str, Any], read: int, write: int, printed: int) -> None:
    """Turn this fork into a sandbox with a driver in it."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    tempfile.tempdir = None  # Where it was looked up before, it would name a folder that is not there any more.
    got = close_in(Spec.from_json({**spec, "keep": [read, write]}))
    tell(write, got)
    serve(read, write)
    os._exit(0)


def _reap(child: int) -> dict[str, int]:
    status = os.waitpid(child, 0)[1]
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"code": os.WEXITSTATUS(status)}


if __name__ == "__main__":
    main(int(sys.argv[1]))
