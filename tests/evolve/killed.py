"""A search that hangs in the middle of a generation, to be killed: see `test_resuming.py`."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio

from tests.evolve.worlds import TASK, Bench, Model, Script, answer, drawn, genes_of, problem, searched
from warpsmith.archive import Archive
from warpsmith.author.protocol import Context, Explanation, Proposal
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution
from warpsmith.records import Candidate, Judged, Lineage, Verdict

PRICE = 0.25
DIAL = Dial(size=6, capacity=16, depth=1, patience=50, candidates=24)


def passing(genes: dict[str, int], tunables: Any) -> float:
    """Every program passes; the smaller the first gene, the faster."""
    return 1e-5 * (1 + genes["a"])


class Paid(Model):
    """An author that is paid for its lessons as well, and writes down what they are about."""

    def __init__(self, script: Script, bills: Path) -> None:
        super().__init__(script, cost=PRICE)
        self.bills = bills

    async def explain(self, parent: Judged, child: Judged, context: Context) -> Explanation:
        await anyio.sleep(0)
        with self.bills.open("a") as book:
            book.write(f"{child.candidate.key}\n")
        return Explanation("a lesson", cost_usd=PRICE)


def lesson_bills(bills: Path) -> Path:
    """Where lessons are written down that were paid for."""
    return bills.with_suffix(".lessons")


def paid_author(bills: Path) -> Paid:
    """An author that writes down every question that it is paid for, and the key of the program that it answers with."""

    def script(context: Context) -> Proposal:
        proposal = drawn(context, cost=PRICE)
        if context.parents:  # A child takes half the time, so that there is something to learn.
            least = min(genes_of(parent)["a"] for parent in context.parents)
            proposal = answer({**genes_of(proposal.program), "a": least // 2}, cost=PRICE)
        key = Candidate(TASK.key, proposal.program, proposal.tunables, Lineage("", "")).key
        parents = ",".join(sorted(parent.candidate.key for parent in context.parents))
        with bills.open("a") as book:
            book.write(f"{context.operator} {context.seed} [{parents}] {key}\n")
        return proposal

    return Paid(script, lesson_bills(bills))


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
    return searched(evolution)
