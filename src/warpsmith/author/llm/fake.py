"""A model that answers from a script: the whole loop without a key, in tests of Warpsmith and of what builds on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from warpsmith.author.llm.budget import tokens_in

Script = Sequence[str | Exception] | Callable[[str], str]


class FakeModel(FunctionModel):
    """Answers in turn with the texts of `script`, over and over; an exception in their place is raised.

    A function instead is given the prompt and returns the answer. `prompts` holds what was asked so far, instructions
    first. With the name of a model that has a price, such as `openai:gpt-5`, answers cost as much as that model's.
    """

    def __init__(self, script: Script, name: str = "fake:model") -> None:
        system, _, model = name.partition(":")
        super().__init__(self._answer, model_name=model)
        self._provider_name = system
        self._script = script
        self.prompts: list[str] = []

    @property
    def system(self) -> str:
        """The provider that the name begins with."""
        return self._provider_name

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked = "".join(
            part.content
            for message in messages
            if isinstance(message, ModelRequest)
            for part in message.parts
            if isinstance(part, UserPromptPart) and isinstance(part.content, str)
        )
        self.prompts.append(f"{info.instructions or ''}\n{asked}")
        answer = (
            self._script(asked) if callable(self._script) else self._script[(len(self.prompts) - 1) % len(self._script)]
        )
        if isinstance(answer, Exception):
            raise answer
        usage = RequestUsage(input_tokens=tokens_in(self.prompts[-1]), output_tokens=tokens_in(answer))
        return ModelResponse([TextPart(answer)], usage=usage)
