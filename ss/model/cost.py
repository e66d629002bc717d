"""What a model costs by counting: parameters and multiply-accumulates (MACs)."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def n_parameters(model: nn.Module) -> int:
    """How many weights a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def n_bytes(model: nn.Module) -> int:
    """Bytes of its parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def n_macs(call: Callable[..., Any], *args: Any) -> int:
    """MACs of the convolutions and matrix products that `call(*args)` runs, half of what torch's FlopCounterMode counts.

    A depthwise convolution runs as shifted multiply-adds on a CPU: those are counted, so that a GPU, where it is a convolution,
    gives the same number. Norms, activations and other work on single elements are not counted.
    """

    def addcmul(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
        return 2 * prod(out_shape)

    def lstm(frames: tuple[int, ...], inputs: tuple[int, ...], recurrent: tuple[int, ...], *_: Any, **__: Any) -> int:
        return 2 * prod(frames[:2]) * (prod(inputs) + prod(recurrent))

    also_counted = {torch.ops.aten.addcmul: addcmul, torch.ops.aten.mkldnn_rnn_layer: lstm}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=also_counted) as counter:
        call(*args)
    return counter.get_total_flops() // 2
