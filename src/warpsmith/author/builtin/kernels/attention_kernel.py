"""The attention kernel: a block goes through the keys step by step, and keeps of all scores only a maximum and a sum.

The running softmax is that of Milakov and Gimelshein ("Online normalizer calculation for softmax", 2018), in blocks
and fused with both products as by Dao et al. ("FlashAttention", 2022).
"""

from __future__ import annotations

import math
import re

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.attention_copy import TileCopy
from warpsmith.author.builtin.kernels.attention_epilogue import Epilogue
from warpsmith.author.builtin.kernels.attention_products import helpers, mixed, scores
from warpsmith.author.builtin.kernels.attention_range import Range, visible
from warpsmith.author.builtin.kernels.attention_scores import Elements
from warpsmith.author.builtin.kernels.attention_tile import MMA_M, MMA_N, Tile
from warpsmith.author.builtin.kernels.emission import Kernels, Scope, function, indented, loads, parameters, unrolled
from warpsmith.author.builtin.scalar import Local
from warpsmith.records import Launch


def emit_attention(tile: Tile, whole: bool, scope: Scope) -> Kernels:
    """Write the kernel. `whole` keeps 16-bit shares exact in two parts instead of rounding them."""
    return _Attention(tile, whole, scope).emit()


class _Attention:
    def __init__(self, tile: Tile, whole: bool, scope: Scope) -> None:
        self.tile, self.layout, self.whole, self.scope = tile, tile.layout, whole, scope
        layout = self.layout
        key, sizes = Axis("key", layout.keys), (tile.deep, tile.pitch, tile.dtype)
        self.copies = (
            TileCopy("query", layout.m, layout.depth, layout.query, tile.rows, *sizes),
            TileCopy("key", key, layout.depth, layout.key, tile.keys, *sizes),
            TileCopy(
                "value", key, layout.width, layout.value, tile.keys, tile.columns, tile.value_pitch, tile.dtype
            ),
        )  # fmt: skip
        self.softmax = layout.found.softmax is not None
        self.shared_scores = tile.across > 1
        self.elements = Elements(tile, scope)
        self.asynchronous = any(copy.asynchronous for copy in self.copies)

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, tile, scope = self.layout, self.tile, self.scope
        epilogue = Epilogue(tile, scope)
        work = [
            *self._place(),
            *self._memory(),
            *self._state(),
            *(line for copy in self.copies for line in copy.fetch(scope, tile.threads, self._slots(copy))),
            *self._steps(),
            *epilogue.emit(),
        ]
        body = [*self._constants("\n".join(work)), *work]
        reads = [copy.value(copy.vec) for copy in self.copies] + self.elements.formulas()
        stores = epilogue.stores()
        reads += [s.value for s in stores]
        names, params = parameters(loads(reads), [(s.tensor, s.dtype) for s in stores])
        comment = (
            f"{layout.comment()}\nA block takes {tile.rows} queries, and {tile.keys} keys at a time; "
            f"its warps stand in {tile.down} rows and {tile.across} columns."
        )
        source = function(scope, scope.kernel, params, str(tile.threads), body, comment)
        launch = Launch(scope.kernel, (str(tile.blocks),), (str(tile.threads),), names, shared=str(tile.shared))
        used = (
            helpers(tile) | ({"copy_async"} if self.asynchronous else set()) | ({"team_sum"} if self.softmax else set())
        )
        return Kernels(source, (launch,), (), helpers=frozenset(used))

    def _slots(self, copy: TileCopy) -> int:
        return 1 if copy.name == "query" else self.tile.slots

    def _constants(self, text: str) -> list[str]:
        """Define the names that the kernel uses."""
        layout, tile = self.layout, self.tile
        values = {
            "QUERIES": layout.queries,
            "KEYS": layout.keys,
            "WIDTH": layout.width,
            "TILE_QUERIES": tile.rows,
            "TILE_KEYS": tile.keys,
        }
        pitches = {"PITCH": tile.pitch, "VALUE_PITCH": tile.value_pitch, "SCORE_PITCH": tile.score_pitch}
        matrices = {"ROW_TILES": tile.row_tiles, "KEY_TILES": tile.key_tiles, "COL_TILES": tile.col_tiles}
        found = []
        for type_, names, comment in (
            (self.scope.integer, values, ""),
            ("int", pitches, "  // from row to row in shared memory"),
            ("int", matrices, "  // matrices of a warp: 16 queries, 8 keys, 8 columns"),
        ):
            used = [f"{name} = {value}" for name, value in names.items() if re.search(rf"\b{name}\b", text)]
            found += [f"constexpr {type_} {', '.join(used)};{comment}"] if used else []
        return found

    def _place(self) -> list[str]:
        """Which queries the block has, and which part of them a lane."""
        layout, tile, integer = self.layout, self.tile, self.scope.integer
        down = -(-layout.queries // tile.rows)
        text = ["const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, member = lane % 4;"]
        if layout.batches > 1:
            text.append(f"const {integer} batch = blockIdx.x{f' / {down}' if down > 1 else ''};")
        if down > 1:
            at = f"blockIdx.x % {down}" if layout.batches > 1 else "blockIdx.x"
            # With a causal mask the last queries see the most: they begin first.
            at = f"({down - 1} - {at})" if self._range().before is not None else f"({at})"
            text.append(f"const {integer} first_row = {integer}{at} * TILE_QUERIES;")
        else:
            text.append(f"constexpr {integer} first_row = 0;")
        over = f" / {tile.across}" if tile.across > 1 else ""
        text.append(
            f"const int row = warp{over} * {tile.row_tiles * MMA_M} + group;  // of the tile, the first of the lane"
        )
        if tile.across > 1:
            text.append(f"const int first_col = warp % {tile.across} * {tile.col_tiles * MMA_N};")
        return text

    def _memory(self) -> list[str]:
        """Lay the tiles into shared memory."""
        tile, ctype = self.tile, self.tile.ctype
        text = [
            "extern __shared__ uint4 tile_memory[];",
            f"{ctype}* const tile_query = reinterpret_cast<{ctype}*>(tile_memory);",
            f"{ctype}* const tile_key = tile_query + TILE_QUERIES * PITCH;",
        ]
        if tile.tiles == 1:
            text.append(f"{ctype}* const tile_value = tile_key;  // one after the other")
        else:
            text.append(f"{ctype}* const tile_value = tile_key + {tile.slots} * TILE_KEYS * PITCH;")
        if self.shared_scores:
            start = tile.query_elements + tile.tile_elements
            text.append(f"float* const tile_score = reinterpret_cast<float*>(tile_query + {start});")
        return text

    def _state(self) -> list[str]:
        text = ["float acc[ROW_TILES][COL_TILES][4] = {};"]
        if self.softmax:
            text += [
                "// A lane has two rows of each matrix.",
                "float largest[ROW_TILES][2], total[ROW_TILES][2] = {}, rescale[ROW_TILES][2];",
                *unrolled("r", "ROW_TILES", ["largest[r][0] = largest[r][1] = -INFINITY;"]),
            ]
        return text

    def _range(self) -> Range:
        layout = self.layout
        key = Axis("key", layout.keys)
        score = Local("score", "float32", frozenset({layout.m, key}))
        logit = layout.logit(lift(layout.m), lift(key), score)
        return visible(logit, layout.m, key, -math.inf if self.softmax else 0.0)

    def _bounds(self) -> tuple[list[str], str, str]:
        """The keys that the block looks at."""
        known, integer = self._range(), self.scope.integer
        text, first, last = [], "0", "KEYS"
        if known.after is not None and known.after + self.layout.queries > self.tile.keys:
            text.append(f"const {integer} seen = first_row + {known.after};  // the first key of the first query")
            text.append(f"const {integer} first = seen > 0 ? seen / TILE_KEYS * TILE_KEYS : 0;")
            first = "first"
        if known.before is not None and known.before < self.layout.keys - 1:
            more_keys = f" + {known.before}" if known.before else ""
            text.append(f"const {integer} end = first_row + TILE_QUERIES{more_keys};  // later keys are hidden")
            text.append(f"const {integer} last = end < KEYS ? end : KEYS;")
            last = "last"
        return text, first, last

    def _steps(self) -> list[str]:
        """Go through the keys."""
        text, first, last = self._bounds()
        integer, tile = self.scope.integer, self.tile
        commit = ["commit_copies();"] if self.asynchronous else []
        more = f"if (start + TILE_KEYS < {last})"
        sync = "__syncthreads();"

        def wait(groups: int) -> list[str]:
            return [f"await_copies<{groups}>();"] * self.asynchronous + [sync]

        make, use = self._make_scores(), self._use_scores()
        opening = ["fetch_query(first_row);"]
        if tile.tiles == 4:
            opening.append(f"if ({first} < {last}) {{ fetch_key({first}, 0); fetch_value({first}, 0); }}")
            body = [
                *wait(0),
                f"{more} {{ fetch_key(start + TILE_KEYS, slot ^ 1); fetch_value(start + TILE_KEYS, slot ^ 1); }}",
                *commit,
                *make,
                *([sync] if self.shared_scores else []),
                *use,
                *self._mix(),
            ]
        elif tile.tiles == 2:
            opening.append(f"if ({first} < {last}) fetch_key({first});")
            body = [
                "fetch_value(start);", *commit, *wait(1), *make,
                f"{sync}  // the tile of keys is free",
                f"{more} fetch_key(start + TILE_KEYS);",
                *commit, *use, *wait(1), *self._mix(), sync,
            ]  # fmt: skip
        else:
            body = [
                "fetch_key(start);", *commit, *wait(0), *make, sync,
                "fetch_value(start);", *commit, *use, *wait(0), *self._mix(), sync,
            ]  # fmt: skip
        slot = ", slot = 0" if tile.tiles == 4 else ""
        turn = ", slot ^= 1" if tile.tiles == 4 else ""
        head = f"for ({integer} start = {first}{slot}; start < {last}; start += TILE_KEYS{turn}) {{"
        return [*text, *opening, *commit, head, *indented(body), "}"]

    def _make_scores(self) -> list[str]:
        """Compute the scores of a step, in registers or, where warps share them, in shared memory."""
        tile = self.tile
        if not self.shared_scores:
            return [
                "float score[ROW_TILES][KEY_TILES][4] = {};",
                *scores(tile, "score", "row", "group", "ROW_TILES", "KEY_TILES"),
                *self.elements.logits("score", "row", "", "ROW_TILES", "KEY_TILES"),
            ]
        down, across = tile.score_warps
        rows, keys = tile.rows // MMA_M // down, tile.key_tiles // across
        write = [
            "const Vec<float, 2> part = {mine[r][j][2 * i], mine[r][j][2 * i + 1]};",
            "const int at = (own + r * 16 + i * 8) * SCORE_PITCH + column + j * 8 + 2 * member;",
            "*reinterpret_cast<Vec<float, 2>*>(&tile_score[at]) = part;",
        ]
        body = [
            f"constexpr int OWN_ROWS = {rows}, OWN_KEYS = {keys};  // matrices of a warp, which others share",
            f"const int own = warp / {across} * {rows * MMA_M} + group, column = warp % {across} * {keys * MMA_N};",
            "float mine[OWN_ROWS][OWN_KEYS][4] = {};",
            *scores(tile, "mine", "own", "column + group", "OWN_ROWS", "OWN_KEYS"),
            *self.elements.logits("mine", "own", "column", "OWN_ROWS", "OWN_KEYS"),
            *unrolled("r", "OWN_ROWS", unrolled("j", "OWN_KEYS", unrolled("i", 2, write))),
        ]
        idle = down * across < tile.down * tile.across
        return [f"if (warp < {down * across}) {{", *indented(body), "}"] if idle else ["{", *indented(body), "}"]

    def _use_scores(self) -> list[str]:
        """Turn scores into shares, up to a factor for each row."""
        text: list[str] = []
        if self.shared_scores:
            read = [
                "const int at = (row + r * 16 + i * 8) * SCORE_PITCH + j * 8 + 2 * member;",
                "const Vec<float, 2> part = *reinterpret_cast<const Vec<float, 2>*>(&tile_score[at]);",
                "score[r][j][2 * i] = part.at[0], score[r][j][2 * i + 1] = part.at[1];",
            ]
            text = [
                "float score[ROW_TILES][KEY_TILES][4];",
                *unrolled("r", "ROW_TILES", unrolled("j", "KEY_TILES", unrolled("i", 2, read))),
            ]
        if self.softmax:
            text += self._softmax()
        return text + self.elements.weights("score", "row", "", "ROW_TILES", "KEY_TILES")

    def _softmax(self) -> list[str]:
        exp = "__expf" if self.scope.fast else "expf"
        one = "score[r][j][2 * i + k]"
        body = [
            "float peak = largest[r][i];",
            *unrolled("j", "KEY_TILES", ["peak = fmaxf(peak, fmaxf(score[r][j][2 * i], score[r][j][2 * i + 1]));"]),
            "for (int bit = 1; bit < 4; bit *= 2) peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, bit));",
            "// Where nothing is to be seen yet, infinity must not be taken from itself.",
            "const float base = peak == -INFINITY ? 0.0f : peak;",
            f"rescale[r][i] = {exp}(largest[r][i] - base);",
            "largest[r][i] = peak;",
            "total[r][i] *= rescale[r][i];",
            *unrolled("j", "KEY_TILES", unrolled("k", 2, [f"{one} = {exp}({one} - base);", f"total[r][i] += {one};"])),
        ]
        return unrolled("r", "ROW_TILES", unrolled("i", 2, body))

    def _mix(self) -> list[str]:
        return mixed(self.tile, self.whole, self.softmax)
