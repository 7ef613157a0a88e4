"""GPUs by name, with where each figure comes from.

Arithmetic peaks are dense, at boost clock. Where a datasheet gives several for one type, the highest stands here
(float64 on tensor cores, half with half accumulation), because the bound must be one that no program can pass.
Limits per SM and per block are from the CUDA C++ Programming Guide 13.0, table "Technical specifications per compute
capability". Of these GPUs NVIDIA publishes L2 bandwidth for the A100 only; `source` says how each other figure was
come by: measured, derived or estimated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from warpsmith.errors import SettingsError
from warpsmith.records import GpuSpec

_KIB, _MIB = 1 << 10, 1 << 20
_GB, _TB = 10**9, 10**12
_TERA = 1e12

_H200 = GpuSpec(
    name="H200",
    compute_capability=(9, 0),
    sm_count=132,
    clock=1.98e9,
    memory_bytes=141 * _GB,
    memory_bandwidth=4.8 * _TB,
    l2_bytes=60 * _MIB,
    l2_bandwidth=8.4 * _TB,
    fp32_flops=66.9 * _TERA,
    tf32_flops=494.7 * _TERA,
    half_flops=989.4 * _TERA,
    fp64_flops=66.9 * _TERA,
    shared_per_sm=228 * _KIB,
    shared_per_block=227 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source=(
        "NVIDIA H200 datasheet (SXM); clock and L2 size as the driver reports them; L2 bandwidth measured: "
        "20 to 40 MB read over and over past L1 by 16-byte loads"
    ),
)
_H100 = GpuSpec(
    name="H100",
    compute_capability=(9, 0),
    sm_count=132,
    clock=1.98e9,
    memory_bytes=80 * _GB,
    memory_bandwidth=3.35 * _TB,
    l2_bytes=50 * _MIB,
    l2_bandwidth=7.4 * _TB,
    fp32_flops=66.9 * _TERA,
    tf32_flops=494.7 * _TERA,
    half_flops=989.4 * _TERA,
    fp64_flops=66.9 * _TERA,
    shared_per_sm=228 * _KIB,
    shared_per_block=227 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source=(
        "NVIDIA H100 datasheet (SXM) and H100 Tensor Core GPU Architecture whitepaper; clock as the driver reports it; "
        "L2 bandwidth measured: 20 to 40 MB read over and over past L1 by 16-byte loads"
    ),
)
_A100 = GpuSpec(
    name="A100",
    compute_capability=(8, 0),
    sm_count=108,
    clock=1.41e9,
    memory_bytes=80 * _GB,
    memory_bandwidth=2.039 * _TB,
    l2_bytes=40 * _MIB,
    l2_bandwidth=5120 * 1.41e9,
    fp32_flops=19.5 * _TERA,
    tf32_flops=156 * _TERA,
    half_flops=312 * _TERA,
    fp64_flops=19.5 * _TERA,
    shared_per_sm=164 * _KIB,
    shared_per_block=163 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source=(
        "NVIDIA A100 80 GB datasheet (SXM) and A100 Tensor Core GPU Architecture whitepaper; "
        "L2 bandwidth derived from its 5120 bytes per clock"
    ),
)
_L40S = GpuSpec(
    name="L40S",
    compute_capability=(8, 9),
    sm_count=142,
    clock=2.52e9,
    memory_bytes=48 * _GB,
    memory_bandwidth=0.864 * _TB,
    l2_bytes=96 * _MIB,
    l2_bandwidth=142 * 16 * 2.52e9,
    fp32_flops=91.6 * _TERA,
    tf32_flops=183 * _TERA,
    half_flops=362.05 * _TERA,
    fp64_flops=1.43 * _TERA,
    shared_per_sm=100 * _KIB,
    shared_per_block=99 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=1536,
    blocks_per_sm=24,
    source=(
        "NVIDIA L40S datasheet and Ada GPU Architecture whitepaper; float64 derived as 1/64 of float32; "
        "L2 bandwidth estimated at 16 bytes per clock and SM"
    ),
)
_RTX_4090 = GpuSpec(
    name="RTX 4090",
    compute_capability=(8, 9),
    sm_count=128,
    clock=2.52e9,
    memory_bytes=24 * _GB,
    memory_bandwidth=1.008 * _TB,
    l2_bytes=72 * _MIB,
    l2_bandwidth=128 * 16 * 2.52e9,
    fp32_flops=82.6 * _TERA,
    tf32_flops=82.6 * _TERA,
    half_flops=330.3 * _TERA,
    fp64_flops=1.29 * _TERA,
    shared_per_sm=100 * _KIB,
    shared_per_block=99 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=1536,
    blocks_per_sm=24,
    source=(
        "NVIDIA Ada GPU Architecture whitepaper, appendix A; float64 derived as 1/64 of float32; "
        "L2 bandwidth estimated at 16 bytes per clock and SM"
    ),
)
_B200 = GpuSpec(
    name="B200",
    compute_capability=(10, 0),
    sm_count=148,
    clock=1.965e9,
    memory_bytes=180 * _GB,
    memory_bandwidth=8.0 * _TB,
    l2_bytes=126 * _MIB,
    l2_bandwidth=148 * 32 * 1.965e9,
    fp32_flops=75 * _TERA,
    tf32_flops=1125 * _TERA,
    half_flops=2250 * _TERA,
    fp64_flops=40 * _TERA,
    shared_per_sm=228 * _KIB,
    shared_per_block=227 * _KIB,
    registers_per_sm=65536,
    threads_per_sm=2048,
    blocks_per_sm=32,
    source=(
        "NVIDIA HGX B200 datasheet, per GPU; SM count, clock and L2 size as published by third parties who ran it; "
        "L2 bandwidth derived from the 32 bytes per clock and SM that were measured on the H200"
    ),
)

GPUS: Final[Mapping[str, GpuSpec]] = MappingProxyType(
    {spec.name: spec for spec in (_H200, _H100, _A100, _L40S, _RTX_4090, _B200)}
)
"""Every GPU that can be asked for by name."""


def gpu(name: str) -> GpuSpec:
    """Return the GPU called `name`; case, spaces, dashes and a leading `NVIDIA` do not matter.

    Raises SettingsError, listing the known names, for any other.
    """
    known = {_plain(spec.name): spec for spec in GPUS.values()}
    plain = _plain(name)
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(plain, known, n=1)
    hint = f" (did you mean {known[close[0]].name!r}?)" if close else ""
    raise SettingsError(f"unknown GPU {name!r}{hint}; known: {', '.join(GPUS)}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower().removeprefix("nvidia").removeprefix("geforce")
