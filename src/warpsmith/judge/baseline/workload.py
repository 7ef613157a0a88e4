"""What is timed: the original module with everything that one call touches, several times over.

Each set is a call with its own inputs and its own copy of the module, and so with its own parameters and buffers; all
sets together are larger than the caches. A candidate is timed in the same way, on slots that hold all of its arguments.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import linecache
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from warpsmith.errors import TaskError
from warpsmith.judge.baseline.parcel import Parcel
from warpsmith.task.sourcefile import (
    SEED,
    call_if_defined,
    example_inputs,
    module_class,
    place_of_inputs,
    seed_all,
)
from warpsmith.task.usercode import Blame, execute, importing_from

MOST_SETS = 256
_MEMORY_SHARE = 0.4
"""Of the free memory that sets may take; intermediate results, and what compiled code holds, need the rest."""


@dataclass(frozen=True, eq=False)
class Set:
    """One call: `target(*args, **kwargs)`."""

    target: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Source(Protocol):
    """Where sets come from."""

    def make(self, number: int, device: str) -> Set:
        """Return set `number` on `device`. Raises TaskError where the user's code fails."""
        ...


def open_source(parcel: Parcel, stack: contextlib.ExitStack) -> Source:
    """Run the task's source. What it needs stays importable until `stack` closes. Raises TaskError where it fails."""
    seed_all(SEED)
    if parcel.functional:
        return FunctionSource(parcel)
    stack.enter_context(importing_from(Path(parcel.file).parent))
    return ModuleSource(parcel)


class ModuleSource:
    """A file that defines a module, seeded as it is when the task is loaded."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel, file = parcel, parcel.file
        self._namespace = _execute(parcel)
        kind = module_class(self._namespace, parcel.class_name, file)
        seed_all(SEED)
        init = call_if_defined(self._namespace, "get_init_inputs", file)
        seed_all(SEED)
        with torch.device(place_of_inputs(parcel.text, file)):
            example_inputs(self._namespace, file)  # The task drew them here: whoever counts calls must count as then.
        seed_all(SEED)
        with Blame(f"the constructor of {kind.__name__}", file):
            self._module = kind(**init) if isinstance(init, dict) else kind(*(init or ()))

    def make(self, number: int, device: str) -> Set:
        """Return a copy of the module with inputs that the file draws, or resampled where it cannot draw."""
        args, kwargs = self._draw(number, device)
        with Blame(f"a copy of {type(self._module).__name__}", self._parcel.file):
            # Copied before it moves: moving lays the weights of a recurrent module out in one piece.
            return Set(_moved(copy.deepcopy(self._module), device), args, kwargs)

    def _draw(self, number: int, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        file = self._parcel.file
        drawn = self._bound(_on(device, number, lambda: example_inputs(self._namespace, file)))
        tensors = [leaf for leaf in pytree.tree_leaves(drawn.arguments) if isinstance(leaf, torch.Tensor)]
        specs = self._parcel.inputs
        if [(tuple(leaf.shape), str(leaf.dtype)) for leaf in tensors] != [(s.shape, f"torch.{s.dtype}") for s in specs]:
            raise TaskError("get_inputs() gave other shapes or dtypes than before", file=file)
        if not self._parcel.draws:
            resampled = iter([_resampled(self._parcel.examples[spec.name], number) for spec in specs])
            drawn.arguments.update(pytree.tree_map_only(torch.Tensor, lambda _: next(resampled), dict(drawn.arguments)))
        for name, value in drawn.arguments.items():
            drawn.arguments[name] = pytree.tree_map_only(torch.Tensor, lambda leaf: _own(leaf, device), value)
        return drawn.args, drawn.kwargs

    def _bound(self, drawn: object) -> inspect.BoundArguments:
        """Match inputs to the parameters of forward, so that tensors come in the order of the task's graph."""
        signature = inspect.signature(self._module.forward)
        try:
            if isinstance(drawn, torch.Tensor):
                return signature.bind(drawn)
            if isinstance(drawn, dict):
                return signature.bind(**drawn)
            if isinstance(drawn, (list, tuple)):
                return signature.bind(*drawn)
        except TypeError as error:
            raise TaskError(f"the inputs do not fit forward{signature}: {error}", file=self._parcel.file) from None
        raise TaskError(f"the inputs are a {type(drawn).__name__}, not tensors", file=self._parcel.file)


class FunctionSource:
    """The functional form of a module that was alive: a function of inputs and state by name."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._function: Callable[..., object] = _execute(parcel).model

    def make(self, number: int, device: str) -> Set:
        """Return the function with resampled inputs and a copy of the state."""
        parcel = self._parcel
        named = {spec.name: _own(_resampled(parcel.examples[spec.name], number), device) for spec in parcel.inputs}
        return Set(self._function, (), named | {name: _own(value, device) for name, value in parcel.state.items()})


def sets_for(set_bytes: int, rotate_bytes: int, free_bytes: int) -> int:
    """Return how many sets together exceed `rotate_bytes`: 2 to 256, and fewer, at least 1, where memory is short."""
    each = max(1, set_bytes)
    return max(1, min(max(2, rotate_bytes // each + 1), MOST_SETS, int(_MEMORY_SHARE * free_bytes) // each))


def make_sets(parcel: Parcel, source: Source, device: str, rotate_bytes: int) -> list[Set]:
    """Make all sets. Where memory runs out after the first, the others do without those that are missing."""
    sets: list[Set] = []
    for number in range(sets_for(parcel.set_bytes, rotate_bytes, free_bytes(device))):
        try:
            with Blame("drawing inputs", parcel.file):
                sets.append(source.make(number, device))
        except TaskError as error:
            if not sets or not isinstance(error.__cause__, torch.OutOfMemoryError):
                raise
            break
    return sets


def free_bytes(device: str) -> int:
    """Return the free memory of a device: of a GPU's own, or of the machine."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # Not every system says how much is free.
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _execute(parcel: Parcel) -> ModuleType:
    """Run the source as a module that can be found by its name and its lines, as `torch.compile` and Triton need."""
    lines = parcel.text.splitlines(keepends=True)
    linecache.cache[parcel.file] = (len(parcel.text), None, lines, parcel.file)
    namespace = execute(parcel.text, parcel.file)
    sys.modules[namespace.__name__] = namespace
    return namespace


def _on(device: str, number: int, draw: Callable[[], object]) -> object:
    """Draw under a seed of its own, on the device where the user's code can."""
    seed_all(SEED + number)
    try:
        with torch.device(device):
            return draw()
    except TaskError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
    # A generator of the CPU, or NumPy, takes part in it.
    seed_all(SEED + number)
    return draw()


def _own(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """A dense copy, as the task's inputs are."""
    return tensor.detach().to(device).clone(memory_format=torch.contiguous_format)


def _resampled(example: torch.Tensor, number: int) -> torch.Tensor:
    """The example itself for set 0; else as many of its values, drawn with replacement."""
    if number == 0:
        return example
    generator = torch.Generator().manual_seed(SEED + number)
    chosen = torch.randint(0, example.numel(), example.shape, generator=generator)
    return example.reshape(-1)[chosen]


def _moved(module: torch.nn.Module, device: str) -> torch.nn.Module:
    """Move a module, and tensors that it holds as plain attributes: to the task these are constants."""
    module.to(device)
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if name not in ("_parameters", "_buffers", "_modules") and not name.startswith("_flat_weights"):
                leaves = pytree.tree_leaves(value)
                if any(isinstance(leaf, torch.Tensor) for leaf in leaves):
                    moved = pytree.tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), value)
                    setattr(part, name, moved)
    return module
