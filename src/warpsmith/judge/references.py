"""What is due: float64 answers, eager PyTorch's own error, and the unit in which errors are counted.

A reference depends only on task, family and seed, never on the candidate, so one serves many candidates: seeds come
from a small pool per family (`seed_for`). The pool is drawn from the judge's own seed, which no device code can
read, and which of its members a candidate meets depends on the candidate's key. A report that names family and seed
is enough to draw the same inputs again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from warpsmith.judge import passes
from warpsmith.judge.mixtures import draw_any
from warpsmith.judge.rounding import CORRELATED, UNIT_ROUNDOFF, scattered, scatterings
from warpsmith.judge.tf32 import policy_of_a_gpu
from warpsmith.judge.ties import Ranking, rankings
from warpsmith.records import Arg, Graph, Ref, Task, digest
from warpsmith.task import evaluate

FLIP_REPLICAS = 16
FLIP_AMPLITUDE = 8.0
POOL = 2
CACHE_BYTES = 512 * 1024 * 1024
_LARGE = 1 << 30


@dataclass(frozen=True, eq=False)
class Due:
    """What one output should hold.

    `expected` is the float64 answer (the exact one for integers and booleans), `eager` what PyTorch computes in the
    task's own precision. `unit` is, for each element of a floating output, how far one rounding error in every step
    may move it. For the others `alternatives` holds further answers that rounding may lead to, stacked along
    dimension 0: a comparison of two values that differ by less than rounding has two right answers. `ranking` is
    there where the output holds indices, of which several may be right.
    """

    dtype: str
    expected: torch.Tensor
    eager: torch.Tensor
    unit: torch.Tensor | None
    alternatives: torch.Tensor | None
    ranking: Ranking | None = None

    @property
    def nbytes(self) -> int:
        """Memory held."""
        held = (self.expected, self.eager, self.unit, self.alternatives)
        return sum(tensor.nbytes for tensor in held if tensor is not None)


@dataclass(frozen=True, eq=False)
class Reference:
    """The inputs of one draw and what is due for each output."""

    family: str
    seed: int
    arguments: Mapping[str, torch.Tensor]
    due: Mapping[str, Due]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(t.nbytes for t in self.arguments.values()) + sum(due.nbytes for due in self.due.values())


def refer(task: Task, family: str, seed: int, arguments: Mapping[str, torch.Tensor]) -> Reference:
    """Compute what is due for given arguments. `family` says how their rounding errors add up."""
    correlated = family.split("+")[0] in CORRELATED
    expected = evaluate(task.graph, arguments, "float64")
    with policy_of_a_gpu(task.tolerance):
        eager = evaluate(task.graph, arguments, "task")
    floating = [spec for spec in task.graph.results if spec.dtype in UNIT_ROUNDOFF]
    discrete = [spec for spec in task.graph.results if spec.dtype not in UNIT_ROUNDOFF]
    squares = {spec.name: torch.zeros_like(expected[spec.name]) for spec in floating}
    replicas = 0
    if floating:
        for moved in scatterings(task, arguments, seed, correlated=correlated):
            replicas += 1
            for spec in floating:
                _add_squares(squares[spec.name], moved[spec.name], expected[spec.name])
    ranked = rankings(task, arguments, correlated=correlated) if discrete else {}
    flips: dict[str, list[torch.Tensor]] = {spec.name: [eager[spec.name]] for spec in discrete}
    flipping = [spec.name for spec in discrete if spec.name not in ranked and _may_flip(task.graph, spec.name)]
    for replica in range(FLIP_REPLICAS if flipping else 0):
        moved = scattered(
            task, arguments, replica, correlated=correlated, move_arguments=False, amplitude=FLIP_AMPLITUDE
        )
        for name in flipping:
            flips[name].append(moved[name])
    due: dict[str, Due] = {}
    for spec in floating:
        rounding = expected[spec.name].abs().nan_to_num(0.0, 0.0, 0.0) * UNIT_ROUNDOFF[spec.dtype]
        unit = torch.sqrt(_with_the_still(squares[spec.name]) / replicas + rounding.square())
        due[spec.name] = Due(spec.dtype, expected[spec.name], eager[spec.name], unit, None)
    for spec in discrete:
        alternatives = torch.stack(flips[spec.name])
        due[spec.name] = Due(
            spec.dtype, expected[spec.name], eager[spec.name], None, alternatives, ranked.get(spec.name)
        )
    return Reference(family, seed, arguments, due)


def _add_squares(squares: torch.Tensor, moved: torch.Tensor, expected: torch.Tensor) -> None:
    """Add the squared differences to `squares`; where there is none, as between infinities, nothing."""
    if passes.suits(squares, moved, expected) and squares.is_contiguous():
        passes.add_squares(squares, moved, expected)
        return
    step = (moved - expected).nan_to_num_(0.0, 0.0, 0.0)
    squares.addcmul_(step, step)


def _with_the_still(squares: torch.Tensor) -> torch.Tensor:
    """Let elements that no replica moved scatter as those of their row do that moved.

    Where the graph has a kink, as ReLU has, an element on its flat side does not move, however near it is to the kink;
    a larger rounding error than those that were drawn takes it across. A row that nothing moved stays as it is.
    """
    still = squares == 0.0
    if squares.dim() == 0 or not bool(still.any()):
        return squares
    moved = (~still).sum(-1, keepdim=True)
    usual = squares.sum(-1, keepdim=True) / moved.clamp_min(1)
    return torch.where(still, usual, squares)


def _may_flip(graph: Graph, output: str) -> bool:
    """Whether a discrete output is decided by floating values."""
    nodes = {node.name: node for node in graph.nodes}
    floating = {spec.name for spec in graph.arguments if spec.dtype in UNIT_ROUNDOFF}
    waiting = [ref.name for spec, ref in graph.outputs if spec.name == output]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in floating:
            return True
        if name in nodes and name not in seen:
            seen.add(name)
            waiting += _refs_in((*nodes[name].args, *(value for _, value in nodes[name].kwargs)))
    return False


def _refs_in(args: tuple[Arg, ...]) -> list[str]:
    """Return the names that arguments refer to, at any depth."""
    names: list[str] = []
    for arg in args:
        if isinstance(arg, Ref):
            names.append(arg.name)
        elif isinstance(arg, tuple):
            names += _refs_in(arg)
    return names


class References:
    """A bounded cache of references on `device`: the least recently used go first once `limit` bytes are held.

    Without `answers` references hold arguments only, for tasks that are compared block by block.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        *,
        limit: int = CACHE_BYTES,
        device: str = "cpu",
        pool: int = POOL,
        answers: bool = True,
    ) -> None:
        self.device = device
        self._pool = pool
        self._answers = answers
        self._task = task
        self._seed = seed
        self._limit = limit
        self._held: OrderedDict[tuple[str, int], Reference] = OrderedDict()

    def seed_for(self, family: str, candidate_key: str) -> int:
        """Return the seed with which `family` is drawn for a candidate: one of `pool` that the judge's seed fixes."""
        member = int(digest(str(self._seed), family, candidate_key), 16) % self._pool
        return 1 + int(digest(str(self._seed), self._task.key, family, str(member))[:7], 16)

    def get(self, family: str, seed: int) -> Reference:
        """Return the reference for one draw."""
        if (family, seed) in self._held:
            self._held.move_to_end((family, seed))
            return self._held[family, seed]
        if not self._answers:
            # Where a task is compared in blocks its arguments alone are large: one draw at a time.
            self._held.clear()
            torch.cuda.empty_cache()
        drawn = draw_any(self._task, family, seed, self.device)
        found = refer(self._task, family, seed, drawn) if self._answers else Reference(family, seed, drawn, {})
        if found.nbytes > _LARGE and self.device != "cpu":
            # What was needed on the way is several times as much, and others share the GPU.
            torch.cuda.empty_cache()
        return self.put(found)

    def clear(self) -> None:
        """Let go of all references."""
        self._held.clear()

    def put(self, reference: Reference) -> Reference:
        """Hold a reference and let go of old ones."""
        self._held[reference.family, reference.seed] = reference
        while len(self._held) > 1 and sum(held.nbytes for held in self._held.values()) > self._limit:
            self._held.popitem(last=False)
        return reference
