"""The readable form: a graph written as a pure Python function with explicit parameters, and checked against it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from warpsmith.errors import TaskError
from warpsmith.records import Arg, DTypeArg, Graph, Node, Ref, Task, TensorSpec
from warpsmith.task.phrases import gives_first_only, phrase

_PIECE = 1 << 25
"""Elements that are compared at once."""


def emit(graph: Graph, name: str) -> str:
    """Write `graph` as a Python module whose function `model` takes every argument by name, in order.

    `model` returns the only output, or a dict of outputs by name.
    """
    lines = [_line(graph, node) for node in graph.nodes]
    parameters = ", ".join(spec.name for spec in graph.arguments)
    text = [
        f'"""{name}, as a pure function of its inputs, parameters and buffers."""',
        "",
        "import torch",
        "import torch.nn.functional as F",
        "",
        "",
        *_wrapped(f"def model({parameters}):"),
        '    """',
        *_described("Inputs", graph.given),
        *_drawn(graph),
        *_described("Parameters", graph.parameters),
        *_described("Buffers", graph.buffers),
        *_described("Constants", graph.constants),
        *_described("Returns", graph.results),
        '    """',
        *(f"    {line}" for line in lines),
        *_returned(graph),
        "",
    ]
    return "\n".join(text)


def run(source: str, graph: Graph, arguments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Execute a functional source on `arguments` and return every output by name."""
    namespace: dict[str, Any] = {}
    exec(compile(source, "<functional source>", "exec", dont_inherit=True), namespace)
    with torch.no_grad():
        result = namespace["model"](**{spec.name: arguments[spec.name].clone() for spec in graph.arguments})
    if isinstance(result, dict):
        return {str(name): value for name, value in result.items()}
    return {graph.results[0].name: result}


def check(
    task: Task,
    results: Sequence[torch.Tensor],
    changed: Mapping[str, torch.Tensor],
    file: str | None = None,
    where: str = "cpu",
) -> None:
    """Execute the functional source of `task` and compare it with what the module itself computed.

    It runs on the device `where`, on which the module ran. `results` are the module's own outputs in order; `changed`
    its parameters and buffers after the call, by name.
    Raises TaskError where they differ by more than the reassociation of a sum can explain: the module then does
    something that its export does not show.
    """
    graph = task.graph
    given = {name: value.to(where) for name, value in {**task.state, **task.examples}.items()}
    with torch.device(where):
        got = run(task.functional_source, graph, given)
    new = dict(graph.updates)
    expected = dict(zip((spec.name for spec in graph.results), results))
    for old, name in new.items():
        if old in changed:
            expected[name] = changed[old]
    for old, value in changed.items():
        if old not in new and old in task.state and not _same(given[old], value):
            raise TaskError(f"the module changes {old}, but its export does not", file=file)
    for name, value in expected.items():
        problem = _difference(got[name], value)
        if problem:
            raise TaskError(
                f"the functional form of {task.name} computes another {name}: {problem}; "
                "the module may keep state outside its buffers, or not be deterministic",
                file=file,
            )


def _difference(got: torch.Tensor, due: torch.Tensor) -> str | None:
    if got.shape != due.shape:
        return f"shape {tuple(got.shape)} instead of {tuple(due.shape)}"
    if got.dtype != due.dtype:
        return f"dtype {got.dtype} instead of {due.dtype}"
    if _same(got, due):
        return None
    if not due.is_floating_point():
        return "its integers differ"
    worst = largest = 0.0
    for a, b in _pieces(got, due):
        a, b = a.double(), b.double()
        finite = torch.isfinite(b)
        if not torch.equal(torch.isfinite(a), finite) or not _same(a[~finite], b[~finite]):
            return "NaN or infinity stand elsewhere"
        if bool(finite.any()):
            worst = max(worst, float((a - b)[finite].abs().max()))
            largest = max(largest, float(b[finite].abs().max()))
    # Both sides call the same operators: only their internal order of summation may differ.
    limit = 64 * torch.finfo(due.dtype).eps * max(1.0, largest)
    return None if worst <= limit else f"it differs by {worst:.3g}"


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(bool(((one == other) | ((one != one) & (other != other))).all()) for one, other in _pieces(a, b))


def _pieces(a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both tensors piece by piece, so that comparing them takes little memory."""
    return zip(torch.split(a.reshape(-1), _PIECE), torch.split(b.reshape(-1), _PIECE), strict=True)


def _line(graph: Graph, node: Node) -> str:
    target = node.name
    if _takes_first_only(node) and not gives_first_only(node):
        target = f"{node.name}, *_"
    return f"{target} = {phrase(node, lambda arg: _show(graph, arg))}"


def _takes_first_only(node: Node) -> bool:
    """Tell nodes of several results of which the first alone is used; they are written without an index."""
    used = [spec is not None for spec in node.outputs]
    return len(used) > 1 and used[0] and sum(used) == 1


def _show(graph: Graph, arg: Arg) -> str:
    if isinstance(arg, Ref):
        return _show_ref(graph, arg)
    if isinstance(arg, DTypeArg):
        return f"torch.{arg.name}"
    if isinstance(arg, tuple):
        return "[" + ", ".join(_show(graph, item) for item in arg) + "]"
    if isinstance(arg, float) and not math.isfinite(arg):
        return f'float("{arg}")'
    return repr(arg)


def _show_ref(graph: Graph, ref: Ref) -> str:
    for node in graph.nodes:
        if node.name == ref.name and len(node.outputs) > 1 and not _takes_first_only(node):
            return f"{ref.name}[{ref.index}]"
    return ref.name


def _returned(graph: Graph) -> list[str]:
    shown = [(spec.name, _show_ref(graph, ref)) for spec, ref in graph.outputs]
    if len(shown) == 1:
        return [f"    return {shown[0][1]}"]
    return ["    return {", *(f'        "{name}": {value},' for name, value in shown), "    }"]


def _described(title: str, specs: Sequence[TensorSpec]) -> list[str]:
    if not specs:
        return []
    return [f"    {title}:", *(f"        {spec.name}: {spec.dtype}{list(spec.shape)}" for spec in specs)]


def _drawn(graph: Graph) -> list[str]:
    """Say how the module draws each mask that is an input here."""
    if not graph.masks:
        return []
    draws = [
        f"        {spec.name}: {spec.dtype}{list(spec.shape)} ="
        f" torch.empty({list(spec.shape)}, dtype=torch.bool).bernoulli_({keep!r})"
        for spec, (_, keep) in zip(graph.inputs[len(graph.given) :], graph.masks)
    ]
    return ["    Masks, which the module draws anew at every call:", *draws]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, width=110, subsequent_indent="          ", break_long_words=False)
