"""What the tools answer with. Times are in seconds; `words` says the same as the other fields, as Markdown."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["input", "parameter", "buffer", "constant", "output"]
Source = Literal["measured", "estimated"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tensor(_Answer):
    """A tensor of a task, by the name that plans use."""

    name: str
    role: Role
    shape: list[int]
    dtype: str


class ListedTask(_Answer):
    """A task. `task` is how to name it to the other tools; `judged` and `passed` count programs on the server's device.

    A task without a key was never loaded.
    """

    task: str
    name: str
    key: str | None = None
    judged: int = 0
    passed: int = 0
    best_seconds: float | None = None
    source: Source | None = None


class TaskList(_Answer):
    """All tasks: files first, then those that only the archive knows. Only files can be judged for."""

    device: str
    tasks: list[ListedTask]


class TaskPage(_Answer):
    """A task: what must be computed, on what, how exactly, and how fast it could be at best."""

    key: str
    name: str
    functional_source: str
    tensors: list[Tensor]
    device: str
    bound_seconds: float
    bound_limit: Literal["memory", "arithmetic"]
    words: str
    program_format: str


class Element(_Answer):
    """The first wrong element of an output, and how many are wrong."""

    output: str
    index: list[int]
    expected: float | str
    got: float | str
    wrong: int
    total: int


class Judgement(_Answer):
    """A verdict. Failed: `stage`, `reason` and `message`, with `line` of kernel.cu or `element` where known.

    Passed: `seconds` of one call, `source` says whether that was measured or estimated; `share_of_bound` is the part of
    the speed of light that it reaches. `known` says that it was judged before and nothing was done now.
    """

    candidate: str
    passed: bool
    known: bool
    words: str
    device: str
    stage: str
    reason: str | None = None
    message: str | None = None
    line: int | None = None
    element: Element | None = None
    seconds: float | None = None
    source: Source | None = None
    share_of_bound: float | None = None
    bottleneck: str | None = None
    advice: str | None = None


class KernelProfile(_Answer):
    """What one launch did: its shape, what the compiler gave it, and what the simulator counted where it ran."""

    kernel: str
    registers: int | None = None
    spilled_bytes: int | None = None
    static_shared_bytes: int | None = None
    grid: list[int] | None = None
    block: list[int] | None = None
    thread_instructions: int | None = None
    global_load_sectors: int | None = None
    global_store_sectors: int | None = None
    shared_wavefronts: int | None = None
    divergent_branches: int | None = None


class ProfilePage(_Answer):
    """Where the time of a program goes. `metrics` are those of the profiler that looked at it."""

    judgement: Judgement
    metrics: dict[str, float]
    kernels: list[KernelProfile]


class Found(_Answer):
    """A program in the archive. Its time compares with programs for the same task on the same device only."""

    candidate: str
    task: str
    task_name: str
    device: str
    seconds: float
    source: Source
    author: str
    note: str


class FoundList(_Answer):
    """What was found, the most telling first."""

    found: list[Found]


class CandidatePage(_Answer):
    """A program with where it comes from, and its latest verdict, if any."""

    candidate: str
    task: str
    kernel_cu: str
    plan_toml: str
    tunables: dict[str, int]
    author: str
    operator: str
    parents: list[str]
    generation: int
    note: str
    judgement: Judgement | None


class StandingPage(_Answer):
    """How a task stands on the server's device. `fastest` holds one program each, by ascending time."""

    task: str
    name: str
    device: str
    bound_seconds: float
    judged: int
    passed: int
    waiting: int
    fastest: list[Found]
    lessons: list[str]
    words: str
