"""One call of a program under NVIDIA's tools: compute-sanitizer looks for bugs, Nsight Compute tells where time goes.

The same runner is started under the tool, with buffers that are allocated one by one, so that the sanitizer sees where
each ends, and that nobody fills, so that it sees what was never written. Both tools take seconds, so they are for
candidates that are to be kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch

from warpsmith.device.cuda.device import CudaDevice, budget_for
from warpsmith.device.cuda.sanitizer import Tool, command, parse
from warpsmith.device.cuda.tools import find
from warpsmith.errors import MachineError
from warpsmith.judge import ncu
from warpsmith.judge.roofline import from_metrics
from warpsmith.program import Builder
from warpsmith.records import Bound, BoundPlan, Build, Finding, Profile, TensorSpec

SANITIZER_SECONDS = 10.0
"""How long a call may take under each tool. Sanitizers slow kernels down by one to five orders of magnitude."""
MOST_LAUNCHES = 64
"""Launches up to which Nsight Compute looks at a plan; it replays each several times."""


def sanitizer_here() -> bool:
    """Whether compute-sanitizer is installed."""
    return find("compute-sanitizer") is not None


def sanitize(
    device: CudaDevice,
    builder: Builder,
    build: Build,
    plan: BoundPlan,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[TensorSpec],
    *,
    seconds: float = SANITIZER_SECONDS,
) -> tuple[tuple[Finding, ...], tuple[Tool, ...]]:
    """Call once under each tool of compute-sanitizer, for as many `seconds` at most. The GPU is held meanwhile.

    Returns what the first tool that finds anything found, and the tools that came to an end.
    Raises MachineError where a tool does not work on this GPU.
    """
    ended: list[Tool] = []
    for tool in get_args(Tool):
        with tempfile.TemporaryDirectory(prefix="warpsmith-sanitizer-") as folder, device.exclusive():
            log = Path(folder) / "log"
            under = CudaDevice(device.present, builder, prefix=command(tool, str(log)))
            try:
                execution = under.run(build, plan, inputs, outputs, fill=1, budget=budget_for(seconds))
                if any(finding.kind == "budget" for finding in execution.findings):
                    if tool == "memcheck":
                        break  # The others take longer.
                    continue
                under.runner.finish()
            finally:
                under.close()
            if not log.exists():
                raise MachineError(f"compute-sanitizer ({tool}) left no report")
            findings = tuple(
                finding for finding in parse(log.read_text(errors="replace")) if _answers_for(finding, plan)
            )
        ended.append(tool)
        if findings:
            return findings, tuple(ended)
    return (), tuple(ended)


def _answers_for(finding: Finding, plan: BoundPlan) -> bool:
    """Whether the program answers for a finding: not for those in our canary, nor in the kernels of a library."""
    if finding.kernel == "canary":
        return False
    return not plan.calls or finding.kernel in ("", *(launch.kernel for launch in plan.launches))


def profile(
    device: CudaDevice,
    builder: Builder,
    build: Build,
    plan: BoundPlan,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[TensorSpec],
    *,
    seconds: float,
    bound: Bound,
) -> Profile | None:
    """Profile one call with Nsight Compute. `seconds` is the measured time of a call.

    None where the plan has too many launches, or the tool is not there or not permitted.
    """
    if len(plan.launches) > MOST_LAUNCHES or find("ncu") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="warpsmith-ncu-") as folder:
        report = Path(folder) / "report.csv"
        under = CudaDevice(device.present, builder, prefix=ncu.command(str(report), device.spec.compute_capability))
        try:
            under.profile(build, plan, inputs, outputs)
            under.runner.finish()
        finally:
            under.close()
        text = report.read_text(errors="replace") if report.exists() else ""
    if ncu.problem(text) is not None:
        return None
    names = [launch.kernel for launch in plan.launches]
    return from_metrics(ncu.parse(text, names), seconds, device.spec, bound)
