"""Numbers and verdicts as people read them."""

from __future__ import annotations

import math
from datetime import datetime

from warpsmith.records import Bound, Failure, Judged, Timing

_PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float) -> str:
    """Return a time with three significant digits: `1.85 µs`. Infinity, the time of what did not pass, is a dash."""
    if not math.isfinite(seconds):
        return "–"
    scale, unit = next((pair for pair in _PREFIXES if seconds >= pair[0] * 0.9995), _PREFIXES[-1])
    return f"{_three_digits(seconds / scale)} {unit}"


def clock(seconds: float) -> str:
    """Return a time to wait for as minutes and seconds: `1:05`."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def amount(count: float, unit: str = "") -> str:
    """Return a number with a decimal prefix: `12.6 MB`, `3.4 G`."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= scale:
            return f"{_three_digits(count / scale)} {prefix}{unit}"
    return f"{_three_digits(count)} {unit}".strip() if count != int(count) else f"{int(count)} {unit}".strip()


def share(best: float, bound: Bound) -> float:
    """Return which part of the speed of light a time in seconds reaches, between 0 and 1 (0 where there is none)."""
    return bound.seconds / best if math.isfinite(best) and best > 0 else 0.0


def percent(fraction: float) -> str:
    """Return a fraction as a percentage with as many digits as say something."""
    return f"{fraction:.0%}" if fraction >= 0.1 or fraction == 0 else f"{fraction:.1%}"


def provenance(timing: Timing) -> str:
    """Say where a time comes from, so that an estimate cannot be taken for a measurement."""
    return f"measured on {timing.device}" if timing.source == "measured" else f"estimated for {timing.device}"


def kind(judged: Judged) -> str:
    """Say who does the work: our kernels alone, or library calls as well, with their share of the time if known."""
    if judged.candidate.program.plan.pure:
        return "pure"
    part = judged.verdict.library_share
    return "hybrid" if part is None else f"hybrid, {percent(part)} of the time in library code"


def best_line(judged: Judged, bound: Bound | None) -> str:
    """Say in a line how fast the best is, where that comes from, and how near the bound."""
    timing = judged.verdict.timing
    if timing is None:
        return "none passed yet"
    text = f"{duration(timing.median)} {provenance(timing)}"
    text += f", {percent(share(timing.median, bound))} of the speed of light" if bound else ""
    return text if judged.candidate.program.plan.pure else f"{text} ({kind(judged)})"


def reason(failure: Failure) -> str:
    """Return a failure's short reason as words, with its stage."""
    return f"{failure.stage.name.lower()}: {failure.reason.replace('_', ' ')}"


def moment(at: datetime) -> str:
    """Return a moment in UTC to the minute."""
    return f"{at:%Y-%m-%d %H:%M}"


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f}"
