"""Shows a run while it goes on: a live panel on a terminal, plain lines elsewhere.

Both are observers: `optimize(..., observer=display)`. Use them with `with`, so that the terminal is given back.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from warpsmith.evolve.events import (
    BestImproved,
    CandidateJudged,
    Event,
    GenerationStarted,
    LessonLearnt,
    StageFinished,
    StageStarted,
    Stopped,
    TaskLoaded,
    Waiting,
)
from warpsmith.explore.tally import REASONS_SHOWN, Tally, counts, money
from warpsmith.explore.words import amount, best_line, clock, duration, percent, share

STAGES = ("functionalize", "translate", "evolve", "confirm", "archive")
ONLY_ON_GPU = "confirm"
PLAIN_EVERY = 10
_BAR = 28


class Display:
    """What both displays share: the tally of the run."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tally = Tally()
        self.started = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self.tally = self.tally.after(event)

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to give back."""

    @property
    def elapsed(self) -> float:
        """Seconds since the display was entered."""
        return time.monotonic() - self.started


class PlainDisplay(Display):
    """One line for each thing worth knowing, for logs and pipes."""

    def __call__(self, event: Event) -> None:
        """Take in one event and perhaps print a line."""
        super().__call__(event)
        line = self._line(event)
        if line:
            self.console.print(f"{self.elapsed:6.1f} s  {line}", highlight=False, markup=False, soft_wrap=True)

    def _line(self, event: Event) -> str:
        tally = self.tally
        match event:
            case TaskLoaded(bound=bound):
                return f"bound: {duration(bound.seconds)} on {bound.device}, limited by {bound.limit}"
            case StageStarted(stage=stage, detail=detail):
                return f"{stage}: {detail}" if detail else stage
            case StageFinished(stage=stage, seconds=seconds, detail=detail):
                return f"{stage} took {seconds:.1f} s" + (f": {detail}" if detail else "")
            case GenerationStarted(number=number) if number > 0:
                return f"generation {number}: {counts(tally)}"
            case BestImproved(judged=judged):
                return f"best: {best_line(judged, tally.bound)}"
            case LessonLearnt(lesson=lesson):
                return f"lesson: {lesson}"
            case Waiting(seconds=seconds):
                return f"nobody answers; waiting {seconds:.0f} s"
            case CandidateJudged(cached=False) if tally.judged % PLAIN_EVERY == 0:
                return counts(tally)
            case Stopped(reason=reason):
                return f"stopped: {reason}"
            case _:
                return ""


class LiveDisplay(Display):
    """A panel that is drawn anew four times a second and goes away at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, get_renderable=self.panel, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the terminal back."""
        self._live.stop()

    def panel(self) -> RenderableType:
        """Draw the run as it stands now."""
        tally = self.tally
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", justify="right")
        rows.add_column()
        rows.add_row("stage", _stages(tally))
        rows.add_row("candidates", _candidates(tally))
        if tally.failures:
            rows.add_row("failed for", _failures(tally))
        if tally.waiting:
            rows.add_row("waiting", Text(f"{tally.waiting:.0f} s, as nobody answers", style="yellow"))
        rows.add_row("best", _best(tally))
        rows.add_row("time", _time(self.elapsed, tally.limit))
        if spent := money(tally):
            rows.add_row("money", spent)
        return Group(Text(tally.task.name if tally.task else "warpsmith", style="bold"), rows)


def display_for(console: Console) -> Display:
    """Return the display that suits where `console` writes to."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


def _stages(tally: Tally) -> Text:
    """The stages in a row: done, running, to come. One of them there is only where times are measured."""
    done = {stage.name for stage in tally.finished}
    text = Text()
    for name in STAGES:
        if name == ONLY_ON_GPU and name not in done and name != tally.stage:
            continue
        style = "bold cyan" if name == tally.stage and name not in done else "green" if name in done else "dim"
        text.append(name, style=style).append("  ")
    if tally.generation:
        text.append(f"generation {tally.generation}", style="cyan")
    return text


def _candidates(tally: Tally) -> Text:
    text = Text(f"{tally.judged} judged  {tally.built} built  ")
    text.append(f"{tally.passed} passed", style="green").append("  ")
    text.append(f"{tally.failed} failed", style="red" if tally.failed else "")
    if tally.lost:
        text.append(f"  {tally.lost} lost by the machine", style="yellow")
    if tally.refused:
        text.append(f"  {tally.refused} answers without a program", style="yellow")
    if tally.passed_over:
        text.append(f"  {tally.passed_over} nothing new", style="dim")
    if tally.lessons:
        text.append(f"  {tally.lessons} lessons", style="dim")
    if tally.recalled:
        text.append(f"  {amount(tally.recalled)} known from the archive", style="dim")
    return text


def _failures(tally: Tally) -> Text:
    shown = [f"{reason.replace('_', ' ')} ×{count}" for reason, count in tally.failures[:REASONS_SHOWN]]
    rest = sum(count for _, count in tally.failures[REASONS_SHOWN:])
    return Text("  ".join(shown + ([f"other ×{rest}"] if rest else [])), style="red")


def _best(tally: Tally) -> RenderableType:
    if tally.best is None:
        return Text("none passed yet", style="dim")
    if tally.bound is None:
        return Text(best_line(tally.best, None))
    reached = share(tally.best.seconds, tally.bound)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(best_line(tally.best, None), style="bold"),
        ProgressBar(total=1.0, completed=min(1.0, reached), width=_BAR),
        Text(f"{percent(reached)} of the bound, {duration(tally.bound.seconds)}", style="dim"),
    )
    return grid


def _time(elapsed: float, limit: float | None) -> RenderableType:
    if limit is None:
        return Text(f"{clock(elapsed)} so far")
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        ProgressBar(total=limit, completed=min(limit, elapsed), width=_BAR), Text(f"{clock(limit - elapsed)} left")
    )
    return grid
