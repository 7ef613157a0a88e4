"""Go into a sandbox, never to come out: namespaces, private mounts, limits, no rights.

Only the standard library is used, so that this file can also run as a script before anything heavy is loaded:

    python -I -S enter.py SPEC READ WRITE        SPEC is JSON with the fields of `Spec` and `command`

Three processes take part. The *outer* one makes the namespaces and waits; the *init* of the new PID namespace builds
the file system and reaps; the *worker* does what was asked. When init ends, the kernel ends everything in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMESPACES = {
    "mount": 0x00020000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
_NEW_USER = 0x10000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_RECURSIVE = 0x8000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 24, 28, 38, 47
_SECUREBITS = 0b101111
"""No rights for user 0, no change of rights with the user, both locked; keep-caps off and locked."""
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ACCELERATORS = ("nvidia*", "dxg")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Spec:
    """What a sandbox is like.

    `stage` is an empty folder on which the new root is built. `hidden` folders become empty, `readable` ones are shown
    again where they lie in hidden ones. `scratch_bytes` bounds each private folder; `limits` are pairs of a resource's
    number and its limit. `devices` shows NVIDIA's. `keep` are the descriptors that stay open besides 0, 1 and 2.
    """

    stage: str
    hidden: tuple[str, ...]
    readable: tuple[str, ...]
    scratch_bytes: int
    limits: tuple[tuple[int, int], ...]
    devices: bool
    environment: tuple[tuple[str, str], ...]
    keep: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Spec:
        """Read what `json.dumps(asdict(spec))` wrote."""
        return cls(**{name: _tuples(data[name]) for name in cls.__slots__ if name in data})  # type: ignore[arg-type]


def close_in(spec: Spec) -> tuple[str, ...]:
    """Return in the worker, with the names of what could be had. The calling process itself never comes back."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _close_others(spec.keep)
    got = list(_unshare())
    init = os.fork()
    if init:
        _close_others(())
        os._exit(_outcome(os.waitpid(init, 0)[1]))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if "mount" in got:
        try:
            got += _files(spec, own_user="user" in got)
        except OSError as error:
            print(f"no private files: {error}", file=sys.stderr)
    if "uts" in got:
        socket.sethostname("sandbox")
    got += _limits(spec)
    got += _no_rights()
    worker = os.fork()
    if worker:
        _close_others(())
        _reap(worker)
    os.environ.clear()
    os.environ.update(spec.environment)
    for folder in {value for name, value in spec.environment if name in ("HOME", "TMPDIR", "TORCH_EXTENSIONS_DIR")}:
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
    return tuple(got)


# ---------------------------------------------------------------------------------------------------------- namespaces


def _unshare() -> Iterator[str]:
    """Make every namespace that the kernel gives. Without one of its own, only root gets any of the others."""
    user, group = os.geteuid(), os.getegid()
    if not _libc.unshare(_NEW_USER):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        yield "user"
    for name, flag in _NAMESPACES.items():
        if not _libc.unshare(flag):
            yield name


def _reap(worker: int) -> None:
    """Wait for whatever ends, as the init of a PID namespace must, until the worker has ended."""
    while True:
        ended, status = os.wait()
        if ended == worker:
            os._exit(_outcome(status))


def _outcome(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _close_others(keep: Sequence[int]) -> None:
    """Close every descriptor but 0, 1, 2 and those to keep."""
    bounds = [2, *sorted(keep), 1 << 20]
    for low, high in itertools.pairwise(bounds):
        os.closerange(low + 1, high)


# ---------------------------------------------------------------------------------------------------------- file system


def _files(spec: Spec, *, own_user: bool) -> list[str]:
    """Build a root that can be read, with private folders that can be written; move into it."""
    got: list[str] = []
    stage = spec.stage
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("/", stage, "", _BIND | _REC)
    private = [place for place in spec.hidden if Path(stage + place).is_dir() and not Path(stage + place).is_symlink()]
    for place in private:
        _mount("tmpfs", stage + place, "tmpfs", _NOSUID | _NODEV, f"size={spec.scratch_bytes},mode=1777")
    for place in spec.readable:
        if any(place.startswith(above + "/") for above in private) and Path(place).is_dir():
            Path(stage + place).mkdir(parents=True, exist_ok=True)
            _mount(place, stage + place, "", _BIND | _REC)
    _read_only(stage)
    for place in private:
        _mount("none", stage + place, "", _REMOUNT | _BIND | _NOSUID | _NODEV)
    got += ["read-only", "private-folders"]
    _devices(stage, spec)
    got.append("private-devices")
    got += _processes(spec, own_user)
    os.chdir(stage)
    _check(_libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/tmp")
    return got


def _read_only(stage: str) -> None:
    """Make every mount below the stage read-only: by one call where the kernel knows it, else one after the other."""
    attributes = struct.pack("QQQQ", _RDONLY | _NOSUID, 0, 0, 0)
    if not _libc.syscall(_MOUNT_SETATTR, -100, stage.encode(), _RECURSIVE, attributes, len(attributes)):
        return
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        place = fields[4].encode().decode("unicode_escape")
        if place == stage or place.startswith(stage + "/"):
            names = {"nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC}
            kept = sum(flag for name, flag in names.items() if name in fields[5].split(","))
            _mount("none", place, "", _REMOUNT | _BIND | _RDONLY | _NOSUID | kept)


def _devices(stage: str, spec: Spec) -> None:
    """Show a handful of devices and no others: a disk could be written through its node whatever is read-only."""
    found = [Path("/dev") / name for name in _DEVICES]
    for pattern in _ACCELERATORS if spec.devices else ():
        found += sorted(Path("/dev").glob(pattern))
    dev = Path(stage) / "dev"
    shown = [path for path in found if path.exists()]
    _mount("tmpfs", str(dev), "tmpfs", _NOSUID | _NOEXEC, "size=1m,mode=755")
    for path in shown:
        place = dev / path.name
        place.mkdir() if path.is_dir() else place.touch()
        _mount(str(path), str(place), "", _BIND | _REC)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(target)
    (dev / "shm").mkdir()
    _mount("tmpfs", str(dev / "shm"), "tmpfs", _NOSUID | _NODEV, f"size={spec.scratch_bytes},mode=1777")
    _mount("none", str(dev), "", _REMOUNT | _BIND | _RDONLY | _NOSUID | _NOEXEC)


def _processes(spec: Spec, own_user: bool) -> list[str]:
    """Show only the processes of this sandbox, where the kernel lets us; forbid sandboxes inside of it."""
    place, got = f"{spec.stage}/proc", []
    with contextlib.suppress(OSError):
        _mount("proc", place, "proc", _NOSUID | _NODEV | _NOEXEC)
        got.append("private-processes")
        if own_user:
            Path(f"{place}/sys/user/max_user_namespaces").write_text("0")
            got.append("no-namespaces-inside")
        flags = _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | _NOEXEC
        if not spec.devices:
            _mount("none", place, "", flags)
            return got
        # CUDA does not start where it cannot write to files of its own process. What belongs to the machine stays as it
        # is: root could change some of that without any capability.
        for entry in sorted(Path(place).iterdir()):
            if not entry.name.isdigit() and not entry.is_symlink() and (entry.is_dir() or entry.stat().st_mode & 0o222):
                _mount(str(entry), str(entry), "", _BIND | _REC)
                _mount("none", str(entry), "", flags)
    return got


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {target}")


# --------------------------------------------------------------------------------------------------------------- rights


def _limits(spec: Spec) -> list[str]:
    for number, limit in spec.limits:
        _, most = resource.getrlimit(number)
        value = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(number, (value, value))
    return ["limits"]


def _no_rights() -> list[str]:
    """Give up every capability for good, and the right to get any back by starting a program."""
    _prctl(_PR_CAP_AMBIENT, 4)
    number = 0
    while not _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
        number += 1
    _libc.prctl(_PR_SET_SECUREBITS, _SECUREBITS, 0, 0, 0)
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(_libc.capset(header, nothing), "capset")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return ["no-rights"]


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def tell(write: int, got: tuple[str, ...]) -> None:
    """Send the parent what the sandbox has, as a message of `wire`, before any foreign code runs."""
    head = json.dumps({"entered": got, "sizes": []}).encode()
    os.write(write, struct.pack(">Q", len(head)) + head)


def main(arguments: Sequence[str], become: Callable[[str, list[str]], None]) -> None:
    """Go in, say so, and become the command of the specification with the two descriptors as its last arguments."""
    data, (read, write) = json.loads(arguments[0]), map(int, arguments[1:3])
    for descriptor in (read, write):
        os.set_inheritable(descriptor, True)
    got = close_in(Spec.from_json({**data["spec"], "keep": [read, write]}))
    tell(write, got)
    become(data["command"][0], [*data["command"], str(read), str(write)])


if __name__ == "__main__":
    main(sys.argv[1:], os.execvp)
