"""The kernel of a recurrence: initial states, a loop over steps, and how blocks tell each other their new states."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.kernels.emission import (
    Kernels,
    Scope,
    function,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.kernels.recurrence_layout import Holding, RecurrenceLayout
from warpsmith.author.builtin.kernels.recurrence_unit import Units
from warpsmith.author.builtin.scalar import Scalar
from warpsmith.author.builtin.values import Direction
from warpsmith.records import Buffer, Launch


def emit_recurrence(layout: RecurrenceLayout, scope: Scope, holding: Holding) -> Kernels:
    """Write the kernel, and where blocks have to meet also the one that sets their counters to zero."""
    return _Recurrence(Units(layout, scope, holding)).emit()


@dataclass(frozen=True)
class _Recurrence:
    units: Units

    @property
    def layout(self) -> RecurrenceLayout:
        return self.units.layout

    @property
    def scope(self) -> Scope:
        return self.units.scope

    @property
    def arrived(self) -> str:
        """The buffer with the counters of meetings, one for each group of blocks that wait for each other."""
        return f"{self.scope.kernel}_arrived"

    def emit(self) -> Kernels:
        """Put everything together."""
        layout, scope, directions = self.layout, self.scope, self.layout.producer.directions
        names, params = self._signature()
        bodies = [self._direction(number) for number in range(len(directions))]
        if len(bodies) == 1:
            code = bodies[0]
        else:
            code = ["if (blockIdx.z == 0) {", *indented(bodies[0]), "} else {", *indented(bodies[1]), "}"]
        body = [*self._setup(), *code]
        kernel = function(scope, scope.kernel, params, self.units.block, body, self._comment())
        grid = tuple(map(str, layout.groups))
        shared = str(layout.shared_bytes(self.units.holding))
        launch = Launch(scope.kernel, grid, (self.units.block,), names, shared, cooperative=not layout.whole)
        holding = self.units.holding
        tunables = [(self.units.block, layout.blocks(holding)), (self.units.team, layout.teams(holding))]
        if len(layout.shares(holding)) > 1:
            tunables.append((self.units.share, layout.shares(holding)))
        helpers = frozenset({"team_sum", "Vec"})
        if layout.whole:
            return Kernels(kernel, (launch,), tuple(tunables), (), helpers)
        reset, first, buffers = self._meetings()
        text, helpers = f"{reset}\n\n{kernel}", helpers | {"grid_barrier"}
        return Kernels(text, (first, launch), tuple(tunables), buffers, helpers)

    def _signature(self) -> tuple[tuple[str, ...], str]:
        layout, values, writes = self.layout, list[Scalar](), list[tuple[str, str]]()
        for number, one in enumerate(layout.producer.directions):
            values += layout.given(one)
            values += [layout.weight(one, gate, self.units.lanes.linear) for gate in self.units.gates]
            values += [layout.initial(one, state) for state in range(len(one.initial))]
            stores = [store for some in layout.stores(number, layout.next) for store in some]
            values += [store.value for store in stores]
            writes += [(store.tensor, store.dtype) for store in stores]
        names, params = parameters(loads(values), writes)
        if layout.whole:
            return names, params
        extra = f"{layout.ctype}* {self.units.hidden}, int* {self.arrived}"
        return (*names, self.units.hidden, self.arrived), f"{params}, {extra}"

    def _meetings(self) -> tuple[str, Launch, tuple[Buffer, ...]]:
        """The kernel that prepares counters, its launch, and what both kernels share."""
        sequences, _, directions = self.layout.groups
        producer, count = self.layout.producer, sequences * directions
        name = f"{self.scope.kernel}_reset"
        body = [f"for (int i = threadIdx.x; i < {count}; i += 32) {self.arrived}[i] = 0;"]
        source = function(self.scope, name, f"int* {self.arrived}", "32", body, "Nobody has arrived yet.")
        width = producer.hidden * directions
        buffers = (
            Buffer(self.units.hidden, ("2", str(producer.batch), str(width)), producer.dtype),
            Buffer(self.arrived, (str(count),), "int32"),
        )
        return source, Launch(name, ("1",), ("32",), (self.arrived,)), buffers

    def _comment(self) -> str:
        layout, producer = self.layout, self.layout.producer
        ways = " from both ends" if len(producer.directions) == 2 else ""
        units = "all units" if layout.whole else f"{layout.tile.units} units"
        place = self.units.holding.replace("shared", "shared memory")
        return (
            f"{producer.steps} steps of {producer.batch} sequences{ways}, {producer.hidden} units.\n"
            f"A block has {layout.tile.rows} sequences and {units}; its weights stay in {place}."
        )

    # -- text

    def _setup(self) -> list[str]:
        layout, producer = self.layout, self.layout.producer
        states, weights, _ = layout.shared(self.units.holding)
        pool = f"{self.scope.kernel}_pool"
        block, team = self.units.block, self.units.team
        lines = [
            f"constexpr int STEPS = {producer.steps}, BATCH = {producer.batch}, HIDDEN = {producer.hidden};",
            f"constexpr int ROWS = {layout.tile.rows}, UNITS = {layout.tile.units}, TEAMS = {block} / {team};",
            f"constexpr int SHARE = {self.units.share}, PARTS = ROWS / SHARE, OWN = (SHARE + {team} - 1) / {team};",
            "constexpr int TURNS = (UNITS * PARTS + TEAMS - 1) / TEAMS;",
            f"extern __shared__ __align__(16) {layout.ctype} {pool}[];",
            f"{layout.ctype}* const state = {pool};",
        ]
        if self.units.holding == "shared":
            lines += [f"constexpr int STRIDE = {layout.stride};", f"{layout.ctype}* const kept = {pool} + {states};"]
        if producer.kind == "lstm":
            lines += [f"{layout.ctype}* const cell = {pool} + {states + weights};"]
        if self.units.holding == "registers":
            lines += [f"constexpr int CHUNKS = (HIDDEN / {layout.vec} + {team} - 1) / {team};"]
        return [
            *lines,
            "const int first_row = blockIdx.x * ROWS, first_unit = blockIdx.y * UNITS;",
            f"const int team = threadIdx.x / {team}, lane = threadIdx.x % {team};",
        ]

    def _direction(self, number: int) -> list[str]:
        """Everything that the blocks of a direction do."""
        one, whole = self.layout.producer.directions[number], self.layout.whole
        size = "ROWS * HIDDEN"
        ping = [
            f"const {self.layout.ctype}* const before = state + step % 2 * ({size});",
            f"{self.layout.ctype}* const after = state + (step + 1) % 2 * ({size});",
        ]
        pong = ["__syncthreads();"] if whole else self._exchange(number)
        return [
            *self._begin(one),
            *(self.units.keep(one) if self.units.holding != "memory" else []),
            "__syncthreads();",
            "for (int step = 0; step < STEPS; ++step) {",
            *indented(ping if whole else [f"const {self.layout.ctype}* const before = state;"]),
            *indented(self.units.step(one, number)),
            *indented(pong),
            "}",
        ]

    def _begin(self, one: Direction) -> list[str]:
        """Read the initial states."""
        layout = self.layout
        text = self._fill("state", "HIDDEN", "at % HIDDEN", "row < BATCH", layout.initial(one, 0))
        if layout.producer.batch % layout.tile.rows:
            # Sequences beyond the last are summed up like any other, so their states must be defined.
            copies = ["state[at] = 0;", *(["state[ROWS * HIDDEN + at] = 0;"] if layout.whole else [])]
            text[2:2] = indented(copies)
        if len(one.initial) > 1:
            inside = "row < BATCH && unit < HIDDEN"
            text += self._fill("cell", "UNITS", "first_unit + at % UNITS", inside, layout.initial(one, 1))
        return text

    def _fill(self, array: str, width: str, unit: str, inside: str, value: Scalar) -> list[str]:
        printer = self.scope.printer()
        return [
            f"for (int at = threadIdx.x; at < ROWS * {width}; at += {self.units.block}) {{",
            f"    const int row = first_row + at / {width}, unit = {unit};",
            f"    if ({inside}) {{",
            *indented([*printer.share([value]), f"{array}[at] = {printer.value(value)};"], 2),
            "    }",
            "}",
        ]

    def _exchange(self, number: int) -> list[str]:
        """Wait for the others, and read what they have left. Reads go past the cache that other blocks do not see."""
        width = self.layout.producer.hidden * self.layout.groups[2]
        place = f"((step + 1) % 2 * BATCH + row) * {width} + {number * self.layout.producer.hidden} + at % HIDDEN"
        group = f"{self.arrived} + {number} * gridDim.x + blockIdx.x"
        return [
            "if (step + 1 < STEPS) {",
            f"    grid_barrier({group}, gridDim.y * (step + 1));",
            f"    for (int at = threadIdx.x; at < ROWS * HIDDEN; at += {self.units.block}) {{",
            "        const int row = first_row + at / HIDDEN;",
            f"        if (row < BATCH) state[at] = __ldcg(&{self.units.hidden}[{place}]);",
            "    }",
            "    __syncthreads();",
            "}",
        ]
