"""Text held to a size: tokens are estimated, long sources lose lines, messages lose their ends."""

from __future__ import annotations

import math
from collections.abc import Iterable

BYTES_PER_TOKEN = 3.5
"""Of code, for the tokenizers in use; each has its own, and most cannot be had without the network."""

LONGEST_LINE = 400
"""Characters of a line in a source that is shortened."""

_CUT = " [...]"


def tokens_in(text: str) -> int:
    """Return about how many tokens a model reads in `text`."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def brief(text: str, characters: int = 600) -> str:
    """Return `text` on one line without control characters, cut where it is longer."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= characters else line[: characters - len(_CUT)].rstrip() + _CUT


def shorten(source: str, characters: int, line: int = 0) -> str:
    """Return a source with marks in place of lines, so that about `characters` are left.

    What stays are the lines around `line` (1-based) and the first ones; without a line, the first and the last ones.
    """
    if len(source) <= characters:
        return source
    lines = [each if len(each) <= LONGEST_LINE else each[:LONGEST_LINE] + _CUT for each in source.split("\n")]
    last = len(lines) - 1
    focus = min(line - 1, last) if line > 0 else last
    kept: set[int] = set()
    room = characters
    for index in sorted(range(len(lines)), key=lambda i: min(i, abs(i - focus))):
        room -= len(lines[index]) + 1
        if room < 0:
            break
        kept.add(index)
    return "\n".join(_with_marks(lines, kept))


def _with_marks(lines: list[str], kept: set[int]) -> Iterable[str]:
    missing = 0
    for index, line in enumerate(lines):
        if index not in kept:
            missing += 1
            continue
        if missing:
            yield f"// [... {missing} lines left out ...]"
        missing = 0
        yield line
    if missing:
        yield f"// [... {missing} lines left out ...]"
