"""Keeps library calls out of a search for pure programs: neither authors nor earlier searches bring any in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from warpsmith.author.protocol import Author, Context, Explains, Explanation, Proposal, Refusal, rest_of
from warpsmith.evolve.journal import Journal
from warpsmith.records import Candidate, Judged, Lineage, Verdict


class PureAuthor:
    """An author whose hybrid proposals count as no answer."""

    def __init__(self, author: Author) -> None:
        self._author = author

    @property
    def name(self) -> str:
        """Name in lineages."""
        return self._author.name

    @property
    def operators(self) -> dict[str, int]:
        """Operators on offer and how many parents each takes."""
        return self._author.operators

    @property
    def expected_usd(self) -> float:
        """US dollars that an answer is taken to cost before the first bill."""
        return self._author.expected_usd

    @property
    def rest_s(self) -> float:
        """Seconds for which it is no use to ask."""
        return rest_of(self._author)

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        """Pass on what the author answers, if it is pure; a hybrid proposal becomes a refusal that costs the same."""
        answer = await self._author.propose(context)
        if not isinstance(answer, Proposal) or answer.program.plan.pure:
            return answer
        return Refusal("calls a library, which is not allowed here", answer.prompt, answer.reply, answer.cost_usd)


class PureExplainer(PureAuthor):
    """The same of an author that explains."""

    def __init__(self, author: Explains) -> None:
        super().__init__(author)
        self._explainer = author

    async def explain(self, parent: Judged, child: Judged, context: Context) -> Explanation | Refusal | None:
        """Pass on what the author says."""
        return await self._explainer.explain(parent, child, context)


def pure(author: Author) -> PureAuthor:
    """Return the same author without its hybrid proposals."""
    return PureExplainer(author) if isinstance(author, Explains) else PureAuthor(author)


class PureJournal:
    """A journal that does not tell of hybrid programs. They stay in it, for searches that may use them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def judged(self, task_key: str, *, judge_version: str | None = None, device: str | None = None) -> list[Judged]:
        """Return every verdict on a pure program for a task, in order."""
        found = self._journal.judged(task_key, judge_version=judge_version, device=device)
        return [judged for judged in found if judged.candidate.program.plan.pure]

    def verdict(self, candidate_key: str, judge_version: str, device: str) -> Verdict | None:
        """Return the latest verdict on a candidate, or None."""
        return self._journal.verdict(candidate_key, judge_version, device)

    def pending(
        self, task_key: str, *, judge_version: str, device: str, wanted: Callable[[Lineage], bool]
    ) -> list[Candidate]:
        """Return the pure candidates for a task without a verdict, in order."""
        found = self._journal.pending(task_key, judge_version=judge_version, device=device, wanted=wanted)
        return [candidate for candidate in found if candidate.program.plan.pure]

    def spent(self, task_key: str) -> float:
        """Return what all answers on a task have cost, in US dollars."""
        return self._journal.spent(task_key)

    def told(self, task_key: str, kind: str) -> list[Mapping[str, Any]]:
        """Return the data of all events of a kind, in order."""
        return self._journal.told(task_key, kind)

    def add_candidate(self, run: int, candidate: Candidate) -> None:
        """Write down that `run` came up with a candidate."""
        self._journal.add_candidate(run, candidate)

    def add_verdict(self, run: int, verdict: Verdict, *, judge_version: str, device: str) -> None:
        """Write down what a version of the judge said on a device."""
        self._journal.add_verdict(run, verdict, judge_version=judge_version, device=device)

    def add_event(self, run: int, kind: str, data: Mapping[str, Any]) -> None:
        """Write down something else that happened."""
        self._journal.add_event(run, kind, data)
