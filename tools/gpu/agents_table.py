"""What an archive says of tasks on which a built-in author and agents worked: best times, and who brought them down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from warpsmith.explore.words import duration, percent
from warpsmith.records import Bound, Judged

BUILTIN = "the built-in author"


@dataclass(frozen=True)
class Gain:
    """What came of one author's operator on a task: how often the best became better, and by which `factor` in all."""

    judged: int = 0
    passed: int = 0
    improved: int = 0
    factor: float = 1.0


@dataclass(frozen=True)
class Row:
    """A task: best times in seconds, infinite where nothing passed.

    `builtin` is the best of programs that the built-in author wrote, `agent` by the number of a generation the best of
    programs that agents wrote up to then; a program counts for whoever wrote it, whoever found its tunables.
    `baselines` are PyTorch's own times. `gains` are by author and operator.
    """

    name: str
    bound: Bound
    builtin: float
    agent: Mapping[int, float]
    gains: Mapping[str, Gain]
    baselines: Mapping[str, float] = field(default_factory=dict)


def row_of(
    name: str,
    bound: Bound,
    history: Sequence[Judged],
    author: str,
    generations: Mapping[int, int],
    baselines: Mapping[str, float],
) -> Row:
    """Return the row of a task from all that was judged, in order.

    `generations` says which number the archive gave to each generation of questions, by our own number of it.
    """
    writers: dict[str, Judged] = {}
    for judged in history:
        writers.setdefault(judged.candidate.program.key, judged)
    ours: list[tuple[int, float]] = []
    others = [math.inf]
    for judged in history:
        written = writers[judged.candidate.program.key].candidate.lineage
        if written.author == author:
            ours.append((written.generation, judged.seconds))
        else:
            others.append(judged.seconds)
    agent = {
        number: min((seconds for when, seconds in ours if when <= last), default=math.inf)
        for number, last in sorted(generations.items())
    }
    return Row(name, bound, min(others), agent, gains_of(history), baselines)


def gains_of(history: Iterable[Judged]) -> dict[str, Gain]:
    """Return for each author and operator what its candidates brought, each against the best before it.

    Where somebody only found tunables, the name says whose program it was.
    """
    best, gains, writers = math.inf, dict[str, Gain](), dict[str, str]()
    for judged in history:
        lineage = judged.candidate.lineage
        writer = writers.setdefault(judged.candidate.program.key, lineage.author)
        name = f"{lineage.author}, {lineage.operator}" + (f" of {writer}" if writer != lineage.author else "")
        before = gains.get(name, Gain())
        better = judged.seconds < best
        gains[name] = Gain(
            before.judged + 1,
            before.passed + judged.verdict.passed,
            before.improved + better,
            before.factor * (best / judged.seconds if better and math.isfinite(best) else 1.0),
        )
        best = min(best, judged.seconds)
    return gains


def render(rows: Sequence[Row], source: str) -> str:
    """Return both tables as Markdown. `source` says where the times come from."""
    numbers = sorted({number for row in rows for number in row.agent})
    head = ["task", "speed of light", "eager", "best baseline", BUILTIN, *(f"agents, {n}" for n in numbers), "best"]
    lines = [f"Times {source}.", "", _line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
    for row in rows:
        best = min(row.builtin, *row.agent.values()) if row.agent else row.builtin
        eager, least = row.baselines.get("eager", math.inf), min(row.baselines.values(), default=math.inf)
        times = [eager, least, row.builtin, *(row.agent.get(number, math.inf) for number in numbers)]
        lines.append(
            _line([row.name, duration(row.bound.seconds), *(duration(time) for time in times), _against(row, best)])
        )
    lines += ["", _line(["task", "author, operator", "judged", "passed", "new best", "times as fast by it"])]
    lines.append(_line(["---", "---", "---:", "---:", "---:", "---:"]))
    for row in rows:
        for name, gain in sorted(row.gains.items(), key=lambda item: -item[1].factor):
            counts = (str(gain.judged), str(gain.passed), str(gain.improved))
            lines.append(_line([row.name, name, *counts, f"{gain.factor:.2f}"]))
    return "\n".join(lines) + "\n"


def _against(row: Row, best: float) -> str:
    """Say how the best compares with the built-in author, with eager PyTorch, and with the bound."""
    if not math.isfinite(best):
        return "–"
    parts = [f"{percent(row.bound.seconds / best)} of the bound"]
    if math.isfinite(row.builtin):
        parts.append(f"{row.builtin / best:.2f} x built-in")
    if "eager" in row.baselines:
        parts.append(f"{row.baselines['eager'] / best:.2f} x eager")
    return ", ".join(parts)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
