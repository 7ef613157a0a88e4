"""What a process in a sandbox can and cannot do, tried out by commands in one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import warpsmith
from warpsmith.errors import MachineError
from warpsmith.judge import sandbox
from warpsmith.judge.sandbox import REQUIRED, Ended, Limits, admitted, capabilities, run

PLENTY = Limits()
PLAIN = [sys.executable, "-I", "-S", "-c"]

needs_sandbox = pytest.mark.skipif(not set(capabilities()) >= REQUIRED, reason="this machine refuses a sandbox")


def inside(code: str, limits: Limits = PLENTY, seconds: float = 30.0, *, devices: bool = False) -> Ended:
    return run([*PLAIN, code], limits, seconds=seconds, devices=devices)


def test_refusal_is_an_error_unless_the_caller_insists() -> None:
    poor = {"entered": sorted(REQUIRED - {"network"})}
    with pytest.raises(MachineError, match="no network"):
        admitted(poor, unsandboxed=False)
    assert "pid" in admitted(poor, unsandboxed=True)


@needs_sandbox
def test_nothing_outside_of_private_folders_can_be_written() -> None:
    root = Path(warpsmith.__file__).parent
    for place in (root / "planted.py", Path("/etc/planted"), Path("/planted"), root.parent / "planted.pth"):
        ended = inside(f"open({str(place)!r}, 'w')")
        # Where the package lies in a temporary folder, what is around it is the sandbox's own.
        private = Path(tempfile.gettempdir()).resolve() in place.resolve().parents and root not in place.parents
        assert private or "Error" in ended.how, f"{place}: {ended.how}"
        assert not place.exists()


@needs_sandbox
def test_temporary_files_of_others_cannot_be_seen() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        ended = inside(f"import os; print(os.path.exists({file.name!r}))")
    assert ended.how.endswith("False"), ended.how


@needs_sandbox
def test_files_left_behind_are_not_there_for_the_next_process() -> None:
    write = "import os, pathlib\nfor place in ('/tmp', os.environ['HOME'], '/dev/shm'): pathlib.Path(place, 'left').write_text('x')"
    assert inside(write).how == "ended with code 0"
    read = "import os\nprint([os.path.exists(p + '/left') for p in ('/tmp', os.environ['HOME'], '/dev/shm')])"
    assert inside(read).how.endswith("[False, False, False]")
    assert not Path("/tmp/left").exists()


@needs_sandbox
def test_there_is_no_network_not_even_loopback() -> None:
    for address in ("('192.0.2.1', 80)", "('127.0.0.1', 22)"):
        ended = inside(f"import socket; socket.create_connection({address}, timeout=2.0)")
        assert "unreachable" in ended.how or "Cannot assign" in ended.how, ended.how


@needs_sandbox
def test_only_its_own_processes_exist() -> None:
    ended = inside(
        "import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()), os.getppid())"
    )
    if "private-processes" in ended.capabilities:
        assert ended.how.endswith("[1, 2] 1"), ended.how
    alive = inside("import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('here')")
    assert alive.how.endswith("here"), "init can be killed from inside"


@needs_sandbox
def test_no_rights_are_left_and_none_can_be_had() -> None:
    ended = inside(
        "print([line for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapBnd', 'NoNewPrivs'))])"
    )
    assert ended.how.count("0000000000000000") == 2, ended.how
    assert "NoNewPrivs:\\t1" in ended.how
    mount = "import ctypes; print(ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None))"
    assert inside(mount).how.endswith("-1")


@needs_sandbox
def test_disks_are_not_among_its_devices() -> None:
    ended = inside("import os; print(sorted(os.listdir('/dev'))); open('/dev/null', 'w').write('x')")
    shown = {"fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"}
    assert ended.how.endswith(str(sorted(shown))), ended.how


@needs_sandbox
def test_the_environment_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    ended = inside("import os; print(os.environ, open('/proc/self/environ').read())")
    assert "secret" not in ended.how
    assert "'HOME': '/tmp/home'" in ended.how


@needs_sandbox
@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        (Limits(data_bytes=64 << 20), "bytearray(1 << 28)", "MemoryError"),
        (Limits(address_bytes=256 << 20), "import mmap; mmap.mmap(-1, 1 << 30)", "Error"),
        (Limits(files=20), "held = [open('/dev/null') for _ in range(30)]", "Too many open files"),
        (Limits(file_bytes=1 << 10), "open('/tmp/f', 'wb', buffering=0).write(bytes(1 << 12)); open('/tmp/f', 'ab', 0).write(b'x')", "too large"),
        (Limits(scratch_bytes=1 << 20), "open('/tmp/f', 'wb').write(bytes(1 << 22))", "No space left"),
        (Limits(cpu_seconds=1), "while True: pass", "ended with code 137"),
    ],
    ids=["data", "address", "files", "file", "scratch", "cpu"],
)  # fmt: skip
def test_every_limit_binds(limits: Limits, code: str, said: str) -> None:
    assert said in inside(code, limits).how


@needs_sandbox
@needs_sandbox
@pytest.mark.parametrize("devices", [False, True], ids=["no devices", "devices"])
def test_nothing_of_the_machine_can_be_changed_through_proc(devices: bool) -> None:
    code = """
import os
for folder, folders, files in os.walk("/proc"):
    own = ("self", "thread-self")
    folders[:] = [each for each in folders if not (folder == "/proc" and each.isdigit()) and each not in own]
    for name in files:
        try:
            os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
            print(os.path.join(folder, name))
        except OSError:
            pass
"""
    ended = inside(code, devices=devices)
    if "private-processes" in ended.capabilities:
        assert "/proc" not in ended.how, ended.how


@needs_sandbox
def test_with_a_gpu_a_process_may_write_to_its_own_files_in_proc() -> None:
    """CUDA does not start where it may not."""
    code = "open('/proc/self/comm', 'w').write('own'); print(open('/proc/self/comm').read().strip())"
    ended = inside(code, devices=True)
    if "private-processes" in ended.capabilities:
        assert ended.how.endswith("own"), ended.how


@pytest.mark.skipif(os.geteuid() == 0, reason="the kernel does not count root's processes")
def test_the_number_of_processes_is_limited() -> None:
    ended = inside("import os\nfor _ in range(50): os.fork() or __import__('time').sleep(9)", Limits(processes=20))
    assert "unavailable" in ended.how


@needs_sandbox
def test_all_of_it_ends_with_it() -> None:
    mark = f"{time.time_ns()}"
    code = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if not os.fork():\n"
        "        os.setsid()\n"
        f"        os.execv({sys.executable!r}, [{sys.executable!r}, '-I', '-S', '-c', 'import time; time.sleep(60)', {mark!r}])\n"
        "time.sleep({})"
    )
    for sleep, in_time in ((0.3, True), (60, False)):
        ended = inside(code.format(sleep), seconds=1.0 if not in_time else 30.0)
        assert ended.in_time == in_time
        end = time.monotonic() + 10.0
        while (left := marked(mark)) and time.monotonic() < end:
            time.sleep(0.02)
        assert left == [], "processes outlive their sandbox"


def marked(mark: str) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if mark in line and "/enter.py" not in line]


@needs_sandbox
def test_what_python_is_made_of_stays_readable() -> None:
    ended = run([sys.executable, "-P", "-c", "import numpy, warpsmith; print(warpsmith.__file__)"])
    assert ended.how.endswith("warpsmith/__init__.py"), ended.how


def test_a_program_that_cannot_be_started_says_so() -> None:
    if not set(capabilities()) >= REQUIRED:
        pytest.skip("this machine refuses a sandbox")
    assert "No such file" in run(["/nonexistent/program"]).how


def test_a_stage_holds_no_folder_that_would_show_what_is_hidden(tmp_path: Path) -> None:
    spec = sandbox.specification(str(tmp_path), Limits(), devices=False)
    assert not set(spec.readable) & set(spec.hidden)
    assert not any(hidden.startswith(f"{shown}/") for hidden in spec.hidden for shown in spec.readable)
