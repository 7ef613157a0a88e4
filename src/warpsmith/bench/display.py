"""Shows a run while it goes on: a live panel on a terminal, a line for each task elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from warpsmith.bench.row import STATUSES, Row
from warpsmith.explore.words import clock, duration, percent

_BAR = 28
_LAST = 6
_LINE = 160
_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Words:
    """What a display calls a run and what it is made of. `interrupt` says what Ctrl-C does, where it is always one."""

    title: str = "warpsmith bench"
    many: str = "tasks"
    interrupt: str = ""


@dataclass(slots=True)
class UnderWay:
    """A task that is being done: since when, by the clock that only goes forward, and what it said last."""

    name: str
    started: float
    said: str = ""

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started


BENCH = Words()


class Watcher:
    """Is told what happens in a run, by one thread at a time, and keeps count. This one shows nothing. Use with `with`.

    `under_way` has the tasks that are being done by name, in the order in which they began.
    """

    def __init__(self, console: Console, words: Words = BENCH) -> None:
        self.console, self.words = console, words
        self.total = 0
        self.at_once = 1
        self.rows: list[Row] = []
        self.under_way: dict[str, UnderWay] = {}
        self._waiting = 0
        self._took: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to give back."""

    def begin(self, total: int, known: Sequence[Row], at_once: int = 1) -> None:
        """There are `total` tasks, of which `known` were done by an earlier call; `at_once` are under way together."""
        self.total, self.at_once, self.rows = total, at_once, list(known)
        self._waiting = total - len(known)

    def start(self, name: str) -> None:
        """A task begins."""
        self._waiting -= 1
        self.under_way[name] = UnderWay(name, time.monotonic())

    def note(self, name: str, text: str) -> None:
        """A task under way says how it goes."""
        self.under_way[name].said = text

    def finish(self, row: Row) -> None:
        """A task has come to an end."""
        self._took.append(self.under_way.pop(row.name).age)
        self.rows.append(row)

    def skip(self, name: str) -> None:
        """The user ended a task before anything passed; it has no row."""
        del self.under_way[name]

    @property
    def remaining(self) -> float | None:
        """Seconds until the last task ends, if each takes as long as those done in this call on average; None before.

        Both what all lanes have to do together and what the longest task needs alone have to be waited for.
        """
        if not self._took:
            return None
        usual = sum(self._took) / len(self._took)
        left = [max(0.0, usual - task.age) for task in tuple(self.under_way.values())]
        return max((sum(left) + usual * self._waiting) / self.at_once, usual if self._waiting else 0.0, *left, 0.0)


class PlainWatcher(Watcher):
    """One line for each task that came to an end, for logs and pipes."""

    def begin(self, total: int, known: Sequence[Row], at_once: int = 1) -> None:
        """Say how much there is to do."""
        super().begin(total, known, at_once)
        done = f", {len(known)} of them done already" if known else ""
        together = f", {at_once} at once" if at_once > 1 else ""
        self._print(f"{total} {self.words.many}{done}{together}")

    def finish(self, row: Row) -> None:
        """Say what came of a task."""
        super().finish(row)
        self._print(f"{len(self.rows):>{len(str(self.total))}}/{self.total}  {row.name}: {describe(row)}")

    def skip(self, name: str) -> None:
        """Say that a task was left out."""
        super().skip(name)
        self._print(f"{name}: ended before anything passed; it is run again when the run goes on")

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class LiveWatcher(Watcher):
    """A panel that is drawn anew twice a second and goes away at the end."""

    def __init__(self, console: Console, words: Words = BENCH) -> None:
        super().__init__(console, words)
        self._live = Live(console=console, get_renderable=self.panel, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the terminal back."""
        self._live.stop()

    def panel(self) -> RenderableType:
        """Draw the run as it stands now."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right")
        grid.add_column()
        grid.add_row(self.words.many, self._bar())
        grid.add_row("ended", _counts(self.rows))
        for number, task in enumerate(tuple(self.under_way.values())):
            line = f"{task.name}  {clock(task.age)}  {task.said}"
            grid.add_row("" if number else "now", Text(line, no_wrap=True, overflow="ellipsis"))
        for row in self.rows[-_LAST:]:
            grid.add_row("", Text(f"{row.name}: {describe(row)}"[:_LINE], style="" if row.passed else "yellow"))
        hint = f"Ctrl-C ends {'this task' if self.at_once == 1 else 'these tasks'}, twice the run"
        return Group(Text(self.words.title, style="bold"), grid, Text(self.words.interrupt or hint, style="dim"))

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        left = "" if self.remaining is None else f"about {clock(self.remaining)} left"
        bar = ProgressBar(total=max(1, self.total), completed=len(self.rows), width=_BAR)
        grid.add_row(bar, Text(f"{len(self.rows)} of {self.total}  {left}"))
        return grid


def watcher_for(console: Console, words: Words = BENCH) -> Watcher:
    """Return the watcher that suits where `console` writes to."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveWatcher(console, words) if live else PlainWatcher(console, words)


def describe(row: Row) -> str:
    """Say in a line what came of a task."""
    if row.seconds is None:
        return f"{row.status.replace('_', ' ')}: {_first_words(row.message)}"
    where = "measured on" if row.timing == "measured" else "estimated for"
    parts = [f"{duration(row.seconds)} {where} {row.device}"]
    if row.share is not None:
        parts.append(f"{percent(row.share)} of the bound")
    parts += [f"{found.ratio:.2f}× {name}" for name in ("eager", "best") if (found := row.against(name)) is not None]
    parts += [part for part in (*row.marks, _first_words(row.message)) if part]
    return ", ".join(parts)


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE else line[: _MESSAGE - 1] + "…"


def _counts(rows: Sequence[Row]) -> Text:
    counts = Counter(row.status for row in rows)
    text = Text()
    for status in STATUSES:
        if counts[status]:
            style = "green" if status == "passed" else "yellow"
            text.append(f"{counts[status]} {status.replace('_', ' ')}  ", style=style)
    return text if text.plain else Text("none yet", style="dim")
