"""What came of one task, as one line of JSON, and what is known of a whole run.

A row cannot lie: a time belongs to a task that passed and to nothing else, and says whether it was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from warpsmith.archive.codec import decode, encode
from warpsmith.errors import ArchiveError, UserError
from warpsmith.records import Baseline, Comparison, digest

Status = Literal["passed", "wrong", "unsupported", "task_error", "machine_error", "timeout", "crashed"]
STATUSES: tuple[Status, ...] = ("passed", "wrong", "unsupported", "task_error", "machine_error", "timeout", "crashed")
BY_MACHINE: tuple[Status, ...] = ("machine_error", "timeout", "crashed")
"""What another try may bring to a better end."""

NOT_COMPARED = "not compared"
"""The mark of a task that passed, but whose comparison with the baselines was not brought to an end."""

GOES_ON = "goes on from an earlier search"
"""The mark of a task for which the archive had candidates already, so that its budget is not all that was spent."""

MESSAGE = 2000
"""The longest message kept, in characters."""

Kind = Literal["pure", "hybrid"]
Source = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True)
class BaselineTime:
    """A baseline by name, with its seconds, or with the problem that kept it from running."""

    name: str
    seconds: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one task.

    `status`: `passed`; `wrong`, nothing passed the judge; `unsupported`, an operator that no author can lower;
    `task_error`, the file cannot be used; `machine_error`; `timeout`, no verdict or no answer in the time there was;
    `crashed`, the process ended without an answer.
    `kind` is `pure` where our kernels do all of the work, `hybrid` where a library does a part, `library_share` what
    share of the time that part takes, where it is known. `seconds` is the median
    of one call with its 95 % interval, `bound` the speed of light in seconds; `timing` says whether they belong to a
    measurement on `device` or to an estimate for it. `judged` counts candidates, `first_pass` and `spent` are seconds
    since the start; `course` pairs seconds of search with the best seconds of a call that were known then, at each
    improvement. `marks` are remarks that a reader must know of. `fingerprint` is that of the run's settings.
    """

    name: str
    source_hash: str
    fingerprint: str
    status: Status
    device: str
    spent: float
    finished: str
    level: int | None = None
    number: int | None = None
    message: str = ""
    kind: Kind | None = None
    seconds: float | None = None
    interval: tuple[float, float] | None = None
    timing: Source | None = None
    bound: float | None = None
    baselines: tuple[BaselineTime, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    judged: int = 0
    first_pass: float | None = None
    marks: tuple[str, ...] = ()
    course: tuple[tuple[float, float], ...] = ()
    library_share: float | None = None

    def __post_init__(self) -> None:
        passed = (self.seconds, self.interval, self.timing, self.kind)
        if any((value is not None) != self.passed for value in passed):
            raise ValueError(f"{self.name}: status {self.status}, but seconds {self.seconds} ({self.timing})")
        if self.seconds is not None and not 0.0 < self.seconds < math.inf:
            raise ValueError(f"{self.name}: {self.seconds} s is no time")
        if self.comparisons and not self.passed:
            raise ValueError(f"{self.name}: compared with baselines, but not passed")

    @property
    def passed(self) -> bool:
        """Whether a program passed the judge."""
        return self.status == "passed"

    @property
    def share(self) -> float | None:
        """The share of the speed of light that was reached, between 0 and 1."""
        return self.bound / self.seconds if self.bound is not None and self.seconds is not None else None

    @property
    def retriable(self) -> bool:
        """Whether the machine, and not the task or the author, kept the row from being what it could be."""
        return self.status in BY_MACHINE or NOT_COMPARED in self.marks

    def against(self, baseline: str) -> Comparison | None:
        """Return the comparison with a baseline, None where there is none.

        `best` is the fastest baseline of this task; where that one was not compared, nothing may stand for it.
        """
        named = {each.baseline: each for each in self.comparisons}
        if baseline in named or baseline != "best":
            return named.get(baseline)
        timed = [(each.seconds, each.name) for each in self.baselines if each.seconds is not None]
        return named.get(min(timed)[1]) if timed else None


def baseline_times(baselines: tuple[Baseline, ...]) -> tuple[BaselineTime, ...]:
    """Return what a row keeps of baselines: the median, or the problem."""
    return tuple(
        BaselineTime(each.name, each.timing.median if each.timing else None, each.problem[:MESSAGE])
        for each in baselines
    )


def encode_row(row: Row) -> str:
    """Return a row as one line of JSON, without the end of the line."""
    return encode(row)


def decode_row(text: str) -> Row:
    """Return the row that `encode_row` wrote. Raises UserError where the text is no row."""
    try:
        return decode(Row, text)
    except ArchiveError as error:
        raise UserError(f"not a row of a benchmark: {_reason(error)}") from error


# ---------------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run was made with: the GPUs there (none in the simulator), and versions (`none` where there is none)."""

    gpus: tuple[str, ...]
    driver: str
    torch: str
    cuda: str
    python: str
    warpsmith: str


@dataclass(frozen=True, slots=True)
class Session:
    """One call of the command: when it began and ended (UTC), and how it ended; both empty where it was killed."""

    command: tuple[str, ...]
    started: str
    ended: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What `run.json` holds. `settings` are pairs of a name and a value; `tasks` the names of all tasks selected."""

    suite: str
    regime: str
    device: str
    settings: tuple[tuple[str, str], ...]
    machine: Machine
    tasks: tuple[str, ...]
    sessions: tuple[Session, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of all that makes rows comparable: settings, regime, machine; not of paths, times and selections."""
        return digest("bench", self.regime, self.device, encode(self.settings), encode(self.machine))


def encode_run(record: RunRecord) -> str:
    """Return the text of `run.json`, without the end of the line."""
    return encode(record)


def decode_run(text: str) -> RunRecord:
    """Return what `encode_run` wrote. Raises UserError where the text is no record of a run."""
    try:
        return decode(RunRecord, text)
    except ArchiveError as error:
        raise UserError(f"not the record of a benchmark: {_reason(error)}") from error


def _reason(error: ArchiveError) -> str:
    return error.message.partition("cannot be read: ")[2] or error.message
