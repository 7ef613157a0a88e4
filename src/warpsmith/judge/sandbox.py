"""A sandbox for programs with host code: what a process in it can see, write, reach and use up.

What is covered, on a kernel that gives all of `capabilities`:

* files: all read-only but private, empty, bounded folders in place of /tmp, /var/tmp, /run, /dev/shm and every home;
  what Python and Warpsmith are made of stays readable. Devices: five plain ones and, if asked for, NVIDIA's.
* processes: its own only; it can neither see, signal nor trace others. All of them end with it.
* network: none, not even loopback; no sockets of services (/run is empty), no System V memory of others.
* rights: no capability, none to be had by starting a program, no namespaces inside; a bare environment.
* use: memory, processes, files, time, size of files.

What is not covered: files outside of homes and temporary folders can be read; system calls are not filtered, so a
hole in the kernel or in the GPU's driver is a hole in the sandbox; memory of the GPU that others use is kept apart by
the driver alone; what a process does within its own memory. `RLIMIT_NPROC` does not bind root, `RLIMIT_DATA` does not
count shared memory, which the private folders' size bounds. Where the kernel refuses another view of /proc (inside
many containers), names of other processes can be read.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from warpsmith import wire
from warpsmith.child import Child
from warpsmith.errors import MachineError
from warpsmith.judge.enter import Spec

REQUIRED = frozenset(
    {"mount", "pid", "network", "read-only", "private-folders", "private-devices", "limits", "no-rights"}
)
"""Without these nothing foreign is run, unless the caller says so."""

_PACKAGE = Path(__file__).parents[1]
_SCRIPT = Path(__file__).parent / "enter.py"
_PASSED = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sandbox may use up.

    `data_bytes` bounds what a process allocates for itself (`RLIMIT_DATA`), `address_bytes` its whole address space,
    of which CUDA reserves far more than there is memory, hence none by default. `scratch_bytes` bounds each private
    folder, `file_bytes` one file, `cpu_seconds` the processor time of one process, `call_seconds` how long one answer
    may take, `build_seconds` how long importing and constructing may.
    """

    data_bytes: int | None = 16 << 30
    address_bytes: int | None = None
    processes: int = 2048
    files: int = 1024
    file_bytes: int = 1 << 30
    scratch_bytes: int = 2 << 30
    cpu_seconds: int = 1800
    call_seconds: float = 30.0
    build_seconds: float = 300.0

    @property
    def resources(self) -> tuple[tuple[int, int], ...]:
        """The limits that the kernel keeps, by number of the resource."""
        pairs = (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_DATA, self.data_bytes),
            (resource.RLIMIT_AS, self.address_bytes),
            (resource.RLIMIT_NPROC, self.processes),
            (resource.RLIMIT_NOFILE, self.files),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_CPU, self.cpu_seconds),
        )
        return tuple((number, limit) for number, limit in pairs if limit is not None)


_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: whether in time, in words with what it printed last, and what its sandbox had."""

    in_time: bool
    how: str
    capabilities: tuple[str, ...]


def specification(stage: str, limits: Limits, *, devices: bool) -> Spec:
    """Return what a sandbox on this machine is like. `stage` is an empty folder, which may serve many."""
    folders = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(_PACKAGE)]
    folders += [each for each in sys.path if Path(each).name in ("site-packages", "dist-packages")]
    both = {*folders, *(str(Path(folder).resolve()) for folder in folders)}
    # What stands above another one brings it along; the order makes sure that it comes first.
    readable = tuple(sorted(path for path in both if not any(path.startswith(f"{above}/") for above in both)))
    own = {str(Path.home().resolve()), str(Path(tempfile.gettempdir()).resolve())} - {"/"}
    hidden = sorted({"/tmp", "/var/tmp", "/run", "/root", "/home", *own})
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment |= {
        "HOME": "/tmp/home",
        "TMPDIR": "/tmp",
        "TORCH_EXTENSIONS_DIR": "/tmp/extensions",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    return Spec(
        stage=stage,
        hidden=tuple(place for place in hidden if not any(place.startswith(f"{above}/") for above in hidden)),
        readable=readable,
        scratch_bytes=limits.scratch_bytes,
        limits=limits.resources,
        devices=devices,
        environment=tuple(environment.items()),
    )


def run(
    command: Sequence[str],
    limits: Limits = _LIMITS,
    *,
    seconds: float = 60.0,
    devices: bool = False,
    unsandboxed: bool = False,
) -> Ended:
    """Run a command in a sandbox of its own, to its end or for `seconds`.

    The command gets two more arguments, the descriptors of `warpsmith.child`. Raises MachineError where this machine
    refuses a part that is required; `unsandboxed` takes what there is instead.
    """
    with tempfile.TemporaryDirectory(prefix="warpsmith-stage-") as stage:
        spec = asdict(specification(stage, limits, devices=devices))
        text = json.dumps({"spec": spec, "command": list(command)})
        with Child([sys.executable, "-I", "-S", str(_SCRIPT), text]) as child:
            try:
                answer, _ = child.receive(_START_SECONDS, max_blob=0)
            except (wire.Closed, wire.Late, wire.Nonsense) as error:
                raise MachineError(f"the sandbox does not start: it {child.epitaph()}") from error
            got = admitted(answer, unsandboxed=unsandboxed)
            child.wait(seconds)
            return Ended(not child.alive, child.epitaph(), got)


def admitted(answer: wire.Message, *, unsandboxed: bool) -> tuple[str, ...]:
    """Return what a sandbox said that it has. Raises MachineError where something required is missing."""
    got = tuple(str(name) for name in answer.get("entered", ()))
    missing = sorted(REQUIRED - set(got))
    if missing and not unsandboxed:
        raise MachineError(
            f"this machine gives a sandbox no {', '.join(missing)}, so code that was not written here is not run; "
            "let an administrator allow user namespaces, or say explicitly that it is to run without"
        )
    return got


@cache
def capabilities() -> tuple[str, ...]:
    """Return what a sandbox on this machine has. Where even starting one fails, nothing."""
    try:
        return run([sys.executable, "-I", "-S", "-c", ""], unsandboxed=True).capabilities
    except MachineError:
        return ()
