"""A contest: every arm searches every task, with the same budgets and the same seeds.

What makes it fair:

- Each search has the same seconds, candidates, US dollars, processes and memory, and the machine to itself.
- All arms get the same seeds. Where there is nothing to retrieve, an arm without retrieval does the very same search in
  the simulator. Where an operator is missing, all choices fall differently: with one seed that is luck.
- Each arm begins each repeat with the same archive, of which it has a copy, and does the tasks in the same order: what
  it found on one can be of use on the next. An arm without retrieval does not look.
- Programs that another arm has compiled are compiled again, so that who comes later gains no time.
- Arms take turns on each task, another one first each time, so that a machine that slows down slows all of them.

What is not covered: an arm that stops early, since nothing improves any more, has spent less than it might. Tasks that
stand early in the order find little to retrieve. What a coding agent has judged while it works on an answer counts in
seconds, not in candidates.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from warpsmith.bench.attempt import WORKER_MODULE, Limits, attempt, authors_environment
from warpsmith.bench.display import Watcher
from warpsmith.bench.entries import Entry
from warpsmith.bench.gpus import VISIBLE, Gpus, usable_gpus
from warpsmith.bench.interrupts import Interrupts
from warpsmith.bench.lanes import run_in_lanes
from warpsmith.bench.machine import this_machine
from warpsmith.bench.order import Order
from warpsmith.bench.row import GOES_ON, Machine
from warpsmith.bench.run import NO_GPU
from warpsmith.contest.arms import Arm
from warpsmith.contest.folder import Contest, ContestFolder, load_contest
from warpsmith.contest.gains import trial_of
from warpsmith.contest.lanes import Lane, keep_given
from warpsmith.contest.plan import Rules, Search, record_of, refuse_same_tasks, schedule
from warpsmith.device.choose import choose
from warpsmith.errors import SettingsError
from warpsmith.nursery import Nursery
from warpsmith.records import digest
from warpsmith.settings import Settings


def run_contest(
    suite: str | Path,
    entries: Sequence[Entry],
    arms: Sequence[Arm],
    folder: str | Path,
    settings: Settings,
    watcher: Watcher,
    rules: Rules | None = None,
    machine: Machine | None = None,
) -> Contest:
    """Run all searches that `folder` has no row of yet, and return the contest as the folder then tells of it.

    A later call may ask for more repeats. Ctrl-C raises KeyboardInterrupt; of the search under way nothing is kept, and
    a later call begins it anew. Call it from the main thread for that.

    Raises SettingsError for an unknown device, an author that cannot be asked, tasks with the same text, and a folder
    that holds another contest or cannot be written; ArchiveError where an archive cannot be opened.
    """
    rules = rules or Rules()
    refuse_same_tasks(entries)
    _try_authors(arms, settings)
    choice = choose(settings.device, simulate=settings.simulate)
    record = record_of(suite, entries, arms, choice, settings, rules, machine or this_machine())
    gpus = Gpus(usable_gpus(choice, os.environ.get(VISIBLE)))
    with ContestFolder(folder, record) as opened:
        with opened.session(), watcher, Nursery(WORKER_MODULE, NO_GPU) as nursery:
            searches = list(schedule(arms, entries, rules.repeats, settings.seed))
            _run(searches, _Going(opened, settings, watcher, rules, gpus, nursery))
        return load_contest(opened.path)


class _AtOnce(Interrupts):
    """Ctrl-C ends the contest: a search that was cut short would have had less than the others."""

    def pressed(self) -> None:
        self.over = True


def _run(searches: Sequence[Search], going: _Going) -> None:
    done = going.folder.trials
    known = [replace(done[each.place].row, name=each.label) for each in searches if each.place in done]
    waiting = [each for each in searches if each.place not in done]
    going.watcher.begin(len(searches), known)
    if waiting and going.rules.worker == going.nursery.command:
        going.nursery.prepare()  # Here, where Ctrl-C ends the wait.
    run_in_lanes(waiting, 1, going.do, going.interrupts)


class _Going:
    """A contest that is going on, one search at a time."""

    def __init__(
        self, folder: ContestFolder, settings: Settings, watcher: Watcher, rules: Rules, gpus: Gpus, nursery: Nursery
    ) -> None:
        self.folder, self.settings, self.watcher, self.rules, self.nursery = folder, settings, watcher, rules, nursery
        self.interrupts = _AtOnce()
        self._gpus = gpus
        self._given = keep_given(rules.archive_from, folder.path)
        self._limits = Limits(settings.budget + rules.grace, rules.memory)

    def do(self, search: Search) -> None:
        """Do one search to its end, and keep what it found."""
        settings = search.arm.settings(self.settings)
        lane = Lane(self.folder.path / _slug(search.arm.name) / f"seed-{search.seed}", self._given)
        before, archive = lane.before(search.number), lane.begin(search.number)
        self.watcher.start(search.label)
        with self._gpus.one() as gpu:
            row = attempt(
                self._order(search, settings, lane, archive),
                self.folder.record.device,
                self._limits,
                lambda text: self.watcher.note(search.label, text),
                self.interrupts,
                self.rules.worker,
                {**authors_environment(settings), **gpu},
                self.nursery.start,
            )
        if row is None:
            return
        if search.number == 0 and GOES_ON in row.marks:
            raise SettingsError(
                f"{self.rules.archive_from} has programs for {search.entry.name} already, so that there is nothing to "
                "compare; begin with another archive, in another folder"
            )
        self.folder.add(trial_of(search.arm.name, search.repeat, search.seed, row, before, archive))
        lane.finish(search.number, last=search.number + 1 == len(self.folder.record.tasks))
        self.watcher.finish(replace(row, name=search.label))

    def _order(self, search: Search, settings: Settings, lane: Lane, archive: Path) -> Order:
        """Say what to do. The process of a search works from another folder, so every path is an absolute one."""
        arm, entry = search.arm, search.entry
        own = {"archive": str(archive), "cache": lane.cache, "out": lane.folder / "results", "seed": search.seed}
        return Order(
            name=entry.name,
            target=entry.target,
            source_hash=entry.source_hash,
            fingerprint=self.folder.record.fingerprint,
            settings=settings.model_copy(update=own).model_dump_json(),
            results=str(lane.folder / "results" / entry.name.replace(":", "-")),
            level=entry.level,
            number=entry.number,
            memory=self.rules.memory,
            baselines=(),
            builtin=arm.builtin,
            retrieve=arm.retrieval,
            without=arm.without,
        )


def _slug(name: str) -> str:
    """A name as a folder: names that differ in signs alone differ by their hash."""
    plain = "".join(sign if sign.isalnum() or sign in "+-." else "_" for sign in name)
    return plain if plain == name else f"{plain}-{digest('arm', name)[:6]}"


def _try_authors(arms: Sequence[Arm], settings: Settings) -> None:
    """Raise SettingsError where a model or the agent cannot be asked, before an hour has gone by without it."""
    if any(arm.models or arm.agent for arm in arms):
        from warpsmith.server.authors import all_authors

        for arm in arms:
            all_authors(arm.settings(settings))
