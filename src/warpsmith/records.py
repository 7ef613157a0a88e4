"""The nouns. Read this file first.

    Task ──author──> Program ──values for its tunables──> Candidate ──judge──> Verdict

All are frozen and compare by value; those that are stored have a `key`, the hash of their content. A state that
makes no sense cannot be built: a verdict that did not pass has no timing, an estimate is never a measurement.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    import torch

DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "float64": 8,
        "float32": 4,
        "float16": 2,
        "bfloat16": 2,
        "int64": 8,
        "int32": 4,
        "int16": 2,
        "int8": 1,
        "uint8": 1,
        "bool": 1,
    }
)


def digest(*parts: str) -> str:
    """Return 16 hexadecimal digits of SHA-256 over length-prefixed parts, so that no two lists of parts collide."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode()
        state.update(f"{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()[:16]


def frozen(values: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Return a read-only copy, in the order given."""
    return MappingProxyType(dict(values or {}))


# ---------------------------------------------------------------------------------------------------------------- task


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A dense row-major tensor. An empty shape is a scalar tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"unknown dtype {self.dtype!r} of tensor {self.name!r}")
        if any(extent < 0 for extent in self.shape):
            raise ValueError(f"negative extent in shape {self.shape} of tensor {self.name!r}")

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Ref:
    """The `index`-th result of the node or tensor called `name`."""

    name: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class DTypeArg:
    """A dtype as an operator's argument."""

    name: str


Arg = Ref | DTypeArg | int | float | bool | str | None | tuple["Arg", ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One call of an ATen operator in its functional form.

    `op` is the full overload name, such as `aten.add.Tensor`. Arguments follow the operator's schema; trailing
    defaults are left out. `outputs` has one entry for each tensor result; an unused optional result is None.
    """

    name: str
    op: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    outputs: tuple[TensorSpec | None, ...]

    @property
    def spec(self) -> TensorSpec:
        """The first result."""
        if not self.outputs or self.outputs[0] is None:
            raise ValueError(f"node {self.name} has no first result")
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Graph:
    """A pure function: inputs, parameters, buffers and constants in; `outputs` out.

    Nodes stand in an order in which every argument is defined before it is used. An updated buffer (the running
    mean of BatchNorm in training mode) is an output like any other, called `new_<buffer>`; `updates` pairs the name
    of the buffer with that of the output. `masks` pairs every mask that the module draws, as dropout in training mode
    does, with the probability of a one: masks are inputs of dtype bool, the last ones, and are drawn with it.
    """

    inputs: tuple[TensorSpec, ...]
    parameters: tuple[TensorSpec, ...]
    buffers: tuple[TensorSpec, ...]
    constants: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[TensorSpec, Ref], ...]
    updates: tuple[tuple[str, str], ...] = ()
    masks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        last = self.inputs[len(self.inputs) - len(self.masks) :]
        due = [(name, "bool") for name, keep in self.masks if 0.0 < keep < 1.0]
        if [(spec.name, spec.dtype) for spec in last] != due:
            raise ValueError(f"masks are the last inputs, boolean, and left to chance: {self.masks} of {last}")

    @property
    def given(self) -> tuple[TensorSpec, ...]:
        """The inputs that forward takes: all but the masks, which the module draws itself."""
        return self.inputs[: len(self.inputs) - len(self.masks)]

    @property
    def arguments(self) -> tuple[TensorSpec, ...]:
        """Everything that a program may read: inputs, then parameters, buffers and constants."""
        return self.inputs + self.parameters + self.buffers + self.constants

    @property
    def results(self) -> tuple[TensorSpec, ...]:
        """Everything that a program must write."""
        return tuple(spec for spec, _ in self.outputs)

    def spec_of(self, ref: Ref) -> TensorSpec:
        """Return the shape and dtype of what `ref` names. Raises KeyError if there is no such tensor."""
        for spec in self.arguments:
            if spec.name == ref.name:
                return spec
        for node in self.nodes:
            if node.name == ref.name:
                spec_or_none = node.outputs[ref.index]
                if spec_or_none is not None:
                    return spec_or_none
        raise KeyError(ref.name)

    @property
    def key(self) -> str:
        """Hash of the whole graph."""
        content = asdict(self)
        if not self.masks:
            # Graphs keep the keys that archives know them by, from before there were masks.
            del content["masks"]
        return digest("graph", json.dumps(content, sort_keys=True))


@dataclass(frozen=True, slots=True)
class Tolerance:
    """When is an output right? Within `factor` times eager PyTorch's own error against float64, plus a floor.

    `factor` multiplies the error that eager PyTorch makes on the same inputs; `floor_ulps` is added in units in the
    last place of the output's dtype. `matmul_tf32` and `conv_tf32` say which reduced precision the task allows.
    """

    factor: float = 2.0
    floor_ulps: float = 4.0
    matmul_tf32: bool = False
    conv_tf32: bool = True


@dataclass(frozen=True, eq=False)
class Task:
    """A module, its functional form, its state, and how its inputs are drawn.

    `source` is the text of the file that defines the module (for a live module, of its functional form), `origin` a
    name to show. `state` holds the module's own parameters, buffers and lifted constants by their names in `graph`.
    `examples` are the inputs that the task itself drew first, by name, without large ones that it drew on a GPU.
    `module_inputs` tells whether `source` can draw more of them (it defines `get_inputs`). `lines` are the lines of
    `source` that nodes come from, where known.
    """

    name: str
    origin: str
    source: str
    functional_source: str
    graph: Graph
    state: Mapping[str, torch.Tensor]
    examples: Mapping[str, torch.Tensor]
    module_inputs: bool
    tolerance: Tolerance = field(default_factory=Tolerance)
    lines: Mapping[str, int] = field(default_factory=frozen)

    @property
    def key(self) -> str:
        """Hash of what must be computed and how it is judged; not of the values of parameters."""
        return digest("task", self.graph.key, json.dumps(asdict(self.tolerance), sort_keys=True))

    @property
    def restrictions(self) -> tuple[str, ...]:
        """What a reader must know where a program is compared with the module: in which way they are not the same."""
        if not self.graph.masks:
            return ()
        same = self.source == self.functional_source
        theirs = "so does the baseline" if same else "the baseline draws its own numbers"
        return (f"dropout masks are inputs: the candidate reads them, one byte an element; {theirs}",)


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """What the judge, the bound and the estimate need to know of a GPU. Peaks are datasheet figures.

    `memory_bandwidth`, `l2_bandwidth` in bytes/s; `clock` in Hz (boost); `fp32_flops` counts a fused multiply-add as
    two; `source` says where the figures come from.
    """

    name: str
    compute_capability: tuple[int, int]
    sm_count: int
    clock: float
    memory_bytes: int
    memory_bandwidth: float
    l2_bytes: int
    l2_bandwidth: float
    fp32_flops: float
    tf32_flops: float
    half_flops: float
    fp64_flops: float
    shared_per_sm: int
    shared_per_block: int
    registers_per_sm: int
    threads_per_sm: int
    blocks_per_sm: int
    source: str


@dataclass(frozen=True, slots=True)
class Bound:
    """Speed of light: the least that any program for the task must move and compute, and the time that takes.

    `bytes_read` and `bytes_written` count each input read once and each output written once; `operations` counts
    floating-point operations; `limit` names what binds.
    """

    bytes_read: int
    bytes_written: int
    operations: int
    device: str
    seconds: float
    limit: Literal["memory", "arithmetic"]


# ------------------------------------------------------------------------------------------------------------- program


@dataclass(frozen=True, slots=True)
class Buffer:
    """Scratch memory of a plan, undefined at the start of every call. `shape` holds expressions."""

    name: str
    shape: tuple[str, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch of a plan. Everything but names is an expression over symbols, tunables and the device.

    One that may `overlap` begins before the launch before it has ended (programmatic dependent launch): its kernel must
    execute `griddepcontrol.wait` before it touches global memory or ends.
    """

    kernel: str
    grid: tuple[str, ...]
    block: tuple[str, ...]
    args: tuple[str, ...]
    shared: str = "0"
    cluster: tuple[str, ...] = ()
    cooperative: bool = False
    max_registers: int | None = None
    overlap: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A tensor or buffer of a plan as a library call sees it: as it is, or with a shape of its own.

    `shape`, `strides` and `offset` are expressions, the latter two in elements. No shape means the tensor's own, no
    strides mean row-major order.
    """

    tensor: str
    shape: tuple[str, ...] = ()
    strides: tuple[str, ...] = ()
    offset: str = "0"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a library operator, such as `aten.mm`, from the allow-list of `warpsmith.program.library`.

    It reads `args`, in the order of the operator's schema, and writes `out`. `options` maps names to lists of
    expressions. `after` says how many launches come before it; calls with the same number run in their own order.
    """

    op: str
    args: tuple[View, ...]
    out: View
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    after: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a program's kernels are launched. See docs/program.md for the text form.

    `symbols` maps names to expressions; `tunables` maps names to the values they may take, the default first;
    `flags` are compiler flags from the allow-list of `warpsmith.program.flags`. A plan with `calls` is hybrid.
    """

    symbols: tuple[tuple[str, str], ...]
    tunables: tuple[tuple[str, tuple[int, ...]], ...]
    buffers: tuple[Buffer, ...]
    launches: tuple[Launch, ...]
    flags: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()

    @property
    def steps(self) -> tuple[Launch | Call, ...]:
        """Launches and calls in the order in which they run."""
        return _in_order(self.launches, self.calls)

    @property
    def pure(self) -> bool:
        """Whether our kernels do all of the work."""
        return not self.calls

    @property
    def defaults(self) -> Mapping[str, int]:
        """The default value of every tunable."""
        return frozen({name: values[0] for name, values in self.tunables})


@dataclass(frozen=True, slots=True)
class Program:
    """CUDA device code plus a launch plan: pure data, no host code."""

    source: str
    plan: Plan

    @property
    def key(self) -> str:
        """Hash of source and plan."""
        plan = asdict(self.plan)
        if not self.plan.calls:
            # Pure programs keep the keys that archives know them by, from before there were calls.
            del plan["calls"]
        for launch in plan["launches"]:
            if not launch["overlap"]:
                # Likewise, from before launches could overlap.
                del launch["overlap"]
        return digest("program", self.source, json.dumps(plan, sort_keys=True))


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a candidate comes from. `recipe` is the built-in author's genome as JSON text; `cost_usd` is money."""

    author: str
    operator: str
    parents: tuple[str, ...] = ()
    generation: int = 0
    recipe: str | None = None
    prompt: str | None = None
    reply: str | None = None
    note: str = ""
    cost_usd: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program with one value for every tunable, for one task."""

    task_key: str
    program: Program
    tunables: tuple[tuple[str, int], ...]
    lineage: Lineage

    def __post_init__(self) -> None:
        declared = dict(self.program.plan.tunables)
        given = dict(self.tunables)
        if set(declared) != set(given):
            raise ValueError(f"tunables given {sorted(given)}, declared {sorted(declared)}")
        for name, value in given.items():
            if value not in declared[name]:
                raise ValueError(f"tunable {name} = {value} is not one of {list(declared[name])}")

    @property
    def key(self) -> str:
        """Hash of task, program and tunables: two candidates with one key are duplicates, whoever wrote them."""
        return digest("candidate", self.task_key, self.program.key, json.dumps(sorted(self.tunables)))


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What the compiler reports of one kernel. All but `registers` in bytes."""

    name: str
    registers: int
    spill_stores: int
    spill_loads: int
    shared: int
    stack: int


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A compiler message with its place in the device code (1-based; 0 where the compiler gave none)."""

    severity: Literal["error", "warning"]
    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class Build:
    """A program compiled with one set of tunables for one architecture. `ok` is false where the compiler refused."""

    key: str
    architecture: str
    ok: bool
    ptx: str
    cubin: bytes
    resources: tuple[KernelResources, ...]
    diagnostics: tuple[Diagnostic, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class BoundLaunch:
    """A launch with every expression evaluated. An argument is the name of a tensor or buffer, or an integer."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    args: tuple[str | int, ...]
    cluster: tuple[int, int, int] = (1, 1, 1)
    cooperative: bool = False
    overlap: bool = False


@dataclass(frozen=True, slots=True)
class BoundView:
    """A view with every expression evaluated. `strides` and `offset` are in elements; it lies within its tensor."""

    tensor: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class BoundCall:
    """A call with every expression evaluated, and a value for every option.

    All its tensors are of `dtype`. `tf32` says whether float32 products may be rounded to TF32, which is the task's
    decision. `after` is as in `Call`.
    """

    op: str
    args: tuple[BoundView, ...]
    out: BoundView
    options: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str
    tf32: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True)
class BoundPlan:
    """A plan for given shapes, tunables and device: scratch buffers with their shapes, launches and calls in order."""

    buffers: tuple[TensorSpec, ...]
    launches: tuple[BoundLaunch, ...]
    calls: tuple[BoundCall, ...] = ()

    @property
    def steps(self) -> tuple[BoundLaunch | BoundCall, ...]:
        """Launches and calls in the order in which they run."""
        return _in_order(self.launches, self.calls)


_Launch = TypeVar("_Launch", Launch, BoundLaunch)
_Call = TypeVar("_Call", Call, BoundCall)


def _in_order(launches: tuple[_Launch, ...], calls: tuple[_Call, ...]) -> tuple[_Launch | _Call, ...]:
    placed: list[tuple[int, int, _Launch | _Call]] = [(number, 0, each) for number, each in enumerate(launches, 1)]
    placed += [(call.after, 1, call) for call in calls]
    # The sort is stable: calls after the same launch keep their order.
    return tuple(step for _, _, step in sorted(placed, key=lambda step: step[:2]))


# ----------------------------------------------------------------------------------------------------------- execution

FindingKind = Literal[
    "out_of_bounds",
    "misaligned",
    "uninitialised",
    "shared_race",
    "global_race",
    "barrier_divergence",
    "budget",
    "trap",
    "invalid_launch",
    "out_of_memory",
    "runner_died",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a kernel did that it must not do, traced to its source line (1-based, 0 if unknown)."""

    kind: FindingKind
    kernel: str
    line: int
    message: str
    block: tuple[int, int, int] = (0, 0, 0)
    thread: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Counters:
    """What one launch did, summed over all threads unless a comment says otherwise.

    `instructions` counts thread-instructions by class: `fp32 fp64 fp16 int special convert control tensor shared
    global local atomic barrier shuffle other`. `issued` counts warp-instructions by the same classes: a diverged warp
    issues once for each path. Sectors are 32 bytes. `chained_reads` sums over all
    warps how many reads of global memory each waits for one after the other. `tensor` counts the multiply-adds of
    tensor cores by the operands' type, `tf32`, `f16` or `bf16` with float32 accumulators, `f16.f16` with float16 ones.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    instructions: tuple[tuple[str, int], ...]
    issued: tuple[tuple[str, int], ...]
    global_load_sectors: int
    global_store_sectors: int
    global_load_requests: int
    global_store_requests: int
    unique_load_bytes: int
    unique_store_bytes: int
    shared_wavefronts: int
    shared_requests: int
    local_bytes: int
    divergent_branches: int
    branches: int
    chained_reads: int = 0
    tensor: tuple[tuple[str, int], ...] = ()

    @property
    def thread_instructions(self) -> int:
        """All thread-instructions."""
        return sum(count for _, count in self.instructions)


@dataclass(frozen=True, slots=True)
class GpuState:
    """What the driver says of a GPU at one moment. Clocks in MHz, temperature in °C, power in W.

    `throttle` names the reasons why the clock is lower than it could be, such as `power cap`; idling is not one.
    """

    sm_clock: int
    memory_clock: int
    temperature: int
    power: float
    throttle: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one call of a whole plan takes, in seconds.

    `samples` are per call, `interval` a 95 % interval of the median. `source` tells a measurement on `device` from
    an estimate for it; the two are never mixed. `clocks` are the GPU's (SM, memory) in MHz where known, the medians of
    `states`, which logs it during the measurement. `clocks_of` holds what each of several clocks says of the same
    calls: `events` on the stream, device `activity`, the parent's `wall`.
    """

    samples: tuple[float, ...]
    median: float
    interval: tuple[float, float]
    source: Literal["measured", "estimated"]
    device: str
    clocks: tuple[int, int] | None = None
    states: tuple[GpuState, ...] = ()
    clocks_of: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (0.0 < low <= self.median <= high < math.inf):
            raise ValueError(f"not a timing: median {self.median}, interval {self.interval}")


Mode = Literal["eager", "compile", "max-autotune"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The task's own module, timed in one way: `eager`, `compile` or `max-autotune`, called or as a CUDA graph.

    Where the module cannot be run that way there is no timing, and `problem` says why.
    """

    mode: Mode
    graph: bool
    timing: Timing | None
    problem: str = ""

    def __post_init__(self) -> None:
        if (self.timing is None) == (not self.problem):
            raise ValueError("a baseline has either a timing or a problem")

    @property
    def name(self) -> str:
        """Mode, and how it is called."""
        return f"{self.mode} graph" if self.graph else self.mode


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against one baseline, timed in alternating blocks (ABBA).

    `ratio` is baseline time over candidate time, the median of the blocks' ratios: above 1 the candidate is faster.
    `interval` is its 95 % interval. `spread` is how far the baseline strays from itself: the upper end of the interval
    of its own ratio between neighbouring blocks, at least 1. A gain inside either is no gain.
    """

    baseline: str
    ratio: float
    interval: tuple[float, float]
    spread: float
    blocks: int

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (0.0 < low <= self.ratio <= high < math.inf and 1.0 <= self.spread < math.inf):
            raise ValueError(f"not a comparison: {self.ratio}, interval {self.interval}, spread {self.spread}")

    @property
    def gain(self) -> bool:
        """Whether the candidate is faster beyond doubt."""
        return self.interval[0] > 1.0 and self.ratio > self.spread


@dataclass(frozen=True, eq=False)
class Execution:
    """What a device says of one call of a program.

    `outputs` holds what stands in the output buffers, by name; `overwritten` the inputs that changed; `trampled` the
    buffers whose guard zones changed, `kept` the module's variables that the call left other than it found them. Where
    `findings` is not empty the outputs may be incomplete.
    """

    outputs: Mapping[str, torch.Tensor]
    overwritten: tuple[str, ...]
    trampled: tuple[str, ...]
    findings: tuple[Finding, ...]
    counters: tuple[Counters, ...]
    seconds: float
    kept: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------- verdict


class Stage(IntEnum):
    """The judge's stages, in order. The first failure ends."""

    SCREEN = 1
    BUILD = 2
    RUN = 3
    NUMERICS = 4
    PROBES = 5
    SANITIZE = 6
    TIME = 7
    PROFILE = 8


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first wrong element of an output: where, what was due, what came."""

    output: str
    index: tuple[int, ...]
    expected: float
    got: float
    wrong: int
    total: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate was stopped. `reason` is a short code such as `wrong_value`, `message` a sentence for people."""

    stage: Stage
    reason: str
    message: str
    family: str | None = None
    seed: int | None = None
    mismatch: Mismatch | None = None
    finding: Finding | None = None
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """How one input family went: the scaled error of the candidate, of eager PyTorch, and the limit."""

    family: str
    seed: int
    error: float
    reference_error: float
    limit: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time goes. `bottleneck` is a named class; `advice` two or three sentences on what to try."""

    metrics: tuple[tuple[str, float], ...]
    bottleneck: str
    advice: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a candidate. Passed: no failure, and a timing. Failed: a failure, and no timing.

    `contained` is false where the candidate has host code, which could not be kept from everything. `sanitized` says
    which sanitizer looked at it: `simulator`, `compute-sanitizer` with the tools that ended in time; empty for nobody.
    """

    candidate_key: str
    task_key: str
    stage: Stage
    failure: Failure | None
    timing: Timing | None
    families: tuple[FamilyResult, ...] = ()
    resources: tuple[KernelResources, ...] = ()
    counters: tuple[Counters, ...] = ()
    profile: Profile | None = None
    seconds: tuple[tuple[str, float], ...] = ()
    contained: bool = True
    sanitized: str = ""
    library_share: float | None = None

    def __post_init__(self) -> None:
        if (self.failure is None) == (self.timing is None):
            raise ValueError("a verdict holds either a failure or a timing")
        if self.failure is not None and self.failure.stage != self.stage:
            raise ValueError(f"stopped at {self.failure.stage.name}, but says it reached {self.stage.name}")

    @property
    def passed(self) -> bool:
        """Whether every stage was passed."""
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate and its verdict."""

    candidate: Candidate
    verdict: Verdict

    @property
    def seconds(self) -> float:
        """Median time of one call; infinite where the candidate did not pass, so that sorting needs no cases."""
        return self.verdict.timing.median if self.verdict.timing else math.inf
