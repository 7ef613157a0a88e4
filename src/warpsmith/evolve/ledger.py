"""The one owner of what a run may run out of: candidates and money."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from warpsmith.evolve.stop import fits


class Ledger:
    """Counts candidates and US dollars; what is in flight counts as spent.

    Whoever asks an author first reserves: the price of an answer that is still due is taken to be the mean of what
    that author charged so far. `expected_usd` gives prices to assume before an author's first bill; an author absent
    from it is taken to be free until then.
    """

    def __init__(self, expected_usd: Mapping[str, float] | None = None) -> None:
        self._expected = dict(expected_usd or {})
        self._bills: dict[str, int] = defaultdict(int)
        self._charged: dict[str, float] = defaultdict(float)
        self._due: dict[str, int] = defaultdict(int)
        self._submitted = 0
        self._judged = 0

    def price(self, author: str) -> float:
        """US dollars that the next answer of `author` is expected to cost."""
        if self._bills[author]:
            return self._charged[author] / self._bills[author]
        return self._expected.get(author, 0.0)

    def reserve(self, author: str) -> None:
        """Commit the price of an answer before it is asked for."""
        self._due[author] += 1

    def settle(self, author: str, cost_usd: float) -> None:
        """Replace a reservation by what the answer cost. Raises ValueError where nothing was reserved."""
        if not self._due[author]:
            raise ValueError(f"nothing is due to {author}")
        self._due[author] -= 1
        self._bills[author] += 1
        self._charged[author] += cost_usd

    def release(self, author: str) -> None:
        """Give up a reservation for which no bill is to be counted. Raises ValueError where nothing was reserved."""
        if not self._due[author]:
            raise ValueError(f"nothing is due to {author}")
        self._due[author] -= 1

    def submit(self) -> None:
        """Count a candidate that goes to the judge."""
        self._submitted += 1

    def judge(self) -> None:
        """Count a verdict."""
        self._judged += 1

    @property
    def spent(self) -> float:
        """US dollars billed so far."""
        return sum(self._charged.values())

    @property
    def committed(self) -> float:
        """US dollars billed, plus those that the answers in flight are expected to cost."""
        return self.spent + sum(count * self.price(author) for author, count in self._due.items())

    def affords(self, author: str, limit_usd: float | None) -> bool:
        """Whether one more answer of `author` fits into the limit, if there is one."""
        return limit_usd is None or fits(self.price(author), self.committed, limit_usd)

    @property
    def asked(self) -> int:
        """Answers in flight."""
        return sum(self._due.values())

    @property
    def submitted(self) -> int:
        """Candidates given to the judge, whether or not it has answered."""
        return self._submitted

    @property
    def judged(self) -> int:
        """Candidates with a verdict."""
        return self._judged
