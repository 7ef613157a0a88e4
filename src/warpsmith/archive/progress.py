"""How far the generations of a task have come, and what a run came up with."""

from __future__ import annotations

from sqlalchemy import func, select

from warpsmith.archive.codec import decode
from warpsmith.archive.schema import candidates, proposals
from warpsmith.archive.store import Archive
from warpsmith.records import Lineage


def latest_generation(archive: Archive, task_key: str) -> int:
    """Return the highest generation of any proposal for a task; 0 where there is none."""
    query = (
        select(func.max(proposals.c.generation).label("latest"))
        .join(candidates, candidates.c.key == proposals.c.candidate_key)
        .where(candidates.c.task_key == task_key)
    )
    return int(archive._rows(query)[0].latest or 0)


def proposals_of(archive: Archive, run: int) -> frozenset[tuple[str, Lineage]]:
    """Return what a run came up with: keys of candidates, each with the lineage that was given for it."""
    query = select(proposals.c.candidate_key, proposals.c.document).where(proposals.c.run_id == run)
    return frozenset((row.candidate_key, decode(Lineage, row.document)) for row in archive._rows(query))
