"""The worker process of the local executor: build a judge once, then answer one candidate at a time."""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from warpsmith.device.catalog import gpu
from warpsmith.device.simulator import Simulator
from warpsmith.errors import WarpsmithError
from warpsmith.judge import Judge
from warpsmith.program import Builder
from warpsmith.records import Candidate, Task, frozen

_TENSORS = ("state", "examples")


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker needs to build its judge. Without `cache_dir` builds are kept for this worker's life only."""

    task: Mapping[str, Any]
    gpu_name: str
    cache_dir: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker can judge."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker cannot judge: an unknown GPU, a task that cannot be used."""

    error: WarpsmithError


def pack_task(task: Task) -> dict[str, Any]:
    """Return a task as a plain dictionary that can be pickled: tensors as bytes, so that no memory is shared."""
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    for name in _TENSORS:
        written = io.BytesIO()
        torch.save({key: value.detach().clone() for key, value in fields[name].items()}, written)
        fields[name] = written.getvalue()
    return fields


def unpack_task(fields: Mapping[str, Any]) -> Task:
    """Return the task that `pack_task` took apart."""
    tensors = {name: frozen(torch.load(io.BytesIO(fields[name]), weights_only=True)) for name in _TENSORS}
    return Task(**{**fields, **tensors})


def serve(pipe: Connection, setup: WorkerSetup) -> None:
    """Answer candidates with verdicts until the other end closes."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="warpsmith-builds-") as temporary:
        cache = Path(setup.cache_dir) if setup.cache_dir is not None else Path(temporary)
        try:
            judge, builder = _judge(setup, cache)
        except WarpsmithError as error:
            pipe.send(Refused(error))
            return
        try:
            pipe.send(Ready())
            _answer(pipe, judge)
        finally:
            builder.close()


def _judge(setup: WorkerSetup, cache: Path) -> tuple[Judge, Builder]:
    spec = gpu(setup.gpu_name)
    builder = Builder(cache)
    return Judge(unpack_task(setup.task), Simulator(spec), builder, seed=setup.seed), builder


def _answer(pipe: Connection, judge: Judge) -> None:
    while True:
        try:
            candidate = pipe.recv()
        except EOFError:
            return
        pipe.send(_verdict(judge, candidate))


def _verdict(judge: Judge, candidate: Candidate) -> object:
    try:
        return judge.judge(candidate)
    except WarpsmithError as error:
        return error
