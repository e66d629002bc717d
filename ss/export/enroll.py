"""The enrolment of the online model as a graph: a recording in, the speaker and the conditions of its streams out.

Shapes: B batch, S samples, T frames, C channels, E speaker embedding, D conditions. Rows [T*B,C] are frame-major.
"""

import numpy as np
from onnx import ModelProto
from torch import nn

from ss.export import frames
from ss.export.graph import Graph, Value
from ss.export.products import array, normed_after, product
from ss.model import SpexPlusOnline
from ss.model.speaker import ResNetBlock, SpeakerEncoder


def enroll_graph(model: SpexPlusOnline, metadata: dict[str, str]) -> ModelProto:
    """Input: enrolment [B,S], no shorter than `shortest_enrolment`; outputs: speaker [B,E], conditions [B,D]."""
    g, kernel, hop = Graph("enroll"), model.encoder.kernel, 2 * model.hop
    stride, embedding = model.speaker_encoder.stride, model.classifier.in_features
    enrolment = g.input("enrolment", "batch", "samples")
    batch, samples = frames.sizes(g, enrolment)
    n_frames = g.op("Add", g.op("Div", g.op("Sub", samples, g.ints(kernel)), g.ints(hop)), g.ints(1))
    # what is left over fills no frame of the speaker encoder
    kept = g.op("Mul", g.op("Div", n_frames, g.ints(stride)), g.ints(stride * hop))
    spectra = frames.spectra(g, model.encoder, enrolment, kept, hop)
    x = encoded(g, model.speaker_encoder, frames.log_power(g, model.encoder, spectra), batch)
    speaker = g.op("ReduceMean", g.reshape(x, -1, batch, embedding), axes=[0], keepdims=0)
    g.output("speaker", speaker, "batch", embedding)
    g.output("conditions", g.product(speaker, product(model.conditions)), "batch", model.conditions.out_features)
    return g.model(metadata)


def shortest(model: SpexPlusOnline) -> int:
    """Samples that an enrolment needs to fill one frame of the speaker encoder."""
    return (model.speaker_encoder.stride - 1) * 2 * model.hop + model.encoder.kernel


def encoded(g: Graph, encoder: SpeakerEncoder, x: Value, batch: Value) -> Value:
    """Features [T*B,F] -> embedding frames [T/stride*B,E]."""
    norm = encoder.norm
    normed = g.op("LayerNormalization", x, *(g.weight(array(w)) for w in (norm.weight, norm.bias)), axis=-1, epsilon=norm.eps)
    x = g.product(normed, product(encoder.conv1))
    for block in encoder.blocks:
        assert isinstance(block, ResNetBlock)
        x = resnet_block(g, block, x, batch)
    return g.product(x, product(encoder.conv2))


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
