"""Muon for the matrices of a model, AdamW for what is left: more is learnt from the same examples than with AdamW alone.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; one learning rate for both kinds as in Liu et al.,
"Muon is scalable for LLM training", 2025.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that brings singular values near one within five iterations
ITERATIONS = 5
TINY = 1e-7


class Muon(Optimizer):
    """The momentum of every matrix is made orthogonal before it is taken as the step; vectors take AdamW's.

    A matrix is a parameter of two dimensions, or of more that are one (a 1x1 convolution's). Steps of both kinds have the size
    of AdamW's, so the learning rate and the weight decay are those that would suit AdamW. momentum: of matrices; betas: of vectors.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                step = self.matrix_step if is_matrix(parameter) else self.vector_step
                parameter.sub_(step(parameter, group).view_as(parameter), alpha=group["lr"])
        return loss

    def matrix_step(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Muon with Nesterov's momentum, as large as a step of AdamW."""
        momentum, state = group["momentum"], self.state[parameter]
        gradient = parameter.grad
        assert gradient is not None
        mean = state.setdefault("momentum", torch.zeros_like(parameter)).lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(mean, momentum).flatten(1)
        return orthogonal(matrix) * (0.2 * max(matrix.shape) ** 0.5)

    def vector_step(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """AdamW."""
        (first, second), state = group["betas"], self.state[parameter]
        gradient = parameter.grad
        assert gradient is not None
        count = state["count"] = state.get("count", 0) + 1
        mean = state.setdefault("mean", torch.zeros_like(parameter)).lerp_(gradient, 1 - first)
        square = state.setdefault("square", torch.zeros_like(parameter)).lerp_(gradient.square(), 1 - second)
        return mean / (1 - first**count) / ((square / (1 - second**count)).sqrt() + 1e-8)


def is_matrix(parameter: Tensor) -> bool:
    """Whether it multiplies vectors: [A,B] or [A,B,1,...], both above one."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1 and parameter.shape[:2].numel() == parameter.numel()


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors and singular values near one, by Newton-Schulz iterations."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm().clamp_min(TINY)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
