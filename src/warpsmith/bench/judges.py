"""The process from which a task's judges are forked, itself forked from the process of the task.

multiprocessing would start it anew, and it would import PyTorch once more for each task of a suite.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

_JUDGES = "warpsmith.cluster.worker"


def fork_server(*private: int) -> None:
    """Have multiprocessing fork from a fork of this process, which does not get the `private` descriptors.

    Call it before this process has threads or uses a GPU. Where the fork ends, multiprocessing starts another its own
    way. What is set here is what `ForkServer.ensure_running` sets (Python 3.11 to 3.13).
    """
    importlib.import_module(_JUDGES)
    server: Any = forkserver._forkserver
    address = str(Path(util.get_temp_dir()) / "judges")  # this process's own folder, removed when it ends
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        alive, ours = os.pipe()
        pid = os.fork()
        if not pid:
            for descriptor in (ours, *private):
                os.close(descriptor)
            with contextlib.suppress(SystemExit):  # so it ends, when this process has
                forkserver.main(listener.fileno(), alive, [])
            os._exit(0)
    os.close(alive)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, ours, pid
