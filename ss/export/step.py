"""The step of the online model as a graph: any number of hops in, as many out, every state an input and an output.

Shapes: B batch, T frames, K samples of the longest window, S synthesis samples, C channels, D conditions, M masked bins,
L lookahead in frames, R frames that the layers of the body carry together.
"""

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto

from ss.export import frames
from ss.export.graph import END, Graph, Value
from ss.export.layers import Stream, emit
from ss.export.products import Product, array, normed_before, product
from ss.model import SpexPlusOnline
from ss.model.online import FLOOR, DilatedBlock, EnrolmentAttention
from ss.model.stateful import leaves


def step_graph(model: SpexPlusOnline, metadata: dict[str, str], plain: bool = False) -> ModelProto:
    """Inputs: chunk [B,T*hop], conditions [B,D], state.*; outputs: wave [B,T*hop], next.*, in the same order.

    state.history [B,K-hop], state.body [R,B,C] (all tails and memories), state.ahead [L,B,2M] and state.overlap [1,B,S-hop]
    where the model has them; zeros at first. plain: see Graph.
    """
    g, hop, kernel = Graph("step", plain), model.hop, model.encoder.kernel
    chunk, conditions = g.input("chunk", "batch", "samples"), g.input("conditions", "batch", model.n_conditions)
    batch, samples = frames.sizes(g, chunk)
    n_frames = g.op("Div", samples, g.ints(hop))
    names = {module: name for name, module in model.named_modules()}
    stream = Stream(g, batch, n_frames, names, queues(model))

    heard = g.concat(g.input("state.history", "batch", kernel - hop), chunk, axis=1)
    stream.carried.append(("history", g.cut(heard, g.ints(hop - kernel), g.ints(END), 1), ("batch", kernel - hop)))
    spectra = frames.spectra(g, model.encoder, heard, samples, hop)
    x = g.product(frames.log_power(g, model.encoder, spectra), normed_before(model.norm, product(model.conv1)), "conv1")
    x = through_body(model, x, conditions, stream)
    now = late_enough(model, spectra, stream)
    wave = g.reshape(decoded(model, masked(model, x, now, stream), stream), -1, batch, hop)

    g.output("wave", g.reshape(g.op("Transpose", wave, perm=[1, 0, 2]), 0, -1), "batch", "samples")
    for name, value, shape in stream.carried:
        g.output(f"next.{name}", value, *shape)
    return g.model(metadata)


def queues(model: SpexPlusOnline) -> Iterator[int]:
    """The frames that wait in front of a block, for the mask, and for the frame behind them in the synthesis."""
    yield from (block.reach for block in model.body.modules() if isinstance(block, DilatedBlock))
    if model.lookahead:
        yield model.lookahead
    yield 1


def through_body(model: SpexPlusOnline, x: Value, conditions: Value, stream: Stream) -> Value:
    """Rows x [T*B,C] and conditions [B,D] -> rows; all layers' states are one input and one output."""
    g, channels = stream.g, model.conv1.out_features
    lengths = [state.numel() // channels for state in leaves(model.body.init_state(1, 0))]
    width, attention = model.conditions.out_features, [m for m in model.body.modules() if isinstance(m, EnrolmentAttention)]
    slots = [size for layer in attention for size in (layer.middle - layer.begin, layer.end - layer.middle)]
    conditions, *looked_up = g.split(conditions, [width, *slots], 1 + len(slots), axis=1)
    stream.slots = zip(looked_up[::2], looked_up[1::2], strict=True)
    every_frame = g.op("Tile", conditions, g.concat(g.op("Div", stream.n_rows, stream.batch), g.ints(1), axis=0))
    stream.conditions = g.split(every_frame, [channels] * (width // channels), width // channels, axis=1)
    if lengths:
        ends = g.op("Mul", g.ints(*lengths), stream.batch)
        states = stream.state("body", sum(lengths), channels)
        stream.states = iter(g.split(states, ends, len(lengths), axis=0))
    x = emit(model.body, x, stream)
    assert len(stream.after) == len(lengths), "a layer of the body did not say what it carries"
    if lengths:
        stream.carry("body", g.concat(*stream.after, axis=0), sum(lengths), channels)
    return x


def masked(model: SpexPlusOnline, x: Value, spectra: Value, stream: Stream) -> Value:
    """Rows x [T*B,C] and the spectra of the masked scale [T*B,2M] -> these with the mask applied."""
    g, bins = stream.g, model.masked
    gain = g.op("Sigmoid", g.product(x, normed_before(model.mask_norm, product(model.mask)), "mask"))
    if model.phase is None:
        return g.op("Mul", spectra, g.concat(gain, gain, axis=1))
    weight, bias = normed_before(model.mask_norm, product(model.phase))
    turn = g.product(x, Product(weight, bias + np.repeat([1.0, 0.0], bins)), "phase")
    halves = [bins, bins]
    length = g.op(
        "Sqrt", g.op("Add", g.op("Add", *g.split(g.op("Mul", turn, turn), halves, 2, axis=1)), g.weight(np.array([FLOOR])))
    )
    gain = g.op("Div", gain, length)
    real, imag = g.split(g.op("Mul", turn, g.concat(gain, gain, axis=1)), halves, 2, axis=1)
    of_real, of_imag = g.split(spectra, halves, 2, axis=1)
    in_phase = g.op("Mul", spectra, g.concat(real, real, axis=1))
    turned = g.op("Mul", g.concat(g.op("Neg", of_imag), of_real, axis=1), g.concat(imag, imag, axis=1))
    return g.op("Add", in_phase, turned)


def late_enough(model: SpexPlusOnline, spectra: list[Value], stream: Stream) -> Value:
    """Spectra of all scales -> the masked scale's real and imaginary bins [T*B,2M], `lookahead` frames late."""
    masked, last = model.masked, len(model.encoder.bins) - 1
    now = stream.g.concat(spectra[last], spectra[-1], axis=1)
    if model.lookahead:
        queued = stream.queue(stream.state("ahead", model.lookahead, 2 * masked), now, model.lookahead)
        stream.carry("ahead", queued.newest, model.lookahead, 2 * masked)
        now = queued.oldest
    return now


def decoded(model: SpexPlusOnline, spectra: Value, stream: Stream) -> Value:
    """Masked spectra [T*B,2M] -> samples [T*B,hop], the frame before overlapping."""
    g, hop, overlap = stream.g, model.hop, model.decoder.overlap
    waves = g.op("Gemm", spectra, g.weight(array(model.decoder.filters)), name="decoder")
    if not overlap:
        return waves
    columns = [width for width in (overlap, hop - overlap, overlap) if width]
    shared, *alone, later = g.split(waves, columns, len(columns), axis=1)
    queued = stream.queue(stream.state("overlap", 1, overlap), later, 1)
    stream.carry("overlap", queued.newest, 1, overlap)
    summed = g.op("Add", shared, queued.oldest)
    return g.concat(summed, *alone, axis=1) if alone else summed
