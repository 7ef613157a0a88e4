"""Connects an agent with a desk: what comes on standard input goes to a socket, what comes from there to the output.

It runs as a script of its own, so that an agent starts nothing of Warpsmith and holds nothing that the judge knows:
judge and expected outputs are in a process that is no child of the agent's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

_CHUNK = 1 << 16


def main() -> None:
    """Relay until either side has ended. The argument is the path of the socket."""
    with socket.socket(socket.AF_UNIX) as desk:
        desk.connect(sys.argv[1])
        threading.Thread(target=_ask, args=(desk,), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := desk.recv(_CHUNK):
                _write(1, data)


def _ask(desk: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _CHUNK):
            desk.sendall(data)
        desk.shutdown(socket.SHUT_WR)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()
