"""A machine for contests: searches that take milliseconds, in this process, with authors and a judge who are made up.

Everything else is as it is: orders, archives, the search itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.bench.stories import MACHINE, TASK
from tests.evolve.worlds import Bench, Model, answer, drawn
from tests.samples import TASK as RELU
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.protocol import Author, Context, Proposal
from warpsmith.bench import Row, Watcher, discover, work
from warpsmith.bench.attempt import Limits
from warpsmith.bench.interrupts import Interrupts
from warpsmith.bench.order import Order, empty_row
from warpsmith.contest import Contest, Rules, arms_for, run_contest
from warpsmith.errors import UnsupportedOperator
from warpsmith.optimize import Result
from warpsmith.pipeline import Pursuit, blocking
from warpsmith.records import Task, TensorSpec
from warpsmith.settings import Settings, load_settings


def relu(name: str, rows: int) -> Task:
    """A task that is like the others, but for its size."""
    x, out = (TensorSpec(each, (rows, 128), "float32") for each in ("x", "out"))
    (node,) = RELU.graph.nodes
    outputs = ((out, RELU.graph.outputs[0][1]),)
    graph = replace(RELU.graph, inputs=(x,), nodes=(replace(node, outputs=(out,)),), outputs=outputs)
    return replace(RELU, name=name, graph=graph)


TASKS = {name: relu(name, rows) for name, rows in {"small": 64, "large": 1024}.items()}


class Writer(BuiltinAuthor):
    """Stands for the built-in author: draws programs, without recipes, that can be tried for other sizes as they are."""

    @property
    def operators(self) -> dict[str, int]:
        return {"create": 0, "mutate": 1, "cross": 2}

    async def propose(self, context: Context) -> Proposal:
        rows = context.task.graph.inputs[0].shape[0]
        return answer({"a": context.seed % 1000, "b": context.seed // 1000 % 1000, "rows": rows})


def authors_for(settings: Settings) -> list[Author]:
    """Stands for `all_authors`: models cost a cent an answer."""
    models = [Model(lambda context: drawn(context, cost=0.01), name, cost=0.01) for name in settings.models]
    return [Writer(), *models]


def searched(
    target: str, *, settings: Settings, authors: Any, observer: Any, retrieve: bool, without: Sequence[str]
) -> Result:
    """Stands for `optimize`: the same with tasks that need not be read and a judge who is made up."""
    name = Path(target).stem
    if name not in TASKS:
        raise UnsupportedOperator("aten.foo is not supported")
    make: Any = lambda *_: Bench()  # noqa: E731
    pursuit = Pursuit(TASKS[name], None, settings, authors, observer, make, retrieve=retrieve, without=without)
    return blocking(pursuit)


@dataclass
class Attempts:
    """Stands for `attempt`. Keeps the orders and environments; `real` searches, otherwise a search finds nothing.

    `after` is called with the number of each search; where it returns false, the search was killed.
    """

    real: bool = False
    orders: list[Order] = field(default_factory=list)
    environments: list[Mapping[str, str]] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    after: Callable[[int, Interrupts], bool] = lambda number, interrupts: True

    def __call__(
        self,
        order: Order,
        device: str,
        limits: Limits,
        tell: Callable[[str], None],
        interrupts: Interrupts,
        worker: Sequence[str],
        environment: Mapping[str, str],
        start: object,
    ) -> Row | None:
        self.orders.append(order)
        self.environments.append(environment)
        self.limits.append(limits)
        row = empty_row(order, device, "wrong", "nothing passed", 1.0)
        if self.real:
            row = work.work(order, lambda message: None, examine=lambda result: ())
        return row if self.after(len(self.orders), interrupts) else None

    def settings(self, name: str) -> list[Any]:
        """What the orders say of a setting."""
        return [json.loads(order.settings)[name] for order in self.orders]


def use(monkeypatch: pytest.MonkeyPatch, attempts: Attempts) -> Attempts:
    """Have contests do their searches this way."""
    monkeypatch.setattr("warpsmith.contest.run.attempt", attempts)
    monkeypatch.setattr("warpsmith.bench.work.optimize", searched)
    monkeypatch.setattr("warpsmith.server.authors.all_authors", authors_for)
    monkeypatch.setattr(Result, "write", lambda self, folder: folder)
    monkeypatch.setattr("warpsmith.nursery.Nursery.prepare", lambda self: None)
    return attempts


def suite(folder: Path, *names: str) -> Path:
    """A folder of task files, numbered so that they keep their order."""
    place = folder / "suite"
    place.mkdir(exist_ok=True)
    for name in names:
        (place / f"{name}.py").write_text(f"{TASK}# {name}\n")
    return place


def run(
    folder: Path,
    arms: Sequence[str],
    *tasks: str,
    rules: Rules = Rules(repeats=1),  # noqa: B008 - frozen
    watcher: Watcher | None = None,
    **settings: Any,
) -> Contest:
    """Run a contest of these arms on these tasks, in their order, in `folder / "run"`."""
    place = suite(folder, *tasks)
    given = {"max_candidates": 12, "workers": 1, "device": "H100", "simulate": True, "seed": 3} | settings
    loaded = load_settings(cache=folder / "cache", **given)
    entries = {entry.name: entry for entry in discover(place)}
    return run_contest(
        place,
        [entries[name] for name in tasks],
        arms_for(arms, loaded),
        folder / "run",
        loaded,
        watcher or Watcher(Console(quiet=True)),
        replace(rules, command=("warpsmith", "contest")),
        MACHINE,
    )
