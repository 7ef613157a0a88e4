"""A run: tasks one after the other or several at once, each in a process of its own, each ending as a line."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpsmith.archive import Archive
from warpsmith.bench.attempt import WORKER, WORKER_MODULE, Limits, attempt, authors_environment
from warpsmith.bench.display import Watcher
from warpsmith.bench.entries import Entry
from warpsmith.bench.folder import ARCHIVE, RESULTS, Bench, BenchFolder, load_bench
from warpsmith.bench.gpus import VISIBLE, Gpus, usable_gpus
from warpsmith.bench.interrupts import Interrupts
from warpsmith.bench.lanes import run_in_lanes
from warpsmith.bench.machine import this_machine
from warpsmith.bench.order import Order, now
from warpsmith.bench.regime import regime
from warpsmith.bench.row import Machine, RunRecord, Session
from warpsmith.device.choose import choose
from warpsmith.nursery import Nursery
from warpsmith.records import MODES, Mode
from warpsmith.settings import Settings, usable_cores

GRACE = 600.0
"""Seconds that a task may take beyond its budget: loading, the last generation, measuring the baselines."""

RECORDED = ("hybrid", "seed", "budget", "max_candidates", "judge_limit", "confirm", "target_fraction", "workers")
"""The settings that change what a run finds. Where it is kept changes nothing."""
_THREADS = "OMP_NUM_THREADS"
NO_GPU = {VISIBLE: "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Has PyTorch say that there is no GPU without asking the driver. An export asks; who has asked cannot be forked."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run goes about its tasks.

    `at_once` tasks are under way at the same time. `grace` is in seconds, added to the budget of each task as many
    times as there are tasks at once, since they slow each other down. `memory` is in bytes for the processes of one
    task together; None is no limit. With `retry`, tasks that failed by fault of the machine are run again.
    `baselines` are the modes in which PyTorch is measured; where there are none, nothing is compared. `command` is
    kept in the record; `worker` is the command that does one task.
    """

    grace: float = GRACE
    memory: int | None = None
    retry: bool = False
    baselines: tuple[Mode, ...] = MODES
    command: tuple[str, ...] = ()
    worker: tuple[str, ...] = WORKER
    at_once: int = 1

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError(f"{self.at_once} tasks at once bring no run to an end")


def run_bench(
    suite: str | Path,
    entries: Sequence[Entry],
    folder: str | Path,
    settings: Settings,
    watcher: Watcher,
    options: Options | None = None,
    machine: Machine | None = None,
) -> Bench:
    """Run all `entries` that have no row yet, and return the run as the folder then tells of it.

    `suite` is what `entries` were discovered in, kept in the record. The archive of all searches and the results of
    each task lie in `folder` as well. Where tasks are measured each sees one GPU, that with the fewest tasks. Worker
    processes that `settings` do not say the number of, and threads, are divided among the tasks at once.

    Ctrl-C ends the tasks under way, and what they found counts; a second Ctrl-C before they have ended, or one between
    two tasks, raises KeyboardInterrupt, after which a later call goes on. Call it from the main thread for that.

    Raises SettingsError for an unknown device, or for a folder that holds another run or cannot be written, and
    ArchiveError where the archive cannot be opened.
    """
    options = options or Options()
    choice = choose(settings.device, simulate=settings.simulate)
    record = RunRecord(
        suite=str(Path(suite).absolute()),
        regime=regime(entries),
        device=choice.spec.name,
        settings=(
            ("timing", "measured" if choice.measures else "estimated"),
            ("compare", ", ".join(options.baselines) or "nothing"),
            *((name, str(getattr(settings, name))) for name in RECORDED),
        ),
        machine=machine or this_machine(),
        tasks=tuple(entry.name for entry in entries),
        sessions=(Session(options.command, now()),),
    )
    gpus = Gpus(usable_gpus(choice, os.environ.get(VISIBLE)))
    with BenchFolder(folder, record) as opened:
        with opened.session(), watcher, Nursery(WORKER_MODULE, NO_GPU) as nursery:
            _run(entries, _Going(opened, settings, watcher, options, gpus, nursery))
        return load_bench(opened.path)


def _run(entries: Sequence[Entry], going: _Going) -> None:
    # Where it cannot be opened the run ends here, not each of its tasks; and no two of these have to make it at once.
    Archive.open(going.folder.path / ARCHIVE).close()
    options = going.options
    known = {entry.name: going.folder.done(entry, retry=options.retry) for entry in entries}
    going.watcher.begin(len(entries), [row for row in known.values() if row is not None], options.at_once)
    waiting = [entry for entry in entries if known[entry.name] is None]
    if waiting and options.worker == going.nursery.command:
        going.nursery.prepare()  # Here, where Ctrl-C ends the wait.
    run_in_lanes(waiting, options.at_once, going.do, going.interrupts)


class _Going:
    """A run that is going on. Several threads `do` tasks; watcher and folder see one of them at a time."""

    def __init__(
        self,
        folder: BenchFolder,
        settings: Settings,
        watcher: Watcher,
        options: Options,
        gpus: Gpus,
        nursery: Nursery,
    ) -> None:
        self.folder, self.settings, self.watcher, self.options = folder, settings, watcher, options
        self.nursery = nursery
        self.interrupts = Interrupts()
        self._gpus = gpus
        self._limits = Limits(settings.budget + options.at_once * options.grace, options.memory)
        self._turn = threading.Lock()

    def do(self, entry: Entry) -> None:
        """Run one task to its end, and keep its row."""
        with self._turn:
            self.watcher.start(entry.name)
        if self.nursery.trouble:
            self._note(entry.name, f"starts slowly: {self.nursery.trouble.splitlines()[-1]}")
        with self._gpus.one() as gpu:
            row = attempt(
                self._order(entry),
                self.folder.record.device,
                self._limits,
                lambda text: self._note(entry.name, text),
                self.interrupts,
                self.options.worker,
                {**authors_environment(self.settings), **_threads(self.options.at_once), **gpu},
                self.nursery.start,
            )
        with self._turn:
            if row is not None:
                self.folder.add(row)
                self.watcher.finish(row)
            elif not self.interrupts.over:
                self.watcher.skip(entry.name)

    def _note(self, name: str, text: str) -> None:
        with self._turn:
            self.watcher.note(name, text)

    def _order(self, entry: Entry) -> Order:
        """Say what to do. The process of a task works from another folder, so every path is an absolute one."""
        place, settings, options = self.folder.path, self.settings, self.options
        own: dict[str, object] = {
            "archive": str(place / ARCHIVE),
            "out": (place / RESULTS).absolute(),
            "cache": settings.cache.absolute(),
        }
        if "workers" not in settings.model_fields_set:
            own["workers"] = max(1, settings.workers // options.at_once)
        return Order(
            name=entry.name,
            target=entry.target,
            source_hash=entry.source_hash,
            fingerprint=self.folder.record.fingerprint,
            settings=settings.model_copy(update=own).model_dump_json(),
            results=str(place / RESULTS / entry.name.replace(":", "-")),
            level=entry.level,
            number=entry.number,
            memory=options.memory,
            baselines=options.baselines,
        )


def _threads(at_once: int) -> Mapping[str, str]:
    """Divide the cores, where the user has not said how many threads there are to be."""
    if at_once == 1 or _THREADS in os.environ:
        return {}
    return {_THREADS: str(max(1, usable_cores() // at_once))}
