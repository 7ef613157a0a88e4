"""What a model charges, in US dollars, by the price table that genai-prices brings along; nothing is fetched.

A model behind a URL has a price only where the table knows the URL as that of a provider. A server of one's own charges
nothing, whatever its models are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_ai.models import Model

COMPATIBLE: Final = "openai-compatible"
"""What models behind a URL have in place of the name of a provider."""


def price(model: Model, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float | None:
    """Return what so many tokens cost, or None where the table does not know the model.

    `cached_tokens` says how many of the input tokens the provider had read before.
    """
    from genai_prices import Usage, calc_price

    # What a provider reports is not to be trusted blindly: a negative bill would give the search money.
    usage = Usage(
        input_tokens=max(0, input_tokens),
        output_tokens=max(0, output_tokens),
        cache_read_tokens=min(max(0, cached_tokens), max(0, input_tokens)),
    )
    if model.base_url is not None:
        try:
            return float(calc_price(usage, model.model_name, provider_api_url=model.base_url).total_price)
        except LookupError:
            pass  # The URL says nothing; the provider's name may.
    if model.system == COMPATIBLE:
        return None
    try:
        return float(calc_price(usage, model.model_name, provider_id=model.system).total_price)
    except LookupError:
        return None
