"""A search that hangs in the middle of a generation, to be killed: see `test_resuming.py`."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio

from tests.evolve.worlds import TASK, Bench, Model, drawn, problem
from warpsmith.archive import Archive
from warpsmith.author.protocol import Context, Proposal
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution
from warpsmith.records import Candidate, Lineage, Verdict

PRICE = 0.25
DIAL = Dial(size=6, capacity=16, depth=1, patience=50, candidates=24)


def passing(genes: dict[str, int], tunables: Any) -> float:
    """Every program passes."""
    return 1e-5 * (1 + genes["a"] + genes["b"])


def paid_author(bills: Path) -> Model:
    """An author that writes down every question that it is paid for, and the key of the program that it answers with."""

    def script(context: Context) -> Proposal:
        proposal = drawn(context, cost=PRICE)
        key = Candidate(TASK.key, proposal.program, proposal.tunables, Lineage("", "")).key
        parents = ",".join(sorted(parent.candidate.key for parent in context.parents))
        with bills.open("a") as book:
            book.write(f"{context.operator} {context.seed} [{parents}] {key}\n")
        return proposal

    return Model(script, cost=PRICE)


class Hanging(Bench):
    """Judges so many candidates, then says so and hangs."""

    def __init__(self, count: int, told: Connection) -> None:
        super().__init__(passing)
        self.count = count
        self.told = told

    async def judge(self, candidate: Candidate) -> Verdict:
        if len(self.keys) >= self.count:
            self.told.send("hanging")
            await anyio.sleep(600)
        return await super().judge(candidate)


def search_until_killed(path: Path, bills: Path, count: int, told: Connection) -> None:
    """Search until `count` candidates are judged, then wait to be killed."""
    with Archive.open(path) as archive:
        run(archive, paid_author(bills), Hanging(count, told))


def run(archive: Archive, author: Model, bench: Bench) -> Evolution:
    """Search on an archive to the end."""
    number = archive.start_run(TASK, "{}")
    evolution = Evolution(problem(), [author], bench, archive, number, DIAL)

    async def main() -> None:
        evolution.resume()
        await evolution.translate()
        await evolution.run()

    anyio.run(main)
    return evolution
