"""A run: task after task, each in a process of its own, each ending as a line in the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from warpsmith.bench.attempt import WORKER, Limits, attempt
from warpsmith.bench.display import Watcher
from warpsmith.bench.entries import Entry
from warpsmith.bench.folder import ARCHIVE, RESULTS, Bench, BenchFolder, load_bench
from warpsmith.bench.machine import this_machine
from warpsmith.bench.order import Order, now
from warpsmith.bench.regime import regime
from warpsmith.bench.row import Machine, Row, RunRecord, Session
from warpsmith.device.choose import choose
from warpsmith.settings import Settings

GRACE = 600.0
"""Seconds that a task may take beyond its budget: loading, the last generation, measuring the baselines."""

_RECORDED = ("hybrid", "seed", "budget", "max_candidates", "judge_limit", "target_fraction", "workers")
"""The settings that change what a run finds. Where it is kept changes nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run goes about its tasks.

    `grace` is in seconds, added to the budget of each task. `memory` is in bytes for the processes of a task together;
    None is no limit. With `retry`, tasks that failed by fault of the machine are run again. Without `compare` no
    baseline is measured. `command` is kept in the record; `worker` is the command that does one task.
    """

    grace: float = GRACE
    memory: int | None = None
    retry: bool = False
    compare: bool = True
    command: tuple[str, ...] = ()
    worker: tuple[str, ...] = WORKER


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
    each task lie in `folder` as well. Ctrl-C ends the task under way, and what it found counts; a second Ctrl-C, or one
    between two tasks, raises KeyboardInterrupt, after which a later call goes on.

    Raises SettingsError for an unknown device, or for a folder that holds another run or cannot be written.
    """
    options = options or Options()
    choice = choose(settings.device, simulate=settings.simulate)
    record = RunRecord(
        suite=str(Path(suite).absolute()),
        regime=regime(entries),
        device=choice.spec.name,
        settings=(
            ("timing", "measured" if choice.measures else "estimated"),
            ("compare", str(options.compare)),
            *((name, str(getattr(settings, name))) for name in _RECORDED),
        ),
        machine=machine or this_machine(),
        tasks=tuple(entry.name for entry in entries),
        sessions=(Session(options.command, now()),),
    )
    with BenchFolder(folder, record) as opened:
        how = "failed"
        try:
            with watcher:
                _run(entries, opened, settings, watcher, options)
            how = "finished"
        except KeyboardInterrupt:
            how = "interrupted"
            raise
        finally:
            *earlier, last = opened.record.sessions
            ended = replace(last, ended=now(), how=how)
            opened.write_record(replace(opened.record, sessions=(*earlier, ended)))
        return load_bench(opened.path)


def _run(entries: Sequence[Entry], folder: BenchFolder, settings: Settings, watcher: Watcher, options: Options) -> None:
    known = {entry.name: folder.done(entry, retry=options.retry) for entry in entries}
    watcher.begin(len(entries), [row for row in known.values() if row is not None])
    limits = Limits(settings.budget + options.grace, options.memory)
    for entry in entries:
        if known[entry.name] is not None:
            continue
        watcher.start(entry.name)
        row = _one(entry, folder, settings, limits, watcher, options)
        if row is None:
            watcher.skip(entry.name)
        else:
            folder.add(row)
            watcher.finish(row)


def _one(
    entry: Entry, folder: BenchFolder, settings: Settings, limits: Limits, watcher: Watcher, options: Options
) -> Row | None:
    """Run one task. Its process works from another folder, so every path is an absolute one."""
    own = {
        "archive": str(folder.path / ARCHIVE),
        "out": (folder.path / RESULTS).absolute(),
        "cache": settings.cache.absolute(),
    }
    order = Order(
        name=entry.name,
        target=entry.target,
        source_hash=entry.source_hash,
        fingerprint=folder.record.fingerprint,
        settings=settings.model_copy(update=own).model_dump_json(),
        results=str(folder.path / RESULTS / entry.name.replace(":", "-")),
        level=entry.level,
        number=entry.number,
        memory=options.memory,
        compare=options.compare,
    )
    return attempt(order, folder.record.device, limits, watcher.note, options.worker)
