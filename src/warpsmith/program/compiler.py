"""The compiler's own process: NVRTC behind a pipe, started by file name by `worker.py`.

It imports nothing of Warpsmith, so that it starts in a tenth of a second, and holds no secrets: its environment is
stripped by the parent. Frames in both directions are an 8-byte length, that many bytes of JSON, and then the blobs
whose sizes the JSON gives under `sizes`. The first frame that it writes says which compiler it has.

What is covered: after a first compilation has loaded everything, the process may read nothing but the headers of the
wheels (Landlock, Linux 5.13 and newer), may write no file at all, and is limited in memory. It ends itself when one
compilation takes too long, so that it cannot outlive its parent by more than that.
What is not covered: on a kernel without Landlock only the parent's screen of `#include` lines stands between a
program and the readable files of the machine; the first frame says so.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import cuda.bindings.nvrtc as nvrtc

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_TCP = 1 << 0 | 1 << 1
_PR_SET_NO_NEW_PRIVS = 38
_MAX_LOG = 1 << 20
_WARM_UP = 'extern "C" __global__ void warm_up(float* out) { out[0] = expf(out[1]); }'


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """Return the next request, or None at the end of the stream."""
    prefix = stream.read(8)
    if len(prefix) < 8:
        return None
    (length,) = struct.unpack(">Q", prefix)
    request: dict[str, Any] = json.loads(stream.read(length))
    return request


def write_frame(stream: BinaryIO, head: dict[str, Any], *blobs: bytes) -> None:
    """Write one frame and flush it."""
    text = json.dumps({**head, "sizes": [len(blob) for blob in blobs]}).encode()
    stream.write(struct.pack(">Q", len(text)) + text + b"".join(blobs))
    stream.flush()


def confine(directories: list[str]) -> bool:
    """Allow this process nothing but to read files below `directories`, and no TCP. False if the kernel cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    # Rights by the version of Landlock that knows them: 13 at first, then refer, truncate, ioctl on devices.
    known = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    # With no rule for them, all rights of the network that are handled (to bind and to connect TCP sockets) are denied.
    handled = struct.pack("=QQ", (1 << known) - 1, _TCP) if abi >= 4 else struct.pack("=Q", (1 << known) - 1)
    ruleset = libc.syscall(_LANDLOCK_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    for directory in directories:
        parent = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ_FILE | _READ_DIR, parent)
        failed = libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
        os.close(parent)
        if failed:
            return False
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)


def compile_source(source: str, headers: dict[str, str], options: list[str]) -> tuple[int, bytes, bytes, bytes]:
    """Return NVRTC's result code (0 is success), its log, PTX and cubin; the last two are empty on failure."""
    created, program = nvrtc.nvrtcCreateProgram(
        source.encode(),
        b"kernel.cu",
        len(headers),
        [text.encode() for text in headers.values()],
        [name.encode() for name in headers],
    )
    if created != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return int(created), b"", b"", b""
    try:
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        log = _fetch(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)[:_MAX_LOG]
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            return int(result), log, b"", b""
        ptx = _fetch(program, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
        cubin = _fetch(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        return 0, log, ptx.rstrip(b"\0"), cubin
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _fetch(program: Any, measure: Any, get: Any) -> bytes:
    failed, size = measure(program)
    if failed != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return b""
    data = bytearray(size)
    (failed,) = get(program, data)
    return bytes(data) if failed == nvrtc.nvrtcResult.NVRTC_SUCCESS else b""


def limit_resources(memory_bytes: int) -> None:
    """Limit memory, written files and core dumps of this process.

    The limit is on data, not on address space: where there is a GPU, the driver's library reserves far more of the
    latter than it ever uses.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def main() -> None:
    """Serve compilations until the pipe closes. Arguments: memory limit in bytes, seconds, directories of headers."""
    memory_bytes, seconds, directories = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    # The compiler may print: keep the pipe to ourselves, and point standard output at standard error.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    compile_source(_WARM_UP, {}, ["-arch=sm_90"])
    _, architectures = nvrtc.nvrtcGetSupportedArchs()
    _, major, minor = nvrtc.nvrtcVersion()
    limit_resources(memory_bytes)
    confined = confine(directories)
    hello = {"version": f"{major}.{minor}", "architectures": list(architectures), "confined": confined}
    write_frame(answers, hello)
    while (request := read_frame(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        result, log, ptx, cubin = compile_source(request["source"], request["headers"], request["options"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(answers, {"result": result}, log, ptx, cubin)


if __name__ == "__main__":
    main()
