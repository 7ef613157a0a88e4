"""The arms of a contest: who may write programs, and what they may not do. One text says it all.

    ARM      [NAME=] AUTHORS {SWITCH}
    AUTHORS  AUTHOR {+ AUTHOR}
    AUTHOR   builtin | model | agent | PROVIDER:MODEL

    builtin              the built-in author alone
    model                all language models of the settings; one of them by its own name, as in the settings
    agent                the coding agent of the settings
    builtin+model        both, in one search

    SWITCH   -retrieval | -cross

    builtin -retrieval   takes no candidate, example or lesson from other tasks in the archive
    builtin -cross       no author is asked to cross two programs

A name in front, `lean=builtin -cross`, is what the table calls the arm; without one it is called by its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from warpsmith.errors import SettingsError
from warpsmith.settings import Settings

BUILTIN, MODEL, AGENT = "builtin", "model", "agent"
RETRIEVAL, CROSS = "-retrieval", "-cross"
_NAMED = re.compile(r"\s*([A-Za-z0-9][\w .-]*?)\s*=(.*)", re.DOTALL)
"""What stands before the first `=` is a name only where it looks like one: addresses of models may hold that sign."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a contest. `models` are those that it asks, by name; `retrieval` and `cross` what it may do."""

    name: str
    builtin: bool
    models: tuple[str, ...]
    agent: bool
    retrieval: bool = True
    cross: bool = True

    @property
    def spec(self) -> str:
        """The text that says who takes part and what is switched off, with every model by its name."""
        authors = [BUILTIN] * self.builtin + [*self.models] + [AGENT] * self.agent
        switches = [RETRIEVAL] * (not self.retrieval) + [CROSS] * (not self.cross)
        return " ".join(("+".join(authors), *switches))

    @property
    def without(self) -> tuple[str, ...]:
        """The operators that are not used."""
        return () if self.cross else ("cross",)

    def settings(self, settings: Settings) -> Settings:
        """Return the same settings with the models and the agent of this arm, and no others."""
        agent = settings.agent_command if self.agent else ()
        return settings.model_copy(update={"models": self.models, "agent_command": agent})


def arms_for(specs: Sequence[str], settings: Settings) -> tuple[Arm, ...]:
    """Return the arms that `specs` describe, or where there are none the usual ones.

    Without models these are the built-in author, without retrieval, and without crossover. With models: the built-in
    author, the models, both, and both without either.

    Raises SettingsError for a word that is not known, an author that the settings do not name, fewer than two arms,
    and two arms that are the same or have the same name.
    """
    everyone = f"{BUILTIN}+{MODEL}" if settings.models else BUILTIN
    alone = (BUILTIN, MODEL) if settings.models else ()
    usual = (*alone, everyone, f"{everyone} {RETRIEVAL}", f"{everyone} {CROSS}")
    arms = tuple(parse_arm(spec, settings) for spec in (specs or usual))
    if len(arms) < 2:
        raise SettingsError("a contest needs two arms: give --arm at least twice, or not at all for the usual ones")
    for number, arm in enumerate(arms):
        for other in arms[:number]:
            if replace(other, name=arm.name) == arm:
                raise SettingsError(f"the arms {other.name!r} and {arm.name!r} are the same: {arm.spec}")
            if other.name == arm.name:
                raise SettingsError(f"two arms are called {arm.name!r}: {other.spec} and {arm.spec}")
    return arms


def parse_arm(text: str, settings: Settings) -> Arm:
    """Return the arm that a text describes. Raises SettingsError, quoting the text, where it describes none."""
    named = _NAMED.fullmatch(text)
    words = (named[2] if named else text).split()
    first = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    switches = list(_switches(words[first:], text))
    authors = list(_authors(" ".join(words[:first]), settings, text))
    models = [each for author in authors for each in _models(author, settings)]
    for named_once in (switches, authors, models):
        if twice := [each for number, each in enumerate(named_once) if each in named_once[:number]]:
            raise SettingsError(f"arm {text!r} names {twice[0]!r} twice")
    return Arm(
        name=named[1] if named else " ".join(("+".join(authors), *switches)),
        builtin=BUILTIN in authors,
        models=tuple(models),
        agent=AGENT in authors,
        retrieval=RETRIEVAL not in switches,
        cross=CROSS not in switches,
    )


def _switches(words: Sequence[str], text: str) -> Iterator[str]:
    for word in words:
        if word not in (RETRIEVAL, CROSS):
            raise SettingsError(f"arm {text!r}: {word!r} is no switch; there are {RETRIEVAL} and {CROSS}, at the end")
        yield word


def _authors(words: str, settings: Settings, text: str) -> Iterator[str]:
    if not words:
        raise SettingsError(f"arm {text!r} names no author, such as {BUILTIN}")
    for author in (each.strip() for each in words.split("+")):
        if author == MODEL and not settings.models:
            raise SettingsError(f"arm {text!r} asks models, and no model is configured: give --model provider:model")
        if author == AGENT and not settings.agent_command:
            raise SettingsError(f"arm {text!r} asks an agent, and agent_command names none")
        if author not in (BUILTIN, MODEL, AGENT, *settings.models):
            known = ", ".join((BUILTIN, MODEL, AGENT, *settings.models))
            raise SettingsError(f"arm {text!r}: {author!r} is no author; known are {known}, joined by +")
        yield author


def _models(author: str, settings: Settings) -> tuple[str, ...]:
    """The models that one word stands for."""
    return settings.models if author == MODEL else () if author in (BUILTIN, AGENT) else (author,)
