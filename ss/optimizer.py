"""Muon for the matrices of a model, AdamW for what is left: more is learnt from the same examples than with AdamW alone.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; one learning rate for both kinds as in Liu et al.,
"Muon is scalable for LLM training", 2025.

Why not `torch.optim.Muon` (2.13): it iterates in bfloat16 on every machine and over one matrix at a time. On a CPU without bfloat16
products a step of the released model's size took 2.59 s of processor time with it and 0.18 s with this one (medians, in turn). It
takes parameters of two dimensions only, so 1x1 convolutions and the gates of an LSTM have to be handed over as views, and a second
optimizer takes the rest. With `adjust_lr_fn="match_rms_adamw"` its steps are the same as these but for bfloat16's rounding.

Shapes: N matrices of one shape, A rows, B columns.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ss.distributed import bfloat16_is_native

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that brings singular values near one within five iterations
ITERATIONS = 5
TINY = 1e-7
EPS = 1e-8  # AdamW's


class Muon(Optimizer):
    """The momentum of every matrix is made orthogonal before it is taken as the step; vectors take AdamW's.

    A matrix is a parameter of two dimensions, or of more that are one (a 1x1 convolution's). One with an attribute `blocks` is so
    many matrices, one below the other: an LSTM's weight has a block per gate. Steps of both kinds have the size of AdamW's, so the
    learning rate and the weight decay are those that would suit AdamW. momentum: of matrices; betas: of vectors.
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
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            matrices, vectors = [p for p in parameters if is_matrix(p)], [p for p in parameters if not is_matrix(p)]
            if parameters:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if matrices:
                self.step_matrices(matrices, group)
            if vectors:
                self.step_vectors(vectors, group)
        return loss

    def step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Muon with Nesterov's momentum, as large as a step of AdamW. Matrices of one shape go through the products together."""
        means, gradients = self.moments("momentum", parameters), [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for parameter, direction in zip(parameters, torch._foreach_lerp(gradients, means, group["momentum"]), strict=True):
            blocks, columns = getattr(parameter, "blocks", 1), parameter.shape[1]
            steps = direction.view(blocks, -1, columns)
            alike.setdefault(steps.shape[1:], []).append((parameter, steps))
        for (rows, columns), found in alike.items():
            stacked = orthogonalize(torch.cat([steps for _, steps in found]))
            for (parameter, _), step in zip(found, stacked.split([len(steps) for _, steps in found]), strict=True):
                parameter.sub_(step.reshape(parameter.shape), alpha=group["lr"] * 0.2 * max(rows, columns) ** 0.5)

    def step_vectors(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """AdamW."""
        first, second = group["betas"]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = self.moments("mean", parameters), self.moments("square", parameters)
        counts = [self.state[parameter].get("count", 0) + 1 for parameter in parameters]
        for parameter, count in zip(parameters, counts, strict=True):
            self.state[parameter]["count"] = count
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        scales = torch._foreach_div(squares, [1 - second**count for count in counts])
        torch._foreach_sqrt_(scales)
        torch._foreach_add_(scales, EPS)
        torch._foreach_mul_(scales, [1 - first**count for count in counts])
        torch._foreach_addcdiv_(parameters, means, scales, -group["lr"])

    def moments(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """A running mean of each parameter, zeros at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def is_matrix(parameter: Tensor) -> bool:
    """Whether it multiplies vectors: [A,B] or [A,B,1,...], both above one."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1 and parameter.shape[:2].numel() == parameter.numel()


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices [N,A,B] with the same singular vectors and singular values near one, by Newton-Schulz iterations.

    In bfloat16 where the device multiplies that natively: the iterations do not mind (Jordan et al., 2024).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT).mT
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(TINY)
    if bfloat16_is_native(matrices.device):
        x = x.bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)
