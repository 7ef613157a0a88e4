"""Whether a program says anything new, before a judge spends time on it.

Two programs are the same where they differ only in comments, white space and the names of variables, and are launched
by the same plan with the same tunables. Programs that were compiled from recipes are left alone: those are written in
one way only, so that their keys tell them apart already.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from warpsmith.evolve.operators import asked_for
from warpsmith.records import Candidate, Judged, digest

ALIKE = 0.95
"""From this share of runs of `RUN` tokens in common on, two programs are nearly the same: they differ in no more than
one token of two hundred. Another way to do the work changes the loop, and with it a tenth of the runs at least."""

RUN = 5
"""Tokens in a row that are compared: enough that their order counts."""

ENOUGH = 3
"""Nearly equal programs that must have failed for one reason before the next is passed over. A right answer may be one
token away from a wrong one, and judging it costs a second; so that only ends what goes in circles."""

_TOKEN = re.compile(
    r"""
    (?P<blank> \s+ | //[^\n]* | /\*.*?\*/ )
  | (?P<directive> \#[^\n]* )
  | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
  | (?P<name> [A-Za-z_]\w* )
  | (?P<number> \.?\d(?:[eEpP][+-]|[\w.])* )
  | (?P<mark> <<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||::|[-+*/%&|^]=|. )
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_]\w*")

_WORDS = frozenset(
    ("return", "else", "case", "goto", "class", "enum", "union", "namespace", "using", "throw", "new", "delete")
    + ("sizeof", "operator", "template", "public")
)
"""After these no variable is declared."""

_QUALIFIERS = frozenset(
    ("const", "volatile", "constexpr", "static", "extern", "inline", "register", "mutable", "typename", "struct")
    + ("__shared__", "__device__", "__global__", "__constant__", "__managed__", "__forceinline__", "__noinline__")
)
"""What follows these may be a type, which never counts as a variable."""

_TYPES = frozenset(
    ("void", "bool", "char", "short", "int", "long", "signed", "unsigned", "float", "double", "half", "auto")
)


@dataclass(frozen=True, slots=True)
class Twin:
    """Why a candidate is passed over: a candidate that was tried before, and in words what they have in common."""

    candidate_key: str
    why: str


class Novelty:
    """What was given to the judge, and what failed, in a form in which the same programs are equal."""

    def __init__(self) -> None:
        self._launched: dict[str, list[Candidate]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._failed: list[tuple[str, str, frozenset[int]]] = []

    def admit(self, candidate: Candidate) -> None:
        """Remember a candidate that is given to the judge."""
        self._launched.setdefault(_launch(candidate), []).append(candidate)
        self._parents[candidate.key] = candidate.lineage.parents

    def learn(self, judged: Judged) -> None:
        """Remember how a candidate failed that was asked for."""
        failure, candidate = judged.verdict.failure, judged.candidate
        if failure is not None and asked_for(candidate.lineage):
            reason = f"{failure.stage.name.lower()}: {failure.reason}"
            self._failed.append((candidate.key, reason, _runs(candidate)))

    def twin(self, candidate: Candidate) -> Twin | None:
        """Return what a candidate repeats, or None where it is new enough to be judged."""
        if candidate.lineage.recipe is not None:
            return None
        tokens = normal(candidate.program.source)
        # Sources are compared only where the plans are the same, which are far quicker to compare.
        for each in self._launched.get(_launch(candidate), ()):
            if normal(each.program.source) == tokens:
                return Twin(each.key, "the same but for names, comments and white space")
        return self._going_in_circles(candidate) if asked_for(candidate.lineage) else None

    def _going_in_circles(self, candidate: Candidate) -> Twin | None:
        """Compare with what failed, but for its own ancestors: from those it differs on purpose."""
        ancestors = self._ancestors(candidate)
        runs = _runs(candidate)
        reasons: Counter[str] = Counter()
        for key, reason, others in self._failed:
            if key not in ancestors and _likeness(runs, others) >= ALIKE:
                reasons[reason] += 1
                if reasons[reason] == ENOUGH:
                    return Twin(key, f"{ENOUGH} programs that are nearly the same failed ({reason})")
        return None

    def _ancestors(self, candidate: Candidate) -> set[str]:
        found: set[str] = set()
        frontier = list(candidate.lineage.parents)
        while frontier:
            key = frontier.pop()
            if key not in found:
                found.add(key)
                frontier.extend(self._parents.get(key, ()))
        return found


@lru_cache(maxsize=512)
def normal(source: str) -> tuple[str, ...]:
    """Return device code as tokens, without comments and white space, its variables numbered as they come.

    A name is a variable where it follows a type somewhere, and is nowhere called, qualified, a type itself or known to
    the preprocessor. All other names stay, and so does every member: two programs that call different functions differ.
    In doubt a name stays, so that programs may be taken for different that are the same, and never the reverse.
    """
    tokens = list(_tokens(source))
    variables = _variables(tokens)
    numbers: dict[str, str] = {}
    found = []
    for number, (kind, text) in enumerate(tokens):
        if kind == "name" and text in variables and (not number or tokens[number - 1][1] not in (".", "->")):
            text = numbers.setdefault(text, f"${len(numbers)}")
        found.append(text)
    return tuple(found)


def _variables(tokens: Sequence[tuple[str, str]]) -> set[str]:
    """Return the names that are surely variables which the program declares itself."""
    declared: set[str] = set()
    other = set(_WORDS | _QUALIFIERS | _TYPES)
    records = any(token in (("name", "struct"), ("name", "class"), ("name", "union")) for token in tokens)
    padded = [("", ""), *tokens, ("", "")]
    for (kind_before, before), (kind, text), (kind_after, after) in zip(padded, padded[1:], padded[2:], strict=False):
        if kind == "directive":
            other.update(_NAME.findall(text))
        if kind != "name":
            continue
        # Where the program declares records of its own, the order of their members matters.
        member = before in (".", "->")
        if kind_after == "name" or after in ("(", "::") or before == "::" or (member and records):
            other.add(text)
        elif kind_before == "name" and not member:
            (other if before in _WORDS or before in _QUALIFIERS else declared).add(text)
    return declared - other


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and text of each token. White space counts within a directive, but not how much of it."""
    for match in _TOKEN.finditer(source.replace("\r\n", "\n").replace("\\\n", " ")):
        kind = match.lastgroup or "mark"
        if kind == "directive":
            yield kind, " ".join(re.sub(r"//.*|/\*.*?\*/", " ", match.group()).split())
        elif kind != "blank":
            yield kind, match.group()


def _launch(candidate: Candidate) -> str:
    """How a candidate is launched: plan and tunables."""
    return digest("launch", repr(candidate.program.plan), repr(sorted(candidate.tunables)))


def _runs(candidate: Candidate) -> frozenset[int]:
    tokens = normal(candidate.program.source)
    return frozenset(hash(tokens[start : start + RUN]) for start in range(max(1, len(tokens) - RUN + 1)))


def _likeness(one: frozenset[int], other: frozenset[int]) -> float:
    """The share of runs that both have, of those that either has."""
    return len(one & other) / len(one | other)
