"""A memory instruction as decoded: which space, how wide, what kind of access. Built once per kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

DType = np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how an instruction accesses memory.

    `space` is global, shared, local or generic; constants lie in global memory. An access moves `count` elements of
    `dtype`, `width` bytes in all, at the address in a register plus `offset`. A `strong` access (volatile, relaxed,
    acquire, release) is never part of a race with another one; neither are two `atomic` ones.
    """

    number: int
    text: str
    line: int
    space: str
    dtype: DType
    count: int
    offset: int
    strong: bool = False
    atomic: bool = False
    read_only: bool = False

    @property
    def width(self) -> int:
        """Bytes that each thread moves."""
        return self.dtype.itemsize * self.count
