"""The runner's memory as the judge sees it: contents go in, outputs come out, guards are looked after.

Mapped by CUDA IPC, or a copy that is pushed and pulled as bytes where the runner's memory cannot be mapped. The runner
cannot see the judge's memory either way: the mapping goes in one direction only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from warpsmith.device.cuda.layout import Layout, Place, Role
from warpsmith.device.cuda.process import RunnerProcess

_NAN_BITS = 0x7FF8
"""Set in a 16-bit word these make NaNs: of float16, bfloat16, and, in every word, of float32 and float64."""
_FLOATING = ("float16", "bfloat16", "float32", "float64")
_CHUNK = 256 << 20
_SECONDS = 60.0
_WORDS = 1 << 26


class _Mapped:
    """Foreign memory in the form in which PyTorch takes it."""

    def __init__(self, address: int, nbytes: int) -> None:
        shape = {"shape": (nbytes,), "typestr": "|u1", "data": (address, False), "version": 3}
        self.__cuda_array_interface__ = shape


class Arena:
    """All slots of a layout on `device`. Use `tensor` for one tensor of all slots at once.

    With `spread` every buffer of the only slot has an allocation of its own, between which there are no guards.
    """

    def __init__(
        self, layout: Layout, runner: RunnerProcess, device: str, *, share: bool = True, spread: bool = False
    ) -> None:
        self.layout = layout
        self.capacity = layout.nbytes
        self._runner = runner
        self._handle: Any = None
        self._spread = spread
        places = [[layout.base + place.start, place.spec.nbytes] for place in layout.places] if spread else []
        message = {"do": "arena", "bytes": layout.nbytes, "share": share, "places": places}
        answer, blobs = runner.ask(message, seconds=_SECONDS)
        if answer["shared"]:
            self._handle = _open(blobs[0])
            self._whole = torch.as_tensor(_Mapped(int(self._handle), layout.nbytes), device=device)
        else:
            self._whole = torch.empty(layout.nbytes, dtype=torch.uint8, device=device)
        self.memory = self._whole

    @property
    def mapped(self) -> bool:
        """Whether the runner's own memory is seen, not a copy."""
        return self._handle is not None

    def suits(self, layout: Layout) -> bool:
        """Whether a layout fits into the same memory without wasting most of it."""
        return layout.nbytes <= self.capacity <= 4 * layout.nbytes + (1 << 28)

    def lay_out(self, layout: Layout) -> None:
        """Use the same memory for another layout, which must fit into it."""
        self.layout = layout
        self.memory = self._whole[: layout.nbytes]

    def close(self) -> None:
        """Give the mapping back."""
        self.memory = self._whole = torch.empty(0, dtype=torch.uint8)
        if self._handle is not None:
            from cuda.bindings import driver as cu

            torch.cuda.synchronize()
            _ = cu.cuIpcCloseMemHandle(self._handle)
            self._handle = None

    # -- moving contents

    def push(self) -> None:
        """Make the runner see what was written here."""
        if self.mapped:
            torch.cuda.synchronize()
            return
        for start, count in self._stretches("input"):
            data = self.memory[start : start + count].cpu().numpy().tobytes()
            self._runner.ask({"do": "write", "at": start}, data, seconds=_SECONDS)

    def pull(self) -> None:
        """See what the runner's kernels wrote."""
        if self.mapped:
            return
        for start, count in self._stretches("output"):
            question = {"do": "read", "at": start, "bytes": count}
            _, blobs = self._runner.ask(question, seconds=_SECONDS, max_blob=count)
            self.memory[start : start + count] = torch.frombuffer(bytearray(blobs[0]), dtype=torch.uint8)

    def _stretches(self, role: Role) -> list[tuple[int, int]]:
        """Return what to copy: everything in chunks, or the buffers of a role where each stands by itself."""
        if self._spread:
            places = [place for place in self.layout.of(role) if place.spec.nbytes]
            return [(self.layout.base + place.start, place.spec.nbytes) for place in places]
        whole = self.layout.nbytes
        return [(start, min(_CHUNK, whole - start)) for start in range(0, whole, _CHUNK)]

    # -- filling

    def fill(self, seed: int, slots: slice = slice(None)) -> None:
        """Fill slots with random NaNs, and with random bits where a dtype has none. All slots: what lies around too."""
        generator = torch.Generator(self.memory.device).manual_seed(seed)
        everything = slots == slice(None)
        start, stop, _ = slots.indices(self.layout.slots)
        low = 0 if everything else self.layout.base + start * self.layout.stride
        high = self.layout.nbytes if everything else self.layout.base + stop * self.layout.stride
        self.memory[low:high].view(torch.int64).random_(generator=generator)
        self.memory[low:high].view(torch.int16).bitwise_or_(_NAN_BITS)
        for place in self.layout.places:
            if place.role != "input" and place.spec.dtype not in _FLOATING and place.spec.numel:
                # An unwritten boolean must be as often false as true.
                values = 2 if place.spec.dtype == "bool" else 256
                self.raw(place)[slots].random_(0, values, generator=generator)

    def put(self, slot: int, arguments: Mapping[str, torch.Tensor]) -> None:
        """Write the arguments of a call into a slot."""
        for place in self.layout.of("input"):
            if place.spec.numel:
                self.raw(place)[slot].copy_(_bytes(arguments[place.spec.name]))

    def put_all(self, pool: Mapping[str, torch.Tensor], members: torch.Tensor) -> None:
        """Write into each slot the member of a pool (stacked along dimension 0) that `members` names for it."""
        for place in self.layout.of("input"):
            if place.spec.numel:
                stacked = pool[place.spec.name]
                flat = stacked.reshape(stacked.shape[0], -1).view(torch.uint8)
                if place.spec.nbytes <= 16 << 20:
                    self.raw(place).copy_(flat.index_select(0, members))
                else:
                    for slot, member in enumerate(members.tolist()):
                        self.raw(place)[slot].copy_(flat[member])

    # -- looking

    def raw(self, place: Place) -> torch.Tensor:
        """Return the bytes of a buffer in all slots: uint8 of shape [slots, nbytes], a view."""
        shape, strides = (self.layout.slots, place.spec.nbytes), (self.layout.stride, 1)
        return self.memory.as_strided(shape, strides, self.layout.base + place.start)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor of all slots, of shape [slots, *shape]: a view, except that booleans are a copy."""
        place = self.layout.place(name)
        spec, slots = place.spec, self.layout.slots
        if spec.dtype == "bool":
            return (self.raw(place) != 0).reshape(slots, *spec.shape)
        dtype = getattr(torch, spec.dtype)
        size = dtype.itemsize
        strides = [1] * len(spec.shape)
        for axis in range(len(spec.shape) - 2, -1, -1):
            strides[axis] = strides[axis + 1] * spec.shape[axis + 1]
        start = (self.layout.base + place.start) // size
        whole = self.memory.view(dtype)
        return whole.as_strided((slots, *spec.shape), (self.layout.stride // size, *strides), start)

    def outputs(self, slot: int) -> dict[str, torch.Tensor]:
        """Return copies of the outputs of a slot."""
        return {place.spec.name: self.tensor(place.spec.name)[slot].clone() for place in self.layout.of("output")}

    def changed(self, role: Role, pool: Mapping[str, torch.Tensor], members: torch.Tensor) -> tuple[str, ...]:
        """Return the names of the buffers of a role that differ, in some slot, from the pool's members."""
        found = []
        for place in self.layout.of(role):
            stacked = pool[place.spec.name]
            flat = stacked.reshape(stacked.shape[0], -1).view(torch.uint8)
            raw = self.raw(place)
            if place.spec.nbytes <= 16 << 20:
                same = torch.equal(raw, flat.index_select(0, members))
            else:
                same = all(torch.equal(raw[slot], flat[member]) for slot, member in enumerate(members.tolist()))
            if place.spec.numel and not same:
                found.append(place.spec.name)
        return tuple(found)

    def differs(self, slot: int, arguments: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Return the names of the arguments of which a slot no longer holds what was put there."""
        return tuple(
            place.spec.name
            for place in self.layout.of("input")
            if place.spec.numel and not torch.equal(self.raw(place)[slot], _bytes(arguments[place.spec.name]))
        )

    def guards(self) -> list[tuple[str, torch.Tensor]]:
        """Return the guard zones of all slots, each with the name of the buffer in front of it: views."""
        layout, found, position, name = self.layout, [], 0, "the first buffer"
        for place in layout.places:
            found.append((name, position, place.start))
            position, name = place.end, place.spec.name
        found.append((name, position, layout.stride))
        strips = [
            (name, self.memory.as_strided((layout.slots, end - start), (layout.stride, 1), layout.base + start))
            for name, start, end in found
        ]
        around = [("the arena", self.memory[: layout.base]), ("the arena", self.memory[-_tail(layout) :])]
        return strips + [(name, strip) for name, strip in around if strip.numel()]

    def fingerprint(self, without: int | None = None) -> tuple[int, ...]:
        """Return sums over all memory but one slot: what a call on that slot must leave as it is."""
        if without is None:
            parts: Sequence[torch.Tensor] = [self.memory]
        else:
            low = self.layout.base + without * self.layout.stride
            parts = [self.memory[:low], self.memory[low + self.layout.stride :]]
        sums = [_sums(part.view(torch.int64)) for part in parts if part.numel()]
        return tuple(torch.cat(sums).tolist()) if sums else ()


def _sums(words: torch.Tensor) -> torch.Tensor:
    """Two sums of 64-bit words, of which the second notices an exchange. In pieces, since weights take memory."""
    found = torch.zeros(2, dtype=torch.int64, device=words.device)
    for start in range(0, words.numel(), _WORDS):
        piece = words[start : start + _WORDS]
        weights = torch.arange(start + 1, start + 1 + piece.numel(), device=words.device)
        found += torch.stack([piece.sum(), weights.mul_(piece).sum()])
    return found


def _tail(layout: Layout) -> int:
    return layout.nbytes - layout.base - layout.slots * layout.stride


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    # A tensor of one element counts as contiguous whatever its strides are; only a copy makes them plain.
    return (flat if flat.stride() == (1,) else flat.clone(memory_format=torch.contiguous_format)).view(torch.uint8)


def _open(handle: bytes) -> Any:
    """Map the runner's memory into the context that PyTorch uses."""
    from cuda.bindings import driver as cu

    from warpsmith.device.cuda.driver import checked

    reserved = cu.CUipcMemHandle()
    reserved.reserved = handle
    flag = cu.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
    return checked(cu.cuIpcOpenMemHandle(reserved, flag.value), "cuIpcOpenMemHandle")
