"""Records as a model reads them: times, sizes, tensors, verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warpsmith.author.llm.budget import brief
from warpsmith.records import Bound, Diagnostic, Graph, Judged, TensorSpec, Verdict

C_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "float64": "double",
        "float32": "float",
        "float16": "__half",
        "bfloat16": "__nv_bfloat16",
        "int64": "int64_t",
        "int32": "int32_t",
        "int16": "int16_t",
        "int8": "int8_t",
        "uint8": "uint8_t",
        "bool": "bool",
    }
)
"""What an element of each dtype is called in device code."""

MOST_ERRORS = 5
"""Compiler errors that are told; the others mostly follow from them."""

_AROUND = 2


def duration(seconds: float) -> str:
    """Return a time in microseconds, which all programs are told in, so that they can be compared."""
    return f"{seconds * 1e6:.4g} µs" if math.isfinite(seconds) else "no time"


def amount(count: float) -> str:
    """Return a number with three digits and a decimal prefix."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= scale:
            return f"{count / scale:.3g} {prefix}"
    return f"{count:.3g} "


def timed(judged: Judged) -> str:
    """Return the time of one call with where it comes from: an estimate is never called a measurement."""
    timing = judged.verdict.timing
    if timing is None:
        return "failed"
    return f"{duration(timing.median)} ({timing.source} for {timing.device})"


def distance(judged: Judged, bound: Bound | None) -> str:
    """Return how far a program is from the speed of light, as half a sentence; empty where nobody knows."""
    if bound is None or not math.isfinite(judged.seconds) or bound.seconds <= 0.0:
        return ""
    return f"{judged.seconds / bound.seconds:.3g} times the {duration(bound.seconds)} that no program can beat"


def tensors(graph: Graph) -> list[tuple[str, TensorSpec, str]]:
    """Return every tensor of a task: what it is, its spec, and its parameter in a kernel."""
    masks = {name for name, _ in graph.masks}
    groups = (
        ("input", graph.inputs),
        ("parameter", graph.parameters),
        ("buffer of the module", graph.buffers),
        ("constant", graph.constants),
    )
    rows = [
        ("random mask" if spec.name in masks else role, spec, f"const {C_TYPES[spec.dtype]}*")
        for role, specs in groups
        for spec in specs
    ]
    return rows + [("output", spec, f"{C_TYPES[spec.dtype]}*") for spec in graph.results]


def complaints(verdict: Verdict) -> tuple[Diagnostic, ...]:
    """Return the compiler's first errors, each once."""
    found = verdict.failure.diagnostics if verdict.failure else ()
    errors = {each.message: each for each in reversed(found) if each.severity == "error"}
    return tuple(reversed(errors.values()))[:MOST_ERRORS]


def line_of(verdict: Verdict) -> int:
    """Return the line (1-based) of the device code that a failure points to, 0 where it points to none."""
    errors = complaints(verdict)
    if errors:
        return errors[0].line
    finding = verdict.failure.finding if verdict.failure else None
    return finding.line if finding else 0


def excerpt(source: str, line: int) -> str:
    """Return the lines around `line` (1-based) with their numbers and a mark at that line; empty for line 0."""
    lines = source.split("\n")
    if not 1 <= line <= len(lines):
        return ""
    numbers = range(max(1, line - _AROUND), min(len(lines), line + _AROUND) + 1)
    return "\n".join(f"{'>' if n == line else ' '} {n:4d} | {brief_line(lines[n - 1])}".rstrip() for n in numbers)


def brief_line(text: str) -> str:
    """Return a line of code, indented as it was, cut where it is very long."""
    return text if len(text) <= 160 else text[:160] + " [...]"


def resources(verdict: Verdict) -> str:
    """Return what the compiler reports of each kernel, as one line."""
    return "; ".join(
        f"{each.name}: {each.registers} registers, {each.shared} bytes of static shared memory"
        + (f", spills {each.spill_stores + each.spill_loads} bytes" if each.spill_stores + each.spill_loads else "")
        for each in verdict.resources
    )


def metrics(verdict: Verdict) -> str:
    """Return the numbers of a profile that are not zero as one line; times are in seconds."""
    if verdict.profile is None:
        return ""
    return ", ".join(f"{name} {value:.3g}" for name, value in verdict.profile.metrics if value)


def tunables(values: tuple[tuple[str, int], ...]) -> str:
    """Return values of tunables as one line."""
    return ", ".join(f"{name} = {value}" for name, value in values) or "none"


FILTERS: Final = MappingProxyType(
    {
        "amount": amount,
        "brief": brief,
        "complaints": complaints,
        "duration": duration,
        "excerpt": excerpt,
        "line_of": line_of,
        "metrics": metrics,
        "resources": resources,
        "timed": timed,
        "tunables": tunables,
    }
)
"""For templates, by name."""
