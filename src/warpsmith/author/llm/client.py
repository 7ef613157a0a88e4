"""Asks one model, with patience: what fails in passing is tried again, what fails for good is said in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warpsmith.author.llm.budget import brief, tokens_in
from warpsmith.author.llm.limits import Limits
from warpsmith.author.llm.pace import Clock, Pace, Sleep
from warpsmith.author.llm.prices import price
from warpsmith.author.llm.reply import MAX_REPLY, clean
from warpsmith.author.llm.secrets import without_secrets

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model
    from tenacity import RetryCallState

LONGEST_WAIT = 60.0
"""Seconds between two attempts. A provider that asks for more is not asked again for this question."""

MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""What the providers' libraries let through where a server's answer is not what they take for granted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote, at most one character more than is read; what it cost; whether it was stopped too early."""

    text: str
    cost_usd: float
    cut: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer, in a line; and for how many seconds the provider asked to be left alone.

    `lasting` says that no question will be answered before somebody mends a name, a key or an account.
    """

    reason: str
    wait_s: float = 0.0
    lasting: bool = False


class Client:
    """One model. What a request costs that ended without an answer, nobody tells, and it counts as free."""

    def __init__(self, model: Model, limits: Limits, clock: Clock, sleep: Sleep) -> None:
        self._model = model
        self._limits = limits
        self._pace = Pace(limits, clock, sleep)
        self._sleep = sleep

    async def ask(self, instructions: str, prompt: str) -> Answer | Trouble:
        """Send one question, several times if need be. What a provider does wrong is Trouble, never an exception."""
        from pydantic_ai.exceptions import AgentRunError, ModelAPIError
        from pydantic_ai.messages import ModelRequest
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._limits.attempts),
            wait=self._wait,
            retry=retry_if_exception(_may_pass),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            response: ModelResponse = await retrying(
                self._request, [ModelRequest.user_text_prompt(prompt, instructions=instructions)]
            )
        except AgentRunError as error:
            wait = error.retry_after if isinstance(error, ModelAPIError) else None
            return Trouble(_said(error), wait or 0.0, _lasting(error))
        text = without_secrets(clean((response.text or "")[: MAX_REPLY + 1]))
        return Answer(text, self._cost(response, instructions + prompt, text), response.finish_reason == "length")

    async def _request(self, messages: Sequence[ModelMessage]) -> ModelResponse:
        from pydantic_ai.direct import model_request
        from pydantic_ai.exceptions import UnexpectedModelBehavior
        from pydantic_ai.settings import ModelSettings

        # Attempts are counted here and nowhere else. The providers' libraries have a time limit of their own as well.
        settings = ModelSettings(
            max_tokens=self._limits.max_reply_tokens,
            timeout=self._limits.timeout_s,
            request_timeout=self._limits.timeout_s,
            max_retries=0,
        )
        # Entered for each request: a connection does not outlive the event loop that it was made in.
        async with self._pace.turn(), self._model:
            try:
                return await model_request(self._model, messages, model_settings=settings)
            except MALFORMED as error:
                raise UnexpectedModelBehavior(f"not a reply: {type(error).__name__}: {error}") from error

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: what the provider asks for, or twice as long as the last time."""
        from pydantic_ai.exceptions import ModelAPIError

        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ModelAPIError) else None
        return min(LONGEST_WAIT, asked or self._limits.backoff_s * 2.0 ** min(state.attempt_number - 1, 64))

    def _cost(self, response: ModelResponse, asked: str, answered: str) -> float:
        """US dollars; where the provider does not say how many tokens it counted, they are estimated."""
        usage = response.usage
        counted = usage.has_values()
        given = usage.input_tokens if counted else tokens_in(asked)
        written = usage.output_tokens if counted else tokens_in(answered)
        return price(self._model, given, written, usage.cache_read_tokens) or 0.0


def _may_pass(error: BaseException) -> bool:
    """Whether the same question may be answered a little later."""
    from pydantic_ai import exceptions as known

    if isinstance(error, known.ModelRequestRejectedError | known.ModelQuotaExceededError | known.ContentFilterError):
        return False
    if isinstance(error, known.ModelAPIError):
        return (error.retry_after or 0.0) <= LONGEST_WAIT
    return isinstance(error, known.UnexpectedModelBehavior)


def _lasting(error: Exception) -> bool:
    from pydantic_ai import exceptions as known

    return isinstance(error, known.ModelAuthenticationError | known.ModelNotFoundError | known.ModelQuotaExceededError)


def _said(error: Exception) -> str:
    return without_secrets(brief(clean(str(error)), 300)) or type(error).__name__
