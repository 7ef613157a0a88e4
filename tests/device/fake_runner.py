"""A runner without a GPU: its memory is a bytearray, its program a Python function on one slot of it.

It answers what `warpsmith.device.cuda.runner` answers, as bytes only, so that everything on the judge's side (arena,
series, timing) is tried on the CPU. Its clocks are told, not measured: no test depends on how fast a machine is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from warpsmith import wire
from warpsmith.device.cuda.layout import Layout
from warpsmith.device.cuda.process import Fault


@dataclass
class Call:
    """What a program sees of one call: a slot, all memory, and how it is called, which a cheat would like to know."""

    runner: FakeRunner
    slot: int
    replayed: bool

    def tensor(self, name: str, slot: int | None = None) -> torch.Tensor:
        """Return a tensor of this slot, or of another: a view of the runner's memory."""
        layout, at = self.runner.layout, self.slot if slot is None else slot
        spec, start = layout.place(name).spec, layout.offset(name, at)
        raw = self.memory[start : start + spec.nbytes]
        return raw.view(getattr(torch, spec.dtype)).reshape(spec.shape) if spec.numel else torch.empty(spec.shape)

    @property
    def memory(self) -> torch.Tensor:
        """All bytes of the arena: uint8, a view."""
        return torch.frombuffer(self.runner.memory, dtype=torch.uint8)


Program = Callable[[Call], None]


@dataclass
class FakeRunner:
    """Stands in for a `RunnerProcess`. `kept` names the variables that a program changed.

    A call takes `seconds` by the device's clocks and `host_factor` times as long by the parent's, which starts at 0 and
    which `perf_counter` reads; `delays` are added to the parent's clock, one for each unflushed replay.
    """

    layout: Layout
    program: Program = lambda call: None
    seconds: float = 1e-5
    host_factor: float = 1.0
    activity_factor: float | None = 1.0
    delays: dict[int, float] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    memory: bytearray = field(default_factory=bytearray)
    asked: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    now: float = 0.0
    warm: int = 0

    def perf_counter(self) -> float:
        """Return the time by the parent's clock."""
        return self.now

    def ask(
        self, message: wire.Message, *blobs: bytes, seconds: float, max_blob: int = 1 << 16
    ) -> tuple[wire.Message, list[bytes]]:
        """Answer, or raise the Fault that was ordered for such a question."""
        do = message["do"]
        self.asked.append(do)
        if do in self.faults:
            raise self.faults[do]
        answer, data = getattr(self, f"_{do}")(message, blobs)
        assert sum(map(len, data)) <= max_blob, "more than was asked for"
        return answer, data

    def _arena(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        self.memory = bytearray(message["bytes"])
        self.places = dict(message["places"])
        return {"shared": False}, []

    def _demand(self, at: int, count: int) -> None:
        """What is copied lies in the arena, or in one buffer where each has an allocation of its own."""
        assert at >= 0 and at + count <= len(self.memory)
        assert not self.places or count <= self.places[at]

    def _write(self, message: wire.Message, blobs: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        at = message["at"]
        self._demand(at, len(blobs[0]))
        self.memory[at : at + len(blobs[0])] = blobs[0]
        return {}, []

    def _read(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        at, count = message["at"], message["bytes"]
        self._demand(at, count)
        return {}, [bytes(self.memory[at : at + count])]

    def _capture(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        self.order = list(message["order"])
        return {"calls": len(self.order)}, []

    def _call(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        self.program(Call(self, message["slot"], replayed=False))
        return {"seconds": self.seconds, "kept": sorted(self.kept)}, []

    def _replay(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        times, series = message.get("times", 1), self.seconds * len(self.order)
        if "flush" in message:
            for slot in self.order:
                self.program(Call(self, slot, replayed=True))
        else:
            # Only clocks are looked at here, and contents are those of the last verified replay.
            self.now += self.delays.get(self.warm, 0.0)
            self.warm += 1
        self.now += 1e-4 + times * series * self.host_factor
        return {"seconds": series, "kept": sorted(self.kept)}, []

    def _activity(self, message: wire.Message, _: tuple[bytes, ...]) -> tuple[dict[str, Any], list[bytes]]:
        if self.activity_factor is None:
            return {"spans": None}, []
        each = round(self.seconds * self.activity_factor * 1e9)
        # Overlapping halves, told out of order: what is busy twice at once counts once.
        spans = [[i * each, (i + 1) * each] for i in range(len(self.order))]
        return {"spans": [*reversed(spans), *spans]}, []
