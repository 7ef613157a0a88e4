"""Recurrent layers, kept whole: each layer is one product with the inputs of all steps, then one recurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.lowering.contractions import product
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import concatenate
from warpsmith.author.builtin.scalar import Scalar, apply, compute_dtype
from warpsmith.author.builtin.values import Coords, Direction, Recurrence, RecurrenceKind, Value, Virtual
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import TensorSpec

_KINDS: Mapping[str, RecurrenceKind] = {
    "aten.gru.input": "gru",
    "aten.rnn_tanh.input": "tanh",
    "aten.rnn_relu.input": "relu",
}


@lowers("lstm.input")
def lstm(
    site: Site, x: Value, state: Sequence[Value], weights: Sequence[Value], biased: bool, layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool = False,
) -> tuple[Value, ...]:  # fmt: skip
    """Long short-term memory (Hochreiter and Schmidhuber, 1997): output, last hidden states, last cell states."""
    if state[0].shape != state[1].shape:
        raise UnsupportedOperator("aten.lstm.input with projections (proj_size)")
    network = _Network(site, "lstm", x, tuple(state), tuple(weights), biased, layers, bidirectional, batch_first)
    return network.results(dropout if train else 0.0)


@lowers("gru.input", "rnn_tanh.input", "rnn_relu.input")
def recurrent(
    site: Site, x: Value, state: Value, weights: Sequence[Value], biased: bool, layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool = False,
) -> tuple[Value, ...]:  # fmt: skip
    """Layers with one state: output, last states.

    Gated units (Cho et al., 2014) with the reset gate behind the product, or a tanh or a rectifier of a sum.
    """
    kind = _KINDS[site.node.op]
    network = _Network(site, kind, x, (state,), tuple(weights), biased, layers, bidirectional, batch_first)
    return network.results(dropout if train else 0.0)


@dataclass(frozen=True)
class _Network:
    """All layers of one call. `state` are the initial states, each [layers · directions, batch, hidden]."""

    site: Site
    kind: RecurrenceKind
    x: Value
    state: tuple[Value, ...]
    weights: tuple[Value, ...]
    biased: bool
    layers: int
    bidirectional: bool
    batch_first: bool

    @property
    def ways(self) -> int:
        """Number of directions."""
        return 2 if self.bidirectional else 1

    @property
    def hidden(self) -> int:
        """Units of one direction."""
        return self.state[0].shape[-1]

    @property
    def dtype(self) -> str:
        """The dtype that is computed in."""
        return compute_dtype(self.x.dtype)

    def results(self, dropout: float) -> tuple[Value, ...]:
        """Return the states of the last layer after every step, and the last states of all layers."""
        if dropout:
            raise UnsupportedOperator(f"{self.site.node.op} with dropout in training mode")
        if len(self.x.shape) != 3:
            raise UnsupportedOperator(f"{self.site.node.op} of an input with {len(self.x.shape)} dimensions")
        below, layers = self.x, []
        for number in range(self.layers):
            layers.append(self._layer(number, below))
            below = layers[-1]
        name, whole = self.site.name(), layers[-1]
        output = Virtual(name, whole.shape, self.x.dtype, whole.at)
        return (output, *(self._last(layers, part) for part in range(1, len(whole.parts))))

    def _layer(self, number: int, below: Value) -> Recurrence:
        directions = tuple(self._direction(number * self.ways + way, below) for way in range(self.ways))
        shape = (*below.shape[:-1], self.ways * self.hidden)
        parts = (self.dtype,) * (len(self.state) + 1)
        name = self.site.name(f"layer{number}")
        return Recurrence(name, shape, self.dtype, parts, self.kind, self.batch_first, directions)

    def _direction(self, place: int, below: Value) -> Direction:
        """The direction whose states and weights stand at `place`."""
        size = 4 if self.biased else 2
        inputs, recurrent, *biases = self.weights[place * size : (place + 1) * size]
        shape = (*below.shape[:-1], inputs.shape[0])
        site = Site(replace(self.site.node, outputs=(TensorSpec("projection", shape, self.x.dtype),)))
        projection = replace(product(site, below, inputs, transposed=True), name=self.site.name(f"inputs{place}"))
        return Direction(
            bool(place % self.ways),
            lambda step, row, unit: self._given(projection, biases, step, row, unit),
            lambda line, column: element(recurrent, (line, column), self.dtype),
            tuple(self._initial(state, place) for state in self.state),
        )

    def _initial(self, state: Value, place: int) -> _Start:
        return _Start(state, place, self.dtype)

    def _given(
        self, projection: Value, biases: Sequence[Value], step: Index, row: Index, unit: Index
    ) -> tuple[Scalar, ...]:
        """What each gate adds to its product with the state; for a GRU also the bias that the reset gate scales."""
        gates = {"lstm": 4, "gru": 3}.get(self.kind, 1)
        found = []
        for gate in range(gates):
            line = unit + gate * self.hidden
            value = projection.at((row, step, line) if self.batch_first else (step, row, line))
            scaled = self.kind == "gru" and gate == 2
            for bias in biases[:1] if scaled else biases:
                value = apply("add", value, element(bias, (line,), self.dtype))
            found.append(value)
        if self.kind == "gru" and biases:
            found.append(element(biases[1], (unit + 2 * self.hidden,), self.dtype))
        return tuple(found)

    def _last(self, layers: Sequence[Recurrence], part: int) -> Value:
        """The last states of all layers and directions, [layers · directions, batch, hidden]."""
        shape = (self.ways, layers[0].batch, self.hidden)
        pieces = [Virtual(one.name, shape, self.x.dtype, _Last(one, part)) for one in layers]
        if len(pieces) == 1:
            return replace(pieces[0], name=self.site.name(f"last{part}"))
        spec = TensorSpec(f"last{part}", (self.layers * self.ways, *shape[1:]), self.x.dtype)
        return concatenate(Site(replace(self.site.node, outputs=(spec,))), pieces, 0)


@dataclass(frozen=True)
class _Start:
    """Initial states of the direction at `place`."""

    state: Value
    place: int
    dtype: str

    def __call__(self, row: Index, unit: Index) -> Scalar:
        return element(self.state, (Index((), self.place), row, unit), self.dtype)


@dataclass(frozen=True)
class _Last:
    """Last states of one layer, with the direction as the first coordinate."""

    layer: Recurrence
    part: int

    def __call__(self, coords: Coords) -> Scalar:
        way, row, unit = coords
        return self.layer.part(self.part, (row, way * self.layer.hidden + unit))
