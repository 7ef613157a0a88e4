"""Launches of a program that begin before the ones before them have ended, on Hopper and newer.

Between two dependent kernels the GPU idles for the end of the one and the start of the other. With programmatic
dependent launch (CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization") the next kernel is
put on the multiprocessors while the last blocks of the one before still work, and only waits there for its data.
"""

from __future__ import annotations

import re
from dataclasses import replace

from warpsmith.records import GpuSpec, Launch, Plan, Program

_BEGIN = """// Let the next launch begin, then wait until the one before is done and what it wrote can be seen.
static __device__ __forceinline__ void begin_early() {
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}"""
_KERNEL = re.compile(r'^extern "C" __global__ [^\n]* \{$', re.MULTILINE)
_INCLUDES = re.compile(r"(?:#include [^\n]*\n)+\n|")
_HOPPER = (9, 0)


def may_overlap(plan: Plan, gpu: GpuSpec) -> bool:
    """Whether a program has launches that follow each other, without calls or cooperative launches, on a fit GPU."""
    plain = not plan.calls and not any(launch.cooperative for launch in plan.launches)
    return plain and len(plan.launches) > 1 and gpu.compute_capability >= _HOPPER


def overlapped(program: Program) -> Program:
    """Return a program of this author whose launches overlap: all but the first, and every kernel waits first thing.

    The first launch of a plan has none before it, and there the wait returns at once.
    """
    head = _INCLUDES.match(program.source)
    end = head.end() if head else 0
    kernels = _KERNEL.sub(lambda found: f"{found[0]}\n    begin_early();", program.source[end:])
    launches = tuple(_early(launch, number) for number, launch in enumerate(program.plan.launches))
    source = f"{program.source[:end]}{_BEGIN}\n\n{kernels}"
    return Program(source, replace(program.plan, launches=launches))


def _early(launch: Launch, number: int) -> Launch:
    return replace(launch, overlap=number > 0)
