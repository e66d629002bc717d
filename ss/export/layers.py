"""The layers of the online model's body in a graph: each takes and gives rows [T*B,C], frame-major.

Kernels are what a step of a few frames costs, so each layer is written in as few as it can be: two for conditioning, five for
a block.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch

import numpy as np
from onnx import parser
from torch import nn

from ss.errors import UserError
from ss.export.graph import Array, Graph, Product, Value, normed_after, normed_before, product, recurrent_weights
from ss.model.memory import GRU, LSTM, LinearRecurrence
from ss.model.online import Conditioning, DilatedBlock
from ss.model.stateful import Chain

RECURRENCE = """recurrence (float[B,C] h, float[B,C] keep, float[B,C] value) => (float[B,C] after, float[B,C] out) {
    over = Sub(h, value)
    kept = Mul(keep, over)
    after = Add(value, kept)
    out = Identity(after)
}"""  # a frame of a linear recurrence, h = value + keep * (h - value)


class StepContext:
    """What the layers of one step share. queues: the lengths of all queues in frames.

    batch, n_frames: values [1]; conditions: columns [T*B,C] each; states: what each layer carried [n*B,C], in order;
    after: what it carries on, filled by the layers; carried: names, values and shapes of the next states. names: of the modules.
    """

    def __init__(self, g: Graph, batch: Value, n_frames: Value, names: dict[nn.Module, str], queues: Iterable[int]) -> None:
        self.g, self.batch, self.names = g, batch, names
        self.n_rows = g.op("Mul", n_frames, batch)
        self.conditions: list[Value] = []
        self.states: Iterator[Value] = iter(())
        self.after: list[Value] = []
        self.carried: list[tuple[str, Value, tuple[int | str, ...]]] = []
        lengths = sorted({*queues})
        leave, stay = g.ints(*[1, 0] * len(lengths)), g.ints(*(n for length in lengths for n in (0, length)))
        both = g.op("Add", g.op("Mul", leave, self.n_rows), g.op("Mul", stay, batch))
        # For queues of each length: how many rows leave and how many stay, a value [2]; all at once.
        self.oldest_and_newest = dict(zip(lengths, g.split(both, [2] * len(lengths), len(lengths), axis=0), strict=True))

    def state(self, name: str, n_frames: int, width: int) -> Value:
        """Adds the input state.<name> [n,B,width], and gives it as rows."""
        return self.g.reshape(self.g.input(f"state.{name}", n_frames, "batch", width), -1, width)

    def carry(self, name: str, rows: Value, n_frames: int, width: int) -> None:
        """These rows are what comes in as state.<name> next time."""
        self.carried.append((name, self.g.reshape(rows, n_frames, -1, width), (n_frames, "batch", width)))

    def queue(self, state: Value, x: Value, length: int) -> list[Value]:
        """Rows x behind a state of `length` frames: all, the oldest (as many as x), and the newest, which are the next state."""
        longer = self.g.concat(state, x, axis=0)
        return [longer, *self.g.split(longer, self.oldest_and_newest[length], 2, axis=0)]


@singledispatch
def emit(layer: nn.Module, x: Value, stream: StepContext) -> Value:
    """The layer's rows for rows x. Raises UserError for a layer that no graph is known for."""
    raise UserError(f"{type(layer).__name__}: expected a layer of the online model; the export knows none of this kind")


@emit.register
def _(layer: Chain, x: Value, stream: StepContext) -> Value:
    for inner in layer:
        x = emit(inner, x, stream)
    return x


@emit.register
def _(layer: Conditioning, x: Value, stream: StepContext) -> Value:
    place = layer.begin // (layer.middle - layer.begin)
    gain, offset = stream.conditions[place : place + 2]
    return stream.g.op("Add", stream.g.op("Mul", x, gain), offset)


@emit.register
def _(layer: DilatedBlock, x: Value, stream: StepContext) -> Value:
    g = stream.g
    longer, oldest, newest = stream.queue(next(stream.states), x, layer.reach)
    stream.after.append(newest)
    begins = [g.op("Mul", g.ints(tap * layer.dilation), stream.batch) for tap in range(1, layer.taps - 1)]
    between = [g.cut(longer, begin, g.op("Add", begin, stream.n_rows), 0) for begin in begins]
    seen = g.concat(oldest, *between, x, axis=1)
    first, second = normed_after(product(layer.conv), layer.norm), product(layer.output)
    conv, output = stream.names[layer.conv], stream.names[layer.output]
    if g.plain:
        return g.op("Add", g.product(g.op("Relu", g.product(seen, first, conv)), second, output), x)
    y = g.op("Relu", g.product(seen, first.with_one(), conv))
    return g.op("Gemm", y, g.weight(second.bias_as_row()), x, name=output)  # bias and residual path included


@emit.register
def _(layer: GRU, x: Value, stream: StepContext) -> Value:
    g = stream.g
    parts = gate_weights(g, recurrent_weights(layer.gru), (1, 0, 2))  # torch's are reset, update, new; ONNX's update, reset, new
    before = g.op("Unsqueeze", next(stream.states), g.ints(0))
    rows = g.reshape(x, -1, stream.batch, layer.channels)
    y, last = g.ops("GRU", rows, *parts, "", before, outputs=2, hidden_size=layer.channels, linear_before_reset=1)
    stream.after.append(g.op("Squeeze", last, g.ints(0)))
    return g.op("Add", x, g.reshape(y, -1, layer.channels))


@emit.register
def _(layer: LSTM, x: Value, stream: StepContext) -> Value:
    g, channels = stream.g, layer.channels
    rows = g.reshape(x, -1, stream.batch, channels)
    hidden, cell = g.split(g.reshape(next(stream.states), 2, -1, channels), [1, 1], 2, axis=0)
    inputs, recurrent, bias, other_bias = recurrent_weights(layer.lstm)
    weight, bias = normed_before(layer.norm, Product(inputs.T, bias))
    # torch's gates are in, forget, new, out; ONNX's in, out, forget, new
    parts = gate_weights(g, [weight.T, recurrent, bias, other_bias], (0, 3, 1, 2))
    y, *last = g.ops("LSTM", rows, *parts, "", hidden, cell, outputs=3, hidden_size=channels)
    stream.after.append(g.reshape(g.concat(*last, axis=0), -1, channels))
    return g.op("Add", x, g.product(g.reshape(y, -1, channels), product(layer.output), stream.names[layer.output]))


def gate_weights(g: Graph, weights: Sequence[Array], order: Sequence[int]) -> list[Value]:
    """What ONNX wants of a recurrent layer's weights and biases: the gates are in another order than torch's."""
    inputs, recurrent, *biases = (np.concatenate([np.split(weight, len(order))[gate] for gate in order]) for weight in weights)
    return [g.weight(values[None]) for values in (inputs, recurrent, np.concatenate(biases))]


@emit.register
def _(layer: LinearRecurrence, x: Value, stream: StepContext) -> Value:
    g, channels = stream.g, layer.channels
    both = g.reshape(g.product(x, product(layer.inputs)), -1, stream.batch, 2 * channels)
    gate, value = g.split(both, [channels, channels], 2, axis=2)
    states, keep, frame = next(stream.states), g.op("Sigmoid", gate), parser.parse_graph(RECURRENCE)
    last, h = g.ops("Scan", states, keep, value, outputs=2, body=frame, num_scan_inputs=2)
    stream.after.append(last)
    return g.op("Add", x, g.product(g.reshape(h, -1, channels), product(layer.output)))
