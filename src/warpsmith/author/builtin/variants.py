"""One kernel for several layers: which of its numbers become arguments, which parameters of a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

from warpsmith.author.builtin.constants import Constants
from warpsmith.author.builtin.kernels.emission import pointer
from warpsmith.author.builtin.kernels.snippets import SNIPPETS
from warpsmith.author.builtin.skeleton import FLOATS, Function, Line, Token, write
from warpsmith.records import Launch

# What a size that has no name of its own is called, by what stands before it.
_ROLES = {"*": "STRIDE", "/": "EXTENT", "%": "EXTENT", "+": "OFFSET", "-": "OFFSET"}


# More sizes than this would make a template, or a list of arguments, that nobody can read.
_MOST_SIZES = 12


@dataclass(frozen=True)
class Size:
    """A size that differs from layer to layer: an argument of the kernel, or a parameter of its template."""

    name: str
    type: str
    argument: bool
    values: tuple[int, ...]


class Shared:
    """The kernels of a family at one place. `macros` names the tunables that each member uses, by slot.

    With `large`, sizes that the compiler need not know become arguments; `owned` says that all members use tunables of
    their own.
    """

    def __init__(
        self, functions: Sequence[Function], macros: Sequence[tuple[str, ...]], *, large: bool, owned: bool
    ) -> None:
        self.functions, self.macros, self.owned = functions, macros, owned
        self.first = functions[0]
        self.tensors = _neutral(functions)
        self.taken = {*self.first.words, *self.tensors, *SNIPPETS, *(name for names in macros for name in names)}
        self.own = sorted(s for s in self.first.tunables if len({names[s] for names in macros}) > 1)
        self.tunables = {slot: self._fresh(_camel(self._ending(slot))) for slot in self.own}
        self.constants = Constants(self.first)
        self.unread = frozenset(
            name for s, name in self.constants.names.items() if self.constants.unread(name) and self._differs(s)
        )
        self.sizes = self._differing(large)
        self.variants: dict[object, list[int]] = {}
        for at in range(len(functions)):
            own = tuple(macros[at][slot] for slot in self.own)
            self.variants.setdefault((own, *(size.values[at] for size in self.parameters)), []).append(at)
        self.leads = {at: places[0] for places in self.variants.values() for at in places}

    def _differing(self, large: bool) -> dict[int, Size]:
        """Name the sizes of the body that differ, by slot. Those that always agree are one."""
        groups: dict[tuple[tuple[int, ...], str], list[Token]] = {}
        for token in (t for line in self.first.body for t in line if t.kind == "size"):
            if self._differs(token.slot) and self.constants.names.get(token.slot) not in self.unread:
                kind = self.constants.types.get(token.slot, "long long" if token.suffix == "ll" else "int")
                groups.setdefault((self._values(token.slot), kind), []).append(token)
        free = self.constants.free() if large and len(groups) <= _MOST_SIZES else frozenset()
        found: dict[int, Size] = {}
        for (values, kind), tokens in groups.items():
            argument = free.issuperset(t.slot for t in tokens)
            named = [self.constants.names[t.slot] for t in tokens if t.slot in self.constants.names]
            role = "COUNT" if tokens[0].suffix in FLOATS else _ROLES.get(tokens[0].role, "LIMIT")
            wish = named[0] if named else role
            size = Size(self._fresh(wish.lower() if argument else _camel(wish)), kind, argument, values)
            found |= {token.slot: size for token in tokens}
        return found

    def _values(self, slot: int) -> tuple[int, ...]:
        return tuple(f.sizes[slot] for f in self.functions)

    def _differs(self, slot: int) -> bool:
        return len(set(self._values(slot))) > 1

    @cached_property
    def arguments(self) -> list[Size]:
        """Sizes that every launch gives."""
        return [size for size in dict.fromkeys(self.sizes.values()) if size.argument]

    @cached_property
    def parameters(self) -> list[Size]:
        """Sizes that every variant gives to the template."""
        return [size for size in dict.fromkeys(self.sizes.values()) if not size.argument]

    def _ending(self, slot: int) -> str:
        """What all members' names of a tunable end in."""
        words = [reversed(names[slot].split("_")) for names in self.macros]
        common = []
        for word, *others in zip(*words):
            if any(other != word for other in others):
                break
            common.append(word)
        return "_".join(reversed(common)).lstrip("_0123456789") or "TUNABLE"

    def _fresh(self, wish: str) -> str:
        name = next(n for n in (pointer(f"{wish}{i if i > 1 else ''}") for i in count(1)) if n not in self.taken)
        self.taken.add(name)
        return name

    def launch(self, at: int, launches: Iterable[Launch]) -> Launch:
        """Return a member's launch, with its tensors in the order in which the first member takes them."""
        function = self.functions[at]
        launch = next(each for each in launches if each.kernel == function.name)
        if self.unchanged:
            return launch
        tensors = [function.tensors[slot] for slot in self.first.order]
        given = [str(size.values[at]) for size in self.arguments]
        return replace(launch, kernel=self.functions[self.leads[at]].name, args=(*tensors, *given))

    @cached_property
    def unchanged(self) -> bool:
        """Whether nothing is gained by sharing."""
        return self.owned and len(self.variants) == len(self.functions) and not self.templated

    @cached_property
    def templated(self) -> bool:
        """Whether a template with a kernel for each variant is shorter than the kernels themselves."""
        if len(self.variants) == 1 or len(self.parameters) > _MOST_SIZES:
            return False
        return len("\n\n".join(self._with_template())) < len("\n\n".join(self._without()))

    def texts(self) -> list[tuple[int, str]]:
        """Return the texts, each with the member that it belongs to."""
        if self.unchanged:
            return [(at, function.text) for at, function in enumerate(self.functions)]
        if self.templated:
            return [(0, text) for text in self._with_template()]
        return list(zip((places[0] for places in self.variants.values()), self._without(), strict=True))

    def _without(self) -> list[str]:
        """One whole kernel for each variant."""
        return [
            "\n".join([*self._head(p), *self._body(p[0], dict(enumerate(self.macros[p[0]])), template=False), "}"])
            for p in self.variants.values()
        ]

    def _with_template(self) -> list[str]:
        """The template, then for each variant a kernel that calls it."""
        name = re.sub(r"_kernel(?=_|$)", "", self.first.name) + "_body"
        given = [f"int {self.tunables[slot]}" for slot in self.own]
        given += [f"{size.type} {size.name}" for size in self.parameters]
        everyone = range(len(self.functions))
        macros = dict(enumerate(self.macros[0])) | self.tunables
        comment = [self._said(line, everyone, macros) for line in self.first.comment]
        head = f"template <{', '.join(given)}>\n__device__ __forceinline__ void {name}({self._signature}) {{"
        texts = ["\n".join([*comment, head, *self._body(0, macros, template=True), "}"])]
        passed = ", ".join([self.tensors[slot] for slot in self.first.order] + [n.name for n in self.arguments])
        for at, *others in self.variants.values():
            chosen = [self.macros[at][slot] for slot in self.own] + [str(n.values[at]) for n in self.parameters]
            call = f"    {name}<{', '.join(chosen)}>({passed});"
            texts.append("\n".join([*self._head([at, *others]), call, "}"]))
        return texts

    @property
    def _signature(self) -> str:
        tensors = [f"{self.first.types[slot]} {self.tensors[slot]}" for slot in self.first.order]
        return ", ".join([*tensors, *(f"{size.type} {size.name}" for size in self.arguments)])

    def _head(self, places: Sequence[int]) -> list[str]:
        """Comment and signature of the kernel of one variant."""
        function, macros = self.functions[places[0]], dict(enumerate(self.macros[places[0]]))
        lines = [self._said(line, places, macros) for line in function.comment]
        if len(places) > 1:
            others = "tensors and sizes" if self.arguments else "tensors"
            lines.append(f"// Launched {len(places)} times, each time with other {others}.")
        bounds = write(function.bounds, self.tensors, macros, lambda token: token.text)
        return [*lines, f'extern "C" __global__ void __launch_bounds__({bounds}) {function.name}({self._signature}) {{']

    def _said(self, line: Line, places: Sequence[int], macros: Mapping[int, str]) -> str:
        """A line of comment that holds for several members: a size that they do not share goes by its name, or as n."""

        def size(token: Token) -> str:
            values = self._values(token.slot)
            if len({values[at] for at in places}) == 1:
                return str(values[places[0]])
            return next((n.name for n in self.sizes.values() if n.values == values), "n")

        return write(line, self.tensors, macros, size)

    def _body(self, at: int, macros: Mapping[int, str], *, template: bool) -> list[str]:
        """The body of a member's own kernel, or of the template."""

        def size(token: Token) -> str:
            known = self.sizes.get(token.slot)
            if known is None or not (known.argument or template):
                return token.text
            return f"{token.suffix}({known.name})" if token.suffix in FLOATS else known.name

        variable = {each.name for each in self.arguments}
        text = []
        for line in self.functions[at].body:
            written = write(line, self.tensors, macros, size)
            text += self.constants.without(written, self.unread, variable)
        return text


def _camel(name: str) -> str:
    """`TILE_K` as `TileK`, as parameters of templates are written; one letter gets a word before it."""
    return f"Extent{name}" if len(name) == 1 else "".join(word.capitalize() for word in name.split("_"))


def _neutral(functions: Sequence[Function]) -> list[str]:
    """Names for parameters, by slot: the words that the tensors of all members have in common."""
    names: list[str] = []
    taken = set(functions[0].words)
    for slot, kind in enumerate(functions[0].types):
        common = functions[0].tensors[slot].split("_")
        same = len({f.tensors[slot] for f in functions}) == 1
        for function in functions[1:]:
            common = _subsequence(common, function.tensors[slot].split("_"))
        wish = "_".join(w for w in common if same or not w.isdigit()) or ("input" if "const " in kind else "output")
        name = next(n for n in (pointer(wish + (f"_{i}" if i > 1 else "")) for i in count(1)) if n not in taken)
        taken.add(name)
        names.append(name)
    return names


def _subsequence(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The longest list of words that both have in this order."""
    best: list[list[list[str]]] = [[[] for _ in range(len(right) + 1)] for _ in range(len(left) + 1)]
    for i, word in enumerate(left, 1):
        for j, other in enumerate(right, 1):
            longer = [*best[i - 1][j - 1], word] if word == other else []
            best[i][j] = max(longer, best[i - 1][j], best[i][j - 1], key=len)
    return best[-1][-1]
