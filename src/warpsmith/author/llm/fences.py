"""The fenced blocks of a Markdown text, and the prose around them, read with the leniency that models need."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

# Of a line without what surrounds it: a pattern that also skipped spaces would take forever on very many of them.
_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})(?P<label>[^`]*)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the first word behind its fence in lower case, its text, and whether it ends before the text."""

    label: str
    text: str
    closed: bool


def blocks_in(text: str, labels: Collection[str]) -> tuple[tuple[Block, ...], str]:
    """Return the blocks of `text` in order, and the prose outside of them.

    A fence with one of `labels` begins a block even where the one before was not closed.
    """
    blocks: list[Block] = []
    prose: list[str] = []
    inside: list[str] = []
    fence, label = "", ""
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line.lstrip(" \t>").rstrip())
        word = _word(match["label"]) if match else ""
        if match is None or (fence and not _ends(match, fence) and word not in labels):
            (inside if fence else prose).append(line)
            continue
        if fence:
            blocks.append(Block(label, "\n".join(inside), True))
            inside, ended, fence = [], _ends(match, fence), ""
            if ended:
                continue
        fence, label = match["fence"], word
    if fence:
        blocks.append(Block(label, "\n".join(inside), False))
    return tuple(blocks), "\n".join(prose)


def _ends(match: re.Match[str], fence: str) -> bool:
    """Whether a fence closes the block that `fence` opened."""
    return not match["label"] and match["fence"][0] == fence[0] and len(match["fence"]) >= len(fence)


def _word(label: str) -> str:
    """The language that a fence names: `cuda` of `CUDA title="kernel.cu"` and of `{.cuda}`."""
    words = label.lower().replace("{", " ").replace("}", " ").replace(",", " ").split()
    return words[0].lstrip(".") if words else ""


def fenced(text: str, label: str) -> str:
    """Return `text` as a block whose fence is longer than any in it, so that nothing in it can end the block."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{label}\n{text.rstrip()}\n{fence}"
