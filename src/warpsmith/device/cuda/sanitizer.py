"""NVIDIA's compute-sanitizer: the command that a runner is started under, and what its log says.

    memcheck    accesses outside of allocations, misaligned ones, hardware exceptions
    racecheck   races in shared memory
    synccheck   barriers that not all threads reach, or that are misused
    initcheck   reads of global memory that nobody wrote

What each cannot see decides how the runner is to be set up. memcheck knows allocations only: in one large arena a
stray access that stays within it is no error to it, so every tensor needs an allocation of its own. racecheck does
not look at global memory. initcheck takes for written whatever a copy, a fill or a kernel of *this* process wrote:
buffers that were filled with a pattern all count as initialised, and what another process wrote through a mapping does
not. It finds something only where inputs are copied in by the runner and outputs and scratch are left as cuMemAlloc
gave them. Where that is not so, leave it out: an output that depends on what stood in unwritten memory is found
by two calls with different fills.

Formats: Compute Sanitizer 2022 to 2025, see its user manual, "Understanding Memcheck Errors" and the chapters
after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from warpsmith.device.cuda.tools import find
from warpsmith.errors import MachineError
from warpsmith.records import Finding, FindingKind

Tool = Literal["memcheck", "racecheck", "synccheck", "initcheck"]

EXIT_CODE = 86
"""What the tool ends with where it found something; unlike any code that a runner ends with."""
SOURCE = "kernel.cu"
"""What the compiler calls our device code, so what stands in front of a line number in a message."""
_MOST_ERRORS = 200
_CONNECT_SECONDS = 60
_OF_ONE_TOOL: dict[str, tuple[str, ...]] = {
    # A call that the driver refuses is an answer of the runner already; bindings also ask for functions in vain.
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": ("--racecheck-report", "analysis"),
    "initcheck": ("--check-api-memory-access", "no"),
}


def command(tool: Tool, log_path: str) -> list[str]:
    """Return what to put in front of a runner's command. Raises MachineError where compute-sanitizer is absent.

    The log is complete when the runner has ended by itself. Device frames are asked for, since an error in a
    function that was inlined names that function, and only its frames name the kernel.
    """
    program = find("compute-sanitizer")
    if program is None:
        raise MachineError("compute-sanitizer is not installed")
    general = {
        "tool": tool,
        "log-file": log_path,
        "print-limit": str(_MOST_ERRORS),
        "error-exitcode": str(EXIT_CODE),
        "show-backtrace": "device",
        "demangle": "simple",
        "launch-timeout": str(_CONNECT_SECONDS),
        "target-processes": "application-only",
        "check-exit-code": "no",
    }
    return [program, *(part for name, value in general.items() for part in (f"--{name}", value)), *_of(tool)]


def _of(tool: Tool) -> tuple[str, ...]:
    return _OF_ONE_TOOL.get(tool, ())


@dataclass(frozen=True, slots=True)
class _Record:
    """One message: its first line, and the indented lines below it."""

    head: str
    details: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join((self.head, *self.details))


def parse(log_text: str) -> tuple[Finding, ...]:
    """Return what the tool found, each place once, with block and thread of the first that did it.

    Lines are those of our device code; 0 where the tool knows none. Races that the tool calls warnings (lanes of one
    warp, without a barrier of the warp between them) count; those of equal values, which it calls information, do
    not. Refused driver calls are passed over, since the runner reports them. Raises MachineError where the tool
    itself failed, or was ended before it wrote its summary, and had found nothing until then.
    """
    records = tuple(_records(log_text))
    found: dict[tuple[FindingKind, str, int, str], Finding] = {}
    for record in records:
        if not _IGNORED.search(record.head) and not _FAILED.search(record.head):
            finding = _finding(record)
            found.setdefault((finding.kind, finding.kernel, finding.line, record.head), finding)
    if not found:
        _demand_success(records)
    return tuple(found.values())


_PREFIX = re.compile(r"^=========\s?(?P<text>.*?)\s*$")
_PASSED_OVER = re.compile(r"Program hit |Info: ")
"""Counted by the tool, but nothing that a kernel did wrong."""
_IGNORED = re.compile(
    r"^(COMPUTE-SANITIZER|Program hit |Info: |Target application returned|Error: process didn't terminate"
    r"|Error: couldn't find exit code|\S+ SUMMARY: |The application may have hit)|errors were not printed"
)
_FAILED = re.compile(
    r"Internal Sanitizer|Internal error encountered|not supported|Unable to (find|allocate)|No attachable process"
    r"|[Cc]ould not connect|timed-out|before first instrumented|Tracking kernels launched|unsupported driver"
    r"|doesn't exist or is not|^Failed to|Error: Failed|Error launching|error buffer overflow|didn't track"
)
_SUMMARY = re.compile(r"(?P<tool>ERROR|RACECHECK) SUMMARY: (?P<count>\d+) (?:errors?|hazards?)")


def _records(log_text: str) -> Iterator[_Record]:
    head = ""
    details: list[str] = []
    for line in log_text.splitlines():
        match = _PREFIX.match(line)
        if match is None:
            continue
        text = match["text"]
        if text.startswith("   "):
            details.append(text.strip())
            continue
        if head:
            yield _Record(head, tuple(details))
        head, details = text.strip(), []
    if head:
        yield _Record(head, tuple(details))


def _demand_success(records: tuple[_Record, ...]) -> None:
    """Raise MachineError unless the tool looked at everything and found nothing."""
    for record in records:
        if _FAILED.search(record.head):
            raise MachineError(f"compute-sanitizer failed: {record.text}")
    summaries = [match for record in records if (match := _SUMMARY.search(record.head))]
    if not summaries:
        raise MachineError("compute-sanitizer was ended before it wrote its summary")
    passed_over = any(_PASSED_OVER.match(record.head) for record in records)
    if any(int(match["count"]) for match in summaries) and not passed_over:
        raise MachineError(f"compute-sanitizer counts errors that are not in its log: {summaries[0][0]}")


# ------------------------------------------------------------------------------------------------------- one message

_KINDS: tuple[tuple[str, FindingKind], ...] = (
    (r"uninitiali[sz]ed", "uninitialised"),
    (r"race reported|hazard detected|race condition|potential invalid __shared__", "shared_race"),
    (r"barrier error|^barrier|divergent|deadlock|sync mask|cuda::barrier|warpgroup", "barrier_divergence"),
    (r"misaligned", "misaligned"),
    (r"stack overflow|illegal instruction|invalid pc|assert|breakpoint|syscall", "trap"),
    (r"^(Error: |Warning: )?(Invalid|Access to|Out-of-range)|out of bounds|illegal address", "out_of_bounds"),
)
"""What the first line of a message says, without regard to case; the first that fits holds."""
_OFFSET = r"(?:\+|:)0x[0-9a-fA-F]+"
_PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        # 2023 on: kernel(int *)+0x90 in kernel.cu:13
        rf"(?P<name>[^\s()<>]+)(?:<.*?>)?(?:\(.*?\))?{_OFFSET}(?: in (?P<file>[^\s:]+):(?P<line>\d+))?",
        # before: 0x90 in /folder/kernel.cu:13:kernel(int *)
        r"0x[0-9a-fA-F]+ in (?P<file>[^\s:]+):(?P<line>\d+):(?P<name>[^\s()<>]+)",
        # before, without line numbers: 0x90 in kernel(int *)
        r"0x[0-9a-fA-F]+ in (?P<name>[^\s()<>:]+)(?P<file>)(?P<line>)",
    )
)
_FRAME = "Device Frame:"
_WHO = re.compile(r"by thread \((?P<thread>[\d, ]+)\) in block \((?P<block>[\d, ]+)\)")


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    line: int


def _finding(record: _Record) -> Finding:
    places = [place for text in (record.head, *record.details) if (place := _place(text)) is not None]
    frames = [place for text in record.details if text.startswith(_FRAME) and (place := _place(text)) is not None]
    # The last frame is the kernel; the first place with a line in our file is where to look.
    kernel = (frames or places[:1] or [_Place("", 0)])[-1].name
    line = next((place.line for place in places if place.line), 0)
    who = _WHO.search(record.text)
    message = " ".join(text for text in (record.head, *record.details) if not text.startswith((_FRAME, "Host Frame")))
    return Finding(
        _kind(record),
        kernel,
        line,
        message,
        _triple(who["block"]) if who else (0, 0, 0),
        _triple(who["thread"]) if who else (0, 0, 0),
    )


def _kind(record: _Record) -> FindingKind:
    """The nearest kind: that of the first line, or a misalignment that only the lines below tell."""
    if any("misaligned" in text for text in record.details):
        return "misaligned"
    return next((kind for pattern, kind in _KINDS if re.search(pattern, record.head, re.IGNORECASE)), "trap")


def _place(text: str) -> _Place | None:
    for pattern in _PLACES:
        match = pattern.search(text)
        if match is not None:
            ours = (match["file"] or "").rpartition("/")[2] == SOURCE
            return _Place(match["name"], int(match["line"]) if ours else 0)
    return None


def _triple(text: str) -> tuple[int, int, int]:
    x, y, z = (int(part) for part in text.split(","))
    return x, y, z
