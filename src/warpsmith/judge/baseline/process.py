"""The baseline's process: our code around the user's module. It sees neither candidates nor what the judge knows.

    python -m warpsmith.judge.baseline.process PARCEL DEVICE ROTATE_BYTES READ WRITE

It builds the module and its sets, says so, and answers `prepare` and `series` for six forms. What the user's code, the
compiler or the GPU raises is an answer too; the parent then replaces the process, for it may have been spoiled.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from cuda.bindings import driver as cu

from warpsmith import wire
from warpsmith.device.cuda.driver import checked
from warpsmith.errors import TaskError
from warpsmith.judge.baseline.forms import Call, Captured, Flush, Plain, calls_of
from warpsmith.judge.baseline.parcel import Parcel, read_parcel
from warpsmith.judge.baseline.workload import make_sets, open_source
from warpsmith.judge.tf32 import precision_policy
from warpsmith.task.usercode import Blame


class Bench:
    """The module, its sets, and the forms that are prepared."""

    def __init__(self, parcel: Parcel, device: str, rotate_bytes: int, stack: contextlib.ExitStack) -> None:
        self._device, self._file = device, parcel.file
        if torch.device(device).type == "cuda" and torch.device(device).index is not None:
            with Blame(f"choosing {device}", parcel.file):
                torch.cuda.set_device(device)
        source = open_source(parcel, stack)
        # After the source has run: whatever it sets, the baseline computes in the precision that the candidate may.
        stack.enter_context(precision_policy(parcel.tolerance))
        with Blame("the memory for flushing caches", parcel.file):
            self._flush = Flush(rotate_bytes, device)
        self.sets = make_sets(parcel, source, device, rotate_bytes)
        self._calls: dict[str, list[Call]] = {}
        self._forms: dict[tuple[str, bool], Plain | Captured] = {}

    def do_prepare(self, message: wire.Message) -> wire.Message:
        """Compile, warm up and capture what the form needs."""
        mode, graph = message["mode"], message["graph"]
        with Blame("the module" if mode == "eager" else "torch.compile", self._file):
            if mode not in self._calls:
                self._calls[mode] = calls_of(mode, self.sets)
            calls = self._calls[mode]
        with Blame("the capture of a CUDA graph" if graph else "the module", self._file):
            form = Captured(calls, self._device, self._file) if graph else Plain(calls, self._device)
        self._forms[mode, graph] = form
        return {"ready": True}

    def do_series(self, message: wire.Message) -> wire.Message:
        """Time one series of a form that is prepared."""
        with Blame("the module, while it was timed,", self._file):
            return {"seconds": self._forms[message["mode"], message["graph"]].series(self._flush)}


def sentence(error: TaskError) -> str:
    """Return what went wrong, in one line: what was to blame first, where one error led to the next."""
    before = error.__cause__.__context__ if error.__cause__ is not None else None
    if isinstance(before, TaskError):  # Ending a capture that failed fails as well, and only says so.
        return sentence(before)
    text, inner = str(error), getattr(error.__cause__, "inner_exception", None)
    lines = str(inner).strip().splitlines()
    if inner is None or not text.endswith(":") or not lines:
        return text
    return f"{text} {type(inner).__name__}: {lines[0].strip()}"


def facts(device: str) -> dict[str, Any]:
    """Return the names and versions that a measurement depends on."""
    is_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else "cpu",
        "driver": _driver_version() if is_gpu else "",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
    }


def _driver_version() -> str:
    """The driver's version as NVML knows it; where that is missing, the version of CUDA that the driver offers."""
    text = ctypes.create_string_buffer(96)
    with contextlib.suppress(OSError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode(errors="replace")
    return f"CUDA {checked(cu.cuDriverGetVersion(), 'cuDriverGetVersion')}"


def main(path: str, device: str, rotate_bytes: int, reads: int, writes: int) -> None:
    """Answer messages until the other end closes."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        try:
            bench = Bench(read_parcel(Path(path)), device, rotate_bytes, stack)
            wire.send(writes, {**facts(device), "sets": len(bench.sets)})
            while True:
                message, _ = wire.receive(reads)
                do = bench.do_prepare if message["do"] == "prepare" else bench.do_series
                wire.send(writes, do(message))
        except TaskError as error:
            wire.send(writes, {"problem": sentence(error)})
        except wire.Closed:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
