"""Matrix products with the batch norms beside them folded in: in a stream a batch norm is a constant scale and offset.

Shapes: a channels in, b channels out.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


class Product(NamedTuple):
    """x [n,a] -> x @ weight [a,b] + bias [b]."""

    weight: Array
    bias: Array


def array(tensor: Tensor) -> Array:
    """The numbers, in double precision, so that folding rounds once."""
    return tensor.detach().cpu().double().numpy()


def product(layer: nn.Linear | nn.Conv1d) -> Product:
    """A linear layer, or a convolution over one frame, with or without a bias."""
    weight = array(layer.weight).reshape(len(layer.weight), -1).T
    return Product(weight, np.zeros(weight.shape[1]) if layer.bias is None else array(layer.bias))


def scale_and_offset(norm: nn.BatchNorm1d) -> tuple[Array, Array]:
    """What a batch norm does to a channel outside of training: scale [C] and offset [C]."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = array(norm.weight) / np.sqrt(array(norm.running_var) + norm.eps)
    return scale, array(norm.bias) - scale * array(norm.running_mean)


def normed_before(norm: nn.BatchNorm1d, inner: Product) -> Product:
    """The norm, then the product, in one."""
    scale, offset = scale_and_offset(norm)
    return Product(inner.weight * scale[:, None], inner.bias + offset @ inner.weight)


def normed_after(inner: Product, norm: nn.BatchNorm1d) -> Product:
    """The product, then the norm, in one."""
    scale, offset = scale_and_offset(norm)
    return Product(inner.weight * scale, inner.bias * scale + offset)


def with_one(inner: Product) -> Product:
    """The same with a channel more that is always 1 (also behind a ReLU): it can carry the next product's bias."""
    column = np.zeros((len(inner.weight), 1))
    return Product(np.concatenate([inner.weight, column], 1), np.append(inner.bias, 1.0))


def bias_as_row(inner: Product) -> Array:
    """The weight [a+1,b] that does the whole product where one channel more is always 1."""
    return np.concatenate([inner.weight, inner.bias[None]])
