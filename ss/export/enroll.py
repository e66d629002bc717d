"""The enrolment of the online model as a graph: a recording in, the speaker and the conditions of its streams out.

Shapes: B batch, S samples, T frames, C channels, E speaker embedding, D conditions. Rows [T*B,C] are frame-major.
"""

import numpy as np
from onnx import ModelProto
from torch import nn

from ss.export import frames
from ss.export.graph import Graph, Value
from ss.export.layers import lstm
from ss.export.products import array, normed_after, product
from ss.model import SpexPlusOnline
from ss.model.speaker import ResNetBlock, SlotEncoder, SpeakerEncoder


def enroll_graph(model: SpexPlusOnline, metadata: dict[str, str]) -> ModelProto:
    """Input: enrolment [B,S], no shorter than `shortest_enrolment`; outputs: speaker [B,E], conditions [B,D]."""
    g, kernel, hop = Graph("enroll"), model.encoder.kernel, 2 * model.hop
    stride, embedding = model.speaker_encoder.stride, model.classifier.in_features
    enrolment = g.input("enrolment", "batch", "samples")
    batch, samples = frames.sizes(g, enrolment)
    n_frames = g.op("Add", g.op("Div", g.op("Sub", samples, g.ints(kernel)), g.ints(hop)), g.ints(1))
    features = frames.log_power(
        g, model.encoder, frames.spectra(g, model.encoder, enrolment, g.op("Mul", n_frames, g.ints(hop)), hop)
    )
    # what is left over fills no frame of the speaker encoder
    rows = g.op("Mul", g.op("Mul", g.op("Div", n_frames, g.ints(stride)), g.ints(stride)), batch)
    x = encoded(g, model.speaker_encoder, g.cut(features, g.ints(0), rows, 0), batch)
    speaker = g.op("ReduceMean", g.reshape(x, -1, batch, embedding), axes=[0], keepdims=0)
    g.output("speaker", speaker, "batch", embedding)
    conditions = g.product(speaker, product(model.conditions))
    if model.slot_encoder is not None:
        conditions = g.concat(conditions, slots(g, model.slot_encoder, features, batch), axis=1)
    g.output("conditions", conditions, "batch", model.n_conditions)
    return g.model(metadata)


def encoded(g: Graph, encoder: SpeakerEncoder, x: Value, batch: Value) -> Value:
    """Features [T*B,F] -> embedding frames [T/stride*B,E]."""
    x = g.product(layer_norm(g, encoder.norm, x), product(encoder.conv1))
    for block in encoder.blocks:
        assert isinstance(block, ResNetBlock)
        x = resnet_block(g, block, x, batch)
    return g.product(x, product(encoder.conv2))


def slots(g: Graph, encoder: SlotEncoder, features: Value, batch: Value) -> Value:
    """Features [T*B,F] -> keys and values of all stacks [B,N*(Q*M+M*C)]."""
    channels, n_slots, n_stacks = encoder.conv.out_features, encoder.n_slots, encoder.n_stacks
    x = g.op("Relu", g.product(layer_norm(g, encoder.norm, features), product(encoder.conv)))
    rows = g.reshape(x, -1, batch, channels)
    heard = g.op("Add", rows, lstm(g, encoder.lstm, rows, None)[0])  # [T,B,C]
    asked = g.reshape(g.product(g.reshape(heard, -1, channels), product(encoder.asked)), -1, batch, n_slots)
    weights = g.op("Transpose", g.op("Softmax", asked, axis=0), perm=[1, 2, 0])  # [B,M,T]
    found = g.op("Add", g.op("MatMul", weights, g.op("Transpose", heard, perm=[1, 0, 2])), g.weight(array(encoder.slots)))
    rows = g.reshape(found, -1, channels)
    widths = [layer.out_features // n_stacks for layer in (encoder.keys, encoder.values)]
    keys, values = (
        g.split(g.reshape(g.product(rows, product(layer)), -1, n_slots, n_stacks * width), [width] * n_stacks, n_stacks, axis=2)
        for layer, width in zip((encoder.keys, encoder.values), widths, strict=True)
    )
    turned = [g.op("Transpose", part, perm=[0, 2, 1]) for part in keys]
    both = (part for pair in zip(turned, values, strict=True) for part in pair)
    sizes = n_slots * np.array(widths * n_stacks)
    return g.concat(*(g.reshape(part, -1, int(size)) for part, size in zip(both, sizes, strict=True)), axis=1)


def layer_norm(g: Graph, norm: nn.LayerNorm, x: Value) -> Value:
    """Over the channels of rows [n,C]."""
    return g.op("LayerNormalization", x, *(g.weight(array(w)) for w in (norm.weight, norm.bias)), axis=-1, epsilon=norm.eps)


def resnet_block(g: Graph, block: ResNetBlock, x: Value, batch: Value) -> Value:
    """Rows [3T*B,C] -> [T*B,C']."""
    y = prelu(g, block.prelu1, g.product(x, normed_after(product(block.conv1), block.norm1)))
    y = g.product(y, normed_after(product(block.conv2), block.norm2))
    same = x if isinstance(block.residual, nn.Identity) else g.product(x, product(block.residual))
    y = prelu(g, block.prelu2, g.op("Add", y, same))
    channels = block.conv2.out_channels
    return g.reshape(g.op("ReduceMax", g.reshape(y, -1, 3, batch, channels), axes=[1], keepdims=0), -1, channels)


def prelu(g: Graph, layer: nn.PReLU, x: Value) -> Value:
    """One slope for all channels."""
    return g.op("PRelu", x, g.weight(np.asarray(array(layer.weight))))
