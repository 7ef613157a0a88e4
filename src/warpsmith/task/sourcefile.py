"""Task files: what KernelBench agreed on, read from the text of a file."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from warpsmith.errors import TaskError
from warpsmith.task.usercode import Blame, execute, line_of

SEED = 42
"""The seed of KernelBench, set before inputs are drawn and before the module is constructed."""

LARGE = 64 << 20
"""Bytes of inputs, and of inputs with state, from which on a GPU, where there is one, is worth the copying."""


def split(target: str) -> tuple[str, str | None]:
    """Take "file.py:Class" apart; the class is None where none is named."""
    head, colon, tail = target.rpartition(":")
    return (head, tail) if colon and head and tail.isidentifier() else (target, None)


def read(file: str) -> str:
    """Return the text of `file`. Raises TaskError where there is none."""
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


def module_class(namespace: ModuleType, name: str | None, file: str) -> type[torch.nn.Module]:
    """Choose the module of a file: the one named, else `Model`, else the only one."""
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


def call_if_defined(namespace: ModuleType, name: str, file: str) -> Any:
    """Call the file's function `name`; None where it has none."""
    function: Callable[[], Any] | None = getattr(namespace, name, None)
    if function is None:
        return None
    with Blame(f"{name}()", file):
        result = function()
    if not isinstance(result, (list, tuple, dict)):
        raise TaskError(
            f"{name}() must return a list or a dict, it returned {type(result).__name__}",
            file=file,
            line=line_of(function, file),
        )
    return result


def example_inputs(namespace: ModuleType, file: str) -> Any:
    """Return what forward takes, as the file gives it."""
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


def place_of_inputs(text: str, file: str) -> str:
    """Return the device on which the inputs of a file are drawn: `cuda` where there is one and they are large.

    A CPU would take half a minute for some gigabytes. How large they are is found out without drawing them, in a
    namespace of its own, so that a file that counts its calls does not count this one. What ignores the device that it
    is told, as NumPy does, is drawn on the CPU.
    """
    if not torch.cuda.is_available():
        return "cpu"
    try:
        with torch.device("meta"):
            drawn = example_inputs(execute(text, file), file)
    except TaskError:  # It looks at what it has drawn.
        return "cpu"
    tensors = [leaf for leaf in pytree.tree_leaves(drawn) if isinstance(leaf, torch.Tensor)]
    drawable = all(tensor.is_meta for tensor in tensors)
    return "cuda" if drawable and sum(tensor.nbytes for tensor in tensors) >= LARGE else "cpu"


_TURN = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every generator inside; afterwards give the caller's states and default dtype back.

    One thread at a time: those, the modules that code imports, the modes of an export and where prints go belong to the
    whole process, and two at once would put back what the other one had set.
    """
    with _TURN:
        yield from _seeded(seed)


def _seeded(seed: int) -> Iterator[None]:
    state, plain, array, dtype = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(),
        torch.get_default_dtype(),
    )
    accelerated = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    seed_all(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if accelerated is not None:
            torch.cuda.set_rng_state(accelerated)
        random.setstate(plain)
        np.random.set_state(array)
        torch.set_default_dtype(dtype)


def seed_all(seed: int) -> None:
    """Seed the generators of torch, NumPy and Python."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
