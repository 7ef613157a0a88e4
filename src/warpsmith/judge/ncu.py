"""Nsight Compute: the command that a runner is started under, and what its report says of each launch.

A fixed list of metrics is asked for and no sections: on Hopper all of them take seven passes over a kernel, and the
throughputs of the default section alone would take nine. Caches are flushed before each pass and clocks are left alone,
so that a kernel is seen as it is timed: cold, at the clock it gets. Only what is launched between `cuProfilerStart`
and `cuProfilerStop` is looked at. A kernel is replayed, and everything that it may have written is restored in between:
let the runner hold one slot only, not the whole arena.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from warpsmith.device.cuda.tools import find
from warpsmith.errors import MachineError
from warpsmith.judge import ncu_names as names

Row = Mapping[str, float]


def command(report_path: str, capability: tuple[int, int]) -> list[str]:
    """Return what to put in front of a runner's command; the report is a text file, complete when the runner has ended.

    Raises MachineError where Nsight Compute is absent.
    """
    program = find("ncu")
    if program is None:
        raise MachineError("Nsight Compute (ncu) is not installed")
    options = {
        "log-file": report_path,
        "page": "raw",
        "print-units": "base",
        "print-kernel-base": "function",
        "clock-control": "none",
        "cache-control": "all",
        "replay-mode": "kernel",
        "profile-from-start": "off",
        "target-processes": "application-only",
        "metrics": ",".join(names.metrics(capability)),
    }
    return [program, "--csv", *(part for name, value in options.items() for part in (f"--{name}", value))]


_PROBLEMS: tuple[tuple[str, str], ...] = (
    (
        r"ERR_NVGPUCTRPERM",
        "Nsight Compute may not read the GPU's counters: the driver keeps them for administrators (ERR_NVGPUCTRPERM).",
    ),
    (
        r"driver resource was unavailable",
        "Nsight Compute could not get the GPU's counters, because another profiler holds them.",
    ),
    (r"(?i)not supported on this (GPU|device)|unsupported GPU", "Nsight Compute does not support this GPU."),
    (r"No kernels were profiled", "Nsight Compute saw no kernel."),
)


def problem(log_text: str) -> str | None:
    """Say in one sentence why a report holds no launch; None where it holds one."""
    if _table(log_text):
        return None
    for pattern, sentence in _PROBLEMS:
        if re.search(pattern, log_text):
            return sentence
    error = re.search(r"^==ERROR== (.+)$", log_text, re.MULTILINE)
    return f"Nsight Compute failed: {error[1].strip()}" if error is not None else "Nsight Compute wrote no report."


# ------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True, slots=True)
class KernelMetrics:
    """What Nsight Compute measured of one launch; None, or an entry that is not there, for what it could not.

    `seconds` is the time on the device. `dram_read` and `dram_written` are bytes. `busy` holds shares (of one) of the
    peak that `dram l2 l1 shared issue` and the pipes `fp32 int special fp64 tensor` and `loads and stores` reached,
    over the whole duration; `l1` is the data stage, through which shared memory goes as well. `active` is the share of
    the time in which a multiprocessor had work, `occupancy` the share of its warps that were there meanwhile,
    `occupancy_limit` what keeps it from being more and `occupancy_bound` how much that allows. `waves` is how many
    times the grid fills the GPU. `registers` are per thread, `shared` is in bytes per block. `instructions` counts
    warp-instructions by pipe and by kind of tensor instruction, `operations` floating-point operations of threads by
    type (none of tensor cores). `load_sectors` and `store_sectors` are sectors per request to global memory,
    `load_bytes` and `store_bytes` how many of a sector's 32 bytes are used, `loads`, `stores` and `atomics` requests.
    `conflicts` is shared wavefronts over those that no bank conflict caused, `divergence` the share of branches that
    diverge. `stalls` are warps that wait for something, per issue, the most frequent first, by the words of
    `ncu_names.STALLS`.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    seconds: float
    dram_read: float | None
    dram_written: float | None
    l2_hits: float | None
    l1_hits: float | None
    busy: tuple[tuple[str, float], ...]
    active: float | None
    occupancy: float | None
    occupancy_bound: float | None
    occupancy_limit: str
    waves: float | None
    registers: int | None
    shared: int | None
    instructions: tuple[tuple[str, float], ...]
    operations: tuple[tuple[str, float], ...]
    load_sectors: float | None
    store_sectors: float | None
    load_bytes: float | None
    store_bytes: float | None
    loads: float | None
    stores: float | None
    atomics: float | None
    conflicts: float | None
    divergence: float | None
    stalls: tuple[tuple[str, float], ...]


def parse(csv_text: str, kernels: Sequence[str] = ()) -> tuple[KernelMetrics, ...]:
    """Return what a report says of each launch, in order; of `kernels` only, where they are given.

    Raises MachineError with the sentence of `problem` where the report holds no launch at all.
    """
    if (sentence := problem(csv_text)) is not None:
        raise MachineError(sentence)
    found = (_metrics(cells, row) for cells, row in _table(csv_text))
    return tuple(one for one in found if not kernels or one.kernel in kernels)


def _table(text: str) -> list[tuple[Mapping[str, str], Row]]:
    """Return the rows, one for each launch, as texts and as numbers in base units."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID",')), len(lines))
    titles, *rows = [*csv.reader(line for line in lines[start:] if line.startswith('"'))] or [[]]
    units: Mapping[str, str] = {}
    found: list[tuple[Mapping[str, str], Row]] = []
    for row in rows:
        cells = dict(zip(titles, row))
        if not cells["ID"].strip().isdigit():
            # The second row holds the units, under an empty ID.
            units = cells
            continue
        numbers = {name: _number(cell, units.get(name, "")) for name, cell in cells.items()}
        found.append((cells, {name: number for name, number in numbers.items() if number is not None}))
    return found


_SCALE: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("ns", "nsecond"), 1e-9),
        **dict.fromkeys(("us", "usecond"), 1e-6),
        **dict.fromkeys(("ms", "msecond"), 1e-3),
        **{f"{prefix}byte": 10.0**power for prefix, power in (("K", 3), ("M", 6), ("G", 9), ("T", 12))},
        "%": 1e-2,
        "pct": 1e-2,
    }
)
"""Factor from a unit to seconds, bytes or a share of one; other units stay as they are."""
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?P<mark>[,.'\u2019\u00a0\u202f ])\d{3}(?:(?P=mark)\d{3})*(?:[.,]\d+)?")


def _number(cell: str, unit: str) -> float | None:
    """Return a cell as a number in the base unit, or None for texts and for `n/a`.

    A locale may group thousands by a comma, a point, an apostrophe or a space. A point that stands alone is a decimal
    point; a comma that stands alone before three digits groups thousands, as the tool writes where no locale is set.
    """
    text = cell.strip()
    match = _THOUSANDS.fullmatch(text)
    if match is not None and (match["mark"] != "." or text.count(".") > 1 or "," in text):
        text = text.replace(match["mark"], "")
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value * _SCALE.get(unit.strip().partition("/")[0], 1.0)


def _metrics(cells: Mapping[str, str], row: Row) -> KernelMetrics:
    limits = {words: _sum(row, f"launch__occupancy_limit_{name}") for name, words in names.LIMITS.items()}
    known = {words: blocks for words, blocks in limits.items() if blocks is not None}
    shared = _sum(row, *(f"launch__shared_mem_per_block_{part}" for part in ("static", "dynamic")))
    registers = row.get("launch__registers_per_thread")
    return KernelMetrics(
        kernel=cells.get("Kernel Name", "").partition("(")[0].strip(),
        grid=_extent(cells.get("Grid Size", "")),
        block=_extent(cells.get("Block Size", "")),
        seconds=row.get("gpu__time_duration.sum", 0.0),
        dram_read=row.get("dram__bytes_read.sum"),
        dram_written=row.get("dram__bytes_write.sum"),
        l2_hits=row.get("lts__t_sector_hit_rate.pct"),
        l1_hits=row.get("l1tex__t_sector_hit_rate.pct"),
        busy=_busy(row),
        active=row.get(f"sm__cycles_active{names.ELAPSED}"),
        occupancy=row.get("sm__warps_active.avg.pct_of_peak_sustained_active"),
        occupancy_bound=row.get("sm__maximum_warps_per_active_cycle_pct"),
        occupancy_limit=min(known, key=lambda words: known[words], default=""),
        waves=row.get("launch__waves_per_multiprocessor"),
        registers=int(registers) if registers is not None else None,
        shared=int(shared) if shared is not None else None,
        instructions=_instructions(row),
        operations=_operations(row),
        load_sectors=_ratio(row, names.LOADS.format("sectors"), names.LOADS.format("requests")),
        store_sectors=_ratio(row, names.STORES.format("sectors"), names.STORES.format("requests")),
        load_bytes=row.get(names.USED.format("ld")),
        store_bytes=row.get(names.USED.format("st")),
        loads=row.get(names.LOADS.format("requests")),
        stores=row.get(names.STORES.format("requests")),
        atomics=_sum(row, *names.ATOMICS),
        conflicts=_over_ideal(row.get(f"{names.WAVEFRONTS}.sum"), row.get(names.CONFLICTS)),
        divergence=_ratio(row, "smsp__sass_branch_targets_threads_divergent.sum", "smsp__sass_branch_targets.sum"),
        stalls=_stalls(row),
    )


def _busy(row: Row) -> tuple[tuple[str, float], ...]:
    pipes = {name: f"{metric}{names.ELAPSED}" for name, metric in names.PIPES.items()}
    return _present(row, {**names.SHARES, **pipes, "tensor": names.TENSOR_BUSY})


def _instructions(row: Row) -> tuple[tuple[str, float], ...]:
    pipes = {name: f"{metric}.sum" for name, metric in names.PIPES.items()}
    kinds = [pair for kinds in names.TENSOR_KINDS.values() for pair in kinds.items() if pair[1] in row]
    return _present(row, {**pipes, "tensor": names.TENSOR_SUM, **dict(kinds)})


def _present(row: Row, metrics: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    return tuple((name, row[metric]) for name, metric in metrics.items() if metric in row)


def _operations(row: Row) -> tuple[tuple[str, float], ...]:
    return tuple(
        (kind, sum(weight * row[names.operation(name)] for name, weight in weights.items()))
        for kind, weights in names.FLOP.items()
        if all(names.operation(name) in row for name in weights)
    )


def _stalls(row: Row) -> tuple[tuple[str, float], ...]:
    found = _present(row, {words: names.stall(name) for name, words in names.STALLS.items()})
    return tuple(sorted((pair for pair in found if pair[1] > 0.0), key=lambda pair: -pair[1]))


def _sum(row: Row, *metrics: str) -> float | None:
    """Return the sum of those that are there; None where none is."""
    found = [row[name] for name in metrics if name in row]
    return sum(found) if found else None


def _ratio(row: Row, part: str, whole: str) -> float | None:
    """Return a ratio of two metrics: 0 where the whole is 0, None where one of them is missing."""
    if part not in row or whole not in row:
        return None
    return row[part] / row[whole] if row[whole] else 0.0


def _over_ideal(wavefronts: float | None, conflicts: float | None) -> float | None:
    if wavefronts is None or conflicts is None:
        return None
    return wavefronts / (wavefronts - conflicts) if wavefronts > conflicts else 0.0


def _extent(cell: str) -> tuple[int, int, int]:
    parts = [int(part) for part in re.findall(r"\d+", cell)][:3]
    x, y, z = (*parts, *(1 for _ in range(3 - len(parts))))
    return x, y, z
