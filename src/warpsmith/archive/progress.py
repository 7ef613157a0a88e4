"""What was proposed for a task and has no verdict yet, and how far its generations have come."""

from __future__ import annotations

from sqlalchemy import func, select

from warpsmith.archive.codec import decode
from warpsmith.archive.queries import candidate_query, read_candidates
from warpsmith.archive.schema import candidates, proposals, verdicts
from warpsmith.archive.store import Archive
from warpsmith.records import Candidate, Lineage


def unjudged(archive: Archive, *, judge_version: str, device: str, task_key: str | None = None) -> list[Candidate]:
    """Return the candidates on which this version of the judge has said nothing on this device, oldest first.

    With `task_key`, only those for this task. Each has the lineage of its first proposal.
    """
    same = (
        select(verdicts.c.id)
        .where(
            verdicts.c.candidate_key == candidates.c.key,
            verdicts.c.judge_version == judge_version,
            verdicts.c.device == device,
        )
        .exists()
    )
    query = candidate_query().where(~same).order_by(proposals.c.id)
    if task_key is not None:
        query = query.where(candidates.c.task_key == task_key)
    return [candidate for _, candidate in read_candidates(archive._rows(query))]


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
