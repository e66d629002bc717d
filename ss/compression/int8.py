"""Static int8 quantization of exported graphs by ONNX Runtime, calibrated on real mixtures.

Weights are rounded once, for each output channel by itself; inputs over the range that calibration saw. ONNX Runtime's kernels
take both as they are: nothing is measured while the stream runs. A dynamic quantization loses its time with convolutions: the
ConvInteger that it needs takes three times as long as the float one.
Weights have 7 bits: CPUs without VNNI add two products in 16 bits, which overflow with 8.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from ss.export.graph import metadata_of, with_metadata

Feed = dict[str, NDArray[np.float32]]
KINDS = ("Gemm", "MatMul", "Conv")
FLOAT_AFTER = ("Gemm", "MatMul")  # what these give is not rounded, unless the next one takes it: fewer kernels, less error
ATTENTION = "attention"  # as the export names its products
LARGE = 4096  # numbers: smaller weights are not worth a cast


class Feeds(CalibrationDataReader):
    """Inputs of a graph, one after the other."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        """The next ones, None at the end."""
        return next(self.feeds, None)


@contextmanager
def in_silence() -> Iterator[None]:
    """Without the quantizer's remarks on tensors that were not to be quantized."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def layers(path: Path) -> list[str]:
    """The names of a graph's products and convolutions."""
    return [node.name for node in onnx.load(str(path)).graph.node if node.op_type in KINDS]


def static(source: Path, target: Path, feeds: Iterator[Feed], keep: Sequence[str] = ()) -> None:
    """Quantizes a graph; layers whose names begin with one of `keep` stay in float."""
    with in_silence():
        quantize_static(
            str(source),
            str(target),
            Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=kept(source, keep),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(FLOAT_AFTER)},
        )
    smaller_file(target)
    with_metadata(target, metadata_of(source))


def dynamic(source: Path, target: Path, keep: Sequence[str] = ()) -> None:
    """Quantizes the weights of a graph; the range of an input is found each time."""
    with in_silence():
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=kept(source, keep),
        )
    smaller_file(target)
    with_metadata(target, metadata_of(source))


def smaller_file(path: Path) -> None:
    """Stores the weights that stayed in float in 16 bits; a runtime turns them into 32 bits once, when it loads the graph."""
    model = onnx.load(str(path))
    graph, casts = model.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= LARGE:
            half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}.half")
            casts.append(helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(path))


def kept(path: Path, keep: Sequence[str]) -> list[str]:
    """The layers of a graph that stay in float: those asked for, and attention: most of its products have no weights."""
    return [name for name in layers(path) if name.lstrip("/").startswith((ATTENTION, *keep))]
