"""What one question to an agent may take."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from warpsmith.errors import SettingsError


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Limits of one question. Raises SettingsError, naming the limit, for a value that makes no sense.

    An agent works for at most `seconds`, may have `folder_bytes` on disk in its folder, and print `printed_bytes`. What
    it says that a question has cost counts up to `most_usd` US dollars.
    """

    seconds: float = 900.0
    folder_bytes: int = 2 << 30
    printed_bytes: int = 64 << 20
    most_usd: float = 100.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < math.inf:
                raise SettingsError(f"the limit {each.name} = {value} of an agent must be positive and finite")
