"""The worker process of the local executor: build a judge once, then answer one candidate at a time."""

from __future__ import annotations

import dataclasses
import os
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from warpsmith.device.choose import choose
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.errors import WarpsmithError
from warpsmith.judge import Judge
from warpsmith.program import Builder
from warpsmith.records import Task, frozen

_TENSORS = ("state", "examples")
_LAST_WORDS = 500


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker needs to build its judge. Without `cache_dir` builds are kept for this worker's life only.

    `simulate` keeps to the simulator even where the GPU is here; `workers` share a GPU's memory.
    `thorough` draws every input family and uses NVIDIA's tools.

    `task_file` is what `write_task` wrote. The task travels by file, because a pipe holds little: sending it would wait
    until the worker has started.
    """

    task_file: str
    gpu_name: str
    cache_dir: str | None
    seed: int
    simulate: bool = True
    workers: int = 1
    thorough: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can judge."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The worker has begun to wait for the GPU, which another process holds, or is done with it."""

    waiting: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker cannot judge: an unknown GPU, a task that cannot be used."""

    error: WarpsmithError


@dataclass(frozen=True, slots=True)
class Fallen:
    """The last word of a worker that PyTorch, or the memory of the machine, has failed."""

    text: str


def write_task(task: Task, path: Path) -> None:
    """Write a task to a file, and its tensors to others beside it."""
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    for name in _TENSORS:
        torch.save({key: _whole(value) for key, value in fields.pop(name).items()}, _beside(path, name))
    path.write_bytes(pickle.dumps(fields))


def read_task(path: Path) -> Task:
    """Return the task that `write_task` wrote. Its tensors are mapped: processes that read it share their memory."""
    fields = pickle.loads(path.read_bytes())
    for name in _TENSORS:
        fields[name] = frozen(torch.load(_beside(path, name), weights_only=True, mmap=True))
    return Task(**fields)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as its storage holds it; a copy where that holds more."""
    tensor = tensor.detach()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}-{name}.pt")


def serve(pipe: Connection, setup: WorkerSetup) -> None:
    """Answer candidates with verdicts until the other end closes."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="builds-", dir=Path(setup.task_file).parent) as temporary:
        cache = Path(setup.cache_dir) if setup.cache_dir is not None else Path(temporary)
        try:
            judge, builder = _judge(setup, cache, lambda waiting: pipe.send(Waits(waiting)))
        except WarpsmithError as error:
            pipe.send(Refused(error))
            return
        try:
            pipe.send(Ready())
            _answer(pipe, judge)
        finally:
            builder.close()


def _judge(setup: WorkerSetup, cache: Path, waits: Callable[[bool], None]) -> tuple[Judge, Builder]:
    builder = Builder(cache)
    device = choose(setup.gpu_name, simulate=setup.simulate).device(builder, shares=setup.workers)
    if isinstance(device, CudaDevice):
        device.waits = waits
    return Judge(
        read_task(Path(setup.task_file)),
        device,
        builder,
        seed=setup.seed,
        every_family=setup.thorough,
        thorough=setup.thorough,
    ), builder


def _answer(pipe: Connection, judge: Judge) -> None:
    while True:
        try:
            candidate = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(judge.judge(candidate))
        except WarpsmithError as error:
            pipe.send(error)
        except (RuntimeError, MemoryError) as error:
            # After an error of CUDA nothing in this process can be trusted any more.
            pipe.send(Fallen(" ".join(f"{type(error).__name__}: {error}".split())[:_LAST_WORDS]))
            raise
