"""Authors: whoever proposes programs."""

from warpsmith.author.protocol import (
    REPAIR,
    Author,
    Context,
    Example,
    Explains,
    Explanation,
    Proposal,
    Refusal,
    Rests,
    rest_of,
)

__all__ = [
    "REPAIR",
    "Author",
    "Context",
    "Example",
    "Explains",
    "Explanation",
    "Proposal",
    "Refusal",
    "Rests",
    "rest_of",
]
