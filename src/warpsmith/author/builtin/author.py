"""The built-in author: no key, no network. It compiles the functional graph, and its operators work on recipes."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from warpsmith.archive import Precedent
from warpsmith.author.builtin import heritage
from warpsmith.author.builtin.compile import Compiled, compile_graph, usual_cuts
from warpsmith.author.builtin.kernels import library
from warpsmith.author.builtin.overlap import may_overlap
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.author.protocol import Context, Proposal
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import Candidate, GpuSpec, Judged, Task, frozen


@dataclass(frozen=True, slots=True, eq=False)
class _Question(Context):
    """A context, and whether the answer may call a library."""

    hybrid: bool = False


Operator = Callable[[_Question, random.Random, Sequence[Recipe]], tuple[Recipe, str] | None]

# How many fresh draws to make before an operator says that it has nothing new.
_ATTEMPTS = 16
_BY_LIBRARY = 0.5
"""The share of first programs that begin with library calls, where they may have any."""


class BuiltinAuthor:
    """Proposes programs from recipes.

    `create` starts from the defaults and, with other seeds, strays from them at a few genes; `random` draws every gene;
    `tune` moves tunables of a parent; `mutate` changes one or two genes, what is stored, or whether launches overlap;
    `cross` takes each region from one of two parents. Apart from these it can `inherit` from programs for other tasks.

    A `hybrid` author may leave contractions to library calls: that is one more gene where it is possible, and half of
    what `create` strays from begins with it.
    """

    name = "builtin"
    expected_usd = 0.0

    def __init__(self, *, hybrid: bool = False) -> None:
        self._hybrid = hybrid
        self._operators: dict[str, tuple[int, Operator]] = {
            "create": (0, _create),
            "random": (0, _random),
            "tune": (1, _tune),
            "mutate": (1, _mutate),
            "cross": (2, _cross),
        }

    @property
    def operators(self) -> dict[str, int]:
        """Operators on offer and how many parents each takes."""
        return {name: parents for name, (parents, _) in self._operators.items()}

    def inherit(
        self, task: Task, gpu: GpuSpec, precedents: Sequence[Precedent], count: int, known: Collection[str] = ()
    ) -> tuple[Candidate, ...]:
        """Return up to `count` new candidates whose recipes come from programs for similar tasks, the best first."""
        return heritage.inherit(task, gpu, precedents, count, known)

    async def propose(self, context: Context) -> Proposal | None:
        """Apply an operator; None where the parents have no recipe, or nothing differs from them.

        Raises UnsupportedOperator where the task's graph cannot be lowered.
        """
        parents, operator = self._operators[context.operator]
        recipes = [r for r in map(_recipe_of, context.parents) if r is not None]
        if len(recipes) < parents:
            return None
        rng = random.Random(f"{context.task.key}:{context.operator}:{context.seed}")
        known = {judged.candidate.key for judged in context.parents}
        given = {each.name: getattr(context, each.name) for each in fields(Context)}
        question = _Question(**given, hybrid=self._hybrid)
        for _ in range(_ATTEMPTS):
            with _blaming(context.task):
                answer = operator(question, rng, recipes)
            if answer is None:
                return None
            recipe, note = answer
            compiled = _compiled(question, recipe)
            if not any(_same(compiled, j) for j in context.parents) or not known:
                return Proposal(compiled.program, compiled.tunables, compiled.recipe.to_json(), note=note)
        return None


def _recipe_of(judged: Judged) -> Recipe | None:
    """The parent's recipe, with the tunables that it was judged with."""
    text = judged.candidate.lineage.recipe
    if text is None:
        return None
    recipe = Recipe.from_json(text)
    return replace(recipe, tunables=frozen(dict(judged.candidate.tunables)))


def _same(compiled: Compiled, judged: Judged) -> bool:
    return compiled.program.key == judged.candidate.program.key and dict(compiled.tunables) == dict(
        judged.candidate.tunables
    )


@contextmanager
def _blaming(task: Task) -> Iterator[None]:
    """Name the line of the module's file where an operator cannot be lowered."""
    try:
        yield
    except UnsupportedOperator as error:
        path, ending, _ = task.origin.partition(".py")
        line = task.lines.get(error.node or "")
        raise UnsupportedOperator(error.message, file=path + ending, line=line if ending else None) from error


def _compiled(context: _Question, recipe: Recipe) -> Compiled:
    return compile_graph(context.task.graph, recipe, context.gpu, context.task.tolerance, hybrid=context.hybrid)


def _create(context: _Question, rng: random.Random, _parents: Sequence[Recipe]) -> tuple[Recipe, str]:
    start = Recipe(cuts=usual_cuts(context.task.graph))
    if context.seed == 0:
        return start, "defaults"
    recipe, notes = _compiled(context, start).recipe, []
    if context.hybrid and rng.random() < _BY_LIBRARY:
        recipe, notes = _left_to_library(context, recipe), ["by the library"]
    for _ in range(rng.randint(1, 3) - len(notes)):
        recipe, note = _change_gene(context, recipe, rng)
        notes.append(note)
    return recipe, ", ".join(notes)


def _left_to_library(context: _Question, recipe: Recipe) -> Recipe:
    """Leave every contraction to the library that can be left to it."""
    for region, genes in _compiled(context, recipe).genes.items():
        if library.ENGINE in genes:
            recipe = recipe.choosing(region, library.ENGINE.name, "library")
    return _compiled(context, recipe).recipe


def _random(context: _Question, rng: random.Random, _parents: Sequence[Recipe]) -> tuple[Recipe, str]:
    start = _compiled(context, Recipe())
    flipped = {n for n in start.cuttable if rng.random() < 1 / (1 + len(start.cuttable))}
    cuts = usual_cuts(context.task.graph) ^ flipped
    unfused = frozenset(h for h in start.hosts if rng.random() < 0.1)
    shaped = _compiled(context, Recipe(cuts, unfused))
    genes = {
        region: frozen({gene.name: rng.choice(gene.choices) for gene in offered})
        for region, offered in shaped.genes.items()
    }
    full = _compiled(context, Recipe(cuts, unfused, frozen(genes)))
    tunables = {name: rng.choice(values) for name, values in full.program.plan.tunables}
    return Recipe(cuts, unfused, frozen(genes), frozen(tunables)), "every gene drawn"


def _tune(context: _Question, rng: random.Random, parents: Sequence[Recipe]) -> tuple[Recipe, str] | None:
    recipe = parents[0]
    offered = [(n, v) for n, v in _compiled(context, recipe).program.plan.tunables if len(v) > 1]
    if not offered:
        return None
    values = dict(recipe.tunables)
    for name, choices in rng.sample(offered, k=min(len(offered), rng.choice((1, 1, 2)))):
        values[name] = rng.choice([c for c in choices if c != values.get(name)])
    changed = [f"{n} = {v}" for n, v in values.items() if recipe.tunables.get(n) != v]
    return replace(recipe, tunables=frozen(values)), ", ".join(changed)


def _mutate(context: _Question, rng: random.Random, parents: Sequence[Recipe]) -> tuple[Recipe, str]:
    recipe = parents[0]
    compiled = _compiled(context, recipe)
    draw = rng.random()
    if draw < 0.1 and compiled.cuttable:
        node = rng.choice(compiled.cuttable)
        verb = "recompute" if node in recipe.cuts else "store"
        return replace(recipe, cuts=recipe.cuts ^ {node}), f"{verb} {node}"
    if draw < 0.15 and compiled.hosts:
        host = rng.choice(compiled.hosts)
        verb = "fuse" if host in recipe.unfused else "unfuse"
        return replace(recipe, unfused=recipe.unfused ^ {host}), f"{verb} behind {host}"
    if 0.15 <= draw < 0.2 and may_overlap(compiled.program.plan, context.gpu):
        verb = "do not overlap" if recipe.overlap else "overlap"
        return replace(recipe, overlap=not recipe.overlap), f"{verb} launches"
    changed, note = _change_gene(context, recipe, rng)
    if rng.random() < 0.3:
        changed, second = _change_gene(context, changed, rng)
        note = f"{note}, {second}"
    return changed, note


def _change_gene(context: _Question, recipe: Recipe, rng: random.Random) -> tuple[Recipe, str]:
    """Give one gene of one region another value; where there is none to change, one tunable."""
    compiled = _compiled(context, recipe)
    open_genes = [(r, g) for r, genes in compiled.genes.items() for g in genes if len(g.choices) > 1]
    if not open_genes:
        tuned = _tune(context, rng, [compiled.recipe])
        return tuned if tuned is not None else (recipe, "unchanged")
    region, gene = rng.choice(open_genes)
    now = compiled.recipe.genes[region][gene.name]
    choice = rng.choice([c for c in gene.choices if c != now])
    return compiled.recipe.choosing(region, gene.name, choice), f"{region}: {gene.name} {now} -> {choice}"


def _cross(context: _Question, rng: random.Random, parents: Sequence[Recipe]) -> tuple[Recipe, str]:
    """Cuts and overlap from one parent; genes and tunables of every region from either."""
    first, second = parents[:2]
    frame = rng.choice((first, second))
    genes = {}
    taken = []
    for region in sorted({*first.genes, *second.genes}):
        donors = [p for p in (first, second) if region in p.genes]
        donor = rng.choice(donors)
        genes[region] = donor.genes[region]
        taken.append(f"{region} from {'first' if donor is first else 'second'}")
    tunables = {
        name: rng.choice([p.tunables[name] for p in (first, second) if name in p.tunables])
        for name in sorted({*first.tunables, *second.tunables})
    }
    return replace(frame, genes=frozen(genes), tunables=frozen(tunables)), ", ".join(taken)
