"""The two graphs of the online model: a recording in, the conditions of its streams out; and a step of any number of hops.

Every state of a step is an input and an output. Rows [T*B,...] are frame-major.

Shapes: B batch, S samples, T frames, K samples of the longest window, F bins of all scales, C channels, E speaker embedding,
D conditions, M masked bins, L lookahead in frames, R frames that the layers of the body carry together.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from ss.export.graph import END, Array, Graph, Product, Value, array, normed_after, normed_before, product
from ss.export.layers import StepContext, emit
from ss.model import SpexPlusOnline
from ss.model.online import FLOOR, DilatedBlock
from ss.model.speaker import ResNetBlock
from ss.model.stateful import leaves
from ss.model.stft import MultiWindowSTFT


def enroll_graph(model: SpexPlusOnline, metadata: dict[str, str]) -> ModelProto:
    """Input: enrolment [B,S], no shorter than `shortest_enrolment`; outputs: speaker [B,E], conditions [B,D]."""
    g, kernel, hop = Graph("enroll"), model.encoder.kernel, 2 * model.hop
    stride, embedding = model.speaker_encoder.stride, model.classifier.in_features
    enrolment = g.input("enrolment", "batch", "samples")
    batch, samples = sizes(g, enrolment)
    n_frames = g.op("Add", g.op("Div", g.op("Sub", samples, g.ints(kernel)), g.ints(hop)), g.ints(1))
    parts = spectra(g, model.encoder, enrolment, g.op("Mul", n_frames, g.ints(hop)), hop)
    features = log_power(g, model.encoder, parts)
    # what is left over fills no frame of the speaker encoder
    rows = g.op("Mul", g.op("Mul", g.op("Div", n_frames, g.ints(stride)), g.ints(stride)), batch)
    encoder, norm = model.speaker_encoder, model.speaker_encoder.norm
    gain_and_offset = (g.weight(array(w)) for w in (norm.weight, norm.bias))
    x = g.op("LayerNormalization", g.cut(features, g.ints(0), rows, 0), *gain_and_offset, axis=-1, epsilon=norm.eps)
    x = g.product(x, product(encoder.conv1))
    for block in encoder.blocks:
        x = resnet_block(g, cast(ResNetBlock, block), x, batch)
    x = g.product(x, product(encoder.conv2))  # embedding frames [T/stride*B,E]
    speaker = g.op("ReduceMean", g.reshape(x, -1, batch, embedding), axes=[0], keepdims=0)
    g.output("speaker", speaker, "batch", embedding)
    g.output("conditions", g.product(speaker, product(model.conditions)), "batch", model.conditions.out_features)
    return g.model(metadata)


def resnet_block(g: Graph, block: ResNetBlock, x: Value, batch: Value) -> Value:
    """Rows [3T*B,C] -> [T*B,C']."""
    y = g.product(x, normed_after(product(block.conv1), block.norm1))
    y = g.op("PRelu", y, g.weight(array(block.prelu1.weight)))  # one slope for all channels
    y = g.product(y, normed_after(product(block.conv2), block.norm2))
    same = x if isinstance(block.residual, nn.Identity) else g.product(x, product(block.residual))
    y = g.op("PRelu", g.op("Add", y, same), g.weight(array(block.prelu2.weight)))
    channels = block.conv2.out_channels
    return g.reshape(g.op("ReduceMax", g.reshape(y, -1, 3, batch, channels), axes=[1], keepdims=0), -1, channels)


def step_graph(model: SpexPlusOnline, metadata: dict[str, str], plain: bool = False) -> ModelProto:
    """Inputs: chunk [B,T*hop], conditions [B,D], state.*; outputs: wave [B,T*hop], next.*, in the same order.

    state.history [B,K-hop], state.body [R,B,C] (all tails and memories), state.ahead [L,B,2M] and state.overlap [1,B,S-hop]
    where the model has them; zeros at first. plain: see Graph.
    """
    g, hop, kernel = Graph("step", plain), model.hop, model.encoder.kernel
    chunk, conditions = g.input("chunk", "batch", "samples"), g.input("conditions", "batch", model.conditions.out_features)
    batch, samples = sizes(g, chunk)
    n_frames = g.op("Div", samples, g.ints(hop))
    names = {module: name for name, module in model.named_modules()}
    queues = [block.reach for block in model.body.modules() if isinstance(block, DilatedBlock)]
    queues += [model.lookahead] if model.lookahead else []  # frames that wait for the mask
    stream = StepContext(g, batch, n_frames, names, [*queues, 1])  # 1: the frame behind in the synthesis

    heard = g.concat(g.input("state.history", "batch", kernel - hop), chunk, axis=1)
    stream.carried.append(("history", g.cut(heard, g.ints(hop - kernel), g.ints(END), 1), ("batch", kernel - hop)))
    parts = spectra(g, model.encoder, heard, samples, hop)
    x = g.product(log_power(g, model.encoder, parts), normed_before(model.norm, product(model.conv1)), "conv1")
    x = through_body(model, x, conditions, stream)
    bins = g.concat(parts[len(model.encoder.bins) - 1], parts[-1], axis=1)  # real and imaginary, of the masked scale
    if model.lookahead:
        _, bins, newest = stream.queue(stream.state("ahead", model.lookahead, 2 * model.masked), bins, model.lookahead)
        stream.carry("ahead", newest, model.lookahead, 2 * model.masked)
    wave = g.reshape(decoded(model, masked(model, x, bins, stream), stream), -1, batch, hop)

    g.output("wave", g.reshape(g.op("Transpose", wave, perm=[1, 0, 2]), 0, -1), "batch", "samples")
    for name, value, shape in stream.carried:
        g.output(f"next.{name}", value, *shape)
    return g.model(metadata)


def through_body(model: SpexPlusOnline, x: Value, conditions: Value, stream: StepContext) -> Value:
    """Rows x [T*B,C] and conditions [B,D] -> rows; all layers' states are one input and one output."""
    g, channels = stream.g, model.conv1.out_features
    lengths = [state.numel() // channels for state in leaves(model.body.init_state(1, 0))]
    n_columns = model.conditions.out_features // channels
    every_frame = g.op("Tile", conditions, g.concat(g.op("Div", stream.n_rows, stream.batch), g.ints(1), axis=0))
    stream.conditions = g.split(every_frame, [channels] * n_columns, n_columns, axis=1)
    if lengths:
        ends = g.op("Mul", g.ints(*lengths), stream.batch)
        states = stream.state("body", sum(lengths), channels)
        stream.states = iter(g.split(states, ends, len(lengths), axis=0))
    x = emit(model.body, x, stream)
    assert len(stream.after) == len(lengths), "a layer of the body did not say what it carries"
    if lengths:
        stream.carry("body", g.concat(*stream.after, axis=0), sum(lengths), channels)
    return x


def masked(model: SpexPlusOnline, x: Value, spectra: Value, stream: StepContext) -> Value:
    """Rows x [T*B,C] and the spectra of the masked scale [T*B,2M] -> these with the mask applied."""
    g, bins = stream.g, model.masked
    gain = g.op("Sigmoid", g.product(x, normed_before(model.mask_norm, product(model.mask)), "mask"))
    if model.phase is None:
        return g.op("Mul", spectra, g.concat(gain, gain, axis=1))
    weight, bias = normed_before(model.mask_norm, product(model.phase))
    turn = g.product(x, Product(weight, bias + np.repeat([1.0, 0.0], bins)), "phase")
    halves = [bins, bins]
    power = g.op("Add", *g.split(g.op("Mul", turn, turn), halves, 2, axis=1))
    gain = g.op("Div", gain, g.op("Sqrt", g.op("Add", power, g.weight(np.array([FLOOR])))))
    real, imag = g.split(g.op("Mul", turn, g.concat(gain, gain, axis=1)), halves, 2, axis=1)
    of_real, of_imag = g.split(spectra, halves, 2, axis=1)
    in_phase = g.op("Mul", spectra, g.concat(real, real, axis=1))
    turned = g.op("Mul", g.concat(g.op("Neg", of_imag), of_real, axis=1), g.concat(imag, imag, axis=1))
    return g.op("Add", in_phase, turned)


def decoded(model: SpexPlusOnline, spectra: Value, stream: StepContext) -> Value:
    """Masked spectra [T*B,2M] -> samples [T*B,hop], the frame before overlapping."""
    g, hop, overlap = stream.g, model.hop, model.decoder.overlap
    waves = g.op("Gemm", spectra, g.weight(array(model.decoder.filters)), name="decoder")
    if not overlap:
        return waves
    columns = [width for width in (overlap, hop - overlap, overlap) if width]
    shared, *alone, later = g.split(waves, columns, len(columns), axis=1)
    _, before, newest = stream.queue(stream.state("overlap", 1, overlap), later, 1)
    stream.carry("overlap", newest, 1, overlap)
    summed = g.op("Add", shared, before)
    return g.concat(summed, *alone, axis=1) if alone else summed


def sizes(g: Graph, samples: Value) -> tuple[Value, Value]:
    """Values [1] of samples [B,S]: B and S."""
    return g.op("Shape", samples, start=0, end=1), g.op("Shape", samples, start=1, end=2)


def spectra(g: Graph, encoder: MultiWindowSTFT, samples: Value, span: Value, hop: int) -> list[Value]:
    """samples [B,S], S >= K-hop + T*hop, and span [1], T*hop -> the real parts of each scale, then the imaginary ones, all [T*B,F].

    Around the middle of a window cosines are even and sines odd: the sums and the differences of its halves need a product of half
    the size each. Weights to read are what a step waits for, more than for the few small kernels that this takes.
    """
    halves = [half_transforms(array(encoder.get_buffer(f"window{i}")), encoder.kernel) for i in range(len(encoder.kernels))]
    places, weights = (np.concatenate([half[i] for half in halves], axis=1).ravel() for i in (0, 1))
    begins = g.op("Range", g.weight(np.array(0)), g.op("Squeeze", span), g.weight(np.array(hop)))
    gathered = g.op("Gather", samples, g.op("Add", g.reshape(begins, -1, 1), g.ints(*places)), axis=1)
    rows = g.reshape(g.op("Transpose", gathered, perm=[1, 0, 2]), -1, len(places))
    ahead, back = g.split(g.op("Mul", rows, g.weight(weights)), [len(places) // 2] * 2, 2, axis=1)
    sizes = [len(cosines) for _, _, (cosines, _) in halves]
    parts = [part for kind in ("Add", "Sub") for part in g.split(g.op(kind, ahead, back), sizes, len(sizes), axis=1)]
    pairs = zip(parts, [filters[i] for i in (0, 1) for _, _, filters in halves], strict=True)
    return [g.op("Gemm", x, g.weight(f), name=f"encoder.{i}") for i, (x, f) in enumerate(pairs)]


def half_transforms(window: Array, kernel: int) -> tuple[NDArray[np.int64], Array, Array]:
    """A windowed Fourier transform over the newest N samples of a frame [K], by what its first half and its second have in common.

    Sample m = 0..N/2 of the first half meets its mirror image N-m, or nothing where that is itself, at 0 and N/2: their places in
    the frame [2,N/2+1], their window [2,N/2+1], and filters [2,N/2+1,F]: cosines for the sums, sines for the differences.
    """
    size = len(window)
    first = np.arange(size // 2 + 1)
    mirrored = -first % size
    windows = np.stack([window[first], np.where(mirrored == first, 0, window[mirrored])])
    angles = 2 * np.pi / size * (first[:, None] * first % size)
    return np.stack([first, mirrored]) + kernel - size, windows, np.stack([np.cos(angles), -np.sin(angles)])


def log_power(g: Graph, encoder: MultiWindowSTFT, parts: list[Value]) -> Value:
    """`spectra` -> features [T*B,F of all scales]."""
    every = g.concat(*parts, axis=1)
    real, imag = g.split(g.op("Mul", every, every), [sum(encoder.bins)] * 2, 2, axis=1)
    return g.op("Log", g.op("Add", g.op("Add", real, imag), g.weight(np.array([FLOOR]))))
