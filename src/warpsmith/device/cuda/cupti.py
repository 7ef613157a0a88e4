"""CUPTI's activity records: when the device began and ended each kernel, copy and fill, on the device's own clock.

    activity = Activity()      one for the process
    activity.start()
    ...                        launch; synchronise
    activity.stop()
    activity.spans()

Kernels of a replayed graph are told one by one, as long as nobody asks for records of whole graphs. Collecting costs
the launches a little, so what is timed otherwise is timed before. Only ctypes is needed: a runner starts fast.

Layouts: cupti_activity.h of CUDA 12 and 13. CUpti_ActivityKernel4 to 10, CUpti_ActivityMemcpy4 to 6, -MemcpyPtoP and
-Memset all begin with a 32-bit kind and have start and end, in ns, at bytes 16 and 24; the name of a kernel is at 104.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from warpsmith.device.cuda.tools import libraries

_COPY, _FILL, _KERNEL, _CONCURRENT_KERNEL, _PEER_COPY = 1, 2, 3, 10, 22
_WANTED = (_CONCURRENT_KERNEL, _COPY, _FILL, _PEER_COPY)
_NAMES = {_COPY: "copy", _FILL: "fill", _PEER_COPY: "copy"}
_START, _END, _NAME = 16, 24, 104
_BUFFER_BYTES = 1 << 20
"""Some thousand records; when a buffer is full CUPTI asks for another."""
_SUCCESS = 0
_FORCED = 1
"""cupti_activity.h: CUPTI_ACTIVITY_FLAG_FLUSH_FORCED."""
_PATTERNS = ("libcupti.so.13*", "libcupti.so.12*")

_Requested = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_Completed = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


class CuptiError(Exception):
    """CUPTI refused: another profiler may hold the device."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that the device did: a kernel by its name, a `copy` or a `fill`; start and end in ns."""

    name: str
    start: int
    end: int


@cache
def library() -> Any:
    """Return CUPTI, from NVIDIA's wheel, a toolkit or the search path; None where it is not to be had."""
    places = [str(path) for pattern in _PATTERNS for path in libraries(pattern)]
    for place in (*places, "libcupti.so.13", "libcupti.so.12"):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def available() -> bool:
    """Whether CUPTI can be loaded. That it may watch this GPU only `Activity.start` finds out."""
    return library() is not None


class Activity:
    """Collects what the device does between `start` and `stop`. One for each process; not thread-safe.

    `cupti` is the library, loaded where it is not given. Raises CuptiError where it cannot be had or refuses.
    """

    def __init__(self, cupti: Any = None) -> None:
        self._cupti = library() if cupti is None else cupti
        if self._cupti is None:
            raise CuptiError("CUPTI is not installed")
        self._buffers: dict[int, Any] = {}
        self._events: list[Event] = []
        self._lost = 0
        # CUPTI calls these for as long as the process lives.
        self._callbacks = (_Requested(self._requested), _Completed(self._completed))
        self._call("cuptiActivityRegisterCallbacks", *self._callbacks)

    def start(self) -> None:
        """Begin to collect, and forget what was collected before."""
        self._events, self._lost = [], 0
        for kind in _WANTED:
            self._call("cuptiActivityEnable", ctypes.c_int(kind))

    def stop(self) -> None:
        """Take in all records. Synchronise before, so that everything has ended."""
        self._call("cuptiActivityFlushAll", ctypes.c_uint32(_FORCED))
        for kind in _WANTED:
            self._call("cuptiActivityDisable", ctypes.c_int(kind))

    def close(self) -> None:
        """Take CUPTI out of the process: while it is attached, every launch of a graph takes longer."""
        self._call("cuptiFinalize")

    def events(self) -> list[Event]:
        """Return what was collected, by the time when it began; nothing where CUPTI had to drop records."""
        return [] if self._lost else sorted(self._events, key=lambda event: (event.start, event.end))

    def spans(self) -> list[tuple[int, int]]:
        """Return start and end of each event in ns, by the time when it began."""
        return [(event.start, event.end) for event in self.events()]

    # -- called by CUPTI, on a thread of its own

    def _requested(self, buffer: Any, size: Any, most: Any) -> None:
        memory = ctypes.create_string_buffer(_BUFFER_BYTES)
        address = ctypes.addressof(memory)
        self._buffers[address] = memory
        buffer[0], size[0], most[0] = address, _BUFFER_BYTES, 0

    def _completed(self, context: int | None, stream: int, buffer: int, size: int, valid: int) -> None:
        record = ctypes.c_void_p()
        arguments = (ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record))
        # Anything but success says that there are no more.
        while valid and self._cupti.cuptiActivityGetNextRecord(*arguments) == _SUCCESS:
            event = event_at(record.value or 0)
            if event is not None:
                self._events.append(event)
        lost = ctypes.c_size_t(0)
        self._cupti.cuptiActivityGetNumDroppedRecords(
            ctypes.c_void_p(context), ctypes.c_uint32(stream), ctypes.byref(lost)
        )
        self._lost += lost.value
        self._buffers.pop(buffer, None)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._cupti, name)(*arguments)
        if status != _SUCCESS:
            raise CuptiError(f"{name} fails with CUPTI's error {status}")


def event_at(address: int) -> Event | None:
    """Read the record at an address; None for one of another kind, or one without times."""
    kind = ctypes.c_uint32.from_address(address).value
    if kind not in (_KERNEL, *_WANTED):
        return None
    start, end = (ctypes.c_uint64.from_address(address + offset).value for offset in (_START, _END))
    if not 0 < start <= end:
        return None
    return Event(_NAMES.get(kind) or _text(ctypes.c_void_p.from_address(address + _NAME).value), start, end)


def _text(address: int | None) -> str:
    return ctypes.string_at(address).decode(errors="replace") if address else ""


def busy(spans: Sequence[tuple[int, int]]) -> int:
    """Return the length of the union of spans, in their unit: how long the device was at work at all."""
    total, end = 0, 0
    for low, high in sorted(spans):
        total += max(0, high - max(low, end))
        end = max(end, high)
    return total
