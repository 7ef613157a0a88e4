"""Races, uninitialised reads and barrier divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.ptx import Instruction
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]


class Sanitizer:
    """Watches every access of a launch."""

    def begin(self, chunk: Chunk) -> None:
        """A chunk begins."""

    def global_access(
        self, chunk: Chunk, fragment: Fragment, site: Site, at: Array, write: bool, values: tuple[Array, ...]
    ) -> None:
        """Threads access global memory."""

    def shared_access(
        self, chunk: Chunk, fragment: Fragment, site: Site, at: Array, write: bool, values: tuple[Array, ...]
    ) -> None:
        """Threads access shared memory."""

    def local_access(self, chunk: Chunk, fragment: Fragment, site: Site, at: Array, write: bool) -> None:
        """Threads access local memory."""

    def absent_lane(self, chunk: Chunk, fragment: Fragment, lane: int, line: int) -> None:
        """A thread needed one of its warp that is not there."""

    def mixed_barriers(self, chunk: Chunk, arrivals: list[tuple[Instruction, Fragment]]) -> None:
        """Threads of a block met at different barriers."""

    def block_barrier(self, chunk: Chunk, fragment: Fragment) -> None:
        """Threads pass a barrier."""

    def warp_barrier(self, chunk: Chunk, fragment: Fragment) -> None:
        """Threads pass a warp barrier."""
