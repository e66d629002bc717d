"""Magnitude pruning: the smallest weights of all layers together are zero and stay zero (Han et al., 2015; Zhu & Gupta, 2017).

The model keeps its shape, so nothing gets faster by it: a file of zeros compresses well, and that is all.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def prunable(model: nn.Module) -> Iterator[Tensor]:
    """The weights of all products and convolutions: not those of norms, biases and slopes."""
    return (module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)))


def sparsity(model: nn.Module) -> float:
    """The part of the prunable weights that is zero."""
    weights = list(prunable(model))
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))


def nonzero(weights: Mapping[str, Tensor]) -> int:
    """How many numbers of a state dict are not zero; buffers of norms count too, as they are shipped."""
    return sum(int(value.count_nonzero()) for value in weights.values() if value.is_floating_point())


class Sparse:
    """Holds the smallest weights of a model at zero while it is trained.

    sparsity: the part of all prunable weights. Which ones they are is decided here, by magnitude, once: those that are zero
    already are the smallest, so a run that goes on keeps its own.
    """

    def __init__(self, model: nn.Module, sparsity: float) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity: expected a part of the weights, from 0 to below 1, got {sparsity}")
        self.weights = list(prunable(model))
        magnitudes = torch.cat([weight.detach().abs().flatten() for weight in self.weights])
        n_zero = round(sparsity * len(magnitudes))
        self.masks = self._masks(magnitudes, n_zero)
        self.apply()

    def _masks(self, magnitudes: Tensor, n_zero: int) -> list[Tensor]:
        kept = torch.ones_like(magnitudes, dtype=torch.bool)
        kept[magnitudes.argsort(stable=True)[:n_zero]] = False
        sizes = [weight.numel() for weight in self.weights]
        return [part.view_as(weight) for part, weight in zip(kept.split(sizes), self.weights, strict=True)]

    @torch.no_grad()
    def apply(self) -> None:
        """Sets the weights to zero."""
        for weight, mask in zip(self.weights, self.masks, strict=True):
            weight.mul_(mask)

    def attach(self, optimizer: Optimizer) -> None:
        """Does so after every step of an optimizer."""

        def after(_optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            self.apply()

        optimizer.register_step_post_hook(after)
