"""Language models as authors.

    authors = ensemble(["openai:gpt-5", "openai@http://127.0.0.1:8000/v1:qwen3-coder"], Limits(timeout_s=60))
    result = warpsmith.optimize(module, example_inputs, authors=authors)

`FakeModel` stands in for a model where there is no key. The libraries that speak with providers are loaded when a model
is first made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warpsmith.author.llm.author import LlmAuthor, ensemble
from warpsmith.author.llm.limits import Limits

if TYPE_CHECKING:
    from warpsmith.author.llm.fake import FakeModel

__all__ = ["FakeModel", "Limits", "LlmAuthor", "ensemble"]


def __getattr__(name: str) -> Any:
    """Load the public name that needs pydantic-ai when it is first used."""
    if name != "FakeModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("warpsmith.author.llm.fake").FakeModel
