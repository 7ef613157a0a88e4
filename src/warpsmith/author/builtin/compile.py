"""From a graph and a recipe to a program."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from warpsmith.author.builtin.attention_match import attended
from warpsmith.author.builtin.index import axes_of, lift
from warpsmith.author.builtin.kernels import FAMILIES, Gene, Kernels, Scope, library
from warpsmith.author.builtin.kernels.snippets import pasted
from warpsmith.author.builtin.kernels.turns import emit_turns
from warpsmith.author.builtin.lowering import lower, operators_of
from warpsmith.author.builtin.lowering.joins import worth_storing
from warpsmith.author.builtin.overlap import may_overlap, overlapped
from warpsmith.author.builtin.printer import FAST_FUNCTIONS, HELPERS
from warpsmith.author.builtin.recipe import Recipe
from warpsmith.author.builtin.regions import Cut, Region, cut, results
from warpsmith.author.builtin.scalar import Apply, walk
from warpsmith.author.builtin.sharing import shared
from warpsmith.author.builtin.values import Contraction, Value, Virtual
from warpsmith.records import Buffer, Call, GpuSpec, Graph, Plan, Program, Ref, Tolerance, frozen
from warpsmith.task.evaluate import refs_of

_USUAL = Tolerance()
# Fewer output channels than this leave no use for tiles, and so none for packed operands.
_PACKED_ROWS = 16


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program with the recipe that it was made from, spelled out: every gene and tunable has its value.

    `genes` are the choices there were, by region; `cuttable` the nodes that another recipe may store, `hosts` the
    regions that it may leave without epilogue.
    """

    program: Program
    recipe: Recipe
    genes: Mapping[str, tuple[Gene, ...]]
    cuttable: tuple[str, ...]
    hosts: tuple[str, ...]

    @property
    def tunables(self) -> tuple[tuple[str, int], ...]:
        """The recipe's value for every tunable of the program."""
        return tuple((name, self.recipe.tunables[name]) for name, _ in self.program.plan.tunables)


def compile_graph(
    graph: Graph, recipe: Recipe, gpu: GpuSpec, tolerance: Tolerance = _USUAL, *, hybrid: bool = False
) -> Compiled:
    """Compile, with the precision that a tolerance allows. Where it may be `hybrid`, recipes may ask for calls.

    Raises UnsupportedOperator, naming the operator, where a node cannot be lowered.
    """
    parts = _cut(graph, recipe.cuts, recipe.unfused, tolerance)
    if hybrid and (apart := library.apart(parts, graph, recipe.genes)):
        parts = _cut(graph, recipe.cuts, recipe.unfused | apart, tolerance)
    wide = any(spec.numel >= 2**31 for spec in (*graph.arguments, *graph.results))
    arguments = frozenset(spec.name for spec in graph.arguments)
    labels = labels_of(parts.regions)
    chosen: dict[str, Mapping[str, int | str]] = {}
    offered: dict[str, tuple[Gene, ...]] = {}
    kernels: list[Kernels] = []
    calls: list[Call] = []
    for region in parts.regions:
        family = FAMILIES[region.kind]
        genes = (*family.genes(region, gpu), *_math_genes(region))
        asked = recipe.genes.get(region.name, {})
        genes = library.offered(region, graph, asked, genes) if hybrid else genes
        choice = {g.name: asked[g.name] if asked.get(g.name) in g.choices else g.choices[0] for g in genes}
        chosen[region.name], offered[region.name] = frozen(choice), genes
        if choice.get(library.ENGINE.name) == "library":
            calls.append(library.call_for(region, graph, sum(len(each.launches) for each in kernels)))
            continue
        label = labels[region.name]
        prefix = f"{label.removesuffix('_kernel').upper()}_" if len(parts.regions) > 1 else ""
        scope = Scope(label, prefix, wide, gpu.shared_per_block, arguments, choice.get("math") == "fast")
        emitted = family.emit(region, choice, scope)
        kernels.append(replace(emitted, helpers=emitted.helpers | scope.helpers))
    turns = [turn for emitted in kernels for turn in emitted.turns]
    if turns:
        kernels.insert(0, emit_turns(turns))
        calls = [replace(call, after=call.after + len(kernels[0].launches)) for call in calls]
    program = _assemble(graph, parts, kernels)
    program = Program(program.source, replace(program.plan, calls=tuple(calls)))
    overlap = recipe.overlap and may_overlap(program.plan, gpu)
    program = overlapped(program) if overlap else program
    tunables = {
        name: recipe.tunables[name] if recipe.tunables.get(name) in values else values[0]
        for name, values in program.plan.tunables
    }
    full = Recipe(recipe.cuts, recipe.unfused, frozen(chosen), frozen(tunables), overlap)
    hosts = tuple(name for region in parts.regions for name in region.hosts)
    return Compiled(program, full, frozen(offered), _cuttable(graph), hosts)


@lru_cache(maxsize=64)
def _cut(graph: Graph, cuts: frozenset[str], unfused: frozenset[str], tolerance: Tolerance) -> Cut:
    parts = cut(lower(graph, cuts), unfused)
    allowed = {"matmul": tolerance.matmul_tf32, "conv": tolerance.conv_tf32}
    for region in parts.regions:
        contractions = [p for p in region.producers if isinstance(p, Contraction)]
        region.tf32 = all(allowed[p.operation] for p in contractions)
    return parts


@lru_cache(maxsize=16)
def _cuttable(graph: Graph) -> tuple[str, ...]:
    """Nodes whose value more than one node uses, or that stand between producers: storing them can pay."""
    lowered = lower(graph)
    ends = {ref.name for _, ref in graph.outputs}
    return tuple(
        node.name
        for node in graph.nodes
        if node.name not in ends and isinstance(lowered.values.get(node.name), Virtual) and len(node.outputs) == 1
    )


@lru_cache(maxsize=16)
def usual_cuts(graph: Graph) -> frozenset[str]:
    """Values that most kernels store: the last pointwise result between a producer and a contraction.

    A contraction reads each element of its operands many times, so what is fused in front of it is computed again each
    time; behind the producer it is computed once. What stands between the products of an attention is no such value,
    nor is what only a contraction with packed operands uses.
    Concatenations of many parts are stored too, or those that another one begins with.
    """
    lowered = lower(graph)
    subjects = ("contractions", "convolutions", "transposed", "einsum", "attention")
    contractions = frozenset[str]().union(*map(operators_of, subjects))
    movements = operators_of("views") | operators_of("rearranging")
    makers = {node.name: node for node in graph.nodes}
    users = Counter(ref.name for node in graph.nodes for ref in refs_of(node))
    cuts = set()
    for node in graph.nodes:
        if node.op not in contractions:
            continue
        result = lowered.values.get(node.name)
        scores, packs = set(attended(result)), _packs(result)
        for ref in refs_of(node):
            maker = makers.get(ref.name)
            while maker is not None and maker.op in movements:
                first = maker.args[0]
                maker = makers.get(first.name) if isinstance(first, Ref) else None
            value = lowered.values.get(maker.name) if maker is not None else None
            if maker is None or (packs and users[maker.name] == 1):
                continue
            if isinstance(value, Virtual) and maker.name in _cuttable(graph):
                element = value.at(tuple(lift(a) for a in axes_of(value.shape, "v")))
                used = {result.producer for result in results(element)}
                if any(isinstance(part, Apply) for part in walk(element)) and used and not used & scores:
                    cuts.add(maker.name)
    return worth_storing(graph) | cuts


def _packs(value: Value | None) -> bool:
    """Whether a value comes from a contraction that packs its operands, and so computes once what they need."""
    if value is None:
        return False
    element = value.at(tuple(lift(a) for a in axes_of(value.shape, "v")))
    found = [r.producer for r in results(element) if isinstance(r.producer, Contraction) and r.producer.packed]
    return any(math.prod(e for e, r in zip(p.shape, p.roles, strict=True) if r == "m") >= _PACKED_ROWS for p in found)


def _math_genes(region: Region) -> tuple[Gene, ...]:
    """Exact or fast functions, where a region has any that come in both."""
    sources = [o for p in region.producers for o in p.operands()]
    sources += [o.at(tuple(lift(a) for a in axes_of(o.shape, "e")), o.shape) for o in region.outputs]
    used = {node.op for source in sources for node in walk(source) if isinstance(node, Apply)}
    normaliser = any(getattr(p, "kind", "") == "max_sumexp" for p in region.producers)
    return (Gene("math", ("exact", "fast")),) if used & FAST_FUNCTIONS or normaliser else ()


def labels_of(regions: Sequence[Region]) -> dict[str, str]:
    """Names for kernels: that of the node, or with what is computed for it where two would clash.

    The ending keeps them apart from the functions of the CUDA library.
    """
    anchors = [r.name if r.producers else r.outputs[0].value.name for r in regions]
    short = [_identifier(anchor.split(".")[0]) for anchor in anchors]
    chosen = [s if short.count(s) == 1 else _identifier(r.name) for s, r in zip(short, regions, strict=True)]
    return {region.name: f"{label}_kernel" for region, label in zip(regions, chosen, strict=True)}


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _assemble(graph: Graph, parts: Cut, kernels: Sequence[Kernels]) -> Program:
    kernels = shared(kernels)
    helpers = {name for emitted in kernels for name in emitted.helpers}
    types = {spec.dtype for spec in (*graph.arguments, *graph.results)} | {s.dtype for s in parts.intermediates}
    types |= {buffer.dtype for emitted in kernels for buffer in emitted.buffers}
    includes = [
        f"#include <{header}>"
        for dtype, header in (("float16", "cuda_fp16.h"), ("bfloat16", "cuda_bf16.h"))
        if dtype in types
    ]
    functions = [text for name, text in HELPERS.items() if name in helpers]
    head = ["\n".join(includes)] if includes else []
    source = "\n\n".join([*head, *pasted(helpers), *functions, *(k.source for k in kernels if k.source)]) + "\n"
    stored = tuple(Buffer(s.name, tuple(map(str, s.shape)) or ("1",), s.dtype) for s in parts.intermediates)
    plan = Plan(
        symbols=(),
        tunables=tuple(t for k in kernels for t in k.tunables),
        buffers=stored + tuple(b for k in kernels for b in k.buffers),
        launches=tuple(launch for k in kernels for launch in k.launches),
    )
    return Program(source, plan)
