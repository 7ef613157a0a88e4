"""A recurrence laid out over blocks: which sequences and units a block keeps, and where its values come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as Choice

from warpsmith.author.builtin.index import Axis, Index, lift, ravel
from warpsmith.author.builtin.kernels.emission import Store
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.author.builtin.values import Direction, Producer, Recurrence
from warpsmith.records import DTYPE_BYTES

Holding = Choice["registers", "shared", "memory"]
# Shared memory of a block that every GPU has room for.
SHARED_BYTES = 60 * 1024
# Registers that a thread may fill with weights: half of its share of a multiprocessor, and no more than these.
_REGISTERS, _KEPT = 65536, 128
TEAMS = (32, 16, 8, 4)
BLOCKS = (256, 128, 512, 64)


@dataclass(frozen=True)
class Tile:
    """What a block keeps: `rows` sequences and `units` units of one direction."""

    rows: int
    units: int

    @staticmethod
    def parse(text: str) -> Tile:
        """Read "rows x units", such as "8x4"."""
        rows, units = map(int, text.split("x"))
        return Tile(rows, units)


@dataclass(frozen=True)
class RecurrenceLayout:
    """A recurrence region whose blocks keep a tile; `whole` where a block has all units of a direction."""

    region: Region
    producer: Recurrence
    tile: Tile
    vec: int

    @staticmethod
    def of(region: Region, tile: Tile, vec: int) -> RecurrenceLayout:
        """Lay out the region's recurrence."""
        return RecurrenceLayout(region, recurrence_of(region), tile, vec)

    @property
    def whole(self) -> bool:
        """Whether nothing has to be exchanged between blocks."""
        return self.tile.units >= self.producer.hidden

    @property
    def groups(self) -> tuple[int, int, int]:
        """Blocks: groups of sequences, groups of units, directions."""
        p = self.producer
        return -(-p.batch // self.tile.rows), -(-p.hidden // self.tile.units), len(p.directions)

    @property
    def ctype(self) -> str:
        """The C++ type that is computed in."""
        return CTYPES[self.producer.dtype]

    @property
    def stride(self) -> int:
        """Distance of the weights' rows in shared memory: 16 bytes more than a row, against bank conflicts."""
        return self.producer.hidden + 16 // DTYPE_BYTES[self.producer.dtype]

    def shared(self, holding: Holding) -> tuple[int, int, int]:
        """Elements of shared memory: hidden states, weights, states of cells."""
        p, tile = self.producer, self.tile
        states = (2 if self.whole else 1) * tile.rows * p.hidden
        weights = p.gates * tile.units * self.stride if holding == "shared" else 0
        return states, weights, tile.rows * tile.units if p.kind == "lstm" else 0

    def shared_bytes(self, holding: Holding) -> int:
        """Bytes of shared memory."""
        return sum(self.shared(holding)) * DTYPE_BYTES[self.producer.dtype]

    def kept(self, block: int, team: int, share: int) -> int:
        """32-bit registers that a thread needs for the weights of its units, if a team takes `share` sequences."""
        turns = -(-self.tile.units * (self.tile.rows // share) * team // block)
        chunks = -(-self.producer.hidden // (self.vec * team))
        words = DTYPE_BYTES[self.producer.dtype] // 4
        return self.producer.gates * turns * chunks * self.vec * words

    def shares(self, holding: Holding) -> tuple[int, ...]:
        """Sequences that one team takes; by default so many that all teams of a usual block have work."""
        usual = BLOCKS[0] // TEAMS[0]
        parts = max(p for p in (1, 2, 4, 8, 16) if p <= self.tile.rows and p <= max(1, usual // self.tile.units))
        default = self.tile.rows // parts
        every = [r for r in (1, 2, 4, 8, 16) if r <= self.tile.rows]
        fitting = [r for r in every if self._affords(holding, BLOCKS[0], TEAMS[0], r)]
        return tuple(sorted(fitting, key=lambda r: (r != default, r)))

    def teams(self, holding: Holding) -> tuple[int, ...]:
        """Sizes of teams."""
        shares = self.shares(holding)
        return tuple(t for t in TEAMS if shares and self._affords(holding, BLOCKS[0], t, shares[0]))

    def blocks(self, holding: Holding) -> tuple[int, ...]:
        """Sizes of blocks."""
        shares = self.shares(holding)
        return tuple(b for b in BLOCKS if shares and self._affords(holding, b, TEAMS[0], shares[0]))

    def _affords(self, holding: Holding, block: int, team: int, share: int) -> bool:
        """Whether weights that stay in registers leave a thread some for its sums."""
        most = min(_KEPT, _REGISTERS // block // 2)
        return holding != "registers" or self.kept(block, team, share) <= most

    def holdings(self) -> tuple[Holding, ...]:
        """Where a block may keep its weights, the fastest first."""
        fitting: list[Holding] = ["registers"] if self.shares("registers") else []
        fitting += ["shared"] if self.shared_bytes("shared") <= SHARED_BYTES else []
        return (*fitting, "memory")

    # -- values; `step`, `row` and `unit` are variables of the kernel

    def time(self, one: Direction) -> Index:
        """The step that a direction works on."""
        step = lift(Axis("step", self.producer.steps))
        return step * -1 + (self.producer.steps - 1) if one.reverse else step

    @property
    def row(self) -> Index:
        """The sequence."""
        return lift(Axis("row", self.producer.batch))

    @property
    def unit(self) -> Index:
        """The unit of a direction."""
        return lift(Axis("unit", self.producer.hidden))

    def given(self, one: Direction) -> tuple[Scalar, ...]:
        """Values that do not depend on the state."""
        return tuple(resolve(value, {}) for value in one.given(self.time(one), self.row, self.unit))

    def initial(self, one: Direction, number: int) -> Scalar:
        """A state to begin with."""
        return resolve(one.initial[number](self.row, self.unit), {})

    def weight(self, one: Direction, gate: int, column: Index) -> Scalar:
        """An element of the unit's row of weights for a gate."""
        return resolve(one.weight(self.unit + gate * self.producer.hidden, column), {})

    def stores(self, number: int, states: Sequence[Scalar]) -> tuple[list[Store], list[Store]]:
        """What direction `number` writes after every step, and after the last."""
        region, producer = self.region, self.producer
        row = (self.row, self.unit + number * producer.hidden)
        coords = region.coordinates(row, (self.time(producer.directions[number]),))
        held: dict[tuple[Producer, int], Scalar] = {(producer, 0): states[0]}
        held |= {(producer, part + 1): state for part, state in enumerate(states)}
        always = [
            Store(o.name, o.dtype, ravel(coords, region.domain), resolve(o.at(coords, region.domain), held))
            for o in region.written("element")
        ]
        finally_ = [
            Store(o.name, o.dtype, ravel(row, region.row_shape), resolve(o.at(row, region.row_shape), held))
            for o in region.written("row")
        ]
        return always, finally_

    @property
    def next(self) -> tuple[Scalar, ...]:
        """The variables with the states after a step."""
        count = 2 if self.producer.kind == "lstm" else 1
        return tuple(Local(f"next{n}", self.producer.dtype) for n in range(count))


def recurrence_of(region: Region) -> Recurrence:
    """The region's recurrence."""
    (producer,) = region.producers
    assert isinstance(producer, Recurrence)
    return producer
