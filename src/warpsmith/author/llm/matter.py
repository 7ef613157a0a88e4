"""What a prompt shows besides the task, and what of it goes first where there is too much."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from warpsmith.author.llm.words import line_of
from warpsmith.author.protocol import REPAIR, Context, Example
from warpsmith.records import Judged

MOST_PROGRAMS = 5
"""Programs that a crossing is shown."""

SHORTEST_SOURCE = 1500
"""Characters of a source below which it is not cut any further."""

_STEP = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Matter:
    """Programs from slow to fast, the one that matters most last; lessons and examples, the most telling first.

    At least `least` programs stay, whatever happens. A source has at most `source_limit` characters.
    """

    programs: tuple[Judged, ...]
    least: int
    lessons: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    source_limit: int = 1 << 62

    def less(self) -> Matter | None:
        """Return the next smaller matter: without the last example, lesson, or first program, with shorter sources.

        None where nothing more can be left out.
        """
        if self.examples:
            return replace(self, examples=self.examples[:-1])
        if self.lessons:
            return replace(self, lessons=self.lessons[:-1])
        if len(self.programs) > self.least:
            return replace(self, programs=self.programs[1:])
        longest = max((len(judged.candidate.program.source) for judged in self.programs), default=0)
        limit = math.floor(min(self.source_limit, longest) * _STEP)
        return replace(self, source_limit=limit) if limit >= SHORTEST_SOURCE else None


def matter_of(context: Context) -> Matter:
    """Choose what the prompt for a context shows."""
    programs, least = _programs(context)
    return Matter(programs, least, context.lessons, context.examples)


def _programs(context: Context) -> tuple[tuple[Judged, ...], int]:
    """Return the programs to show, from slow to fast, and how many of the last ones must stay."""
    best = (context.best,) if context.best is not None else ()
    if context.operator in ("translate", REPAIR, "rewrite"):
        # What is to be repaired or rewritten stands last; beside the latter the best stands to learn from.
        parent = context.parents[:1]
        return (_once((*best, *parent)) if context.operator == "rewrite" else parent), len(parent)
    ranked = sorted(_once((*context.parents, *best)), key=lambda judged: judged.seconds, reverse=True)
    return tuple(ranked[-MOST_PROGRAMS:]), min(2, len(ranked))


def _once(judged: tuple[Judged, ...]) -> tuple[Judged, ...]:
    """Drop what comes again later."""
    return tuple({each.candidate.key: each for each in reversed(judged)}.values())[::-1]


def focus(judged: Judged) -> int:
    """Return the line of a program's source that must stay in sight where it is shortened; 0 for none."""
    return line_of(judged.verdict)
