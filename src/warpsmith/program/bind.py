"""A plan for given shapes, tunables and device: every expression evaluated, every limit of the hardware checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from warpsmith.errors import ProgramError
from warpsmith.program.calls import bind_call
from warpsmith.program.expressions import evaluate_at
from warpsmith.program.parser import parse
from warpsmith.program.tree import names_in
from warpsmith.program.validate import call_place, check_tunables, place_of, validate_plan
from warpsmith.records import BoundLaunch, BoundPlan, Buffer, GpuSpec, Launch, Plan, TensorSpec, Tolerance

# CUDA C++ programming guide, "Technical specifications per compute capability"; the same for all from 7.5 to 12.0.
_GRID_LIMITS = (2**31 - 1, 65535, 65535)
_BLOCK_LIMITS = (1024, 1024, 64)
_MAX_THREADS = 1024
_WARP_SIZE = 32
_PORTABLE_CLUSTER = 8
_HOPPER = (9, 0)
_AXES = "xyz"


def bind(
    plan: Plan,
    tensors: Mapping[str, TensorSpec],
    tunables: Mapping[str, int],
    gpu: GpuSpec,
    tolerance: Tolerance | None = None,
) -> BoundPlan:
    """Evaluate `plan`.

    `tensors` holds the task's inputs and outputs by name, `tunables` one declared value for each tunable; `tolerance`
    says in which precision library calls may compute. Raises ExpressionError and ProgramError that name the place:
    unknown names, clashes between tensors and the plan's own names, symbols defined by themselves, calls whose tensors
    do not fit, and launches or scratch memory that are empty or beyond what `gpu` can do.
    """
    validate_plan(plan)
    names = _names(plan, tensors, tunables, gpu)
    buffers = tuple(_buffer(buffer, names, tensors) for buffer in plan.buffers)
    needed = sum(spec.nbytes for spec in (*buffers, *tensors.values()))
    if needed > gpu.memory_bytes:
        raise ProgramError(
            f"buffers and tensors need {needed} bytes, but {gpu.name} has {gpu.memory_bytes} bytes of memory"
        )
    everything = {**tensors, **{spec.name: spec for spec in buffers}}
    launches = tuple(
        _launch(place_of(number, launch.kernel), launch, names, everything, gpu)
        for number, launch in enumerate(plan.launches, 1)
    )
    policy = tolerance if tolerance is not None else Tolerance()
    calls = tuple(
        bind_call(call_place(number, call.op), call, names, everything, policy)
        for number, call in enumerate(plan.calls, 1)
    )
    return BoundPlan(buffers, launches, calls)


def device_properties(gpu: GpuSpec) -> dict[str, int]:
    """Return what expressions may ask of the device; the names are `validate.DEVICE_PROPERTIES`."""
    return {
        "sm_count": gpu.sm_count,
        "warp_size": _WARP_SIZE,
        "max_threads_per_block": _MAX_THREADS,
        "threads_per_sm": gpu.threads_per_sm,
        "blocks_per_sm": gpu.blocks_per_sm,
        "registers_per_sm": gpu.registers_per_sm,
        "shared_per_block": gpu.shared_per_block,
        "shared_per_sm": gpu.shared_per_sm,
        "l2_bytes": gpu.l2_bytes,
    }


def _names(
    plan: Plan, tensors: Mapping[str, TensorSpec], tunables: Mapping[str, int], gpu: GpuSpec
) -> Mapping[str, int]:
    """Return the values of device properties, tunables and symbols."""
    check_tunables(plan, tunables)
    own = {name: "symbol" for name, _ in plan.symbols}
    own |= dict.fromkeys(tunables, "tunable") | {buffer.name: "buffer" for buffer in plan.buffers}
    own |= dict.fromkeys(device_properties(gpu), "property of the device")
    for name in tensors:
        if name in own:
            raise ProgramError(f"{name!r} is the name of a tensor of the task and of a {own[name]}")
    names = {**device_properties(gpu), **tunables}
    symbols = dict(plan.symbols)
    for name in _in_order(symbols):
        names[name] = evaluate_at(f"symbols.{name}", symbols[name], names, tensors)
    return names


def _in_order(symbols: Mapping[str, str]) -> list[str]:
    """Return the symbols so that each stands behind those that it uses. Raises ProgramError for a cycle."""
    done: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in done:
            return
        if name in path:
            cycle = " → ".join((*path[path.index(name) :], name))
            raise ProgramError(f"symbols.{name}: defined by itself: {cycle}")
        for used in sorted(names_in(parse(symbols[name])) & symbols.keys()):
            visit(used, (*path, name))
        done[name] = None

    for name in symbols:
        visit(name, ())
    return list(done)


def _buffer(buffer: Buffer, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> TensorSpec:
    place = f"buffers.{buffer.name}"
    shape = tuple(evaluate_at(f"{place}: shape[{i}]", text, names, tensors) for i, text in enumerate(buffer.shape))
    if any(extent < 0 for extent in shape):
        raise ProgramError(f"{place}: the shape {list(shape)} has a negative extent")
    return TensorSpec(buffer.name, shape, buffer.dtype)


def _launch(
    place: str, launch: Launch, names: Mapping[str, int], tensors: Mapping[str, TensorSpec], gpu: GpuSpec
) -> BoundLaunch:
    grid = _extents(f"{place}: grid", launch.grid, names, tensors, _GRID_LIMITS)
    block = _extents(f"{place}: block", launch.block, names, tensors, _BLOCK_LIMITS)
    threads = math.prod(block)
    if threads > _MAX_THREADS:
        raise ProgramError(f"{place}: block {list(block)} has {threads} threads; {_MAX_THREADS} is the limit")
    shared = evaluate_at(f"{place}: shared", launch.shared, names, tensors)
    if not 0 <= shared <= gpu.shared_per_block:
        raise ProgramError(
            f"{place}: {shared} bytes of shared memory; {gpu.name} allows 0 to {gpu.shared_per_block} per block"
        )
    cluster = _cluster(place, launch, grid, names, tensors, gpu)
    if launch.cooperative:
        _check_cooperative(place, grid, threads, gpu)
    if launch.overlap and gpu.compute_capability < _HOPPER:
        raise ProgramError(f"{place}: overlap needs compute capability 9.0; {gpu.name} has less")
    args = tuple(_argument(f"{place}: args[{i}]", text, names, tensors) for i, text in enumerate(launch.args))
    return BoundLaunch(launch.kernel, grid, block, shared, args, cluster, launch.cooperative, launch.overlap)


def _extents(
    place: str,
    texts: tuple[str, ...],
    names: Mapping[str, int],
    tensors: Mapping[str, TensorSpec],
    limits: tuple[int, int, int],
) -> tuple[int, int, int]:
    values = [evaluate_at(f"{place}[{i}]", text, names, tensors) for i, text in enumerate(texts)]
    for axis, value, limit, text in zip(_AXES, values, limits, texts):
        if not 1 <= value <= limit:
            raise ProgramError(f"{place} {axis} is {value} ({text}); it must lie between 1 and {limit}")
    x, y, z = (*values, 1, 1)[:3]
    return x, y, z


def _cluster(
    place: str,
    launch: Launch,
    grid: tuple[int, int, int],
    names: Mapping[str, int],
    tensors: Mapping[str, TensorSpec],
    gpu: GpuSpec,
) -> tuple[int, int, int]:
    if not launch.cluster:
        return (1, 1, 1)
    limits = (_PORTABLE_CLUSTER, _PORTABLE_CLUSTER, _PORTABLE_CLUSTER)
    cluster = _extents(f"{place}: cluster", launch.cluster, names, tensors, limits)
    if math.prod(cluster) > _PORTABLE_CLUSTER:
        raise ProgramError(f"{place}: cluster {list(cluster)} has more than {_PORTABLE_CLUSTER} blocks")
    if math.prod(cluster) > 1 and gpu.compute_capability < _HOPPER:
        raise ProgramError(f"{place}: clusters need compute capability 9.0; {gpu.name} has less")
    if any(extent % size for extent, size in zip(grid, cluster)):
        raise ProgramError(f"{place}: grid {list(grid)} is not a multiple of cluster {list(cluster)}")
    return cluster


def _check_cooperative(place: str, grid: tuple[int, int, int], threads: int, gpu: GpuSpec) -> None:
    """All blocks must be resident at once. Registers and shared memory may lower this limit further."""
    warps = -(-threads // _WARP_SIZE)
    resident = gpu.sm_count * min(gpu.blocks_per_sm, gpu.threads_per_sm // (warps * _WARP_SIZE))
    if math.prod(grid) > resident:
        raise ProgramError(
            f"{place}: a cooperative launch of {math.prod(grid)} blocks; at most {resident} are resident on {gpu.name}"
        )


def _argument(place: str, text: str, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> str | int:
    """A tensor or buffer by its name, or the value of an expression."""
    return text.strip() if text.strip() in tensors else evaluate_at(place, text, names, tensors)
