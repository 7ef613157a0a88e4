"""NVRTC's log, read: diagnostics with line and column, and each kernel's resources as `ptxas -v` reports them.

The formats were taken from the output of NVRTC 13.0:

    kernel.cu(3): error: identifier "bar" is undefined
      extern "C" __global__ void k(float* o) { o[0] = bar;
                                                      ^
    ptxas info    : Compiling entry function 'k' for 'sm_90'
    ptxas info    : Function properties for k
    ptxas         .     400 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
    ptxas info    : Used 37 registers, used 1 barriers, 400 bytes cumulative stack size, 512 bytes smem
    ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...
    ptxas error   : Entry function 'k' uses too much shared data (0x13880 bytes, 0xc000 max)
"""

from __future__ import annotations

import re
from typing import Literal

from warpsmith.records import Diagnostic, KernelResources

MAX_DIAGNOSTICS = 50
MAX_MESSAGE = 600
"""Characters of one message; a template's can be a hundred times as long."""

_PLACED = re.compile(
    r"(?P<file>[^\n()]+)\((?P<line>\d+)\): (?P<kind>[a-z ]*?(?:error|warning)(?: #\S+)?): (?P<message>.*)"
)
_UNPLACED = re.compile(r"(?:At end of source: )?(?:catastrophic )?(?P<kind>error|warning)(?: #\S+)?: (?P<message>.*)")
_NVRTC = re.compile(r"nvrtc: (?P<kind>error|warning)\s*: (?P<message>.*)")
_PTXAS = re.compile(r"\s*ptxas (?P<input>.*?,\s*line \d+; )?\s*(?P<kind>error|fatal|warning)\s*: (?P<message>.*)")
_LOSS = re.compile(r"ptxas info\s*: (?P<message>\(C\d+\) Potential Performance Loss: .*)")
_CARET = re.compile(r"  (\s*)\^\s*\Z")

_INCLUDE_PATH = re.compile(r"/\S*?/nvidia/\w+/include/(?:cccl/)?")
_ORIGIN = re.compile(r"at line (\d+) of kernel\.cu")

_ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '([^']+)'")
_PROPERTIES = re.compile(r"ptxas info\s*: Function properties for (\S+)")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"ptxas info\s*: Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")


def parse_diagnostics(log: str) -> tuple[Diagnostic, ...]:
    """Return what the log says is wrong, at most `MAX_DIAGNOSTICS`, errors first.

    A warning about a header of the wheels is left out: nobody can mend it. An error there has the header's name in its
    message, and the line of the program that led to it, or 0 if the compiler does not say.
    """
    found: dict[Diagnostic, None] = {}
    lines = log.split("\n")
    for number, text in enumerate(lines):
        diagnostic = _diagnostic(text, lines[number + 1 : number + 40])
        if diagnostic is not None:
            found[diagnostic] = None
    errors = [diagnostic for diagnostic in found if diagnostic.severity == "error"]
    warnings = [diagnostic for diagnostic in found if diagnostic.severity == "warning"]
    return tuple((errors + warnings)[:MAX_DIAGNOSTICS])


def _diagnostic(text: str, following: list[str]) -> Diagnostic | None:
    if match := _PLACED.match(text):
        return _placed(match, following)
    if match := _PTXAS.match(text):
        place = (match["input"] or "").replace("application ptx input, ", "PTX ").replace("; ", ": ").strip()
        message = f"ptxas: {place} {match['message']}" if place else f"ptxas: {match['message']}"
        return Diagnostic(_severity(match["kind"]), 0, 0, message[:MAX_MESSAGE])
    if match := _LOSS.match(text):
        return Diagnostic("warning", 0, 0, f"ptxas: {match['message']}"[:MAX_MESSAGE])
    if match := _NVRTC.match(text) or _UNPLACED.match(text):
        return Diagnostic(_severity(match["kind"]), 0, 0, match["message"][:MAX_MESSAGE])
    return None


def _placed(match: re.Match[str], following: list[str]) -> Diagnostic | None:
    severity = _severity(match["kind"])
    column, details = _column_and_details(following)
    message = _INCLUDE_PATH.sub("", " ".join([match["message"], *details])[: 4 * MAX_MESSAGE])
    if match["file"] == "kernel.cu":
        return Diagnostic(severity, int(match["line"]), column, message[:MAX_MESSAGE])
    if severity == "warning":
        return None
    header = _INCLUDE_PATH.sub("", match["file"])
    origin = _ORIGIN.search(message)
    return Diagnostic(
        severity, int(origin[1]) if origin else 0, 0, f"{header}({match['line']}): {message}"[:MAX_MESSAGE]
    )


def _severity(kind: str) -> Literal["error", "warning"]:
    return "warning" if "warning" in kind else "error"


def _column_and_details(following: list[str]) -> tuple[int, list[str]]:
    """Return the column of the caret, or 0, and what else the message says: before the quoted line and after it."""
    column, details = 0, list[str]()
    for text in following:
        if not text.startswith("  "):
            break
        if (match := _CARET.match(text)) and not column:
            column = len(match[1]) + 1
            del details[-1:]
        else:
            details.append(text.strip())
    return column, details


def parse_resources(log: str) -> tuple[KernelResources, ...]:
    """Return the resources of every kernel in the log, by name."""
    found: dict[str, KernelResources] = {}
    entry = function = ""
    frame = (0, 0, 0)
    for text in log.split("\n"):
        if match := _ENTRY.search(text):
            entry = match[1]
        elif match := _PROPERTIES.search(text):
            function = match[1]
        elif (match := _FRAME.search(text)) and function == entry:
            frame = (int(match[1]), int(match[2]), int(match[3]))
        elif (match := _USED.search(text)) and entry:
            shared = _SHARED.search(match[2])
            stack, stores, loads = frame
            found[entry] = KernelResources(entry, int(match[1]), stores, loads, int(shared[1]) if shared else 0, stack)
    return tuple(found[name] for name in sorted(found))
