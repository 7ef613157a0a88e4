"""What NVIDIA's tools say is understood without a GPU: sanitizer logs, NVML's answers, CUPTI's records, where they are."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from warpsmith.device.cuda import clocks, cupti, sanitizer, tools
from warpsmith.errors import MachineError
from warpsmith.records import Finding, GpuState

DATA = Path(__file__).parent / "data"


def findings(log: str) -> tuple[Finding, ...]:
    return sanitizer.parse((DATA / log).read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------ sanitizer


def test_memcheck_findings_carry_kernel_line_block_and_thread() -> None:
    stray, vector, shared = findings("memcheck.log")
    assert (stray.kind, stray.kernel, stray.line) == ("out_of_bounds", "scale", 7)
    assert (stray.block, stray.thread) == ((4, 0, 2), (31, 0, 0))
    assert "1 bytes after the nearest allocation" in stray.message, "an author must see by how much it missed"
    assert vector.kind == "misaligned" and shared.kind == "out_of_bounds"


def test_an_error_in_an_inlined_function_is_that_of_the_kernel() -> None:
    _, vector, shared = findings("memcheck.log")
    assert (vector.kernel, vector.line) == ("rows", 3), "the line is that of the function, in our own file"
    assert (shared.kernel, shared.line) == ("tile", 42), "a line of a header of CUDA would mean nothing to an author"


def test_races_of_shared_memory_are_found_once_for_each_place_but_equal_values_are_none() -> None:
    turn, exchange = findings("racecheck.log")
    assert turn.kind == exchange.kind == "shared_race"
    assert (
        (turn.kernel, turn.line) == ("turn", 13) and "kernel.cu:14" in turn.message and "kernel.cu:15" in turn.message
    )
    assert (exchange.kernel, exchange.line) == ("exchange", 30), "lanes of one warp race as well"


def test_barriers_and_unwritten_memory() -> None:
    divergent, missing = findings("synccheck.log")
    assert (divergent.kind, divergent.kernel, divergent.line) == ("barrier_divergence", "half_waits", 20)
    assert (missing.kind, missing.kernel, missing.line) == ("barrier_divergence", "pipeline", 0)
    (unwritten,) = findings("initcheck.log")
    assert (unwritten.kind, unwritten.kernel, unwritten.line) == ("uninitialised", "total", 41)


def test_logs_of_older_versions_are_understood() -> None:
    shared, local, illegal = findings("memcheck_2022.log")
    assert (shared.kernel, shared.line) == ("multiply", 12) and (local.kernel, local.line) == ("spill", 0)
    assert illegal.kind == "trap"


def test_an_unknown_message_is_a_finding_all_the_same() -> None:
    log = "========= COMPUTE-SANITIZER\n========= Something new\n=========     at k+0x10 in kernel.cu:3\n"
    (finding,) = sanitizer.parse(log + "========= ERROR SUMMARY: 1 error\n")
    assert (finding.kind, finding.kernel, finding.line) == ("trap", "k", 3) and "Something new" in finding.message


def test_a_clean_log_has_no_findings_and_what_the_program_prints_is_no_message() -> None:
    assert findings("clean.log") == ()
    assert sanitizer.parse("Invalid __global__ read\n" + (DATA / "clean.log").read_text(encoding="utf-8")) == ()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "ended before"),
        ("========= COMPUTE-SANITIZER\n", "ended before"),
        (
            "========= Error: Device not supported. Please refer to the section\n========= ERROR SUMMARY: 0 errors",
            "not supported",
        ),
        (
            "========= Internal Sanitizer Error: launching k, and didn't track the launch.\n========= ERROR SUMMARY: 1 error",
            "failed",
        ),
        ("========= Error: Target application terminated before first instrumented API call", "failed"),
        ("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 3 errors", "not in its log"),
    ],
)
def test_a_tool_that_failed_does_not_pass_for_a_clean_program(log: str, words: str) -> None:
    with pytest.raises(MachineError, match=words):
        sanitizer.parse(log)


def test_what_was_found_before_the_tool_was_ended_counts() -> None:
    log = (DATA / "memcheck.log").read_text(encoding="utf-8")
    cut = log[: log.index("=========\n")]
    assert [finding.kernel for finding in sanitizer.parse(cut)] == ["scale"]


def test_a_refused_driver_call_is_no_finding() -> None:
    text = 'Program hit CUDA_ERROR_NOT_FOUND (error 500) due to "named symbol not found" on CUDA API call to cuGetProcAddress_v2.'
    assert sanitizer.parse(f"========= COMPUTE-SANITIZER\n========= {text}\n========= ERROR SUMMARY: 1 error\n") == ()


def test_the_command_writes_to_the_log_and_ends_with_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "find", lambda name: f"/tools/{name}")
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        command = sanitizer.command(tool, "/tmp/log")
        assert command[0] == "/tools/compute-sanitizer"
        assert command[command.index("--tool") + 1] == tool and command[command.index("--log-file") + 1] == "/tmp/log"
        assert "--report-api-errors" in command if tool == "memcheck" else "--report-api-errors" not in command
    monkeypatch.setattr(sanitizer, "find", lambda name: None)
    with pytest.raises(MachineError, match="not installed"):
        sanitizer.command("memcheck", "/tmp/log")


# --------------------------------------------------------------------------------------------------------------- clocks


class Refused(Exception):
    """NVML's error."""


class Nvml:
    """NVML as the module pynvml shows it; functions called `absent` raise, as for a GPU without the sensor."""

    NVMLError = Refused

    def __init__(self, *absent: str, reasons: int = 0) -> None:
        self.absent, self.reasons, self.open = absent, reasons, 0

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle of {uuid}",
            "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1980, 2: 3201}[kind],
            "nvmlDeviceGetTemperature": lambda handle, sensor: 41,
            "nvmlDeviceGetPowerUsage": lambda handle: 612_345,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.reasons,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=7), SimpleNamespace(pid=8)],
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
        }
        if name not in answers:
            raise AttributeError(name)
        return self._refuse if name in self.absent else answers[name]

    def _refuse(self, *_: object) -> None:
        raise Refused

    def _init(self) -> None:
        self.open += 1

    def _shutdown(self) -> None:
        self.open -= 1


def test_the_state_of_a_gpu_in_megahertz_degrees_and_watts() -> None:
    watch = clocks.Watch("GPU-1", Nvml(reasons=0x1 | 0x4 | 0x20))
    assert watch.state() == GpuState(1980, 3201, 41, pytest.approx(612.345), ("power cap", "temperature"))


def test_idling_is_no_reason_and_every_other_is_named_differently() -> None:
    assert clocks.throttles(0x1) == ()
    assert len(set(clocks.throttles(0x1FF))) == 8


def test_a_gpu_without_a_sensor_is_watched_all_the_same() -> None:
    state = clocks.Watch(0, Nvml("nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksThrottleReasons")).state()
    assert state is not None and (state.temperature, state.throttle, state.sm_clock) == (0, (), 1980)


@pytest.mark.parametrize("absent", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_where_nvml_does_not_work_nothing_is_said(absent: str) -> None:
    nvml = Nvml(absent)
    watch = clocks.Watch("GPU-1", nvml)
    assert not watch.works and watch.state() is None and watch.processes() is None
    watch.close()
    assert nvml.open == 0, "NVML is held by nobody"


def test_without_the_package_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = clocks.Watch("GPU-1")
    assert not watch.works and watch.state() is None
    watch.close()


def test_others_on_the_gpu_are_counted() -> None:
    watch = clocks.Watch("GPU-1", Nvml())
    assert watch.processes() == 2 and watch.processes(mine=[7]) == 1
    assert clocks.Watch("GPU-1", Nvml("nvmlDeviceGetComputeRunningProcesses")).processes() is None


def test_a_closed_watch_is_silent_and_can_be_closed_again() -> None:
    nvml = Nvml()
    watch = clocks.Watch("GPU-1", nvml)
    watch.close()
    watch.close()
    assert nvml.open == 0 and watch.state() is None


# ---------------------------------------------------------------------------------------------------------------- CUPTI


class Cupti:
    """CUPTI as ctypes shows it: records stand behind each other in a buffer that it asks for when it is flushed."""

    def __init__(self, records: list[bytes], lost: int = 0, refuses: str = "") -> None:
        self.records, self.lost, self.refuses = records, lost, refuses
        self.enabled: list[int] = []
        self.position = 0

    def cuptiActivityRegisterCallbacks(self, requested: Any, completed: Any) -> int:
        self.requested, self.completed = requested, completed
        return 0

    def cuptiActivityEnable(self, kind: Any) -> int:
        self.enabled.append(kind.value)
        return 15 if self.refuses else 0

    def cuptiActivityDisable(self, kind: Any) -> int:
        self.enabled.remove(kind.value)
        return 0

    def cuptiActivityFlushAll(self, flag: Any) -> int:
        buffer, size, most = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t(99)
        self.requested(ctypes.pointer(buffer), ctypes.pointer(size), ctypes.pointer(most))
        data = b"".join(self.records)
        assert buffer.value is not None and buffer.value % 8 == 0 and most.value == 0 and size.value >= len(data)
        ctypes.memmove(buffer.value, data, len(data))
        self.position = 0
        self.completed(None, 0, buffer.value, size.value, len(data))
        return 0

    def cuptiActivityGetNextRecord(self, buffer: Any, valid: Any, record: Any) -> int:
        if self.position == len(self.records):
            return 12
        record._obj.value = buffer.value + sum(map(len, self.records[: self.position]))
        self.position += 1
        return 0

    def cuptiActivityGetNumDroppedRecords(self, context: Any, stream: Any, lost: Any) -> int:
        lost._obj.value = self.lost
        return 0


NAME = ctypes.create_string_buffer(b"softmax")


def record(kind: int, start: int, end: int, size: int = 216) -> bytes:
    """A record as cupti_activity.h of CUDA 13.0 lays it out: 216 bytes for a kernel, 96 for a copy."""
    data = bytearray(size)
    struct.pack_into("<I", data, 0, kind)
    struct.pack_into("<QQ", data, 16, start, end)
    if size > 112:
        struct.pack_into("<Q", data, 104, ctypes.addressof(NAME))
    return bytes(data)


def collected(library: Cupti) -> cupti.Activity:
    activity = cupti.Activity(library)
    activity.start()
    activity.stop()
    return activity


def test_kernels_copies_and_fills_are_told_in_the_order_in_which_they_began() -> None:
    library = Cupti([record(10, 300, 450), record(1, 100, 180, 96), record(2, 200, 220, 96), record(10, 400, 500)])
    activity = collected(library)
    assert activity.events() == [
        cupti.Event("copy", 100, 180),
        cupti.Event("fill", 200, 220),
        cupti.Event("softmax", 300, 450),
        cupti.Event("softmax", 400, 500),
    ]
    assert activity.spans() == [(100, 180), (200, 220), (300, 450), (400, 500)]
    assert library.enabled == [], "what is not being watched is not to be slowed down"


def test_records_of_other_kinds_and_without_times_are_passed_over() -> None:
    assert collected(Cupti([record(5, 1, 2), record(10, 0, 0), record(10, 7, 9)])).spans() == [(7, 9)]


def test_a_second_series_holds_nothing_of_the_first() -> None:
    library = Cupti([record(10, 1, 2)])
    activity = collected(library)
    library.records = [record(10, 5, 6)]
    activity.start()
    activity.stop()
    assert activity.spans() == [(5, 6)]


def test_where_records_were_dropped_nothing_is_claimed() -> None:
    assert collected(Cupti([record(10, 1, 2)], lost=3)).spans() == []


def test_a_refusal_is_told_by_type() -> None:
    activity = cupti.Activity(Cupti([], refuses="enable"))
    with pytest.raises(cupti.CuptiError, match="cuptiActivityEnable"):
        activity.start()


def test_busy_time_counts_what_overlaps_once() -> None:
    assert cupti.busy([(300, 450), (100, 180), (400, 500), (410, 420)]) == 80 + 200
    assert cupti.busy([]) == 0


def test_a_machine_without_cupti_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(place: str) -> None:
        raise OSError(place)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    cupti.library.cache_clear()
    try:
        assert not cupti.available()
        with pytest.raises(cupti.CuptiError, match="not installed"):
            cupti.Activity()
    finally:
        cupti.library.cache_clear()


def test_the_runner_starts_without_anything_heavy() -> None:
    code = (
        "import sys, warpsmith.device.cuda.cupti; print([each for each in ('torch', 'numpy') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------------- tools


def test_a_program_is_found_on_the_path_then_in_a_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("path", "toolkit/bin"):
        place = tmp_path / folder
        place.mkdir(parents=True)
        (place / "imaginary-tool").write_text("#!/bin/sh\n")
        (place / "imaginary-tool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    assert tools.find("imaginary-tool") == str(tmp_path / "path" / "imaginary-tool")
    monkeypatch.setenv("PATH", "")
    assert tools.find("imaginary-tool") == str(tmp_path / "toolkit" / "bin" / "imaginary-tool")
    assert tools.find("no-such-tool") is None


def test_a_tool_is_taken_from_a_wheel_only_where_the_wheel_holds_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tools.importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    for place in ("cu13/bin/lonely-tool", "cu13/whole-tool/whole-tool"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch(mode=0o755)
    assert tools.find("lonely-tool") is None
    assert tools.find("whole-tool") == str(tmp_path / "cu13" / "whole-tool" / "whole-tool")


def test_a_library_of_a_toolkit_is_found_the_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "extras" / "CUPTI" / "lib64"
    folder.mkdir(parents=True)
    for name in ("libimaginary.so.13.0", "libimaginary.so.13.1"):
        (folder / name).touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert [path.name for path in tools.libraries("libimaginary.so.13*")] == [
        "libimaginary.so.13.1",
        "libimaginary.so.13.0",
    ]
