"""Who is asked in a search: those whom the settings name."""

from __future__ import annotations

from warpsmith.author.protocol import Author
from warpsmith.pipeline import authors_of
from warpsmith.server.serve import headless_agent
from warpsmith.settings import Settings


def all_authors(settings: Settings) -> list[Author]:
    """Return the built-in author, the language models, and the coding agent, as far as the settings name them.

    Raises SettingsError where a model has no key, or a library is not installed.
    """
    from warpsmith.author.agent import AgentLimits

    authors = authors_of(settings)
    if settings.agent_command:
        limits = AgentLimits(seconds=settings.agent_seconds)
        authors.append(headless_agent(settings.agent_command, settings, limits, environment=settings.agent_environment))
    return authors
