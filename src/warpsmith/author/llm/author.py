"""A language model as an author: a prompt for every operator, a program read from the reply, money counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from warpsmith.author.protocol import OPERATORS, Context, Explanation, Proposal, Refusal
from warpsmith.errors import SettingsError
from warpsmith.records import Judged

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LESSON = 500
"""Characters of a lesson."""

BEGINNING = 2000
"""Characters that are kept of a reply that is too long to be read."""


class LlmAuthor:
    """Asks a model, given by its name (see `names`) or as a model of pydantic-ai.

    A reply that holds no program is answered once with the exact complaint; what then still holds none is a Refusal, as
    is a provider that does not answer. While a failing provider is left alone every question is answered with None at
    once. `hybrid` allows programs that call a library. `name` is what lineages say, by default `llm:` and the model;
    `expected_usd` is the price of the longest prompt and the longest reply. Where there is none it is 0, `priced` is
    false, and answers count as free. `clock` reads seconds and `sleep` waits for so many.

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
        self.name: Final = name or f"llm:{called}"
        self.operators: Final = dict(OPERATORS)
        self._hybrid = hybrid
        self._client = Client(self._model, self._limits, clock, sleep)
        self._rest = Rest(self._limits.rest_s, clock)
        dearest = price(self._model, self._limits.max_prompt_tokens, self._limits.max_reply_tokens)
        self.expected_usd: Final = dearest or 0.0
        self.priced: Final = dearest is not None

    def __repr__(self) -> str:
        return f"LlmAuthor({self.name!r})"

    @property
    def rest_s(self) -> float:
        """Seconds for which the provider is left alone: 0 where it may be asked, infinite where waiting is no use."""
        return self._rest.left

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
            self._rest.failed(answer.wait_s, lasting=answer.lasting)
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
