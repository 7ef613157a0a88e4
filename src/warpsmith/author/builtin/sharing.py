"""Layers that are alike share kernels, so that a network of a hundred layers stays short enough to read and compile.

Regions whose texts are the same but for names and integers are a *family*. What its members differ in goes three ways:

- Names of tensors: the same kernel is launched again with other arguments.
- Numbers: the text becomes a template, and each variant a kernel that calls it. The compiler still sees constants.
- Numbers of a *large* family that it need not see (factors, summands, limits) become arguments of the kernel, so that
  one kernel serves many layers: compiling takes as long as there are kernels, whatever the text's length.

Members that are equal but for names share one set of tunables. So do all members of a large family with the same
choices: a search cannot turn hundreds of knobs of which each moves a hundredth of the time, but it can turn one that
moves all of them. Small families keep a set for each variant. A program without likenesses stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from warpsmith.author.builtin.kernels.emission import Kernels
from warpsmith.author.builtin.skeleton import Function, take_apart
from warpsmith.author.builtin.variants import Shared
from warpsmith.records import Launch

# Variants that a family may have and still count as small.
_SMALL = 4


def shared(kernels: Sequence[Kernels]) -> tuple[Kernels, ...]:
    """Return the kernels of all regions with those that are alike shared. A region may be left without text."""
    families: dict[tuple[tuple[str, ...], ...], list[_Member]] = {}
    for place, emitted in enumerate(kernels):
        functions = take_apart(emitted.source, emitted.launches, frozenset(name for name, _ in emitted.tunables))
        if functions is not None:
            member = _Member(place, emitted, functions)
            families.setdefault(tuple(f.skeleton for f in functions), []).append(member)
    result = list(kernels)
    for members in families.values():
        if len(members) > 1:
            for member, changed in zip(members, _Family(members).kernels(), strict=True):
                result[member.place] = changed
    return tuple(result)


@dataclass(frozen=True, eq=False)
class _Member:
    """A region of a family: where it stands in the program, and its kernels taken apart."""

    place: int
    emitted: Kernels
    functions: tuple[Function, ...]

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(f.sizes for f in self.functions)

    @cached_property
    def macros(self) -> tuple[str, ...]:
        """Names of its tunables, by slot."""
        found = {t.slot: t.text for f in self.functions for line in f.lines for t in line if t.kind == "macro"}
        return tuple(found[slot] for slot in sorted(found))

    @property
    def tunables(self) -> dict[str, tuple[int, ...]]:
        """Its tunables with their values, by slot; those that only the plan names last."""
        values = dict(self.emitted.tunables)
        return {name: values[name] for name in dict.fromkeys([*self.macros, *values])}


class _Family:
    """Regions with the same skeleton. `owners` says for each whose tunables it uses."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self.members = members
        self.large = len({member.sizes for member in members}) > _SMALL
        first: dict[object, _Member] = {}
        self.owners = [
            first.setdefault((tuple(m.tunables.values()), None if self.large else m.sizes), m) for m in members
        ]

    def kernels(self) -> list[Kernels]:
        """Return what becomes of each member."""
        texts: list[list[str]] = [[] for _ in self.members]
        launches: list[list[Launch]] = [[] for _ in self.members]
        macros = [owner.macros for owner in self.owners]
        owned = all(owner is member for owner, member in zip(self.owners, self.members, strict=True))
        for place in range(len(self.members[0].functions)):
            one = Shared([m.functions[place] for m in self.members], macros, large=self.large, owned=owned)
            for at, text in one.texts():
                texts[at].append(text)
            for at, member in enumerate(self.members):
                launches[at].append(one.launch(at, member.emitted.launches))
        return [self._member(at, texts[at], launches[at]) for at in range(len(self.members))]

    def _member(self, at: int, texts: Sequence[str], launches: Sequence[Launch]) -> Kernels:
        member, owner = self.members[at], self.owners[at]
        renamed = dict(zip(member.tunables, owner.tunables, strict=True))
        order = {launch.kernel: number for number, launch in enumerate(member.emitted.launches)}
        ranked = sorted(zip(member.functions, launches, strict=True), key=lambda pair: order[pair[0].name])
        buffers = [replace(b, shape=_renamed(b.shape, renamed)) for b in member.emitted.buffers]
        return replace(
            member.emitted,
            source="\n\n".join(texts),
            launches=tuple(_retuned(launch, renamed) for _, launch in ranked),
            tunables=member.emitted.tunables if owner is member else (),
            buffers=tuple(buffers),
        )


def _renamed(expressions: Iterable[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Replace tunables in expressions of a plan."""
    return tuple(re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), text) for text in expressions)


def _retuned(launch: Launch, names: Mapping[str, str]) -> Launch:
    (dynamic,) = _renamed((launch.shared,), names)
    grid, block, cluster = (_renamed(part, names) for part in (launch.grid, launch.block, launch.cluster))
    return replace(launch, grid=grid, block=block, cluster=cluster, shared=dynamic)
