"""What one model may take: time, requests, tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from warpsmith.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one model. Raises SettingsError, naming the limit, for a value that makes no sense.

    One request may take `timeout_s` seconds. One that fails in a way that may pass is sent up to `attempts` times, with
    pauses that begin at `backoff_s` seconds and double. A provider that keeps failing is left alone for `rest_s`
    seconds, then twice as long, and so on. At most `concurrent` requests are under way at once, and
    `requests_per_minute` are begun in a minute, evenly spaced. A prompt has at most `max_prompt_tokens` tokens, as far
    as they can be estimated without the model's own tokenizer, and a reply `max_reply_tokens`.
    """

    timeout_s: float = 180.0
    attempts: int = 3
    requests_per_minute: float = 60.0
    concurrent: int = 4
    max_prompt_tokens: int = 48_000
    max_reply_tokens: int = 20_000
    backoff_s: float = 2.0
    rest_s: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            # No rate limit is written as infinity; everything else has an end.
            least = 0.0 if each.name in ("backoff_s", "rest_s") else math.ulp(0.0)
            if not value >= least or (math.isinf(value) and each.name != "requests_per_minute"):
                raise SettingsError(f"the limit {each.name} = {value} of a language model must be positive and finite")
