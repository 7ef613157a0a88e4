"""Where the time goes, as a named bottleneck and advice. (Completed once the device explains its estimates.)"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.records import BoundPlan, Build, Counters, GpuSpec, Profile


def profile(build: Build, plan: BoundPlan, counters: Sequence[Counters], gpu: GpuSpec) -> Profile | None:
    """Return the profile of one call."""
    return None
