"""The two matrix products of attention on tensor cores, as text.

With `group = lane / 4` and `member = lane % 4`, a lane holds of a matrix of scores the rows `group` and `group + 8`
and the columns `2 member` and `2 member + 1` (see `snippets_tensor`). Two liberties save all exchange between lanes:

* The order of a sum is free, if it is the same on both sides. A lane reads 16 neighbouring bytes of a row of queries
  or keys and takes them for what two instructions want of it.
* For the same reason scores, where they are, serve as the left operand of the second product. With TF32, keys `2
  member` and `2 member + 1` stand where the instruction has `member` and `member + 4`.

float32 is split into two TF32 numbers, and three products of them summed. Tensor cores cut off where they add, so each
sum is short, small products have one of their own, and both are added to the rest by ordinary additions (Ootomo and
Yokota, 2022).
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.attention_tile import Tile
from warpsmith.author.builtin.kernels.emission import unrolled

_MMA = {"float32": "mma_tf32", "float16": "mma_f16", "bfloat16": "mma_bf16"}
# Two floats as one word of two 16-bit numbers.
_PAIRS = {"float16": ("__half2", "__floats2half2_rn"), "bfloat16": ("__nv_bfloat162", "__floats2bfloat162_rn")}


def helpers(tile: Tile) -> set[str]:
    """Snippets that the products need."""
    own = {"Tf32"} if tile.dtype == "float32" else {"load_transposed"}
    return {"Vec", _MMA[tile.dtype], *own}


def scores(tile: Tile, into: str, row: str, key: str, rows: str, keys: str) -> list[str]:
    """Statements that sum the products of `rows` times 16 queries with those of `keys` times 8 keys.

    `row` and `key` are a lane's first row of either tile, and `into` names an array of zeros.
    """
    ctype = "float" if tile.dtype == "float32" else "unsigned"
    piece = f"*reinterpret_cast<const Vec<{ctype}, 4>*>"
    query = f"&tile_query[({row} + r * 16) * PITCH + at]"
    below = f"&tile_query[({row} + r * 16 + 8) * PITCH + at]"
    unit = 16 // tile.bytes
    steps = tile.deep // (4 * unit)
    left = [f"const Vec<{ctype}, 4> upper = {piece}({query});", f"const Vec<{ctype}, 4> lower = {piece}({below});"]
    right = f"const Vec<{ctype}, 4> right = {piece}(&tile_key[{_slot(tile, 'PITCH')}({key} + j * 8) * PITCH + at]);"
    multiply = _scores_float32 if tile.dtype == "float32" else _scores_half
    body = [f"const int at = step * {4 * unit} + member * {unit};", *multiply(tile, into, left, right, rows, keys)]
    text = unrolled("step", steps, body)
    return text if steps <= 8 else ["#pragma unroll 2", *text[1:]]


def _slot(tile: Tile, pitch: str) -> str:
    return f"slot * {tile.keys} * {pitch} + " if tile.slots > 1 else ""


def _scores_half(tile: Tile, into: str, left: list[str], right: str, rows: str, keys: str) -> list[str]:
    pair = [
        "left[r][e][0] = upper.at[2 * e], left[r][e][1] = lower.at[2 * e];",
        "left[r][e][2] = upper.at[2 * e + 1], left[r][e][3] = lower.at[2 * e + 1];",
    ]
    product = [
        "const unsigned pair[2] = {right.at[2 * e], right.at[2 * e + 1]};",
        *unrolled("r", rows, [f"{_MMA[tile.dtype]}({into}[r][j], left[r][e], pair);"]),
    ]
    return [
        f"unsigned left[{rows}][2][4];",
        *unrolled("r", rows, [*left, *unrolled("e", 2, pair)]),
        *unrolled("j", keys, [right, *unrolled("e", 2, product)]),
    ]


def _scores_float32(tile: Tile, into: str, left: list[str], right: str, rows: str, keys: str) -> list[str]:
    parts = [
        "const Tf32 parts = split_tf32((e % 2 ? lower : upper).at[e / 2]);",
        "large[r][e / 4][e % 4] = parts.large, small[r][e / 4][e % 4] = parts.small;",
    ]
    product = [
        *_pair("right.at[2 * e]", "right.at[2 * e + 1]"),
        *unrolled("r", rows, _three("part[r]", "less[r]", "large[r][e]", "small[r][e]")),
    ]
    added = unrolled("r", rows, unrolled("e", 4, [f"{into}[r][j][e] += part[r][e] + less[r][e];"]))
    sums = f"float part[{rows}][4] = {{}}, less[{rows}][4] = {{}};"
    return [
        f"unsigned large[{rows}][2][4], small[{rows}][2][4];",
        *unrolled("r", rows, [*left, *unrolled("e", 8, parts)]),
        *unrolled("j", keys, [right, sums, *unrolled("e", 2, product), *added]),
    ]


def _pair(first: str, second: str) -> list[str]:
    """Split two elements of the right operand."""
    return [
        f"const Tf32 first = split_tf32({first}), second = split_tf32({second});",
        "const unsigned pair[2] = {first.large, second.large}, rest[2] = {first.small, second.small};",
    ]


def _three(into: str, less: str, large: str, small: str) -> list[str]:
    """Products of split operands. Small ones have a sum of their own: a large one would cut off much of them."""
    passes = ((less, small, "pair"), (less, large, "rest"), (into, large, "pair"))
    return [f"mma_tf32({sum_}, {a}, {b});" for sum_, a, b in passes]


def mixed(tile: Tile, whole: bool, rescaled: bool) -> list[str]:
    """Statements that add the products of `score` with the tile of values to `acc`.

    `whole` keeps what a 16-bit share loses when it is rounded, in a second product; `rescaled` first multiplies what
    is in `acc` already by `rescale`, one factor for each row.
    """
    return _mixed_float32(tile, rescaled) if tile.dtype == "float32" else _mixed_half(tile, whole, rescaled)


def _mixed_half(tile: Tile, whole: bool, rescaled: bool) -> list[str]:
    pair, pack = _PAIRS[tile.dtype]
    narrow = [
        "const float a = score[r][j + e / 2][e % 2 * 2], b = score[r][j + e / 2][e % 2 * 2 + 1];",
        f"const {pair} both = {pack}(a, b);",
        "left[r][e] = *reinterpret_cast<const unsigned*>(&both);",
    ]
    names = "left[ROW_TILES][4]"
    products = [f"{_MMA[tile.dtype]}(acc[r][c + e], left[r], pair);"]
    if whole:
        names += ", rest[ROW_TILES][4]"
        narrow += [
            f"const {pair} less = {pack}(a - float(both.x), b - float(both.y));",
            "rest[r][e] = *reinterpret_cast<const unsigned*>(&less);",
        ]
        products.insert(0, f"{_MMA[tile.dtype]}(acc[r][c + e], rest[r], pair);")
    first = "first_col + " if tile.across > 1 else ""
    at = f"{_slot(tile, 'VALUE_PITCH')}(j * 8 + lane % 16) * VALUE_PITCH + {first}c * 8 + lane / 16 * 8"
    halves = ["const unsigned pair[2] = {right[2 * e], right[2 * e + 1]};"]
    columns = [
        "unsigned right[4];",
        f"load_transposed(right, &tile_value[{at}]);",
        *unrolled("e", 2, [*halves, *unrolled("r", "ROW_TILES", products)]),
    ]
    step = [
        f"unsigned {names};",
        *unrolled("r", "ROW_TILES", unrolled("e", 4, narrow)),
        *unrolled("c", "COL_TILES", columns, step=2),
    ]
    scale = unrolled("c", "COL_TILES", unrolled("e", 4, ["acc[r][c][e] *= rescale[r][e / 2];"]))
    before = unrolled("r", "ROW_TILES", scale) if rescaled else []
    return [*before, *unrolled("j", "KEY_TILES", step, step=2)]


def _mixed_float32(tile: Tile, rescaled: bool) -> list[str]:
    wide, first = tile.wide, "first_col + " if tile.across > 1 else ""
    column = f"(c * 8 + group) * {wide}" if wide > 1 else "c * 8 + group"
    read = f"*reinterpret_cast<const Vec<float, {wide}>*>(&tile_value[at"
    parts = [
        "const Tf32 parts = split_tf32(score[r][j][e % 2 * 2 + e / 2]);",
        "large[r][e] = parts.large, small[r][e] = parts.small;",
    ]
    products = [
        *_pair("upper.at[k]", "lower.at[k]"),
        *unrolled("r", "ROW_TILES", _three("part[r][k]", "less[r][k]", "large[r]", "small[r]")),
    ]
    keys = [
        f"const int at = {_slot(tile, 'VALUE_PITCH')}(j * 8 + 2 * member) * VALUE_PITCH + {first}{column};",
        f"const Vec<float, {wide}> upper = {read}]);",
        f"const Vec<float, {wide}> lower = {read} + VALUE_PITCH]);",
        "unsigned large[ROW_TILES][4], small[ROW_TILES][4];",
        *unrolled("r", "ROW_TILES", unrolled("e", 4, parts)),
        *unrolled("k", wide, products),
    ]
    place = f"acc[r][c * {wide} + k][e]" if wide > 1 else "acc[r][c][e]"
    step = "part[r][k][e] + less[r][k][e]"
    add = f"{place} = {place} * rescale[r][e / 2] + ({step});" if rescaled else f"{place} += {step};"
    body = [
        f"float part[ROW_TILES][{wide}][4] = {{}}, less[ROW_TILES][{wide}][4] = {{}};",
        *unrolled("j", "KEY_TILES", keys),
        *unrolled("r", "ROW_TILES", unrolled("k", wide, unrolled("e", 4, [add]))),
    ]
    return unrolled("c", f"COL_TILES / {wide}" if wide > 1 else "COL_TILES", body)
