"""Everything that was ever tried, in a database to which rows are only added."""

from warpsmith.archive.codec import decode, encode, to_plain
from warpsmith.archive.rows import ArchivedTask, Event, Run, Standing
from warpsmith.archive.store import Archive

__all__ = ["Archive", "ArchivedTask", "Event", "Run", "Standing", "decode", "encode", "to_plain"]
