"""What a contest is going to do: its rules, its searches in their order, and the record of what it compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpsmith.bench.attempt import WORKER
from warpsmith.bench.entries import Entry
from warpsmith.bench.order import now
from warpsmith.bench.regime import regime
from warpsmith.bench.row import Machine, RunRecord, Session
from warpsmith.bench.run import GRACE, RECORDED
from warpsmith.contest.arms import Arm
from warpsmith.contest.folder import ARMS
from warpsmith.device.choose import Choice
from warpsmith.errors import SettingsError
from warpsmith.records import digest
from warpsmith.settings import Settings

_OF_AUTHORS = (
    "max_usd",
    "model_timeout",
    "model_prompt_tokens",
    "model_reply_tokens",
    "requests_per_minute",
    "agent_command",
    "agent_seconds",
)
"""What changes the answers of models and agents, beside the settings that change any run."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a contest goes about its searches.

    Each task is searched `repeats` times by each arm, with seeds that follow that of the settings. `archive_from` is
    the archive that all arms begin with, a file; None is an empty one. `grace` is in seconds, added to the budget of a
    search for loading and closing; `memory` in bytes for the processes of one search, None is no limit. `command` is
    kept in the record; `worker` is the command that does one search.
    """

    repeats: int = 3
    archive_from: str | None = None
    grace: float = GRACE
    memory: int | None = None
    command: tuple[str, ...] = ()
    worker: tuple[str, ...] = WORKER

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"{self.repeats} repeats of a contest are none")


@dataclass(frozen=True, slots=True)
class Search:
    """One search to do: who, with which seed, and which task, the `number`-th of its lane."""

    arm: Arm
    repeat: int
    number: int
    entry: Entry
    seed: int

    @property
    def place(self) -> tuple[str, int, str]:
        """Which search it is, as `Trial.place` says it."""
        return self.arm.name, self.repeat, self.entry.name

    @property
    def label(self) -> str:
        """What to call it in a line."""
        return f"{self.entry.name}, {self.arm.name}, seed {self.seed}"


def schedule(arms: Sequence[Arm], entries: Sequence[Entry], repeats: int, seed: int) -> Iterator[Search]:
    """Yield all searches in their order: arms take turns on a task, another one first each time."""
    for repeat in range(repeats):
        for number, entry in enumerate(entries):
            for turn in range(len(arms)):
                arm = arms[(turn + number + repeat) % len(arms)]
                yield Search(arm, repeat, number, entry, seed + repeat)


def record_of(
    suite: str | Path,
    entries: Sequence[Entry],
    arms: Sequence[Arm],
    choice: Choice,
    settings: Settings,
    rules: Rules,
    machine: Machine,
) -> RunRecord:
    """Return the record of a contest. Two whose fingerprints differ ask different things; more repeats ask the same."""
    given = str(Path(rules.archive_from).expanduser().absolute()) if rules.archive_from else "none"
    return RunRecord(
        suite=str(Path(suite).absolute()),
        regime=regime(entries),
        device=choice.spec.name,
        settings=(
            ("timing", "measured" if choice.measures else "estimated"),
            (ARMS, "\n".join(f"{arm.name}\t{arm.spec}" for arm in arms)),
            ("tasks", ", ".join(entry.name for entry in entries)),
            ("texts of the tasks", digest("texts", *(entry.source_hash for entry in entries))),
            ("archive from", given),
            *((name, str(getattr(settings, name))) for name in (*RECORDED, *_OF_AUTHORS)),
        ),
        machine=machine,
        tasks=tuple(entry.name for entry in entries),
        sessions=(Session(rules.command, now()),),
    )


def refuse_same_tasks(entries: Sequence[Entry]) -> None:
    """Raise SettingsError for two tasks with one text: the second would go on from the first in every arm."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.source_hash in seen:
            raise SettingsError(f"{seen[entry.source_hash].name} and {entry.name} are the same text; leave one out")
        seen[entry.source_hash] = entry
