"""What one arm found on one task with one seed: a row of a benchmark, what it cost, and which operators brought it."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.archive.codec import decode, encode
from warpsmith.bench.row import Row
from warpsmith.errors import ArchiveError, UserError


@dataclass(frozen=True, slots=True)
class Gain:
    """What an operator of an author brought in one search.

    `proposals` counts its answers: candidates judged, those passed over as nothing new, and answers without a program.
    `passed` of them passed the judge. `improved` were faster by more than 1 % than the fastest of their parents that
    passed, and `log` is the sum of the natural logarithms of by how many times: exp(log / improved) is their geometric
    mean.
    """

    author: str
    operator: str
    proposals: int
    passed: int
    improved: int
    log: float


@dataclass(frozen=True, slots=True)
class Trial:
    """One search of a contest.

    `repeat` counts from 0 and `seed` goes with it. `row` says how the search ended, with its times and the candidates
    judged; its name is that of the task. `best` is the key of the fastest candidate, None where nothing passed. `usd`
    is what answers cost, in US dollars.
    """

    arm: str
    repeat: int
    seed: int
    row: Row
    best: str | None
    usd: float
    gains: tuple[Gain, ...]

    @property
    def place(self) -> tuple[str, int, str]:
        """Which search it is: arm, repeat, task."""
        return self.arm, self.repeat, self.row.name


def encode_trial(trial: Trial) -> str:
    """Return a trial as one line of JSON, without the end of the line."""
    return encode(trial)


def decode_trial(text: str) -> Trial:
    """Return the trial that `encode_trial` wrote. Raises UserError where the text is none."""
    try:
        return decode(Trial, text)
    except ArchiveError as error:
        raise UserError(f"not a row of a contest: {error.message}") from error
