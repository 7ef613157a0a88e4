"""Tasks from files and from live modules."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from warpsmith.errors import TaskError
from warpsmith.records import DTYPE_BYTES, Task
from warpsmith.task.capture import capture, export, quiet
from warpsmith.task.functional import check, emit
from warpsmith.task.usercode import Blame, execute, importing_from

SEED = 42
"""The seed of KernelBench, set before inputs are drawn and before the module is constructed."""


@dataclass(frozen=True)
class _Call:
    """The arguments of one call of forward, and its tensors by name in the order in which export flattens them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def load_task(target: str | Path) -> Task:
    """Load "file.py", or "file.py:Class" where the file holds several modules.

    The file defines a `torch.nn.Module` (called `Model` unless it is the only one), its inputs as `get_inputs()` (a
    list of positional arguments, or a dict of keywords) or as the value `example_inputs`, and optionally
    `get_init_inputs()` for the constructor. Random numbers are seeded as KernelBench does. The module stays in the
    mode that its constructor leaves it in. Raises TaskError, with file and line, for whatever cannot be used.
    """
    file, class_name = _split(str(target))
    text = _read(file)
    with importing_from(Path(file).parent), seeded(SEED):
        namespace = execute(text, file)
        found = _module_class(namespace, class_name, file)
        _seed(SEED)
        init = _call_if_defined(namespace, "get_init_inputs", file)
        _seed(SEED)
        examples = _example_inputs(namespace, file)
        _seed(SEED)
        with Blame(f"the constructor of {found.__name__}", file), quiet():
            module = found(**init) if isinstance(init, dict) else found(*(init or ()))
        name = Path(file).stem if class_name is None else f"{Path(file).stem}-{class_name}"
        drawable = hasattr(namespace, "get_inputs") or callable(getattr(namespace, "example_inputs", None))
        return _task(module, examples, name, str(target), file, text, module_inputs=drawable)


def task_from_module(module: torch.nn.Module, example_inputs: object, name: str | None = None) -> Task:
    """Make a task of a live module, as it is: its mode, its parameters, its buffers. The module is not changed.

    `example_inputs` is what forward takes: a tensor, a list or tuple of positional arguments, or a dict of keywords.
    """
    if not isinstance(module, torch.nn.Module):
        raise TaskError(f"expected a torch.nn.Module, got {type(module).__name__}")
    kind = type(module)
    file = None if kind.__module__.startswith("torch.") else _source_file(kind)
    with seeded(SEED):
        called = name or kind.__name__
        return _task(module, example_inputs, called, called, file, None, module_inputs=False)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every generator inside; afterwards give the caller's states and default dtype back."""
    state, plain, array, dtype = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(),
        torch.get_default_dtype(),
    )
    _seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(plain)
        np.random.set_state(array)
        torch.set_default_dtype(dtype)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def draw_module_inputs(task: Task, seed: int) -> dict[str, torch.Tensor]:
    """Call the `get_inputs` of a task's source under `seed`, and return its tensors by their names in the graph.

    The source is run anew, so that the result depends on nothing but the task and the seed.
    """
    file, class_name = _split(task.origin)
    with importing_from(Path(file).parent), seeded(SEED):
        namespace = execute(task.source, file)
        _seed(seed)
        drawn = _example_inputs(namespace, file)
        found = _module_class(namespace, class_name, file)
    signature = inspect.signature(found.forward)
    unbound = signature.replace(parameters=[*signature.parameters.values()][1:])
    leaves = _bind(unbound, drawn, file, _line_of(found.forward, file)).tensors.values()
    if len(leaves) != len(task.graph.inputs):
        raise TaskError(f"get_inputs() gave {len(leaves)} tensors, before it gave {len(task.graph.inputs)}", file=file)
    named = {}
    for spec, leaf in zip(task.graph.inputs, leaves):
        if tuple(leaf.shape) != spec.shape or str(leaf.dtype) != f"torch.{spec.dtype}":
            raise TaskError(f"get_inputs() gave {spec.name} another shape or dtype than before", file=file)
        named[spec.name] = leaf
    return named


def _split(target: str) -> tuple[str, str | None]:
    head, colon, tail = target.rpartition(":")
    return (head, tail) if colon and head and tail.isidentifier() else (target, None)


def _read(file: str) -> str:
    path = Path(file)
    if path.is_dir():
        raise TaskError("this is a folder; name the Python file that defines the module", file=file)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TaskError("no such file", file=file) from None
    except UnicodeDecodeError:
        raise TaskError("is not text in UTF-8, so it cannot be a Python file", file=file) from None
    except OSError as error:
        raise TaskError(f"cannot be read: {error.strerror}", file=file) from error


def _source_file(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except TypeError:
        return None


def _module_class(namespace: ModuleType, name: str | None, file: str) -> type[torch.nn.Module]:
    own = {
        key: value
        for key, value in vars(namespace).items()
        if isinstance(value, type) and issubclass(value, torch.nn.Module) and value.__module__ == namespace.__name__
    }
    listed = ", ".join(own) or "none"
    if name is not None:
        chosen = vars(namespace).get(name)
        if not (isinstance(chosen, type) and issubclass(chosen, torch.nn.Module)):
            raise TaskError(f"defines no torch.nn.Module called {name}; it defines: {listed}", file=file)
        return chosen
    if "Model" in own:
        return own["Model"]
    if not own:
        raise TaskError("defines no torch.nn.Module", file=file)
    if len(own) > 1:
        raise TaskError(f"defines several modules ({listed}); choose one with {file}:{next(iter(own))}", file=file)
    return next(iter(own.values()))


def _call_if_defined(namespace: ModuleType, name: str, file: str) -> Any:
    function: Callable[[], Any] | None = getattr(namespace, name, None)
    if function is None:
        return None
    with Blame(f"{name}()", file):
        result = function()
    if not isinstance(result, (list, tuple, dict)):
        raise TaskError(
            f"{name}() must return a list or a dict, it returned {type(result).__name__}",
            file=file,
            line=_line_of(function, file),
        )
    return result


def _line_of(function: object, file: str | None) -> int | None:
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if isinstance(code, CodeType) and code.co_filename == file else None


def _example_inputs(namespace: ModuleType, file: str) -> Any:
    if hasattr(namespace, "get_inputs"):
        with Blame("get_inputs()", file):
            return namespace.get_inputs()
    if hasattr(namespace, "example_inputs"):
        value = namespace.example_inputs
        if callable(value):
            with Blame("example_inputs()", file):
                return value()
        return value
    raise TaskError("defines no inputs: add get_inputs() or example_inputs", file=file)


def _bind(signature: inspect.Signature, examples: object, file: str | None, line: int | None) -> _Call:
    """Match the example inputs to the parameters of forward, and name every tensor among them."""
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if not isinstance(examples, (list, tuple, dict)):
        message = f"the inputs must be a tensor, a list, a tuple or a dict, not {type(examples).__name__}"
        raise TaskError(message, file=file)
    try:
        bound = signature.bind(**examples) if isinstance(examples, dict) else signature.bind(*examples)
    except TypeError as error:
        raise TaskError(f"the inputs do not fit forward{signature}: {error}", file=file, line=line) from None
    for key, value in bound.arguments.items():
        bound.arguments[key] = torch.utils._pytree.tree_map_only(torch.Tensor, _own, value)
    tensors: dict[str, torch.Tensor] = {}
    for key, value in bound.arguments.items():
        leaves = tree_flatten_with_path(value)[0]
        for path, leaf in leaves:
            label = key + "".join(f"_{part}" for part in keystr(path).strip("[]").replace("'", "").split("][") if part)
            if isinstance(leaf, torch.Tensor):
                _check_input(label, leaf, file, line)
                tensors[label] = leaf
            elif leaf is not None and not isinstance(leaf, (bool, int, float, str)):
                message = (
                    f"input {label} is of type {type(leaf).__name__}; inputs are tensors, numbers or lists of them"
                )
                raise TaskError(message, file=file, line=line)
    return _Call(bound.args, bound.kwargs, tensors)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.layout == torch.strided
    return tensor.detach().clone(memory_format=torch.contiguous_format) if dense else tensor


def _check_input(label: str, tensor: torch.Tensor, file: str | None, line: int | None) -> None:
    problem = None
    if tensor.layout != torch.strided:
        problem = f"has the layout {tensor.layout}; only dense tensors are supported"
    elif tensor.device.type != "cpu":
        problem = f"is on {tensor.device}; draw inputs on the CPU"
    elif str(tensor.dtype).removeprefix("torch.") not in DTYPE_BYTES:
        problem = f"has the dtype {tensor.dtype}, which is not supported"
    elif tensor.numel() == 0:
        problem = f"is empty: its shape is {tuple(tensor.shape)}"
    if problem:
        raise TaskError(f"input {label} {problem}", file=file, line=line)


def _check_state(module: torch.nn.Module, file: str | None) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise TaskError("the module is compiled by TorchScript; give the module that it was made from", file=file)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise TaskError(f"parameter {name} is lazy; call the module once before", file=file)
        if tensor.device.type != "cpu":
            raise TaskError(f"{name} is on {tensor.device}; the module must be on the CPU", file=file)


def _task(
    module: torch.nn.Module,
    examples: object,
    name: str,
    origin: str,
    file: str | None,
    text: str | None,
    *,
    module_inputs: bool,
) -> Task:
    _check_state(module, file)
    line = _line_of(type(module).forward, file)
    call = _bind(inspect.signature(module.forward), examples, file, line)
    expected, changed = _run(module, call, file)
    names = _output_names(expected, file, line)
    exported = export(module, call.args, call.kwargs, file, type(module).__name__)
    graph, state = capture(exported, list(call.tensors), list(names), file)
    source = emit(graph, name)
    inputs = {spec.name: tensor for spec, tensor in zip(graph.inputs, call.tensors.values())}
    task = Task(
        name=name,
        origin=origin,
        source=text if text is not None else source,
        functional_source=source,
        graph=graph,
        state=state,
        examples=inputs,
        module_inputs=module_inputs,
    )
    check(task, [*names.values()], changed, file)
    return task


def _run(module: torch.nn.Module, call: _Call, file: str | None) -> tuple[object, Mapping[str, torch.Tensor]]:
    """Run the module once on copies. Return its result, and its parameters and buffers as forward left them."""
    before = {name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())}
    copies = torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (call.args, call.kwargs))
    with quiet(), torch.no_grad(), Blame(f"{type(module).__name__}.forward", file):
        result = torch.func.functional_call(module, before, copies[0], copies[1])
    return result, {name.replace(".", "_"): value for name, value in before.items()}


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
