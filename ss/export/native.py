"""From a trained online model to `model.ss`, the file that the C library reads (libss/ss.h): options, then weights in fixed order.

Batch norms, and the gains and offsets of layer norms, are folded into the products beside them. For int8 the products of a step are
rounded here, too; `ss/compression/quantization.py` does it for ONNX Runtime. docs/c_library.md has the format.

Shapes: a channels in, b channels out.
"""

import struct
import zlib
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ss.errors import UserError
from ss.export.graph import Product, array, normed_after, normed_before, product, recurrent_weights
from ss.model import SpexPlusOnline
from ss.model.memory import GRU, LSTM, LinearRecurrence
from ss.model.online import Conditioning, DilatedBlock
from ss.model.speaker import ResNetBlock
from ss.model.stateful import Chain, StatefulLayer

MAGIC, VERSION = b"ss-model", 2
MEMORY_CODES: dict[type[StatefulLayer] | None, int] = {None: 0, LSTM: 1, GRU: 2, LinearRecurrence: 3}
FLOATS, BYTES = 0, 2  # how the products of a step are stored
LARGEST_FACTOR = 61  # of half a window: what the library's Fourier transform takes
MOST = {"n_channels": 4096, "hop": 8192, "lookahead": 1024, "kernels": 8, "n_stacked_tcnblocks": 16, "taps": 16}
NORM_EPSILON = 1e-5


class TensorWriter:
    """Tensors one after the other. int8: the products of a step in bytes, those of an enrolment in halves."""

    def __init__(self, int8: bool) -> None:
        self.step, self.enrolment = ("i1", "<f2") if int8 else ("<f4", "<f4")
        self.parts = list[bytes]()

    def add(self, values: NDArray[Any], dtype: str = "<f4") -> None:
        """Numbers, padded to whole words of 4 bytes. Raises UserError for some that are not finite."""
        if not np.isfinite(values).all():
            raise UserError("expected a model with finite weights, found some that are NaN or infinite")
        data = np.ascontiguousarray(values).astype(dtype).tobytes()
        self.parts.append(data + bytes(-len(data) % 4))

    def product(self, inner: Product, dtype: str = "<f4", bias: bool = True) -> None:
        """A product, its weights as this type; those in bytes are in units of their output channel, which follow."""
        if dtype == "i1":
            scale = np.maximum(np.abs(inner.weight).max(0), 1e-12) / 127
            self.add(np.rint(inner.weight / scale), dtype)
            self.add(scale)
        else:
            self.add(inner.weight, dtype)
        if bias:
            self.add(inner.bias)


def model_bytes(model: SpexPlusOnline, sample_rate: int, metadata: str = "{}", int8: bool = False) -> bytes:
    """The content of `model.ss`. metadata: JSON for whoever reads the file; int8: products of a step in bytes.

    Raises UserError for a model that the library does not run, and for weights that are not finite.
    """
    stacks = [list(cast(Chain, stack)) for stack in model.body]
    layers = [layer for stack in stacks for layer in stack]
    for layer in layers:
        if type(layer) not in (Conditioning, DilatedBlock, *MEMORY_CODES):
            raise UserError(f"{type(layer).__name__}: expected a layer of the online model; the C library knows none of this kind")
    memory = next((type(layer) for layer in layers if type(layer) in MEMORY_CODES), None)
    blocks = [(number, layer) for number, stack in enumerate(stacks) for layer in stack if isinstance(layer, DilatedBlock)]
    taps = blocks[0][1].taps if blocks else 1
    n_blocks = max((block.dilation.bit_length() for _, block in blocks), default=0)
    hidden = np.zeros((len(stacks), n_blocks), int)
    for number, block in blocks:
        hidden[number, block.dilation.bit_length() - 1] = block.conv.out_features
    encoder, channels = model.encoder, model.conv1.out_features
    sizes = {"n_channels": channels, "hop": model.hop, "lookahead": model.lookahead, "kernels": len(encoder.kernels)}
    sizes |= {"n_stacked_tcnblocks": len(stacks), "taps": taps}
    for name, size in sizes.items():
        if size > MOST[name]:
            raise UserError(f"{name}: the C library takes at most {MOST[name]}, got {size}")
    for kernel in encoder.kernels:
        if largest_factor(kernel // 2) > LARGEST_FACTOR:
            raise UserError(f"kernels: the C library wants halves without a prime factor above {LARGEST_FACTOR}, got {kernel}")
    writer = TensorWriter(int8)
    for number in range(len(encoder.kernels)):
        writer.add(array(encoder.get_buffer(f"window{number}")))
    writer.product(normed_before(model.norm, product(model.conv1)))
    for layer in layers:
        write_layer(writer, layer)
    writer.product(normed_before(model.mask_norm, product(model.mask)), writer.step)
    if model.phase is not None:
        weight, bias = normed_before(model.mask_norm, product(model.phase))
        writer.product(Product(weight, bias + np.repeat([1.0, 0.0], model.masked)), writer.step)
    writer.add(array(model.decoder.filters))
    write_enrolment(writer, model)
    text = metadata.encode()
    text += b" " * (-len(text) % 4)
    options = [sample_rate, model.hop, model.decoder.hop + model.decoder.overlap, model.lookahead, channels]
    options += [model.classifier.in_features, len(stacks), n_blocks, taps, MEMORY_CODES[memory]]
    options += [int(model.phase is not None), len(model.speaker_encoder.blocks), len(encoder.kernels)]
    options += [BYTES if int8 else FLOATS, len(text), *encoder.kernels, *hidden.ravel()]
    body = b"".join([struct.pack(f"<{len(options)}I", *options), text, *writer.parts])
    counted = struct.pack("<Q", len(MAGIC) + 16 + len(body)) + body
    return MAGIC + struct.pack("<II", VERSION, zlib.crc32(counted)) + counted


def largest_factor(number: int) -> int:
    """The largest prime factor, which is that of what the smallest one leaves; 1 of 1."""
    smallest = next((factor for factor in range(2, number) if number % factor == 0), None)
    return largest_factor(number // smallest) if smallest else number


def write_layer(writer: TensorWriter, layer: StatefulLayer) -> None:
    """A layer of the body."""
    if isinstance(layer, LSTM):
        inputs, recurrent, *biases = recurrent_weights(layer.lstm)
        bias = biases[0] + biases[1]
        writer.product(normed_before(layer.norm, Product(inputs.T, bias)), writer.step)
        writer.product(Product(recurrent.T, bias), writer.step, bias=False)
        writer.product(product(layer.output), writer.step)
    elif isinstance(layer, GRU):
        inputs, recurrent, *biases = recurrent_weights(layer.gru)
        writer.product(Product(inputs.T, biases[0]), writer.step)
        writer.product(Product(recurrent.T, biases[1]), writer.step)
    elif isinstance(layer, LinearRecurrence):
        writer.product(product(layer.inputs), writer.step)
        writer.product(product(layer.output), writer.step)
    elif isinstance(layer, DilatedBlock):
        writer.product(normed_after(product(layer.conv), layer.norm), writer.step)
        writer.product(product(layer.output), writer.step)


def write_enrolment(writer: TensorWriter, model: SpexPlusOnline) -> None:
    """What turns a recording into conditions."""
    encoder = model.speaker_encoder
    norm, (weight, bias) = encoder.norm, product(encoder.conv1)
    assert norm.eps == NORM_EPSILON  # the library computes what is before its gain and offset
    writer.product(Product(weight * array(norm.weight)[:, None], bias + array(norm.bias) @ weight), writer.enrolment)
    for block in (cast(ResNetBlock, block) for block in encoder.blocks):
        writer.product(normed_after(product(block.conv1), block.norm1), writer.enrolment)
        writer.add(array(block.prelu1.weight))
        writer.product(normed_after(product(block.conv2), block.norm2), writer.enrolment)
        if not isinstance(block.residual, nn.Identity):
            writer.product(product(block.residual), writer.enrolment, bias=False)
        writer.add(array(block.prelu2.weight))
    writer.product(product(encoder.conv2), writer.enrolment)
    writer.product(product(model.conditions), writer.enrolment)
