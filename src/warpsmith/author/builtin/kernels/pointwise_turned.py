"""Pointwise work that reads along one dimension and writes along another, by tiles in shared memory.

Without them, either the reads or the writes of neighbouring threads would lie far apart.
"""

from __future__ import annotations

import math

from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import (
    Assign,
    Kernels,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
    unrolled,
)
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.author.builtin.values import Coords
from warpsmith.records import Launch

_SIDE = 32
# Rows of threads: each thread moves `_SIDE / rows` elements of a tile.
_ROWS = (8, 16, 4)
# Narrower dimensions would leave most of a tile empty.
_LEAST = 8


def read_dimension(region: Region) -> int | None:
    """The dimension along which neighbours lie side by side where a region reads, if it is not the one it writes.

    None where there are several outputs, where reads disagree, or where a dimension is too short to be worth a tile.
    """
    if len(region.outputs) != 1 or len(region.domain) < 2 or region.domain[-1] < _LEAST:
        return None
    found = {
        dimension
        for dimension, extent in enumerate(region.domain[:-1])
        if extent >= _LEAST and _is_step(region, dimension)
    }
    return found.pop() if len(found) == 1 and not _is_step(region, len(region.domain) - 1) else None


def _is_step(region: Region, dimension: int) -> bool:
    """Whether one step along a dimension goes to the next element of everything that varies along it."""
    places = []
    for at in (0, 1):
        coords = tuple(lift(at) if d == dimension else Index() for d in range(len(region.domain)))
        places.append([load.index for load in loads([_value(region, coords)])])
    if len(places[0]) != len(places[1]):
        return False
    steps = {(after - before).constant for before, after in zip(*places, strict=True)} - {0}
    return steps == {1}


def _value(region: Region, coords: Coords) -> Scalar:
    (output,) = region.outputs
    return resolve(output.at(coords, region.domain), {})


def emit_turned(region: Region, scope: Scope) -> Kernels:
    """Write the kernel. A block moves one tile, read along one dimension, written along the last."""
    dimension = read_dimension(region)
    assert dimension is not None
    (output,) = region.outputs
    rest = tuple(e for d, e in enumerate(region.domain[:-1]) if d != dimension)
    height, width = region.domain[dimension], region.domain[-1]
    lead, along, across = Axis("lead", math.prod(rest)), Axis("r", height), Axis("column", width)
    others = iter(unravel(lift(lead), rest))
    coords = (*(lift(along) if d == dimension else next(others) for d in range(len(region.domain) - 1)), lift(across))
    ctype, integer, rows = CTYPES[output.dtype], scope.integer, scope.tunable("ROWS")
    value = _value(region, coords)
    place = ravel(coords, region.domain)
    held = Store(output.name, output.dtype, place, Local("tile[threadIdx.x][i]", output.dtype))
    names, params = parameters(loads([value]), [(output.name, output.dtype)])
    down, over = -(-height // _SIDE), -(-width // _SIDE)
    tiles = down * over
    printer = scope.printer()
    taken = [*printer.share([value]), Assign("tile[i][threadIdx.x]", value, output.dtype).hand_over(printer)]
    tile = "blockIdx.x"
    text = [
        f"constexpr {integer} HEIGHT = {height}, WIDTH = {width};",
        f"__shared__ {ctype} tile[{_SIDE}][{_SIDE + 1}];",
    ]
    if lead.extent > 1:
        text.append(f"const {integer} lead = blockIdx.x / {tiles};")
        tile = f"blockIdx.x % {tiles}"
    first_r = "0" if down == 1 else f"{tile} / {over} * {_SIDE}" if over > 1 else f"{tile} * {_SIDE}"
    first_column = "0" if over == 1 else f"blockIdx.x % {over} * {_SIDE}"
    body = [
        *text,
        f"const int first_r = {first_r}, first_column = {first_column};",
        *_each(rows, [
            f"const {integer} r = first_r + threadIdx.x, column = first_column + i;",
            "if (r < HEIGHT && column < WIDTH) {",
            *indented(taken),
            "}",
        ]),
        "__syncthreads();",
        *_each(rows, [
            f"const {integer} r = first_r + i, column = first_column + threadIdx.x;",
            f"if (r < HEIGHT && column < WIDTH) {held.hand_over(scope.printer())}",
        ]),
    ]  # fmt: skip
    comment = (
        f"{' x '.join(map(str, region.domain))} elements, read along dimension {dimension} and written along the last,"
        f"\nin tiles of {_SIDE} x {_SIDE}."
    )
    source = function(scope, scope.kernel, params, f"{_SIDE} * {rows}", body, comment)
    launch = Launch(scope.kernel, (str(lead.extent * tiles),), (str(_SIDE), rows), names)
    return Kernels(source, (launch,), ((rows, _ROWS),))


def _each(rows: str, body: list[str]) -> list[str]:
    """Let the rows of threads take turns."""
    return unrolled("turn", f"{_SIDE} / {rows}", [f"const int i = turn * {rows} + threadIdx.y;", *body])
