"""Lessons that are asked for: what a change teaches that turned out notably well, or notably badly.

At most one question goes with a generation, about what the generations before it have shown, to an author that explains
(`Explains`): the one who made the change, or else another. The generation waits for the answer as for any other. The
price is committed before it is asked, as that of a program is, and what comes of it is in the archive at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warpsmith.author.protocol import Author, Context, Explains, Explanation, rest_of
from warpsmith.evolve.events import LessonLearnt
from warpsmith.evolve.generation import Problem
from warpsmith.evolve.journal import ABANDONED, EXPLAINED, Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import Lessons
from warpsmith.evolve.operators import SEARCH, asked_for
from warpsmith.records import Judged, Stage

GAIN = 1.2
"""A change is worth a question that made a new fastest program, this many times as fast as what it was made from."""

LOSS = 1.5
"""So is one that somebody was asked for, made of the fastest program, that takes so many times as long or is wrong."""

QUIET = 4
"""Generations without a question after which a loss is asked about: gains teach more."""

EXPLAIN = "explain"
"""What the context of such a question has for an operator."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A program that was made from another one that passed; both are judged."""

    parent: Judged
    child: Judged

    @property
    def gain(self) -> float:
        """How many times as fast the child is; 0 where it failed."""
        return self.parent.seconds / self.child.seconds

    @property
    def summary(self) -> str:
        """What came of the change, in a few words."""
        lineage, failure = self.child.candidate.lineage, self.child.verdict.failure
        who = f"{lineage.operator} by {lineage.author}"
        if failure is not None:
            return f"{failure.reason.replace('_', ' ')} after {who}"
        if self.gain >= 1.0:
            return f"{self.gain:.2f} times as fast as before by {who}"
        return f"{1.0 / self.gain:.2f} times as long as before after {who}"


@dataclass(frozen=True, slots=True, eq=False)
class Inquiry:
    """A question about a change, decided on with the generation `number`."""

    author: Explains
    change: Change
    number: int


class Explaining:
    """Picks changes, asks about them, and passes lessons on. Where no author explains, nothing is asked.

    `heard` is called with every answer that came: with its lesson, or None where it has none.
    """

    def __init__(
        self,
        problem: Problem,
        authors: Sequence[Author],
        journal: Journal,
        run: int,
        ledger: Ledger,
        lessons: Lessons,
        max_usd: float | None,
        clock: Callable[[], float],
        heard: Callable[[LessonLearnt | None], None],
    ) -> None:
        self._problem = problem
        self._authors = [author for author in authors if isinstance(author, Explains)]
        self._journal = journal
        self._run = run
        self._ledger = ledger
        self._lessons = lessons
        self._max_usd = max_usd
        self._clock = clock
        self._heard = heard
        self._gains: list[Change] = []
        self._losses: list[Change] = []
        self._asked_in = 0
        self._due: Inquiry | None = None

    def recall(self) -> None:
        """Take in the lessons of earlier runs. They were paid for, and what they are about is not asked again."""
        for data in self._journal.told(self._problem.task.key, EXPLAINED):
            if data["lesson"]:
                self._lessons.explain(data["candidate"], data["lesson"])

    def consider(self, child: Judged, parent: Judged | None, best: Judged | None) -> None:
        """Take in a new verdict on what was made from `parent`, before which `best` was the fastest."""
        lineage, failure = child.candidate.lineage, child.verdict.failure
        if parent is None or best is None or lineage.author == SEARCH.author:
            return
        change = Change(parent, child)
        if change.gain >= GAIN and child.seconds < best.seconds:
            self._gains.append(change)
        elif (
            change.gain * LOSS <= 1.0
            and parent.candidate.key == best.candidate.key
            and asked_for(lineage)
            and (failure is None or failure.stage > Stage.BUILD)  # What cannot be built says nothing of its idea.
        ):
            self._losses.append(change)

    def choose(self, number: int) -> Inquiry | None:
        """Decide what is asked with a generation, if anything: about the greatest gain. Its price is committed here."""
        quiet = number - self._asked_in >= QUIET
        changes = self._gains or (self._losses if quiet else [])
        change = max(changes, key=lambda each: each.gain, default=None)
        self._gains, self._losses = [], []
        author = self._author(change) if change is not None else None
        if change is None or author is None:
            return None
        self._asked_in = number
        self._ledger.reserve(author.name)
        self._due = Inquiry(author, change, number)
        return self._due

    async def ask(self, inquiry: Inquiry) -> None:
        """Put a question, and keep what comes of it."""
        author, change = inquiry.author, inquiry.change
        task, gpu = self._problem.task, self._problem.gpu
        context = Context(task, gpu, EXPLAIN, (change.parent,), 0, bound=self._problem.bound)
        before = self._clock()
        answer = await author.explain(change.parent, change.child, context)
        # From here to the archive nothing is awaited, so nothing can be cancelled that was paid for.
        self._due = None
        if answer is None:
            self._ledger.release(author.name)
            return
        self._ledger.settle(author.name, answer.cost_usd)
        lesson = f"{change.summary}: {answer.text}" if isinstance(answer, Explanation) else ""
        key = change.child.candidate.key
        data = {
            "author": author.name,
            "parent": change.parent.candidate.key,
            "candidate": key,
            "generation": inquiry.number,
            "lesson": lesson,
            "note": "" if isinstance(answer, Explanation) else answer.note,
            "cost_usd": answer.cost_usd,
            "seconds": self._clock() - before,
            "prompt": answer.prompt,
            "reply": answer.reply,
        }
        self._journal.add_event(self._run, EXPLAINED, data)
        if lesson:
            self._lessons.explain(key, lesson)
        self._heard(LessonLearnt(author.name, inquiry.number, lesson, answer.cost_usd) if lesson else None)

    def give_up(self) -> None:
        """Give up an answer that is still due. What may be billed all the same is written down."""
        if self._due is None:
            return
        name, self._due = self._due.author.name, None
        if (price := self._ledger.price(name)) > 0.0:
            data = {"author": name, "operator": EXPLAIN, "expected_usd": price}
            self._journal.add_event(self._run, ABANDONED, data)
        self._ledger.release(name)

    def _author(self, change: Change) -> Explains | None:
        """Whom to ask: whoever made the change, or else the first who explains, if there is money for it."""
        maker = change.child.candidate.lineage.author
        ranked = sorted(self._authors, key=lambda author: author.name != maker)
        able = (each for each in ranked if not rest_of(each) and self._ledger.affords(each.name, self._max_usd))
        return next(able, None)
