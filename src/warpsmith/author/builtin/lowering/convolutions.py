"""Convolutions: the filters contracted with windows of the input, over input channels and the places of the window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from warpsmith.author.builtin.index import Index, ravel, unravel
from warpsmith.author.builtin.lowering.contractions import biased
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.reductions import windows
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import padded
from warpsmith.author.builtin.scalar import Scalar, compute_dtype
from warpsmith.author.builtin.values import Contraction, Coords, Packed, Stored, Value, Virtual
from warpsmith.errors import UnsupportedOperator

# An element of an operand, from coordinates of the output (image, group, channel of the group, *places) and of what is
# summed (input channel, *taps).
Operand = Callable[[Coords, Coords], Scalar]
Operands = Callable[[Value, Value], tuple[Operand, Operand]]

# Channels that lie side by side are read by 16 bytes.
_VECTOR = 4


@lowers("conv1d.default", "conv2d.default", "conv3d.default", "convolution.default", "conv1d.padding", "conv2d.padding")
def convolution(
    site: Site, x: Value, weight: Value, bias: Value | None = None, stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,), dilation: Sequence[int] = (1,), *rest: object,
) -> Value:  # fmt: skip
    """Sliding windows of the input contracted with the weights over input channels and window."""
    groups = next((r for r in reversed(rest) if isinstance(r, int) and not isinstance(r, bool)), 1)
    if rest and rest[0] is True:
        raise UnsupportedOperator("transposed convolution")
    kernel = weight.shape[2:]
    rank = len(kernel)
    steps, spread = _each(stride, rank), _each(dilation, rank)
    if isinstance(padding, str):
        total = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
        before = [t // 2 for t in total] if padding == "same" else [0] * rank
    else:
        before = _each(padding, rank)
    alone = len(x.shape) == rank + 1
    images = Virtual(x.name, (1, *x.shape), x.dtype, lambda c: x.at(c[1:])) if alone else x
    batch, channels = (images.shape[0], weight.shape[0])
    space = site.spec.shape[-rank:]
    per_group, inputs = channels // groups, weight.shape[1]
    dtype = compute_dtype(site.spec.dtype)
    shape = (batch, groups, per_group, *space)

    def operands(x: Value, filters: Value) -> tuple[Operand, Operand]:
        _, window = windows(x, space, kernel, steps, before, spread, 0.0)
        return (
            lambda out, inner: element(filters, (out[1] * per_group + out[2], *inner), dtype),
            lambda out, inner: window((out[0], out[1] * inputs + inner[0], *out[3:], *inner[1:])),
        )

    whole = convolved(site.name("conv"), shape, "bbm" + "n" * rank, images, weight, kernel, operands)

    def at(coords: Coords) -> Scalar:
        image, channel, *place = (Index(), *coords) if alone else coords
        return whole.at((image, channel // per_group, channel % per_group, *place))

    out = Virtual(site.name(), site.spec.shape, site.spec.dtype, at)
    return biased(site, out, bias, lambda coords: (coords[-1 - rank],))


def convolved(
    name: str, shape: tuple[int, ...], roles: str, x: Value, filters: Value, taps: Sequence[int], operands: Operands,
    phases: tuple[int, ...] = (),
) -> Contraction:  # fmt: skip
    """Contract filters (output channel, input channel, *kernel) with x (image, channel, *places).

    `operands(x, filters)` gives both operands of the contraction. They are offered in another order too, with the
    channels of both tensors last in memory, so that what is summed lies side by side.
    """
    inputs, dtype = filters.shape[1], compute_dtype(x.dtype)
    left, right = operands(x, filters)
    packed = None
    room = -(-inputs // _VECTOR) * _VECTOR
    filled = room == inputs or (shape[1] == 1 and 3 * room <= 4 * inputs)
    if filled and math.prod(taps) > 1:
        node = name.partition(".")[0]
        x, filters = _with_channels(x, room), _with_channels(filters, room)
        images, bank = _channels_last(f"{node}_images", x), _channels_last(f"{node}_filters", filters)
        moved = operands(_channels_first(images, x.shape), _channels_first(bank, filters.shape))
        packed = Packed((images, bank), (*taps, room), *map(_channel_first, moved))
    return Contraction(name, shape, dtype, (dtype,), roles, (inputs, *taps), left, right, "conv", phases, packed)


def _channel_first(operand: Operand) -> Operand:
    """Let an operand be asked with the input channel last."""
    return lambda out, inner: operand(out, (inner[-1], *inner[:-1]))


def _with_channels(x: Value, room: int) -> Value:
    """Return (batch, channels, *places) with channels of zeros added until there are `room`."""
    if x.shape[1] % room == 0:
        return x
    return padded(x.name, x, (x.shape[0], room, *x.shape[2:]), [0] * len(x.shape), 0.0)


def _channels_last(name: str, x: Value) -> Virtual:
    """Return (batch, channels, *places) as (batch, places, channels), with the places counted through."""
    batch, channels, *places = x.shape
    shape = (batch, math.prod(places), channels)
    return Virtual(name, shape, x.dtype, lambda c: x.at((c[0], c[2], *unravel(c[1], places))))


def _channels_first(last: Value, shape: tuple[int, ...]) -> Virtual:
    """Return a tensor that `_channels_last` has brought into memory, read in the old order."""
    memory = Stored(last.name, last.shape, last.dtype)
    return Virtual(last.name, shape, last.dtype, lambda c: memory.at((c[0], ravel(c[2:], shape[2:]), c[1])))


def _each(value: Sequence[int], rank: int) -> list[int]:
    return list(value) * rank if len(value) == 1 else list(value)
