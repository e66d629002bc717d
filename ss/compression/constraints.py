"""What a training holds a model to: its smallest weights at zero, its products through int8.

Zeros: the smallest weights of all layers together stay zero (Han et al., 2015; Zhu & Gupta, 2017). The model keeps its shape, so
nothing gets faster by it: a file of zeros compresses well, and that is all.

int8: products and convolutions compute as int8 will (Jacob et al., 2018). Inputs are rounded to 8 bits over the range that they
have in the batch, weights to 7 over that of each output channel; gradients pass the rounding unchanged. Nothing is added to a
model's weights, so its checkpoints stay ordinary ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.errors import UserError
from ss.model.tcn import DepthwiseConv

LARGEST_INPUT, LARGEST_WEIGHT = 255, 63  # unsigned inputs, signed weights of 7 bits: see ss.compression.quantization
ENROLMENT = ("speaker_encoder", "classifier", "conditions")  # once a stream: never through int8
TINY = 1e-8


def prunable(model: nn.Module) -> Iterator[Tensor]:
    """The weights of all products and convolutions: not those of norms, biases and slopes."""
    return (module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)))


def sparsity(model: nn.Module) -> float:
    """The part of the prunable weights that is zero."""
    weights = list(prunable(model))
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))


def count_nonzero(weights: Mapping[str, Tensor]) -> int:
    """How many numbers of a state dict are not zero; buffers of norms count too, as they are shipped."""
    return sum(int(value.count_nonzero()) for value in weights.values() if value.is_floating_point())


class Sparse:
    """Holds the smallest weights of a model at zero while it is trained.

    sparsity: the part of all prunable weights. Which ones they are is decided here, by magnitude, once: those that are zero
    already are the smallest, so a run that goes on keeps its own.
    """

    def __init__(self, model: nn.Module, sparsity: float) -> None:
        if not 0 <= sparsity < 1:
            raise UserError(f"sparsity: expected a part of the weights, from 0 to below 1, got {sparsity}")
        self.weights = list(prunable(model))
        magnitudes = torch.cat([weight.detach().abs().flatten() for weight in self.weights])
        kept = torch.ones_like(magnitudes, dtype=torch.bool)
        kept[magnitudes.argsort(stable=True)[: round(sparsity * len(magnitudes))]] = False
        parts = kept.split([weight.numel() for weight in self.weights])
        self.masks = [part.view_as(weight) for part, weight in zip(parts, self.weights, strict=True)]
        self.apply()

    @torch.no_grad()
    def apply(self, *_: Any) -> None:
        """Sets the weights to zero; a hook for after the steps of an optimizer."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)


class RoundedLinear(nn.Linear):
    """A Linear through int8."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(rounded_input(x), rounded_weight(self.weight), self.bias)


class RoundedConv1d(nn.Conv1d):
    """A Conv1d through int8."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(rounded_input(x), rounded_weight(self.weight), self.bias)


class RoundedDepthwiseConv(DepthwiseConv):
    """A DepthwiseConv through int8."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(rounded_input(x), rounded_weight(self.weight))


ROUNDED: dict[type, Any] = {nn.Linear: RoundedLinear, nn.Conv1d: RoundedConv1d, DepthwiseConv: RoundedDepthwiseConv}


def rounded_input(x: Tensor) -> Tensor:
    """x [...] on the 256 levels between its smallest and its largest value, zero among them."""
    low, high = (edge.clamp(*limits) for edge, limits in zip(x.detach().aminmax(), ((None, 0), (0, None)), strict=True))
    scale = ((high - low) / LARGEST_INPUT).clamp_min(TINY)
    return torch.fake_quantize_per_tensor_affine(x, scale, (-low / scale).round().int(), 0, LARGEST_INPUT)


def rounded_weight(weight: Tensor) -> Tensor:
    """weight [A,...] on 127 levels for each of its A channels."""
    scale = (weight.detach().flatten(1).abs().amax(1) / LARGEST_WEIGHT).clamp_min(TINY)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT)


def through_int8(model: nn.Module, keep: Sequence[str] = ()) -> None:
    """From now on the products in a model's steps go through int8; not those of layers whose names begin with one of `keep`."""
    for name, module in model.named_modules():
        if type(module) in ROUNDED and not name.startswith((*ENROLMENT, *keep)):
            module.__class__ = ROUNDED[type(module)]
