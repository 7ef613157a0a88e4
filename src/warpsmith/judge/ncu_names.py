"""Which metrics Nsight Compute is asked for, and what they are called here.

Names: Nsight Compute's Kernel Profiling Guide, "Metrics Reference". That every metric exists on compute capability 8.0,
8.9, 9.0 and 10.0 was checked against the lists in CUPTI 13.0, which has the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PIPES: Mapping[str, str] = MappingProxyType(
    {
        "fp32": "sm__inst_executed_pipe_fma",
        "int": "sm__inst_executed_pipe_alu",
        "special": "sm__inst_executed_pipe_xu",
        "loads and stores": "sm__inst_executed_pipe_lsu",
        "fp64": "sm__inst_executed_pipe_fp64",
    }
)
"""Our name of a pipe, and the metric of warp-instructions that it executed."""
TENSOR_BUSY = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
TENSOR_SUM = "sm__inst_executed_pipe_tensor.sum"
TENSOR_KINDS: Mapping[int, Mapping[str, str]] = MappingProxyType(
    {
        8: {"hmma": "sm__inst_executed_pipe_tensor_op_hmma.sum", "imma": "sm__inst_executed_pipe_tensor_op_imma.sum"},
        9: {
            "hmma": "sm__inst_executed_pipe_tensor_op_hmma.sum",
            "imma": "sm__inst_executed_pipe_tensor_op_imma.sum",
            "wgmma": "sm__inst_executed_pipe_tensor_op_gmma.sum",
        },
        10: {
            "hmma": "sm__inst_executed_pipe_tensor_subpipe_hmma.sum",
            "imma": "sm__inst_executed_pipe_tensor_subpipe_imma.sum",
            "tcgen05": "sm__inst_executed_pipe_tc.sum",
        },
    }
)
FLOP: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        # A half instruction works on two values at once.
        "fp32": {"fadd": 1, "fmul": 1, "ffma": 2},
        "fp16": {"hadd": 2, "hmul": 2, "hfma": 4},
        "fp64": {"dadd": 1, "dmul": 1, "dfma": 2},
    }
)
STALLS: Mapping[str, str] = MappingProxyType(
    {
        "long_scoreboard": "data from global or local memory",
        "short_scoreboard": "shared memory, shuffles or special functions",
        "barrier": "the other warps at a barrier",
        "mio_throttle": "a place in the queue to shared memory and special functions",
        "lg_throttle": "a place in the queue to global memory",
        "math_pipe_throttle": "an arithmetic pipe that is busy",
        "wait": "the result of the instruction before",
        "membar": "a memory fence",
        "no_instruction": "instructions to be fetched",
    }
)
"""Nsight Compute's name of what a warp waits for, and words for it."""
LIMITS: Mapping[str, str] = MappingProxyType(
    {"blocks": "blocks", "registers": "registers", "shared_mem": "shared memory", "warps": "threads"}
)
ELAPSED = ".avg.pct_of_peak_sustained_elapsed"
LOADS = "l1tex__t_{}_pipe_lsu_mem_global_op_ld.sum"
STORES = "l1tex__t_{}_pipe_lsu_mem_global_op_st.sum"
USED = "smsp__sass_average_data_bytes_per_sector_mem_global_op_{}.ratio"
ATOMICS = ("l1tex__t_requests_pipe_lsu_mem_global_op_atom.sum", "l1tex__t_requests_pipe_lsu_mem_global_op_red.sum")
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
SHARES: Mapping[str, str] = MappingProxyType(
    {
        "dram": f"dram__throughput{ELAPSED}",
        "l2": f"lts__t_sectors{ELAPSED}",
        "l1": f"l1tex__data_pipe_lsu_wavefronts{ELAPSED}",
        "shared": f"{WAVEFRONTS}{ELAPSED}",
        "issue": f"sm__issue_active{ELAPSED}",
    }
)
_OTHERS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "lts__t_sector_hit_rate.pct",
    "l1tex__t_sector_hit_rate.pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__maximum_warps_per_active_cycle_pct",
    f"sm__cycles_active{ELAPSED}",
    "smsp__sass_branch_targets.sum",
    "smsp__sass_branch_targets_threads_divergent.sum",
    "launch__registers_per_thread",
    "launch__shared_mem_per_block_static",
    "launch__shared_mem_per_block_dynamic",
    "launch__waves_per_multiprocessor",
)


def metrics(capability: tuple[int, int]) -> tuple[str, ...]:
    """Return the metrics to ask for on a GPU of this compute capability."""
    return (
        *_OTHERS,
        *SHARES.values(),
        *(LOADS.format(part) for part in ("sectors", "requests")),
        *(STORES.format(part) for part in ("sectors", "requests")),
        *(USED.format(operation) for operation in ("ld", "st")),
        *ATOMICS,
        f"{WAVEFRONTS}.sum",
        CONFLICTS,
        *(f"{pipe}{part}" for pipe in PIPES.values() for part in (ELAPSED, ".sum")),
        TENSOR_BUSY,
        TENSOR_SUM,
        *_tensor_kinds(capability[0]).values(),
        *(operation(name) for weights in FLOP.values() for name in weights),
        *(stall(name) for name in STALLS),
        *(f"launch__occupancy_limit_{name}" for name in LIMITS),
    )


def _tensor_kinds(major: int) -> Mapping[str, str]:
    return TENSOR_KINDS[min(max(major, min(TENSOR_KINDS)), max(TENSOR_KINDS))]


def operation(name: str) -> str:
    """Return the metric of thread-instructions of an operation such as `ffma`, not counting those switched off."""
    return f"smsp__sass_thread_inst_executed_op_{name}_pred_on.sum"


def stall(name: str) -> str:
    """Return the metric of warps that wait for what `STALLS` calls `name`, on average at each issue."""
    return f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio"
