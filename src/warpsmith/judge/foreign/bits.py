"""What the judge and the driver do alike, to the bit: sums over tensors, and how a part of each input arrives sealed.

A call's inputs are put into memory before the clock runs, but an eighth of their elements is then still that of
another draw. What belongs there lies beside it *sealed*, combined with random bits that are known only once the
question brings their key; the same key says which elements these are, one in each stretch of eight. So nothing but a
number travels while the clock runs, and yet what is put in has never been seen before, neither values nor places.
Why not something simpler:

* Values that lie open beforehand, or come from other slots: any function of single elements could be computed ahead
  for all of them, and the call would only have to look its results up.
* Known places: rows and elements that keep their values could be computed ahead.
* One pad for several calls: two sealed values would show in which bits they differ.

What this does not do: once the key is there, a solution that looks into the driver's memory knows the places too; and
values are no newer than the task draws them: where it has no `get_inputs`, they all come from its one example. The seed
of PyTorch's generator has 64 bits on CUDA and 32 on a CPU: more than can be tried between two questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SHARE = 8
_ALIGNED = 512
"""Bytes at a multiple of which each input starts, as PyTorch's own allocator has it."""
_SMALL = 4 << 20
_SECTOR = 32
"""Bytes that GPUs move at least. Inputs larger than `_SMALL` change by sectors, since touching all of them costs as
much as some solutions take: rows of less than eight sectors may then keep their values, but nobody knows which."""
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Bytes of places that are drawn together: few launches for a GPU, and on a CPU no memory that is mapped each time."""


@dataclass(frozen=True)
class Layout:
    """How the values of one input lie in memory for many calls, and which of them arrive sealed.

    An input is never empty. It has `rows` runs of `run` elements, and of each eight runs one is sealed: `groups` in
    all. `stride` is the number of elements from one slot to the next.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def word(self) -> torch.dtype:
        """The whole numbers that stand for the bits of elements."""
        return _WORDS[self.dtype.itemsize]

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def run(self) -> int:
        """Elements that are sealed together."""
        size = self.dtype.itemsize
        return 1 if self.numel * size <= _SMALL else _SECTOR // size

    @property
    def rows(self) -> int:
        """Runs, the last of which may be filled up."""
        return -(-self.numel // self.run)

    @property
    def groups(self) -> int:
        """Sealed runs."""
        return -(-self.rows // _SHARE)

    @property
    def stride(self) -> int:
        """Elements of one slot, those between it and the next included."""
        step = _ALIGNED // self.dtype.itemsize
        return -(-self.numel // step) * step

    def secrets(self, generator: torch.Generator, calls: int) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Draw for some calls after others which runs are sealed, int64 [n, groups], and pads, words [n, groups, run].

        The same generator gives the same in every process that has the same device.
        """
        step = max(1, _AT_ONCE[generator.device.type] // (8 * self.groups))
        first = torch.arange(0, _SHARE * self.groups, _SHARE, device=generator.device)
        for start in range(0, calls, step):
            some = slice(start, min(start + step, calls))
            shape = (some.stop - start, self.groups)
            places = first + (_noise(generator, math.prod(shape), torch.uint8).view(shape) & (_SHARE - 1))
            places[:, -1:].clamp_(max=self.rows - 1)  # Only the last stretch may be shorter.
            yield some, places, _noise(generator, math.prod(shape) * self.run, self.word).view(*shape, self.run)

    def runs(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the bits of an input as words [rows, run], filled up with zeros."""
        flat = tensor.contiguous().reshape(-1).view(self.word)
        return torch.nn.functional.pad(flat, (0, self.rows * self.run - self.numel)).view(self.rows, self.run)

    def whole(self, runs: torch.Tensor) -> torch.Tensor:
        """Undo `runs`."""
        return runs.reshape(-1)[: self.numel].view(self.dtype).reshape(self.shape)


class Bank:
    """The memory of one input, slot after slot, so that one kernel reaches what is sealed in many slots."""

    def __init__(self, layout: Layout, slots: int, device: torch.device) -> None:
        self.layout = layout
        self._words = torch.zeros((slots, layout.stride), dtype=layout.word, device=device)
        self._sealed: torch.Tensor | None = None

    def slot(self, number: int) -> torch.Tensor:
        """Return a slot's input: a tensor of its own, no view, at an aligned address."""
        storage, start = self._words.untyped_storage(), number * self.layout.stride
        plain = torch.empty(0, dtype=self.layout.dtype, device=self._words.device)
        strides = torch.empty(self.layout.shape, device="meta").stride()
        return plain.set_(storage, start, self.layout.shape, strides)

    def seal(self, sealed: torch.Tensor) -> None:
        """Keep what `unseal` will put in: words [calls, groups, run], by the order of the calls."""
        self._sealed = sealed.to(self._words.device)

    def unseal(self, generator: torch.Generator, slots: torch.Tensor) -> None:
        """Put what is sealed into `slots`, int64 [calls]."""
        assert self._sealed is not None
        step = self.layout.stride // self.layout.run
        for some, places, pad in self.layout.secrets(generator, len(slots)):
            places += (slots[some] * step)[:, None]
            values = pad.bitwise_xor_(self._sealed[some])
            if self.layout.run == 1:  # The quicker one of two ways to say the same.
                self._words.view(-1).scatter_(0, places.view(-1), values.view(-1))
            else:
                self._words.view(-1, self.layout.run).index_copy_(0, places.view(-1), values.view(-1, self.layout.run))


def words(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bits of a dense tensor as whole numbers [n], of eight bytes where its size is a multiple of that."""
    flat, size = tensor.contiguous().view(-1), tensor.element_size()
    if flat.numel() * size % 8:
        return flat.view(_WORDS[size])
    return (flat.clone() if flat.storage_offset() * size % 8 else flat).view(torch.int64)


def total(tensor: torch.Tensor) -> int:
    """Sum up the words of a tensor, modulo 2**64, as a number with a sign."""
    return int(words(tensor).sum(dtype=torch.int64))


_JOINED = {"cpu": 1 << 14, "cuda": 4 << 20}
"""Bytes of a tensor up to which joining it to others costs less than a sum of its own, by kind of device."""


def totals(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Return `total` of each, fetched from the device at once."""
    flat = [words(tensor) for tensor in tensors]
    alike = len({(each.dtype, each.shape) for each in flat}) == 1
    if alike and flat[0].nbytes <= _JOINED.get(flat[0].device.type, 0):
        return torch.stack(flat).sum(1, dtype=torch.int64).tolist()
    return torch.stack([each.sum(dtype=torch.int64) for each in flat]).tolist()


def _noise(generator: torch.Generator, count: int, word: torch.dtype) -> torch.Tensor:
    """Return random words [count]. All 64 bits of a number are asked for: without bounds its sign would be missing."""
    numbers = torch.empty(-(-count * word.itemsize // 8), dtype=torch.int64, device=generator.device)
    return numbers.random_(-(2**63), None, generator=generator).view(word)[:count]
