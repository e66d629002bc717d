"""A running mean of a model's weights, which is validated and kept in their place."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential mean of a model's weights and buffers, over about the last tenth of the steps while these are few."""

    def update(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        share = max(1 - decay, 10 / (10 + int(count)))
        return torch.lerp(mean, new, share) if mean.is_floating_point() else new

    return AveragedModel(model, avg_fn=update, use_buffers=True)
