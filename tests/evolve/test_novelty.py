"""What says nothing new is not judged again; what might be new is."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from tests.evolve.worlds import TASK, Bench, Hill, Model, Notebook, answer, problem, program, searched
from warpsmith.author.protocol import Context, Proposal
from warpsmith.evolve import events
from warpsmith.evolve.dial import Dial
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.novelty import ALIKE, ENOUGH, Novelty, normal
from warpsmith.records import Candidate, Failure, Judged, Lineage, Stage, Verdict

KERNEL = r"""
#define TWICE(v) ((v) + (v))
// Adds what stands in a row.
extern "C" __global__ void sums(const float* __restrict__ x, float* __restrict__ out, int rows) {
    __shared__ float partial[BLOCK];
    const int row = blockIdx.x;
    float total = 0.0f;
    for (int column = threadIdx.x; column < COLUMNS; column += BLOCK) {
        total += fmaxf(x[row * COLUMNS + column], -INFINITY); /* a read */
    }
    partial[threadIdx.x] = TWICE(total);
    __syncthreads();
    if (threadIdx.x == 0 && row < rows) out[row] = partial[0];
}
"""

SAME = [
    KERNEL.replace("// Adds what stands in a row.\n", "/* Sums\n * of rows. */\n"),
    KERNEL.replace("    ", "\t").replace(" += ", "+=").replace("\n", "\r\n"),
    KERNEL.replace("total", "accumulator").replace("column", "i"),
    KERNEL.replace("partial", "column_").replace("row ", "r ").replace("row]", "r]"),
    KERNEL.replace("rows) {", "rows)\n{").replace("((v) + (v))", "((v)   + \\\n (v))"),
]

OTHER = [
    KERNEL.replace("fmaxf", "fminf"),
    KERNEL.replace("INFINITY", "NAN"),
    KERNEL.replace("blockIdx.x", "blockIdx.y"),
    KERNEL.replace("const float*", "const double*"),
    KERNEL.replace("float total", "double total"),
    KERNEL.replace("0.0f", "1.0f"),
    KERNEL.replace("partial[0]", "partial[rows]"),
    KERNEL.replace("TWICE(v) (", "TWICE(v)  (v) + ("),
    KERNEL.replace("TWICE(v) (", "TWICE (v) ("),
    KERNEL.replace("COLUMNS + column", "COLUMNS + row"),
    KERNEL.replace("sums", "products"),
    KERNEL.replace('"C"', '"C++"'),
]


def candidate(source: str, *, block: int = 64, parents: tuple[str, ...] = (), recipe: str | None = None) -> Candidate:
    written = dataclasses.replace(program({}), source=source)
    lineage = Lineage("model", "rewrite", parents, recipe=recipe, prompt="prompt", reply="reply")
    return Candidate(TASK.key, written, (("BLOCK", block), ("VEC", 1)), lineage)


def failed(of: Candidate, reason: str = "wrong_value") -> Judged:
    failure = Failure(Stage.NUMERICS, reason, "made up to be wrong")
    return Judged(of, Verdict(of.key, of.task_key, Stage.NUMERICS, failure, None))


@pytest.mark.parametrize("source", SAME)
def test_comments_white_space_and_names_of_variables_do_not_matter(source: str) -> None:
    assert source != KERNEL and normal(source) == normal(KERNEL)


@pytest.mark.parametrize("source", OTHER)
def test_everything_else_matters(source: str) -> None:
    assert source != KERNEL and normal(source) != normal(KERNEL)


def test_two_variables_that_change_places_are_not_the_same() -> None:
    one = "void f(float a, float b) { out[0] = a - b; }"
    assert normal(one) != normal(one.replace("a - b", "b - a"))
    assert normal(one) == normal(one.replace(" a", " $").replace(" b", " a").replace(" $", " b"))


def test_the_order_of_members_matters() -> None:
    one = "struct Pair { float a; float b; }; void f(Pair p) { out[0] = p.a; }"
    assert normal(one) != normal(one.replace("float a; float b;", "float b; float a;"))


def test_types_that_only_headers_know_are_not_taken_for_variables() -> None:
    one = "void f(const __half* x) { g((const __half*)x); }"
    assert normal(one) != normal(one.replace("__half", "__nv_bfloat16"))


def test_the_same_program_with_the_same_tunables_is_known() -> None:
    novelty = Novelty()
    first = candidate(KERNEL)
    novelty.admit(first)
    twin = novelty.twin(candidate(SAME[2]))
    assert twin is not None and twin.candidate_key == first.key
    assert novelty.twin(candidate(SAME[2], block=128)) is None, "other tunables are another candidate"
    assert novelty.twin(candidate(OTHER[0])) is None
    plan = dataclasses.replace(first.program.plan, flags=("--use_fast_math",))
    other = dataclasses.replace(first, program=dataclasses.replace(first.program, source=SAME[2], plan=plan))
    assert novelty.twin(other) is None, "another plan is another program"


def test_programs_from_recipes_are_told_apart_by_their_keys() -> None:
    novelty = Novelty()
    novelty.admit(candidate(KERNEL))
    assert novelty.twin(candidate(SAME[2], recipe="{}")) is None


def variants(count: int) -> list[str]:
    """Programs that differ in one number of a long kernel."""
    lines = "".join(f"    if (row == {n}) out[row] *= {n}.25f;\n" for n in range(20))
    long = KERNEL.replace("    partial[threadIdx.x] =", lines + "    partial[threadIdx.x] =")
    return [long.replace("0.0f", f"{number}.5f", 1) for number in range(count)]


def test_what_goes_in_circles_is_passed_over() -> None:
    novelty = Novelty()
    sources = variants(ENOUGH + 1)
    for source in sources[:ENOUGH]:
        assert novelty.twin(candidate(source)) is None, "before that many have failed it is judged"
        novelty.learn(failed(candidate(source)))
    twin = novelty.twin(candidate(sources[-1]))
    assert twin is not None and "wrong_value" in twin.why
    assert novelty.twin(candidate(KERNEL.replace("fmaxf", "fminf"))) is None, "another program is new"


def test_failures_for_different_reasons_do_not_add_up() -> None:
    novelty = Novelty()
    sources = variants(ENOUGH + 1)
    for number, source in enumerate(sources[:ENOUGH]):
        novelty.learn(failed(candidate(source), "wrong_value" if number else "not_finite"))
    assert novelty.twin(candidate(sources[-1])) is None


def test_a_repair_is_not_held_against_what_it_repairs() -> None:
    novelty, parents = Novelty(), ()
    sources = variants(ENOUGH + 1)
    for source in sources[:ENOUGH]:
        link = candidate(source, parents=parents)
        novelty.admit(link)
        novelty.learn(failed(link))
        parents = (link.key,)
    assert novelty.twin(candidate(sources[-1], parents=parents)) is None
    assert novelty.twin(candidate(sources[-1])) is not None


def test_two_ways_to_do_the_work_are_far_from_alike() -> None:
    """The threshold lies above what two different kernels for one task share."""
    other = KERNEL.replace(
        "for (int column = threadIdx.x; column < COLUMNS; column += BLOCK) {",
        "for (int column = 4 * threadIdx.x; column < COLUMNS; column += 4 * BLOCK) {\n float4 v = load(x, column);",
    )
    runs = [set(zip(*(normal(each)[shift:] for shift in range(5)), strict=False)) for each in (KERNEL, other)]
    assert len(runs[0] & runs[1]) / len(runs[0] | runs[1]) < ALIKE


# ------------------------------------------------------------------------------------------------------- in the search

DIAL = Dial(size=6, capacity=16, depth=2, patience=20, candidates=40)


def search(authors: Any, bench: Bench, book: Notebook, **options: Any) -> Evolution:
    evolution = Evolution(problem(), authors, bench, book, 1, DIAL, **options)
    return searched(evolution)


def renaming(context: Context) -> Proposal:
    """Always the same program, each time with another comment."""
    return answer({"a": 7, "b": 3}, cost=0.1, source='{"a": 7, "b": 3}' + " " * (context.seed % 1000 + 1))


def test_a_repetition_in_other_words_is_not_judged_and_earns_nothing() -> None:
    book, bench, seen = Notebook(), Bench(), list[events.Event]()
    model = Model(renaming, cost=0.1)
    evolution = search([model, Hill()], bench, book, observer=seen.append)
    mine = [judged for judged in evolution.population.history if judged.candidate.lineage.author == "model"]
    assert len(mine) == 1 < len(model.asked)
    told = [event for event in seen if isinstance(event, events.CandidatePassedOver)]
    noted = [data for kind, data in book.events if kind == "passed_over"]
    assert len(told) == len(noted) == len(model.asked) - 1
    assert noted[0]["like"] == mine[0].candidate.key
    assert book.spent("") == pytest.approx(0.1 * len(model.asked))


def test_what_was_passed_over_stays_so_after_a_resume() -> None:
    book = Notebook()
    search([Model(renaming, cost=0.1), Hill()], Bench(), book, max_usd=1.0)
    passed_over = {data["candidate"] for kind, data in book.events if kind == "passed_over"}
    later, before = Bench(), len(book.events)
    search([Hill()], later, book)
    assert passed_over and not passed_over & set(later.keys)
    assert len(book.events) == before, "it was passed over once more"


def test_what_waited_and_says_nothing_new_is_passed_over_once_for_all() -> None:
    book = Notebook()
    search([Hill()], Bench(), book)
    known = next(iter(book.candidates.values()))
    words = dataclasses.replace(known.program, source=known.program.source + " ")
    lineage = Lineage("model", "rewrite", prompt="prompt", cost_usd=0.1)
    repeated = Candidate(TASK.key, words, known.tunables, lineage)
    book.add_candidate(1, repeated)
    for _ in range(2):
        bench = Bench()
        search([Hill()], bench, book)
        assert repeated.key not in bench.keys
    assert [data["candidate"] for kind, data in book.events if kind == "passed_over"] == [repeated.key]


def test_circles_end_in_the_search() -> None:
    def circling(context: Context) -> Proposal:
        if context.operator == "translate":
            return answer({"a": context.seed % 10**6, "b": 0})
        number = context.seed % 1000
        long = ", ".join(f'"g{n}": {n}' for n in range(80))
        return answer({}, source=f'{{{long}, "a": {number}, "b": 0, "bad": 1}}')

    def landscape(genes: dict[str, int], tunables: Any) -> float:
        return math.inf if "bad" in genes else 1e-5

    book, bench = Notebook(), Bench(landscape)
    evolution = search([Model(circling, operators=("translate", "rewrite"))], bench, book)
    bad = [judged for judged in evolution.population.history if '"bad"' in judged.candidate.program.source]
    assert len([data for kind, data in book.events if kind == "passed_over"]) > 0
    assert ENOUGH <= len(bad) <= ENOUGH + DIAL.size, "a generation that is under way may add some"
