"""The ancestry of the winner as a drawing: a column for each step from the first ancestors to the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.explore.words import duration
from warpsmith.records import Judged

BOX_WIDTH, BOX_HEIGHT = 168.0, 62.0
_GAP_X, _GAP_Y, _MARGIN = 52.0, 18.0, 4.0


@dataclass(frozen=True, slots=True)
class Box:
    """A candidate at (x, y), its upper left corner. `title` is shown on hovering."""

    x: float
    y: float
    key: str
    operator: str
    author: str
    outcome: str
    title: str
    winner: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """Boxes, and curves as SVG paths from parent to child, in a drawing of `width` by `height`."""

    boxes: tuple[Box, ...]
    curves: tuple[str, ...]
    width: float
    height: float


def draw_tree(lineage: Sequence[Judged]) -> Tree:
    """Lay out candidates that stand after their ancestors, the winner last, as `Archive.lineage` gives them."""
    places = _places(lineage)
    tallest = max((row for _, row in places.values()), default=0) + 1
    columns = max((column for column, _ in places.values()), default=0) + 1
    heights = [sum(column == each for column, _ in places.values()) for each in range(columns)]

    def corner(key: str) -> tuple[float, float]:
        column, row = places[key]
        centred = (tallest - heights[column]) * (BOX_HEIGHT + _GAP_Y) / 2
        return _MARGIN + column * (BOX_WIDTH + _GAP_X), _MARGIN + centred + row * (BOX_HEIGHT + _GAP_Y)

    curves = [
        _curve(corner(parent), corner(judged.candidate.key))
        for judged in lineage
        for parent in judged.candidate.lineage.parents
        if parent in places
    ]
    boxes = [_box(judged, corner(judged.candidate.key), judged is lineage[-1]) for judged in lineage]
    width = 2 * _MARGIN + columns * BOX_WIDTH + (columns - 1) * _GAP_X
    height = 2 * _MARGIN + tallest * BOX_HEIGHT + (tallest - 1) * _GAP_Y
    return Tree(tuple(boxes), tuple(curves), width, height)


def _places(lineage: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """Return column and row of each candidate: one column right of its rightmost parent, beside the parents' rows."""
    columns: dict[str, int] = {}
    for judged in lineage:
        parents = [columns[parent] for parent in judged.candidate.lineage.parents if parent in columns]
        columns[judged.candidate.key] = max(parents, default=-1) + 1
    places: dict[str, tuple[int, int]] = {}
    for column in range(max(columns.values(), default=-1) + 1):
        members = [judged for judged in lineage if columns[judged.candidate.key] == column]
        members.sort(key=lambda judged: _mean_row(judged, places))
        places |= {judged.candidate.key: (column, row) for row, judged in enumerate(members)}
    return places


def _mean_row(judged: Judged, places: dict[str, tuple[int, int]]) -> float:
    rows = [places[parent][1] for parent in judged.candidate.lineage.parents if parent in places]
    return sum(rows) / len(rows) if rows else 0.0


def _curve(parent: tuple[float, float], child: tuple[float, float]) -> str:
    x1, y1 = parent[0] + BOX_WIDTH, parent[1] + BOX_HEIGHT / 2
    x2, y2 = child[0], child[1] + BOX_HEIGHT / 2
    bend = _GAP_X / 2
    return f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"


def _box(judged: Judged, corner: tuple[float, float], winner: bool) -> Box:
    lineage, failure = judged.candidate.lineage, judged.verdict.failure
    tunables = ", ".join(f"{name} = {value}" for name, value in judged.candidate.tunables)
    return Box(
        x=corner[0],
        y=corner[1],
        key=judged.candidate.key[:8],
        operator=lineage.operator,
        author=lineage.author,
        outcome=failure.reason.replace("_", " ") if failure else duration(judged.seconds),
        title="\n".join(part for part in (f"generation {lineage.generation}", tunables, lineage.note) if part),
        winner=winner,
    )
