"""Shows a run while it goes on: a live panel on a terminal, a line for each task elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
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


class Watcher:
    """Is told what happens in a run, and keeps count. This one shows nothing. Use with `with`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = 0
        self.known = 0
        self.rows: list[Row] = []
        self.current = ""
        self.said = ""
        self.began = self.started = time.monotonic()

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to give back."""

    def begin(self, total: int, known: Sequence[Row]) -> None:
        """There are `total` tasks, of which `known` were done by an earlier call."""
        self.total, self.known, self.rows = total, len(known), list(known)

    def start(self, name: str) -> None:
        """A task begins."""
        self.current, self.said, self.started = name, "", time.monotonic()

    def note(self, text: str) -> None:
        """The task under way says how it goes."""
        self.said = text

    def finish(self, row: Row) -> None:
        """A task has come to an end."""
        self.rows.append(row)
        self.current = ""

    def skip(self, name: str) -> None:
        """The user ended a task before anything passed; it has no row."""
        self.current = ""

    @property
    def remaining(self) -> float | None:
        """Seconds that the tasks still to do take, if they take as long as those done in this call; None before."""
        done = len(self.rows) - self.known
        waiting = self.total - len(self.rows)
        return (time.monotonic() - self.began) / done * waiting if done else None


class PlainWatcher(Watcher):
    """One line for each task that came to an end, for logs and pipes."""

    def begin(self, total: int, known: Sequence[Row]) -> None:
        """Say how much there is to do."""
        super().begin(total, known)
        done = f", {len(known)} of them done already" if known else ""
        self._print(f"{total} tasks{done}")

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

    def __init__(self, console: Console) -> None:
        super().__init__(console)
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
        grid.add_row("tasks", self._bar())
        grid.add_row("ended", _counts(self.rows))
        if self.current:
            waited = clock(time.monotonic() - self.started)
            grid.add_row("now", Text(f"{self.current}  {waited}  {self.said}"))
        for row in self.rows[-_LAST:]:
            grid.add_row("", Text(f"{row.name}: {describe(row)}"[:_LINE], style="" if row.passed else "yellow"))
        hint = Text("Ctrl-C ends this task, twice the run", style="dim")
        return Group(Text("warpsmith bench", style="bold"), grid, hint)

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        left = "" if self.remaining is None else f"about {clock(self.remaining)} left"
        bar = ProgressBar(total=max(1, self.total), completed=len(self.rows), width=_BAR)
        grid.add_row(bar, Text(f"{len(self.rows)} of {self.total}  {left}"))
        return grid


def watcher_for(console: Console) -> Watcher:
    """Return the watcher that suits where `console` writes to."""
    return LiveWatcher(console) if console.is_terminal and not console.is_dumb_terminal else PlainWatcher(console)


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
