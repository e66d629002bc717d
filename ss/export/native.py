"""From a trained online model to `model.ss`, the file that the C library reads (libss/ss.h): options, then weights in fixed order.

Batch norms, and the gains and offsets of layer norms, are folded into the products beside
them. docs/c_library.md has the format.

Shapes: a channels in, b channels out.
"""

import struct
import zlib
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ss.errors import UserError
from ss.export.graph import Array, Product, array, normed_after, normed_before, product, scale_and_offset
from ss.model import SpexPlusOnline
from ss.model.memory import GRU, LSTM, LinearRecurrence
from ss.model.online import KEY, Conditioning, DilatedBlock, EnrolmentAttention
from ss.model.speaker import ResNetBlock
from ss.model.stateful import Chain, StatefulLayer

MAGIC, VERSION = b"ss-model", 1
MEMORIES: dict[type[StatefulLayer] | None, int] = {None: 0, LSTM: 1, GRU: 2, LinearRecurrence: 3}
FLOATS, HALVES, BYTES = 0, 1, 2  # how numbers are stored
LARGEST_FACTOR = 61  # of half a window: what the library's Fourier transform takes
MOST = {"n_channels": 4096, "hop": 8192, "lookahead": 1024, "n_slots": 1024, "kernels": 8, "n_stacked_tcnblocks": 16, "taps": 16}
NORM_EPSILON = 1e-5


class TensorWriter:
    """Tensors one after the other. storage: FLOATS, or BYTES for the products of a step, with HALVES for those of an enrolment."""

    def __init__(self, storage: int) -> None:
        self.storage, self.parts = storage, list[bytes]()

    def add(self, values: NDArray[Any], dtype: str = "<f4") -> None:
        """Numbers, padded to whole words of 4 bytes. Raises UserError for some that are not finite."""
        if not np.isfinite(values).all():
            raise UserError("expected a model with finite weights, found some that are NaN or infinite")
        data = np.ascontiguousarray(values).astype(dtype).tobytes()
        self.parts.append(data + bytes(-len(data) % 4))

    def product(self, inner: Product, bias: bool = True) -> None:
        """A product that stays in floats."""
        self.add(inner.weight)
        if bias:
            self.add(inner.bias)

    def step_product(self, inner: Product, bias: bool = True) -> None:
        """A product of a step: bytes where these are asked for, each output channel in units of its own."""
        if self.storage == FLOATS:
            self.product(inner, bias)
            return
        scale = np.maximum(np.abs(inner.weight).max(0), 1e-12) / 127
        self.add(np.rint(inner.weight / scale), "i1")
        self.add(scale)
        if bias:
            self.add(inner.bias)

    def enrolment_product(self, inner: Product, bias: bool = True) -> None:
        """A product of an enrolment."""
        self.add(inner.weight, "<f4" if self.storage == FLOATS else "<f2")
        if bias:
            self.add(inner.bias)


def model_bytes(model: SpexPlusOnline, sample_rate: int, metadata: str = "{}", int8: bool = False) -> bytes:
    """The content of `model.ss`. metadata: JSON for whoever reads the file; int8: products of a step in bytes.

    Raises UserError for a model that the library does not run, and for weights that are not finite.
    """
    stacks = [list(cast(Chain, stack)) for stack in model.body]
    memories = {type(layer): layer for layers in stacks for layer in layers if isinstance(layer, LSTM | GRU | LinearRecurrence)}
    attention = [layer for layers in stacks for layer in layers if isinstance(layer, EnrolmentAttention)]
    blocks = [[layer for layer in layers if isinstance(layer, DilatedBlock)] for layers in stacks]
    known = (Conditioning, LSTM, GRU, LinearRecurrence, EnrolmentAttention, DilatedBlock)
    for layer in (layer for layers in stacks for layer in layers):
        if type(layer) not in known:
            raise UserError(f"{type(layer).__name__}: expected a layer of the online model; the C library knows none of this kind")
    every = [block for stack in blocks for block in stack]
    taps = every[0].taps if every else 1
    n_blocks = max((block.dilation.bit_length() for block in every), default=0)
    hidden = [[0] * n_blocks for _ in stacks]
    for widths, stack in zip(hidden, blocks, strict=True):
        for block in stack:
            widths[block.dilation.bit_length() - 1] = block.conv.out_features
    encoder, channels = model.encoder, model.conv1.out_features
    sizes = {"n_channels": channels, "hop": model.hop, "lookahead": model.lookahead, "kernels": len(encoder.kernels)}
    sizes |= {"n_slots": attention[0].n_slots if attention else 0, "n_stacked_tcnblocks": len(stacks), "taps": taps}
    for name, size in sizes.items():
        if size > MOST[name]:
            raise UserError(f"{name}: the C library takes at most {MOST[name]}, got {size}")
    for kernel in encoder.kernels:
        if largest_factor(kernel // 2) > LARGEST_FACTOR:
            raise UserError(f"kernels: the C library wants halves without a prime factor above {LARGEST_FACTOR}, got {kernel}")
    writer = TensorWriter(BYTES if int8 else FLOATS)
    for number in range(len(encoder.kernels)):
        writer.add(array(encoder.get_buffer(f"window{number}")))
    writer.product(normed_before(model.norm, product(model.conv1)))
    for layer in (layer for layers in stacks for layer in layers):
        write_layer(writer, layer)
    writer.step_product(normed_before(model.mask_norm, product(model.mask)))
    if model.phase is not None:
        weight, bias = normed_before(model.mask_norm, product(model.phase))
        writer.step_product(Product(weight, bias + np.repeat([1.0, 0.0], model.masked)))
    writer.add(array(model.decoder.filters))
    write_enrolment(writer, model)
    text = metadata.encode()
    text += b" " * (-len(text) % 4)
    options = [sample_rate, model.hop, model.decoder.hop + model.decoder.overlap, model.lookahead, channels]
    options += [model.classifier.in_features, len(stacks), n_blocks, taps, MEMORIES[next(iter(memories), None)]]
    options += [int(model.phase is not None), sizes["n_slots"], KEY, len(model.speaker_encoder.blocks), len(encoder.kernels)]
    options += [writer.storage, len(text), *encoder.kernels, *(width for widths in hidden for width in widths)]
    body = b"".join([struct.pack(f"<{len(options)}I", *options), text, *writer.parts])
    counted = struct.pack("<Q", len(MAGIC) + 16 + len(body)) + body
    return MAGIC + struct.pack("<II", VERSION, zlib.crc32(counted)) + counted


def largest_factor(number: int) -> int:
    """The largest prime factor; 1 of 1."""
    factor, largest = 2, 1
    while number > 1:
        while number % factor == 0:
            number, largest = number // factor, factor
        factor += 1
    return largest


def write_layer(writer: TensorWriter, layer: StatefulLayer) -> None:
    """A layer of the body."""
    if isinstance(layer, LSTM):
        inputs, recurrent, bias = gates(layer.lstm)
        scale, offset = scale_and_offset(layer.norm)
        writer.step_product(Product(inputs * scale[:, None], bias + offset @ inputs))
        writer.step_product(Product(recurrent, bias), bias=False)
        writer.step_product(product(layer.output))
    elif isinstance(layer, GRU):
        for kind in ("ih", "hh"):
            weight, bias = (array(layer.gru.get_parameter(f"{name}_{kind}_l0")) for name in ("weight", "bias"))
            writer.step_product(Product(weight.T, bias))
    elif isinstance(layer, LinearRecurrence):
        writer.step_product(product(layer.inputs))
        writer.step_product(product(layer.output))
    elif isinstance(layer, EnrolmentAttention):
        weight, bias = normed_before(layer.norm, product(layer.query))
        writer.product(Product(weight * KEY**-0.5, bias * KEY**-0.5))
    elif isinstance(layer, DilatedBlock):
        writer.step_product(normed_after(product(layer.conv), layer.norm))
        writer.step_product(product(layer.output))


def gates(lstm: nn.LSTM) -> tuple[Array, Array, Array]:
    """Weights [a,4b] of the input and [b,4b] of the hidden vector, and the sum of both biases [4b]."""
    inputs, recurrent, *biases = (
        array(lstm.get_parameter(f"{kind}_l0")) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return inputs.T, recurrent.T, biases[0] + biases[1]


def layer_normed(norm: nn.LayerNorm, inner: Product) -> Product:
    """The gain and the offset of a layer norm, then the product, in one; the library computes what is before."""
    assert norm.eps == NORM_EPSILON
    return Product(inner.weight * array(norm.weight)[:, None], inner.bias + array(norm.bias) @ inner.weight)


def write_enrolment(writer: TensorWriter, model: SpexPlusOnline) -> None:
    """What turns a recording into conditions."""
    encoder = model.speaker_encoder
    writer.enrolment_product(layer_normed(encoder.norm, product(encoder.conv1)))
    for block in (cast(ResNetBlock, block) for block in encoder.blocks):
        writer.enrolment_product(normed_after(product(block.conv1), block.norm1))
        writer.add(array(block.prelu1.weight))
        writer.enrolment_product(normed_after(product(block.conv2), block.norm2))
        if not isinstance(block.residual, nn.Identity):
            writer.enrolment_product(product(block.residual), bias=False)
        writer.add(array(block.prelu2.weight))
    writer.enrolment_product(product(encoder.conv2))
    writer.enrolment_product(product(model.conditions))
    if (slots := model.slot_encoder) is not None:
        inputs, recurrent, bias = gates(slots.lstm)
        writer.enrolment_product(layer_normed(slots.norm, product(slots.conv)))
        writer.enrolment_product(Product(inputs, bias))
        writer.enrolment_product(Product(recurrent, bias), bias=False)
        writer.enrolment_product(product(slots.asked))
        writer.add(array(slots.slots))
        writer.enrolment_product(product(slots.keys))
        writer.enrolment_product(product(slots.values))
