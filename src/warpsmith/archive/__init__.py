"""Everything that was ever tried, in a database to which rows are only added."""

from warpsmith.archive.codec import decode, encode, to_plain
from warpsmith.archive.course import BEGAN
from warpsmith.archive.rows import ArchivedTask, Event, Kindred, Precedent, Run, Standing, Step
from warpsmith.archive.store import Archive

__all__ = [
    "BEGAN",
    "Archive",
    "ArchivedTask",
    "Event",
    "Kindred",
    "Precedent",
    "Run",
    "Standing",
    "Step",
    "decode",
    "encode",
    "to_plain",
]
