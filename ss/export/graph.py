"""A small builder of ONNX graphs: one call a node, constants stored once, batch norms folded into the products beside them.

Values are strings, the names of tensors in the graph. Weights are numpy arrays. Rows are frames, the streams of a batch side by
side within each (frame-major: row t*B + b), so that every product is a plain one of two matrices, whatever the batch. In a
stream a batch norm is a constant scale and offset.

Shapes: a channels in, b channels out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from torch import Tensor, nn

Value: TypeAlias = str
Array: TypeAlias = NDArray[np.float64]
OPSET, IR_VERSION = 17, 8  # ONNX Runtime reads them since 1.13
END = 2**62


class Product(NamedTuple):
    """x [n,a] -> x @ weight [a,b] + bias [b]."""

    weight: Array
    bias: Array

    def with_one(self) -> "Product":
        """The same with a channel more that is always 1 (also behind a ReLU): it can carry the next product's bias."""
        return Product(np.pad(self.weight, ((0, 0), (0, 1))), np.append(self.bias, 1.0))

    def bias_as_row(self) -> Array:
        """The weight [a+1,b] that does the whole product where one channel more is always 1."""
        return np.concatenate([self.weight, self.bias[None]])


def array(tensor: Tensor) -> Array:
    """The numbers, in double precision, so that folding rounds once."""
    return tensor.detach().cpu().double().numpy()


def product(layer: nn.Linear | nn.Conv1d) -> Product:
    """A linear layer, or a convolution over one frame, with or without a bias."""
    weight = array(layer.weight).reshape(len(layer.weight), -1).T
    return Product(weight, np.zeros(weight.shape[1]) if layer.bias is None else array(layer.bias))


def recurrent_weights(layer: nn.RNNBase) -> list[Array]:
    """The weights of the input and of the hidden vector, and the biases of both, in torch's layout."""
    return [array(layer.get_parameter(f"{kind}_l0")) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def scale_and_offset(norm: nn.BatchNorm1d) -> tuple[Array, Array]:
    """What a batch norm does to a channel outside of training: scale [C] and offset [C]."""
    scale = array(norm.weight) / np.sqrt(array(norm.get_buffer("running_var")) + norm.eps)
    return scale, array(norm.bias) - scale * array(norm.get_buffer("running_mean"))


def normed_before(norm: nn.BatchNorm1d, inner: Product) -> Product:
    """The norm, then the product, in one."""
    scale, offset = scale_and_offset(norm)
    return Product(inner.weight * scale[:, None], inner.bias + offset @ inner.weight)


def normed_after(inner: Product, norm: nn.BatchNorm1d) -> Product:
    """The product, then the norm, in one."""
    scale, offset = scale_and_offset(norm)
    return Product(inner.weight * scale, inner.bias * scale + offset)


class Graph:
    """Nodes, weights, inputs and outputs, in the order in which they were added.

    plain: biases are biases and sums are sums, for a quantization; otherwise they ride in the products, which saves kernels.
    """

    def __init__(self, name: str, plain: bool = False) -> None:
        self.name, self.plain = name, plain
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.weights: list[TensorProto] = []
        self.known: dict[tuple[str, tuple[int, ...], bytes], Value] = {}

    def input(self, name: str, *shape: int | str) -> Value:
        """Adds an input of float32; a dimension with a name may have any size."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, name: str, value: Value, *shape: int | str) -> None:
        """Gives a value out under this name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def op(self, kind: str, *inputs: Value, **attributes: Any) -> Value:
        """Adds a node with one output."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: Value, outputs: int, **attributes: Any) -> list[Value]:
        """Adds a node with so many outputs."""
        names = [f"{kind}{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def weight(self, array: NDArray[Any]) -> Value:
        """A constant: float32, or int64 where it is of whole numbers."""
        array = np.asarray(array, np.int64 if array.dtype.kind == "i" else np.float32, order="C")
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = f"weight{len(self.weights)}"
            self.weights.append(numpy_helper.from_array(array, self.known[key]))
        return self.known[key]

    def ints(self, *numbers: int) -> Value:
        """A constant list of whole numbers."""
        return self.weight(np.array(numbers, np.int64))

    def product(self, x: Value, product: Product, name: str = "") -> Value:
        """x [n,a] -> [n,b]; name: of the layer, by which a quantization knows it."""
        return self.op("Gemm", x, self.weight(product.weight), self.weight(product.bias), name=name)

    def concat(self, *parts: Value, axis: int) -> Value:
        """The parts one after the other."""
        return self.op("Concat", *parts, axis=axis)

    def split(self, x: Value, sizes: Value | Sequence[int], n: int, axis: int) -> list[Value]:
        """x in n parts of these sizes; one part is x itself."""
        if n == 1:
            return [x]
        return self.ops("Split", x, sizes if isinstance(sizes, str) else self.ints(*sizes), outputs=n, axis=axis)

    def cut(self, x: Value, begin: Value, end: Value, axis: int) -> Value:
        """x[begin:end] along an axis."""
        return self.op("Slice", x, begin, end, self.ints(axis))

    def reshape(self, x: Value, *shape: int | Value) -> Value:
        """x in another shape: -1 once for what is left, 0 for what it was; values [1] where a size is known to the graph only."""
        if all(isinstance(size, int) for size in shape):
            return self.op("Reshape", x, self.ints(*shape))  # type: ignore[arg-type]
        sizes = [self.ints(size) if isinstance(size, int) else size for size in shape]
        return self.op("Reshape", x, self.concat(*sizes, axis=0))

    def model(self, metadata: dict[str, str]) -> ModelProto:
        """The checked model."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, producer_name="ss", ir_version=IR_VERSION, opset_imports=[opset])
        helper.set_model_props(model, metadata)
        checker.check_model(model, full_check=True)
        return model


def set_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Gives an ONNX file this metadata and no other."""
    model = onnx.load(str(path))
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
