"""The folder of a contest: `run.json` says what is compared, `trials.jsonl` has a line for each search that ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from warpsmith.bench.lines import Lines
from warpsmith.bench.row import RunRecord
from warpsmith.bench.run_folder import RunFolder, read_run
from warpsmith.contest.trial import Trial, decode_trial, encode_trial
from warpsmith.errors import UserError

TRIALS = "trials.jsonl"
ARMS = "arms"
"""The name among the record's settings under which the arms stand, a line for each: its name, a tab, its text."""


@dataclass(frozen=True, eq=False)
class Contest:
    """A contest as its folder tells of it: the record, and the searches that have come to an end, in that order."""

    record: RunRecord
    trials: tuple[Trial, ...]

    @property
    def arms(self) -> tuple[tuple[str, str], ...]:
        """Name and text of each arm; the first is the one that the others are held against."""
        pairs = (line.partition("\t") for line in dict(self.record.settings)[ARMS].splitlines())
        return tuple((name, spec) for name, _, spec in pairs)


def is_contest(folder: str | Path) -> bool:
    """Whether a folder holds a contest in which a search has come to an end."""
    return (Path(folder) / TRIALS).is_file()


def load_contest(folder: str | Path) -> Contest:
    """Read the folder of a contest. Raises UserError where it holds none, or a line that is no row of one."""
    place = Path(folder)
    record = read_run(place)
    if record is None or ARMS not in dict(record.settings):
        raise UserError("holds no run of `warpsmith contest`", file=str(folder))
    return Contest(record, tuple(Lines(place / TRIALS, decode_trial).read()))


class ContestFolder(RunFolder):
    """The folder of a contest that is going on. Opening it takes away a torn last line."""

    verb = "contest"

    def mend(self) -> None:
        """Read the searches that have come to an end already."""
        self._lines = Lines(self.path / TRIALS, decode_trial)
        self._lines.mend()
        self.trials = {trial.place: trial for trial in self._lines.read()}

    def add(self, trial: Trial) -> None:
        """Append a search; when this returns it is on the disk."""
        self._lines.append(encode_trial(trial))
        self.trials[trial.place] = trial
