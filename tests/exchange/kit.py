"""A small task as a file, answers to put into folders, and a judge that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from tests.samples import failed, passed
from warpsmith.archive import Archive
from warpsmith.device.choose import Choice
from warpsmith.errors import MachineError
from warpsmith.exchange import tell
from warpsmith.judge import JUDGE_VERSION
from warpsmith.records import Candidate, Judged, Task, Verdict
from warpsmith.settings import Settings, load_settings
from warpsmith.task import load_task

SOFTMAX = Path(__file__).parents[2].joinpath("examples", "softmax.py").read_text().replace("128, 1000", "9, 300")

RELU = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)

def get_inputs():
    return [torch.randn(64, 128)]

def get_init_inputs():
    return []
"""
"""The module for which `tests.samples` has programs."""


def module_file(folder: Path, text: str = RELU, name: str = "relu.py") -> Path:
    """Write a module and return its file."""
    file = folder / name
    file.write_text(text)
    return file


def settings_in(folder: Path, **given: object) -> Settings:
    """Settings that keep everything in a folder, with one worker."""
    return load_settings(**{"archive": str(folder / "archive.db"), "cache": folder / "cache", "workers": 1, **given})


class Scripted:
    """Makes executors that say of a candidate what `says` does, and remember whom they were asked about."""

    def __init__(self, says: Callable[[Candidate], Verdict] = passed) -> None:
        self.says = says
        self.asked: list[str] = []

    def __call__(self, task: Task, choice: Choice, settings: Settings, thorough: bool) -> Scripted:
        return self

    async def judge(self, candidate: Candidate) -> Verdict:
        self.asked.append(candidate.key)
        await anyio.sleep(0)
        return self.says(candidate)

    def close(self) -> None:
        """Nothing to end."""


def by_variant(candidate: Candidate) -> Verdict:
    """Pass programs by the number in their source, the higher the faster; those with `wrong` in it fail."""
    source = candidate.program.source
    if "broken machine" in source:
        raise MachineError("the GPU fell off the bus")
    if "wrong" in source:
        return failed(candidate)
    number = int(source.rpartition("// variant ")[2] or 0) if "// variant " in source else 0
    return passed(candidate, 2e-6 / (1 + number))


class Stuck(Scripted):
    """Judges one candidate, and never comes to an end with the others."""

    async def judge(self, candidate: Candidate) -> Verdict:
        if self.asked:
            await anyio.sleep_forever()
        return await super().judge(candidate)


def tell_until_killed(folder: Path, settings: Settings, said: Connection) -> None:
    """Tell a generation, and say the key of the first candidate once its verdict is safe."""
    tell(folder, settings, watch=lambda progress: said.send(progress.candidate.key), make_executor=Stuck())


def fill(settings: Settings, file: Path, *judged: Judged) -> Task:
    """Put verdicts on the task of a file into the archive."""
    task = load_task(file)
    with Archive.open(settings.archive) as archive:
        run = archive.start_run(task, "{}")
        for each in judged:
            archive.add_candidate(run, each.candidate)
            archive.add_verdict(run, each.verdict, judge_version=JUDGE_VERSION, device="H200")
    return task


def on(task: Task, candidate: Candidate) -> Candidate:
    """The candidate for another task."""
    return replace(candidate, task_key=task.key)


def rows(settings: Settings) -> list[tuple[Candidate, Verdict]]:
    """All verdicts in an archive with what they are of, without the numbers that are its own."""
    with Archive.open(settings.archive, create=False) as archive:
        return [(judged.candidate, judged.verdict) for task in archive.tasks() for judged in archive.judged(task.key)]
