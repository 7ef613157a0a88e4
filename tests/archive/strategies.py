"""Hypothesis strategies for records: any that can be built, not only those that make sense."""

from __future__ import annotations

from hypothesis import strategies as st

from warpsmith.records import (
    DTYPE_BYTES,
    Buffer,
    Call,
    Candidate,
    Counters,
    Diagnostic,
    DTypeArg,
    Failure,
    FamilyResult,
    Finding,
    GpuState,
    Graph,
    KernelResources,
    Launch,
    Lineage,
    Mismatch,
    Node,
    Plan,
    Profile,
    Program,
    Ref,
    Stage,
    TensorSpec,
    Timing,
    Verdict,
    View,
)

# PostgreSQL holds no NUL in text, and neither names nor device code can contain one.
characters = st.characters(codec="utf-8", exclude_characters="\0")
names = st.text(characters, min_size=1, max_size=8)
texts = st.text(characters, max_size=40)
numbers = st.integers(-(2**62), 2**62)
# Infinities, but no NaN: records that hold one do not even equal themselves. NaN has a test of its own.
floats = st.floats(allow_nan=False)
keys = st.text("0123456789abcdef", min_size=16, max_size=16)
triples = st.tuples(numbers, numbers, numbers)


def some(strategy: st.SearchStrategy, size: int = 3) -> st.SearchStrategy:
    return st.lists(strategy, max_size=size).map(tuple)


specs = st.builds(TensorSpec, names, some(st.integers(0, 2**40)), st.sampled_from(sorted(DTYPE_BYTES)))
refs = st.builds(Ref, names, st.integers(0, 5))
args = st.recursive(
    st.one_of(refs, st.builds(DTypeArg, names), numbers, floats, st.booleans(), texts, st.none()), some, max_leaves=6
)
nodes = st.builds(Node, names, names, some(args), some(st.tuples(names, args)), some(st.none() | specs))
graphs = st.builds(
    Graph, *(some(specs) for _ in range(4)), some(nodes), some(st.tuples(specs, refs)), some(st.tuples(names, names))
)

tunable_sets = st.dictionaries(names, st.lists(numbers, min_size=1, max_size=3).map(tuple), max_size=3)
launches = st.builds(
    Launch,
    names,
    some(names),
    some(names),
    some(names),
    shared=texts,
    cluster=some(names),
    cooperative=st.booleans(),
    max_registers=st.none() | numbers,
    overlap=st.booleans(),
)
views = st.builds(View, names, some(names), some(names), names)
library_calls = st.builds(Call, names, some(views), views, some(st.tuples(names, some(names))), st.integers(0, 5))
lineages = st.builds(
    Lineage,
    names,
    names,
    some(keys),
    st.integers(0, 2**40),
    recipe=st.none() | texts,
    prompt=st.none() | texts,
    reply=st.none() | texts,
    note=texts,
    cost_usd=st.floats(0, 1e6),
    seconds=st.floats(0, 1e6),
)


@st.composite
def candidates(draw: st.DrawFn, task_key: str | None = None) -> Candidate:
    tunables = draw(tunable_sets)
    plan = Plan(
        draw(some(st.tuples(names, names))),
        tuple(tunables.items()),
        draw(some(st.builds(Buffer, names, some(names), names))),
        draw(some(launches)),
        draw(some(names)),
        draw(some(library_calls)),
    )
    chosen = tuple((name, draw(st.sampled_from(values))) for name, values in tunables.items())
    return Candidate(task_key or draw(keys), Program(draw(texts), plan), chosen, draw(lineages))


findings = st.builds(
    Finding, st.sampled_from(["out_of_bounds", "shared_race", "trap"]), names, numbers, texts, triples, triples
)
mismatches = st.builds(Mismatch, names, some(numbers), floats, floats, numbers, numbers)
diagnostics = st.builds(Diagnostic, st.sampled_from(["error", "warning"]), numbers, numbers, texts)
classes = some(st.tuples(names, numbers))
counters = st.builds(Counters, names, triples, triples, numbers, classes, classes, *(numbers for _ in range(11)))
timings = st.builds(
    lambda samples, low, mid, high, source, clocks, states, several: Timing(
        samples, mid, (low, high), source, "H200", clocks, states, several
    ),
    some(floats),
    st.floats(1e-9, 1e-8),
    st.floats(1e-8, 1e-7),
    st.floats(1e-7, 1e-6),
    st.sampled_from(["measured", "estimated"]),
    st.none() | st.tuples(numbers, numbers),
    some(st.builds(GpuState, numbers, numbers, numbers, floats, some(names))),
    some(st.tuples(names, floats)),
)


@st.composite
def verdicts(draw: st.DrawFn, candidate_key: str | None = None, task_key: str | None = None) -> Verdict:
    stage = draw(st.sampled_from(Stage))
    failure = st.builds(
        Failure,
        st.just(stage),
        names,
        texts,
        st.none() | names,
        st.none() | numbers,
        st.none() | mismatches,
        st.none() | findings,
        some(diagnostics),
    )
    good = draw(st.booleans())
    return Verdict(
        candidate_key or draw(keys),
        task_key or draw(keys),
        stage,
        None if good else draw(failure),
        draw(timings) if good else None,
        draw(some(st.builds(FamilyResult, names, numbers, floats, floats, floats))),
        draw(some(st.builds(KernelResources, names, numbers, numbers, numbers, numbers, numbers))),
        draw(some(counters)),
        draw(st.none() | st.builds(Profile, some(st.tuples(names, floats)), names, texts)),
        draw(some(st.tuples(names, floats))),
        draw(st.booleans()),
        draw(texts),
        draw(st.none() | st.floats(0.0, 1.0)),
    )
