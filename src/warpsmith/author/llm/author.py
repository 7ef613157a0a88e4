"""A language model as an author: a prompt for every operator, a program read from the reply, money counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import anyio

from warpsmith.author.llm.budget import brief
from warpsmith.author.llm.client import Answer, Client, Trouble
from warpsmith.author.llm.limits import Limits
from warpsmith.author.llm.matter import matter_of
from warpsmith.author.llm.names import model_of
from warpsmith.author.llm.pace import Clock, Rest, Sleep
from warpsmith.author.llm.prices import price
from warpsmith.author.llm.prompt import Prompt, pose, pose_again, pose_explanation
from warpsmith.author.llm.reply import MAX_REPLY, Question, Reading, read_reply, without_thoughts
from warpsmith.author.protocol import REPAIR, Context, Proposal, Refusal
from warpsmith.errors import SettingsError
from warpsmith.records import Judged

if TYPE_CHECKING:
    from pydantic_ai.models import Model

OPERATORS: Final = MappingProxyType({"translate": 0, REPAIR: 1, "rewrite": 1, "cross": 2})
"""What a language model can be asked for, and how many parents each takes; a crossing is shown more if there are."""

LESSON = 500
"""Characters of a lesson."""

BEGINNING = 2000
"""Characters that are kept of a reply that is too long to be read."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The lesson of a change, in a sentence or two on one line, and what it cost."""

    text: str
    prompt: str
    reply: str
    cost_usd: float = 0.0


class LlmAuthor:
    """Asks a model, given by its name (see `names`) or as a model of pydantic-ai.

    A reply that holds no program is answered once with the exact complaint; what then still holds none is a Refusal, as
    is a provider that does not answer. While a failing provider is left alone every question is answered with None at
    once. `hybrid` allows programs that call a library. `name` is what lineages say, by default `llm:` and the model.
    `clock` reads seconds and `sleep` waits for so many.

    Raises SettingsError for a name that means no model, or whose key is missing.
    """

    def __init__(
        self,
        model: Model | str,
        limits: Limits | None = None,
        *,
        name: str | None = None,
        hybrid: bool = False,
        clock: Clock = time.monotonic,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        self._limits = limits or Limits()
        self._model = model_of(model) if isinstance(model, str) else model
        called = model if isinstance(model, str) else f"{self._model.system}:{self._model.model_name}"
        self._name = name or f"llm:{called}"
        self._hybrid = hybrid
        self._client = Client(self._model, self._limits, clock, sleep)
        self._rest = Rest(self._limits.rest_s, clock)
        self._dearest = price(self._model, self._limits.max_prompt_tokens, self._limits.max_reply_tokens)

    def __repr__(self) -> str:
        return f"LlmAuthor({self._name!r})"

    @property
    def name(self) -> str:
        """Name in lineages."""
        return self._name

    @property
    def operators(self) -> dict[str, int]:
        """Operators on offer and how many parents each takes."""
        return dict(OPERATORS)

    @property
    def expected_usd(self) -> float:
        """US dollars that an answer may cost: the longest prompt and the longest reply. 0 where there is no price."""
        return self._dearest or 0.0

    @property
    def priced(self) -> bool:
        """Whether there is a price for the model. Where there is none, its answers count as free."""
        return self._dearest is not None

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        """Ask for a program. None while the provider is left alone, and where there are too few parents.

        Raises KeyError for an operator that is not on offer.
        """
        if self._rest.now or len(context.parents) < OPERATORS[context.operator]:
            return None
        first = pose(context, self._limits.max_prompt_tokens, hybrid=self._hybrid)
        if first is None:
            return Refusal(_too_large(self._limits))
        known = tuple(judged.candidate.program for judged in reversed(matter_of(context).programs))
        question = Question(context.task, context.gpu, known, self._hybrid)
        answer = await self._ask(first)
        if isinstance(answer, Trouble):
            return Refusal(answer.reason, prompt=first.whole)
        reading = read_reply(answer.text, question, cut=answer.cut)
        if isinstance(reading, Reading):
            return _proposal(reading, first, answer, answer.cost_usd)
        again = pose_again(first, _kept(answer), reading.text, self._limits.max_prompt_tokens)
        second = await self._ask(again)
        if isinstance(second, Trouble):
            return Refusal(second.reason, again.whole, _kept(answer), answer.cost_usd)
        cost = answer.cost_usd + second.cost_usd
        reading = read_reply(second.text, question, cut=second.cut)
        if isinstance(reading, Reading):
            return _proposal(reading, again, second, cost)
        return Refusal(brief(reading.text, 300), again.whole, _kept(second), cost)

    async def explain(self, parent: Judged, child: Judged, context: Context) -> Explanation | Refusal | None:
        """Ask what can be learnt from the change from `parent` to `child`. None while the provider is left alone."""
        if self._rest.now:
            return None
        prompt = pose_explanation(parent, child, context, self._limits.max_prompt_tokens)
        if prompt is None:
            return Refusal(_too_large(self._limits))
        answer = await self._ask(prompt)
        if isinstance(answer, Trouble):
            return Refusal(answer.reason, prompt=prompt.whole)
        text = brief(without_thoughts(answer.text), LESSON)
        if not text:
            return Refusal("the lesson is empty", prompt.whole, _kept(answer), answer.cost_usd)
        return Explanation(text, prompt.whole, _kept(answer), answer.cost_usd)

    async def _ask(self, prompt: Prompt) -> Answer | Trouble:
        answer = await self._client.ask(prompt.instructions, prompt.text)
        if isinstance(answer, Trouble):
            self._rest.failed(answer.wait_s)
        else:
            self._rest.worked()
        return answer


def ensemble(names: Sequence[str], limits: Limits | None = None, *, hybrid: bool = False) -> list[LlmAuthor]:
    """Return an author for each model, each with limits of its own.

    Raises SettingsError where two names are the same, for a name that means no model, and where a key is missing.
    """
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise SettingsError(f"the language model {twice!r} is named twice")
    return [LlmAuthor(name, limits, hybrid=hybrid) for name in names]


def _proposal(reading: Reading, prompt: Prompt, answer: Answer, cost: float) -> Proposal:
    return Proposal(
        reading.program,
        reading.tunables,
        prompt=prompt.whole,
        reply=_kept(answer),
        note=reading.note,
        cost_usd=cost,
    )


def _kept(answer: Answer) -> str:
    """The reply as it is stored; of one that is too long to be read, the beginning."""
    return answer.text if len(answer.text) <= MAX_REPLY else answer.text[:BEGINNING] + " [...]"


def _too_large(limits: Limits) -> str:
    return f"the task does not fit into a prompt of {limits.max_prompt_tokens} tokens"
