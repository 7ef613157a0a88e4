"""The parent's end of the compiler process: starts it, limits it, kills and replaces it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from warpsmith.errors import CompilerUnavailable, WorkerDied

_START_SECONDS = 60.0
_MAX_HEAD = 1 << 16
_MAX_BLOB = 1 << 28
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CUDA_HOME", "CUDA_PATH")
_OUT_OF_MEMORY, _INTERNAL = 1, 11
"""nvrtcResult codes after which the process is not trusted any more."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of one compilation: NVRTC's answer, or why there is none (`stopped`, a sentence)."""

    ok: bool
    log: str
    ptx: str
    cubin: bytes
    stopped: str | None = None


def header_directories() -> tuple[Path, ...]:
    """Return the folders of CUDA headers in the installed wheels.

    Raises CompilerUnavailable, naming the packages to install, if there are none.
    """
    spec = importlib.util.find_spec("nvidia")
    roots = spec.submodule_search_locations or () if spec else ()
    # The wheels may lie in several folders: a CUDA of PyTorch's own, and what was added beside it.
    includes = [path for root in roots for path in sorted(Path(root).glob("cu1*/include"), reverse=True)]
    runtime = next((path for path in includes if (path / "cuda_fp16.h").is_file()), None)
    crt = next((path for path in includes if (path / "crt").is_dir()), None)
    if runtime is not None and crt is not None:
        cccl = [path / "cccl" for path in includes if (path / "cccl").is_dir()]
        return tuple(dict.fromkeys((runtime, crt, *cccl[:1])))
    raise CompilerUnavailable(
        "the CUDA headers are not installed: pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl"
    )


def nvrtc_version() -> str:
    """Return the exact version of the installed NVRTC wheel. Raises CompilerUnavailable if there is none."""
    try:
        return importlib.metadata.version("nvidia-cuda-nvrtc")
    except importlib.metadata.PackageNotFoundError as error:
        raise CompilerUnavailable("NVRTC is not installed: pip install nvidia-cuda-nvrtc cuda-bindings") from error


def _stopped(why: str) -> Compiled:
    return Compiled(False, "", "", b"", why)


class CompilerProcess:
    """One compiler process, started when first needed. Not thread-safe: its owner locks."""

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self._timeout = timeout_s
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._served = 0
        self.hello: dict[str, Any] = {}

    def compile(self, source: str, headers: dict[str, str], options: list[str]) -> Compiled:
        """Compile within the limits. A process that dies after earlier work is replaced and asked once more.

        Raises CompilerUnavailable if no compiler process can be started.
        """
        fresh = self._served == 0
        try:
            return self._compile(source, headers, options)
        except WorkerDied as death:
            self.close()
            if fresh:
                return _stopped(str(death))
        # An earlier compilation may have left the process short of memory: only a fresh one is a fair witness.
        return self.compile(source, headers, options)

    def _compile(self, source: str, headers: dict[str, str], options: list[str]) -> Compiled:
        self.start()
        request = json.dumps({"source": source, "headers": headers, "options": options}).encode()
        try:
            head, blobs = self._exchange(struct.pack(">Q", len(request)) + request, self._timeout, 3)
        except TimeoutError:
            self.close()
            return _stopped(f"the compiler was stopped after {self._timeout:g} s")
        code = head.get("result")
        if not isinstance(code, int):
            raise WorkerDied("the compiler answered nonsense")
        self._served += 1
        log, ptx, cubin = blobs[0].decode(errors="replace").rstrip("\0"), blobs[1].decode(errors="replace"), blobs[2]
        exhausted = code == _OUT_OF_MEMORY or "catastrophic error: out of memory" in log
        if exhausted or code == _INTERNAL:
            self.close()
        if exhausted:
            return _stopped(f"the compiler ran out of its {self._memory_mb} MiB of memory")
        return Compiled(code == 0, log, ptx, cubin)

    def start(self) -> None:
        """Start the process if it does not run. Raises CompilerUnavailable if it cannot."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        command = [sys.executable, "-P", str(Path(__file__).with_name("compiler.py"))]
        command += [str(self._memory_mb << 20), str(2 * self._timeout + 5), *map(str, header_directories())]
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
        try:
            self.hello, _ = self._exchange(b"", _START_SECONDS, 0)
        except (TimeoutError, WorkerDied) as error:
            self.close()
            raise CompilerUnavailable(f"NVRTC did not start: {error}") from error

    def close(self) -> None:
        """Kill the process and everything that it started."""
        process, self._process = self._process, None
        self._served = 0
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _exchange(self, request: bytes, seconds: float, count: int) -> tuple[dict[str, Any], list[bytes]]:
        """Send a request, if any, and read one frame with `count` blobs.

        Raises TimeoutError, and WorkerDied if the process ends or answers anything else.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerDied("the compiler does not run")
        deadline = time.monotonic() + seconds
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerDied(self._epitaph()) from error
        descriptor = process.stdout.fileno()
        (length,) = struct.unpack(">Q", self._read(descriptor, 8, deadline))
        if length > _MAX_HEAD:
            raise WorkerDied("the compiler answered nonsense")
        try:
            head = json.loads(self._read(descriptor, length, deadline))
            sizes = [int(size) for size in head["sizes"]]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkerDied("the compiler answered nonsense") from error
        if len(sizes) != count or any(not 0 <= size <= _MAX_BLOB for size in sizes):
            raise WorkerDied("the compiler answered nonsense")
        return head, [self._read(descriptor, size, deadline) for size in sizes]

    def _read(self, descriptor: int, size: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while size > 0:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(descriptor, min(size, 1 << 20))
                if not part:
                    raise WorkerDied(self._epitaph())
                parts.append(part)
                size -= len(part)
        return b"".join(parts)

    def _epitaph(self) -> str:
        """Say how the process ended, with the last line that it printed."""
        if self._process is None:
            return "the compiler ended"
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        last = ""
        if self._errors is not None:
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, self._errors.tell() - 2000))
            lines = self._errors.read().decode(errors="replace").split("\n")
            last = next((f": {line.strip()[:300]}" for line in reversed(lines) if line.strip()), "")
        return f"the compiler ended {how}{last} (its memory limit is {self._memory_mb} MiB)"
