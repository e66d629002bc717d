"""The exported graphs that a recipe asks for: in float, in 16 bits, or quantized by ONNX Runtime.

int8: weights are rounded once, for each output channel by itself; inputs over the range that calibration on real mixtures saw.
ONNX Runtime's kernels take both as they are: nothing is measured while the stream runs. A dynamic quantization loses its time with
convolutions: the ConvInteger that it needs takes three times as long as the float one.
The int8 weights of the C library are made by `ss/export/native.py`.
Weights have 7 bits: CPUs without VNNI add two products in 16 bits, which overflow with 8.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from ss.audio import Wave
from ss.compression.recipe import Recipe
from ss.export import EXPORTED, export
from ss.export.graph import set_metadata
from ss.files import whole_folder
from ss.runtime import Extractor
from ss.runtime.pretrained import graphs_in
from ss.trainer.settings import train_set

Pair = tuple[Wave, Wave]
StepInputs = dict[str, NDArray[np.float32]]
HOPS = 4  # that a step of an online model is given at once in calibration
KINDS = ("Gemm", "MatMul", "Conv")
FLOAT_AFTER = ("Gemm", "MatMul")  # what these give is not rounded, unless the next one takes it: fewer kernels, less error
ATTENTION = "attention"  # as the export names its products, most of which have no weights
LARGE = 4096  # numbers: smaller weights are not worth a cast


def export_recipe(recipe: Recipe, checkpoint: str | Path, folder: Path, mixtures: Iterable[Pair]) -> None:
    """Writes the graphs of a checkpoint into a folder. mixtures: (mixture [S], enrolment [R]) to calibrate on."""
    if recipe.precision == "fp32":
        export(checkpoint, folder)
        return
    with TemporaryDirectory() as aside, whole_folder(folder, *EXPORTED) as done:
        plain = Path(aside, "plain")
        export(checkpoint, plain, plain=True)
        enrolling, stepping = graphs_in(plain)
        for name in (enrolling, stepping):
            if recipe.precision == "fp16":  # inside of the graph; what goes in and comes out stays as it was
                onnx.save(convert_float_to_float16(onnx.load(str(plain / name)), keep_io_types=True), str(done / name))
            elif name == enrolling or recipe.precision == "dynamic":
                quantize_with(quantize_dynamic, plain / name, done / name, recipe.keep)
            else:
                quantize_calibrated(plain / name, done / name, step_inputs(plain, mixtures), recipe.keep)
        Extractor.load(done)


def first_pairs(examples: Any, n: int) -> Iterator[Pair]:
    """(mixture [S], enrolment [R]) of the first n examples."""
    for example in map(examples.__getitem__, range(min(n, len(examples)))):
        yield example.mixture, example.ref


def training_pairs(config: dict[str, Any], n: int) -> Iterator[Pair]:
    """The first n that a config trains on; reads nothing before it is asked for one."""
    yield from first_pairs(train_set(config), n)


def step_inputs(folder: Path, mixtures: Iterable[Pair]) -> Iterator[StepInputs]:
    """What the stepping graph of an export is given while it extracts these mixtures."""
    extractor = Extractor.load(folder, backend="onnxruntime")
    step = HOPS * extractor.hop if extractor.online else extractor.hop
    size = step if extractor.online else extractor.window
    for mixture, ref in mixtures:
        conditions, states = extractor.conditions_of(ref[None]), extractor.zeros(1)
        for begin in range(0, len(mixture) - size + 1, step):
            chunk = mixture[None, begin : begin + size]
            yield {"chunk": chunk, extractor.conditions: conditions, **states}
            _, states = extractor.step(chunk, conditions, states)


def quantize_calibrated(source: Path, target: Path, inputs: Iterator[StepInputs], keep: Sequence[str] = ()) -> None:
    """Quantizes a graph over the ranges of these inputs; layers whose names begin with one of `keep` stay in float."""

    class Inputs(CalibrationDataReader):
        def get_next(self) -> StepInputs | None:
            return next(inputs, None)

    output = {"OpTypesToExcludeOutputQuantization": list(FLOAT_AFTER)}
    how: dict[str, Any] = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "extra_options": output}
    quantize_with(quantize_static, source, target, keep, calibration_data_reader=Inputs(), **how)


def quantize_with(quantize: Any, source: Path, target: Path, keep: Sequence[str], **how: Any) -> None:
    """Runs a quantization of ONNX Runtime; quantize_dynamic rounds weights and finds the range of an input each time."""
    logging.disable(logging.WARNING)  # the quantizer's remarks on tensors that were not to be quantized
    try:
        quantize(
            str(source),
            str(target),
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            nodes_to_exclude=[name for name in product_names(source) if name.lstrip("/").startswith((ATTENTION, *keep))],
            **how,
        )
    finally:
        logging.disable(logging.NOTSET)
    store_in_half(target)
    set_metadata(target, {prop.key: prop.value for prop in onnx.load(str(source)).metadata_props})


def product_names(path: Path) -> list[str]:
    """The names of a graph's products and convolutions."""
    return [node.name for node in onnx.load(str(path)).graph.node if node.op_type in KINDS]


def store_in_half(path: Path) -> None:
    """Stores the weights that stayed in float in 16 bits; a runtime turns them into 32 bits once, when it loads the graph."""
    model = onnx.load(str(path))
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= LARGE:
            half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}.half")
            model.graph.node.insert(0, helper.make_node("Cast", [half.name], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(half)
    onnx.save(model, str(path))
