"""Tasks from files and from live modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils import _pytree as pytree
from torch.utils._pytree import keystr, tree_flatten_with_path

from warpsmith.errors import TaskError
from warpsmith.records import Task
from warpsmith.task.attributes import attributes_of
from warpsmith.task.binding import Call, bind
from warpsmith.task.capture import capture
from warpsmith.task.export import export, quiet
from warpsmith.task.functional import check, emit
from warpsmith.task.masks import Dealer, Dealt, named_masks
from warpsmith.task.sourcefile import (
    LARGE,
    SEED,
    call_if_defined,
    example_inputs,
    module_class,
    place_of_inputs,
    read,
    seed_all,
    seeded,
    split,
)
from warpsmith.task.usercode import Blame, execute, importing_from, line_of

Alone = Callable[[], AbstractContextManager[object]]
"""Makes a context in which a GPU is used for a while, and nobody times anything on it."""


def load_task(target: str | Path, *, alone: Alone = nullcontext) -> Task:
    """Load "file.py", or "file.py:Class" where the file holds several modules.

    The file defines a `torch.nn.Module` (called `Model` unless it is the only one), its inputs as `get_inputs()` (a
    list of positional arguments, or a dict of keywords) or as the value `example_inputs`, and optionally
    `get_init_inputs()` for the constructor. Random numbers are seeded as KernelBench does. The module stays in the
    mode that its constructor leaves it in; the masks of dropout in training mode become inputs of the task, after those
    of forward. Large inputs are drawn, and a large module is run once, on a GPU where there is one, in a context that
    `alone` makes. Raises TaskError, with file and line, for whatever cannot be used.
    """
    file, class_name = split(str(target))
    text = read(file)
    with seeded(SEED), importing_from(Path(file).parent):
        namespace = execute(text, file)
        found = module_class(namespace, class_name, file)
        seed_all(SEED)
        init = call_if_defined(namespace, "get_init_inputs", file)
        drawable = hasattr(namespace, "get_inputs") or callable(getattr(namespace, "example_inputs", None))
        place = place_of_inputs(text, file) if drawable else "cpu"
        seed_all(SEED)
        with nullcontext() if place == "cpu" else alone(), torch.device(place):
            examples = example_inputs(namespace, file)
        seed_all(SEED)
        with Blame(f"the constructor of {found.__name__}", file), quiet():
            module = found(**init) if isinstance(init, dict) else found(*(init or ()))
        name = Path(file).stem if class_name is None else f"{Path(file).stem}-{class_name}"
        return _task(module, examples, name, str(target), file, text, module_inputs=drawable, alone=alone)


def task_from_module(
    module: torch.nn.Module, example_inputs: object, name: str | None = None, *, alone: Alone = nullcontext
) -> Task:
    """Make a task of a live module, as it is: its mode, its parameters, its buffers. The module is not changed.

    `example_inputs` is what forward takes: a tensor, a list or tuple of positional arguments, or a dict of keywords.
    `alone` is as for `load_task`.
    """
    if not isinstance(module, torch.nn.Module):
        raise TaskError(f"expected a torch.nn.Module, got {type(module).__name__}")
    kind = type(module)
    file = None if kind.__module__.startswith("torch.") else _source_file(kind)
    with seeded(SEED):
        called = name or kind.__name__
        return _task(module, example_inputs, called, called, file, None, module_inputs=False, alone=alone)


def draw_module_inputs(task: Task, seed: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Call the `get_inputs` of a task's source under `seed`, and return its tensors by their names in the graph.

    Masks that the module draws are not among them. The source is run anew, so that the result depends on nothing but
    the task, the seed and the kind of device, on which the factories of PyTorch make their tensors.
    """
    file, class_name = split(task.origin)
    with seeded(SEED), importing_from(Path(file).parent):
        namespace = execute(task.source, file)
        seed_all(seed)
        with torch.device(device):
            drawn = example_inputs(namespace, file)
        found = module_class(namespace, class_name, file)
    signature = inspect.signature(found.forward)
    unbound = signature.replace(parameters=[*signature.parameters.values()][1:])
    leaves = bind(unbound, drawn, file, line_of(found.forward, file), device).tensors.values()
    given = task.graph.given
    if len(leaves) != len(given):
        raise TaskError(f"get_inputs() gave {len(leaves)} tensors, before it gave {len(given)}", file=file)
    named = {}
    for spec, leaf in zip(given, leaves):
        if tuple(leaf.shape) != spec.shape or str(leaf.dtype) != f"torch.{spec.dtype}":
            raise TaskError(f"get_inputs() gave {spec.name} another shape or dtype than before", file=file)
        named[spec.name] = leaf.to(device)
    return named


def _source_file(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except TypeError:
        return None


def _check_state(module: torch.nn.Module, file: str | None) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise TaskError("the module is compiled by TorchScript; give the module that it was made from", file=file)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise TaskError(f"parameter {name} is lazy; call the module once before", file=file)
        if tensor.device.type != "cpu":
            raise TaskError(f"{name} is on {tensor.device}; the module must be on the CPU", file=file)


@contextmanager
def _steady() -> Iterator[None]:
    """Have cuDNN compute the same thing twice, since the functional form is held against the module's own result.

    What that took of a GPU's memory is given back at the end: other processes will judge there.
    """
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


@_steady()
def _task(
    module: torch.nn.Module,
    examples: object,
    name: str,
    origin: str,
    file: str | None,
    text: str | None,
    *,
    module_inputs: bool,
    alone: Alone,
) -> Task:
    _check_state(module, file)
    line = line_of(type(module).forward, file)
    # Inputs of a live module are given on the CPU; those of a file may have been drawn on a GPU.
    call = bind(inspect.signature(module.forward), examples, file, line, "cuda" if module_inputs else "cpu")
    where = _place(module, call)
    if where == "cpu":
        alone = nullcontext
    with attributes_of(module) as attributes:
        with alone():
            try:
                expected, changed, dealt = _run(module, call, file, where)
            except TaskError:
                if where == "cpu":
                    raise
                # A tensor that the module keeps outside of its state stays on the CPU; or the GPU is too full.
                where = "cpu"
                attributes.restore()
                expected, changed, dealt = _run(module, call, file, where)
            state = attributes.state(lambda: _run(module, call, file, where))
            if state:
                attributes.become_buffers(state)
                expected, changed, dealt = _run(module, call, file, where)
        names = _output_names(expected, file, line)
        args, kwargs = pytree.tree_map_only(torch.Tensor, _on_cpu, (call.args, call.kwargs))
        exported = export(module, args, kwargs, file, type(module).__name__)
        captured = capture(exported, list(call.tensors), list(names), file)
    graph = captured.graph
    source = emit(graph, name)
    inputs = {spec.name: tensor for spec, tensor in zip(graph.given, call.tensors.values())}
    task = Task(
        name=name,
        origin=origin,
        source=text if text is not None else source,
        functional_source=source,
        graph=graph,
        state=captured.state,
        examples={**inputs, **named_masks(graph, dealt, file, line)},
        module_inputs=module_inputs,
        lines=captured.lines,
    )
    after = {captured.names[target]: value for target, value in changed.items() if target in captured.names}
    with alone(), Blame(f"the functional form of {name}", file):
        check(task, [*names.values()], after, file, where)
    return replace(task, examples={name: each.cpu() for name, each in task.examples.items() if _kept(task, each)})


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """What stands for a tensor in an export, which looks at no value: memory that nobody touches costs nothing."""
    return tensor if tensor.device.type == "cpu" else torch.empty_like(tensor, device="cpu")


def _kept(task: Task, example: torch.Tensor) -> bool:
    """Whether an example stays with the task: large ones on a GPU are drawn there again by whoever needs them."""
    redrawn = task.module_inputs and example.device.type != "cpu" and example.is_floating_point()
    return not redrawn or example.nbytes < LARGE


def _place(module: torch.nn.Module, call: Call) -> str:
    """Return where to run the module once: large ones take minutes on a CPU."""
    held = [*module.parameters(), *module.buffers(), *call.tensors.values()]
    if sum(tensor.nbytes for tensor in held) < LARGE or not torch.cuda.is_available():
        return "cpu"
    return "cuda"


def _run(
    module: torch.nn.Module, call: Call, file: str | None, where: str
) -> tuple[object, Mapping[str, torch.Tensor], Sequence[Dealt]]:
    """Run the module once on copies.

    Return its result, its state and inputs by name as forward left them, and the masks that it was given.
    """
    state = (*module.named_parameters(), *module.named_buffers())
    before = {name: value.detach().to(where, copy=True) for name, value in state}
    copies = pytree.tree_map_only(torch.Tensor, lambda value: value.to(where, copy=True), (call.args, call.kwargs))
    tensors = [leaf for leaf in pytree.tree_leaves(copies) if isinstance(leaf, torch.Tensor)]
    with quiet(), torch.no_grad(), Blame(f"{type(module).__name__}.forward", file), Dealer() as dealer:
        result = torch.func.functional_call(module, before, copies[0], copies[1])
    return result, before | dict(zip(call.tensors, tensors)), dealer.dealt


def _output_names(result: object, file: str | None, line: int | None) -> dict[str, torch.Tensor]:
    """Name every tensor of the result: its key in a dict, `out` where it is the only one, else `out0`, `out1`."""
    leaves = [(keystr(path), leaf) for path, leaf in tree_flatten_with_path(result)[0] if leaf is not None]
    for _, leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise TaskError(f"forward returns a {type(leaf).__name__}, not tensors only", file=file, line=line)
    if not leaves:
        raise TaskError("forward returns no tensor", file=file, line=line)
    tensors: Sequence[torch.Tensor] = [leaf for _, leaf in leaves]
    if isinstance(result, dict) and len(result) == len(leaves) and all(isinstance(key, str) for key in result):
        return {str(key): value for key, value in zip(result, tensors)}
    if len(leaves) == 1:
        return {"out": tensors[0]}
    return {f"out{i}": value for i, value in enumerate(tensors)}
