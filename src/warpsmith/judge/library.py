"""What library calls take of a hybrid program's time, and what that means for who wants to make it faster."""

from __future__ import annotations

from warpsmith.device.simulator.estimate import library_seconds
from warpsmith.records import BoundPlan, GpuSpec, Profile

_MOSTLY = 0.5


def estimated_share(plan: BoundPlan, seconds: float, gpu: GpuSpec) -> float | None:
    """Return the share of an estimated time of `seconds` that is the library's; None for a pure program."""
    return min(1.0, library_seconds(plan, gpu) / seconds) if plan.calls else None


def library_profile(plan: BoundPlan, share: float | None, seconds: float) -> Profile | None:
    """Return the profile of a program that waits for the library most of its time, None of any other."""
    if share is None or share <= _MOSTLY:
        return None
    names = ", ".join(dict.fromkeys(call.op for call in plan.calls))
    metrics = (("seconds", seconds), ("launches", float(len(plan.launches))), ("library_share", share))
    advice = (
        f"Library calls ({names}) take {share:.0%} of the time. What is left to gain is in kernels that take their "
        "place, or in fusing what stands around them so that it reads and writes less."
    )
    return Profile(metrics, "library calls", advice)
