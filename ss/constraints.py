"""Quantization-aware training: products and convolutions compute as int8 will (Jacob et al., 2018).

Inputs are rounded to 8 bits over the range that they have in the batch, weights to 7 over that of each output channel; gradients
pass the rounding unchanged. Nothing is added to a model's weights, so its checkpoints stay ordinary ones.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.model.tcn import DepthwiseConv

LARGEST_INPUT, LARGEST_WEIGHT = 255, 63  # unsigned inputs, signed weights of 7 bits: see ss.compression.int8
ENROLMENT = ("speaker_encoder", "classifier", "conditions")  # once a stream: left as it is
TINY = 1e-8


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


ROUNDED = {nn.Linear: RoundedLinear, nn.Conv1d: RoundedConv1d, DepthwiseConv: RoundedDepthwiseConv}


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


def quantizable(model: nn.Module, keep: Sequence[str] = ()) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a stream's steps that int8 is for, by name; not those whose names begin with one of `keep`."""
    left = (*ENROLMENT, *keep)
    return ((name, module) for name, module in model.named_modules() if _is_product(module) and not name.startswith(left))


def _is_product(module: nn.Module) -> bool:
    return type(module) in ROUNDED or type(module) in ROUNDED.values()


def through_int8(model: nn.Module, keep: Sequence[str] = ()) -> None:
    """From now on these layers of a model compute through int8."""
    for _, module in quantizable(model, keep):
        module.__class__ = ROUNDED.get(type(module), type(module))
