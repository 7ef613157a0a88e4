"""Keeps keys out of everything that is stored or shown, whoever repeats them: a provider's error, a reply, a task."""

from __future__ import annotations

import os
import re

HIDDEN = "(hidden)"
_SECRET = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)\Z", re.IGNORECASE)
_SHORTEST = 8
"""Characters. What is shorter is no key, and would be found in ordinary text."""


def without_secrets(text: str) -> str:
    """Return `text` with `(hidden)` in place of every value that the environment holds under the name of a secret."""
    values = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text
