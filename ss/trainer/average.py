"""A running mean of a model's weights, which is validated and kept in their place."""

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage(AveragedModel):
    """The exponential mean of a model's weights and buffers, over about the last tenth of the steps while these are few."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes in the model's weights after a step; all tensors at once, which torch's own does not do on a CPU."""
        share = max(1 - self.decay, 10 / (10 + int(self.n_averaged)))
        pairs = list(zip(*(chain(m.parameters(), m.buffers()) for m in (self.module, model)), strict=True))
        means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(means, values, share)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)
        self.n_averaged += 1
