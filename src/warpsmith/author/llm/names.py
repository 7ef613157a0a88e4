"""Models by name.

    openai:gpt-5                                  a provider that pydantic-ai knows, and the model's name there
    openai@http://127.0.0.1:8000/v1:qwen3-coder   any server that speaks OpenAI's protocol: vLLM, Ollama, llama.cpp

Keys come from the environment and from nowhere else. A server given by its URL is sent `OPENAI_COMPATIBLE_API_KEY` if
that is set, and never the key of a provider.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from warpsmith.author.llm.prices import COMPATIBLE
from warpsmith.errors import SettingsError
from warpsmith.program.hints import suggest

if TYPE_CHECKING:
    from pydantic_ai.models import Model

PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "openai": "OPENAI_API_KEY",
        "openai-chat": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "google": "GOOGLE_API_KEY",
        "openrouter": "OPENROUTER_API_KEY",
        "deepseek": "DEEPSEEK_API_KEY",
    }
)
"""Providers by name, and the environment variable that holds the key of each."""

_ALSO: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"GOOGLE_API_KEY": ("GEMINI_API_KEY",)})
"""Other variables in which a key may be."""

COMPATIBLE_KEY: Final = "OPENAI_COMPATIBLE_API_KEY"
_AT: Final = "openai@"
_FORMS = (
    "write provider:model, such as openai:gpt-5, or openai@URL:model, such as openai@http://127.0.0.1:8000/v1:qwen3"
)
# An address in brackets or a host, a port, a path; what follows the next colon names the model.
_URL = re.compile(r"(https?://(?:\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]\s]+)(?::\d{1,5})?(?:/[^:?#\s]*)?):([^\s].*)", re.DOTALL)
_NOT_INSTALLED = "the libraries for language models are not installed: pip install 'warpsmith[llm]'"
_AUTHORITY = re.compile(r"https?://[^/]*@")


def model_of(name: str) -> Model:
    """Return the model called `name`.

    Raises SettingsError for a name of neither form, a provider that is not known or not installed, a URL with
    credentials in it, and where the key is missing, naming the environment variable that should hold it.
    """
    if name.startswith(_AT):
        return _compatible(name)
    provider, colon, model = name.partition(":")
    if not colon or not provider or not model.strip():
        raise SettingsError(f"{name!r} names no language model: {_FORMS}")
    if provider not in PROVIDERS:
        raise SettingsError(f"{name!r}: unknown provider {provider!r}{suggest(provider, PROVIDERS)}; {_FORMS}")
    return _provided(name, provider)


def _provided(name: str, provider: str) -> Model:
    try:
        from pydantic_ai.exceptions import UserError as RefusedName
        from pydantic_ai.models import infer_model
    except ImportError as error:
        raise SettingsError(f"{name!r}: {_NOT_INSTALLED}") from error
    key = PROVIDERS[provider]
    # Asked here, since libraries complain of a variable that is set and empty in ways of their own.
    if not any(os.environ.get(variable) for variable in (key, *_ALSO.get(key, ()))):
        raise SettingsError(f"{name!r} needs a key: set the environment variable {key}")
    try:
        return infer_model(name)
    except ImportError as error:
        raise SettingsError(f"{name!r}: {_NOT_INSTALLED}") from error
    except RefusedName as error:
        raise SettingsError(f"{name!r}: {error}") from error


def _compatible(name: str) -> Model:
    address = name.removeprefix(_AT)
    match = _URL.fullmatch(address)
    # What stands before an @ is a user and a password. Without a model's name the port looks like one.
    if match is None or _AUTHORITY.match(address) or re.match(r"\d+(/|\Z)", match[2]):
        raise SettingsError(
            f"{without_credentials(name)!r} names no model at a URL of host, port and path: {_FORMS}; "
            f"a key belongs into the environment variable {COMPATIBLE_KEY}"
        )
    url, model = match.groups()
    try:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
    except ImportError as error:
        raise SettingsError(f"{name!r}: {_NOT_INSTALLED}") from error
    provider = OpenAICompatibleProvider(COMPATIBLE, base_url=url, api_key=os.environ.get(COMPATIBLE_KEY) or None)
    # Every server knows `max_tokens`. Ollama among others ignores `max_completion_tokens`, and then writes on and on.
    return OpenAIChatModel(
        model, provider=provider, profile=OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
    )


def without_credentials(name: str) -> str:
    """Return a name that may be shown: without user, password and query of its URL."""
    return re.sub(r"[?#][^:]*", "?***", re.sub(r"(https?://)[^/]*@", r"\1***@", name))
