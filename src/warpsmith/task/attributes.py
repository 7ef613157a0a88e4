"""Tensors that a module keeps as plain attributes, beside its parameters and buffers.

Most are constants. One that forward gives a new value at every call, such as a hidden state that is carried on, is
state all the same: for the time of the capture it becomes a buffer, so that its update is seen and is an output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Held:
    owner: torch.nn.Module
    key: str
    tensor: torch.Tensor
    copy: torch.Tensor


class Attributes:
    """The plain tensor attributes of a module and of its submodules, as they were when this was made."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._held = {
            f"{prefix}.{key}" if prefix else key: _Held(owner, key, value, value.detach().clone())
            for prefix, owner in module.named_modules()
            for key, value in vars(owner).items()
            if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
        }
        self._buffers: set[str] = set()

    def restore(self) -> None:
        """Give every attribute its first tensor and its first values back, on the device where it was."""
        for path, held in self._held.items():
            if path in self._buffers:
                continue
            if self._now(path) is not held.tensor:
                setattr(held.owner, held.key, held.tensor)
            if not _same(held.tensor, held.copy):
                with torch.no_grad():
                    held.tensor.copy_(held.copy)

    def state(self, run: Callable[[], object]) -> set[str]:
        """Return the attributes that every call of `run`, which calls the module, gives a new value.

        It has been called once. What the second call leaves as the first one did, such as a copy of a constant, is no
        state. Afterwards all attributes are as they were at first.
        """
        moved = {path for path, held in self._held.items() if not _same(self._now(path), held.copy)}
        once = {path: self._copied(path) for path in moved}
        if moved:
            run()
        moving = {path for path, value in once.items() if value is not None and not _same(self._now(path), value)}
        self.restore()
        return moving

    def become_buffers(self, paths: Iterable[str]) -> None:
        """Register attributes as buffers that no state dict holds, until `close`."""
        for path in paths:
            held = self._held[path]
            delattr(held.owner, held.key)
            held.owner.register_buffer(held.key, held.copy.clone(), persistent=False)
            self._buffers.add(path)

    def close(self) -> None:
        """Undo everything."""
        for path in self._buffers:
            delattr(self._held[path].owner, self._held[path].key)
        self._buffers.clear()
        self.restore()

    def _now(self, path: str) -> object:
        held = self._held[path]
        return getattr(held.owner, held.key, None)

    def _copied(self, path: str) -> torch.Tensor | None:
        """The present value, where it could be that of a buffer: of the shape and dtype that it had at first."""
        value, first = self._now(path), self._held[path].copy
        fitting = isinstance(value, torch.Tensor) and value.shape == first.shape and value.dtype == first.dtype
        return value.detach().clone() if fitting and isinstance(value, torch.Tensor) else None


@contextmanager
def attributes_of(module: torch.nn.Module) -> Iterator[Attributes]:
    """Watch the plain tensor attributes of a module; afterwards they are what they were."""
    attributes = Attributes(module)
    try:
        yield attributes
    finally:
        attributes.close()


def _same(value: object, other: torch.Tensor) -> bool:
    if not isinstance(value, torch.Tensor) or (value.shape, value.dtype) != (other.shape, other.dtype):
        return False
    a, b = value.detach().cpu(), other.cpu()
    return bool(((a == b) | ((a != a) & (b != b))).all())
