"""What the teams of a block do in one step of a recurrence: the sums of a unit for every gate, then its new state."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.emission import Lanes, Scope, indented, loads
from warpsmith.author.builtin.kernels.recurrence_cell import updated
from warpsmith.author.builtin.kernels.recurrence_layout import Holding, RecurrenceLayout
from warpsmith.author.builtin.scalar import Local
from warpsmith.author.builtin.values import Direction


@dataclass(frozen=True)
class Units:
    """Writes the text for the units of a block, whose weights are held in registers, shared memory or memory."""

    layout: RecurrenceLayout
    scope: Scope
    holding: Holding

    @property
    def block(self) -> str:
        """The macro with the number of threads of a block."""
        return self.scope.tunable("BLOCK")

    @property
    def team(self) -> str:
        """The macro with the number of threads that share a sum."""
        return self.scope.tunable("TEAM")

    @property
    def share(self) -> str:
        """The macro with the number of sequences that a team takes, or that number where there is no choice."""
        choices = self.layout.shares(self.holding)
        return self.scope.tunable("SEQUENCES_PER_TEAM") if len(choices) > 1 else str(choices[0])

    @property
    def hidden(self) -> str:
        """The buffer in which blocks leave new states for each other, after even and odd steps."""
        return f"{self.scope.kernel}_hidden"

    @property
    def lanes(self) -> Lanes:
        """Vectors along the columns of the weights."""
        return Lanes(Axis("j", self.layout.producer.hidden // self.layout.vec), self.layout.vec)

    @property
    def gates(self) -> range:
        """Numbers of the gates."""
        return range(self.layout.producer.gates)

    def step(self, one: Direction, number: int) -> list[str]:
        """Compute the new states of all units of direction `number` from `before`."""
        return self._turns(self._one(one, number))

    def _turns(self, body: list[str]) -> list[str]:
        """Let every team of threads take one unit after the other, for a share of the sequences."""
        return [
            *(["#pragma unroll"] if self.holding == "registers" else []),
            "for (int turn = 0; turn < TURNS; ++turn) {",
            f"    const int warp = turn * TEAMS + int(threadIdx.x) / 32 * (32 / {self.team});",
            "    if (warp >= UNITS * PARTS) break;  // whole warps leave together",
            "    const int item = turn * TEAMS + team, place = item / PARTS, first = item % PARTS * SHARE;",
            "    const bool inside = place < UNITS && first_unit + place < HIDDEN;",
            "    const int unit = inside ? first_unit + place : first_unit;",
            *indented(body),
            "}",
        ]

    def _chunks(self, body: list[str]) -> list[str]:
        """Run over a thread's share of the columns, in vectors."""
        count = f"HIDDEN / {self.layout.vec}"
        if self.holding != "registers":
            return [f"for (int j = lane; j < {count}; j += {self.team}) {{", *indented(body), "}"]
        return [
            "#pragma unroll",
            "for (int chunk = 0; chunk < CHUNKS; ++chunk) {",
            f"    const int j = chunk * {self.team} + lane;",
            f"    if (j < {count}) {{",
            *indented(body, 2),
            "    }",
            "}",
        ]

    def _each_k(self, body: list[str]) -> list[str]:
        vec = self.layout.vec
        return ["#pragma unroll", f"for (int k = 0; k < {vec}; ++k) {{", *indented(body), "}"]

    def _read_weights(self, one: Direction) -> tuple[list[str], list[str]]:
        """Statements that read the weights of a unit at vector `j` from memory, and each gate's element `k`."""
        values = [self.layout.weight(one, gate, self.lanes.linear) for gate in self.gates]
        text, inner = self.lanes.vectors(self.scope.printer(), loads(values))
        return text, [inner.value(value) for value in values]

    def keep(self, one: Direction) -> list[str]:
        """Bring the weights to where they are kept."""
        if self.holding == "shared":
            return self._keep_shared(one)
        vector = f"Vec<{self.layout.ctype}, {self.layout.vec}>"
        read, elements = self._read_weights(one)
        fill = self._each_k([f"kept{gate}[turn][chunk].at[k] = {e};" for gate, e in enumerate(elements)])
        arrays = ", ".join(f"kept{gate}[TURNS][CHUNKS]" for gate in self.gates)
        return [f"{vector} {arrays};", *self._turns(self._chunks([*read, *fill]))]

    def _keep_shared(self, one: Direction) -> list[str]:
        column = lift(Axis("column", self.layout.producer.hidden))
        text: list[str] = []
        for gate in self.gates:
            printer = self.scope.printer()
            value = self.layout.weight(one, gate, column)
            text += printer.share([value])
            text.append(f"kept[({gate} * UNITS + place) * STRIDE + column] = {printer.value(value)};")
        return [
            f"for (int at = threadIdx.x; at < UNITS * HIDDEN; at += {self.block}) {{",
            "    const int place = at / HIDDEN, column = at % HIDDEN;",
            "    const int unit = first_unit + place < HIDDEN ? first_unit + place : first_unit;",
            *indented(text),
            "}",
        ]

    def _one(self, one: Direction, number: int) -> list[str]:
        """One step of one unit, for all sequences of the block."""
        ctype = self.layout.ctype
        given = self.layout.given(one)
        printer = self.scope.printer()
        ahead = [*printer.share(given), *(f"given{n}[own] = {printer.value(v)};" for n, v in enumerate(given))]
        mine = [f"const {ctype} total{g} = team_sum<{self.team}>(sum{g}[n]);" for g in self.gates]
        mine += [f"if (n % {self.team} == lane) all{g}[n / {self.team}] = total{g};" for g in self.gates]
        return [
            f"{ctype} {', '.join(f'given{n}[OWN]' for n in range(len(given)))};",
            *self._owned(ahead),
            f"{ctype} {', '.join(f'sum{g}[SHARE] = {{}}' for g in self.gates)};",
            *self._chunks(self._products(one)),
            f"{ctype} {', '.join(f'all{g}[OWN] = {{}}' for g in self.gates)};",
            "#pragma unroll",
            "for (int n = 0; n < SHARE; ++n) {",
            *indented(mine),
            "}",
            *self._owned(self._update(number, len(given))),
        ]

    def _owned(self, body: list[str]) -> list[str]:
        """Run over the sequences whose state a lane computes."""
        return [
            "#pragma unroll",
            "for (int own = 0; own < OWN; ++own) {",
            f"    const int n = own * {self.team} + lane, r = first + n, row = first_row + r;",
            "    if (inside && n < SHARE && row < BATCH) {",
            *indented(body, 2),
            "    }",
            "}",
        ]

    def _products(self, one: Direction) -> list[str]:
        """Multiply a vector of every gate's weights with that of every sequence's state."""
        vector = f"Vec<{self.layout.ctype}, {self.layout.vec}>"
        read, elements = self._weights(one, vector)
        body = [
            f"const {vector} held = reinterpret_cast<const {vector}*>(before + (first + n) * HIDDEN)[j];",
            *self._each_k([f"sum{gate}[n] += {weight} * held.at[k];" for gate, weight in enumerate(elements)]),
        ]
        return [*read, "#pragma unroll", "for (int n = 0; n < SHARE; ++n) {", *indented(body), "}"]

    def _weights(self, one: Direction, vector: str) -> tuple[list[str], list[str]]:
        """Statements that bring vector `j` of a unit's weights, and each gate's element `k` of it."""
        if self.holding == "memory":
            return self._read_weights(one)
        if self.holding == "registers":
            return [], [f"kept{gate}[turn][chunk].at[k]" for gate in self.gates]
        source = f"reinterpret_cast<const {vector}*>(kept"
        spot = "(inside ? place : 0)"
        read = [
            f"const {vector} weight{gate} = {source} + ({gate} * UNITS + {spot}) * STRIDE)[j];" for gate in self.gates
        ]
        return read, [f"weight{gate}.at[k]" for gate in self.gates]

    def _update(self, number: int, given: int) -> list[str]:
        """Compute the new state of a unit, hand it on, and write what depends on it."""
        layout, producer = self.layout, self.layout.producer
        dtype = producer.dtype
        states = [Local("before[r * HIDDEN + unit]", dtype), Local("cell[r * UNITS + place]", dtype)]
        values = updated(
            producer.kind,
            [Local(f"given{n}[own]", dtype) for n in range(given)],
            [Local(f"all{g}[own]", dtype) for g in self.gates],
            states,
        )
        printer = self.scope.printer()
        text = printer.define({f"next{n}": value for n, value in enumerate(values)})
        if layout.whole:
            text.append("after[r * HIDDEN + unit] = next0;")
        else:
            width = producer.hidden * len(producer.directions)
            place = f"((step + 1) % 2 * BATCH + row) * {width} + {number * producer.hidden} + unit"
            text.append(f"{self.hidden}[{place}] = next0;")
        if producer.kind == "lstm":
            text.append("cell[r * UNITS + place] = next1;")
        always, last = layout.stores(number, layout.next)
        text += self._single.body(printer.fork(), always) if always else []
        if last:
            text += ["if (step == STEPS - 1) {", *indented(self._single.body(printer.fork(), last)), "}"]
        return text

    @property
    def _single(self) -> Lanes:
        """A single element, for stores."""
        return Lanes(Axis("single", 1), 1)
