"""Structured pruning: whole hidden channels, and whole blocks, are taken out of the graph, and a smaller model is left.

What a channel is worth is judged by how much the training loss would change without it, to first order (Molchanov et al.,
"Importance estimation for neural network pruning", 2019): the sum over what the channel gives of weight times gradient, squared,
over a few batches. The smaller model is an ordinary one, whose `hidden_channels` is a list.

Shapes: H hidden channels of a block.
"""

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ss import checkpoint, distributed
from ss.model import Extractor, SpexPlusOnline
from ss.model.cost import n_macs
from ss.model.online import DilatedBlock
from ss.model.tcn import TCNBlock

SECOND = 16000  # samples over which operations are counted
SEARCH = 20  # halvings of the interval in which the threshold lies


class Group(NamedTuple):
    """Hidden channels of a block: the names of what gives them (their first axis) and of what takes them (its second axis)."""

    given: tuple[str, ...]
    taken: str


@singledispatch
def groups(block: nn.Module) -> tuple[Group, ...]:
    """The groups of hidden channels in a block, all of H. Raises ValueError for a module that has none that could go."""
    raise ValueError(f"{type(block).__name__}: expected a block of the online model or of the SpEx+ family")


@groups.register
def _(block: DilatedBlock) -> tuple[Group, ...]:
    norm = tuple(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
    return (Group(("conv.weight", *norm), "output.weight"),)


@groups.register
def _(block: TCNBlock) -> tuple[Group, ...]:
    def both(*layers: str) -> tuple[str, ...]:
        return tuple(f"{layer}.{name}" for layer in layers for name in ("weight", "bias"))

    return Group(both("conv1", "norm1", "depthwise"), "pointwise.weight"), Group(both("pointwise", "norm2"), "conv2.weight")


def blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The blocks with hidden channels, by name, in the order of `hidden_channels`."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, (DilatedBlock, TCNBlock)))


class Importance:
    """Gathers what the channels are worth: call it after the backward pass of every batch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.by_block: dict[str, list[Tensor]] = {}

    def __call__(self) -> None:
        """Adds the gradients of a batch."""
        for name, block in blocks(self.model):
            found = [_worth(block.get_parameter(group.taken)) for group in groups(block)]
            before = self.by_block.get(name, [torch.zeros_like(one) for one in found])
            self.by_block[name] = [a + b for a, b in zip(before, found, strict=True)]

    def share(self) -> None:
        """Adds up what all processes have seen."""
        self.by_block = {name: [distributed.total(one).cpu() for one in found] for name, found in self.by_block.items()}

    def ranked(self) -> dict[str, Tensor]:
        """For each block: what its n-th best channels are worth together, best first [H]."""
        return {name: sum(one.sort(descending=True).values for one in found) for name, found in self.by_block.items()}  # type: ignore[misc]


def _worth(weight: nn.Parameter) -> Tensor:
    """Of the channels that a weight [A,H,...] takes -> [H]."""
    assert weight.grad is not None
    change = weight.detach() * weight.grad
    return change.reshape(*weight.shape[:2], -1).sum((0, 2)).square()


class Limits(NamedTuple):
    """macs: the part of all multiply-accumulates that may be left; drop_blocks: so many of the blocks that are worth least go whole
    (of the online model; the other models keep theirs); smallest: channels that every other block keeps; multiple: their number is
    a multiple of this one."""

    macs: float
    drop_blocks: int = 0
    smallest: int = 16
    multiple: int = 8


def chosen(model_config: dict[str, Any], importance: Importance, limits: Limits) -> list[int]:
    """The hidden channels that each block keeps, so that the model needs at most `limits.macs` of its operations.

    One threshold on what a channel is worth holds for all blocks, so a channel may stay in one and go in another. Raises ValueError
    where the operations outside of the blocks alone are too many.
    """
    ranked = importance.ranked()
    order = sorted(ranked, key=lambda name: ranked[name].sum().item())
    dropped = set(order[: limits.drop_blocks] if isinstance(importance.model, SpexPlusOnline) else ())
    worth = torch.cat([values for name, values in ranked.items() if name not in dropped]).sort().values
    allowed = limits.macs * macs(model_config)

    def kept(n_gone: int) -> list[int]:
        """Hidden channels of each block without the n_gone worst."""
        threshold = worth[n_gone] if n_gone < len(worth) else torch.inf
        return [
            0 if name in dropped else _rounded(int((values >= threshold).sum()), len(values), limits)
            for name, values in ranked.items()
        ]

    low, high = 0, len(worth)
    if macs({**model_config, "hidden_channels": kept(high)}) > allowed:
        raise ValueError(
            f"macs: {limits.macs} of the operations cannot be reached with at least {limits.smallest} channels a block"
        )
    while low < high:
        middle = (low + high) // 2
        fits = macs({**model_config, "hidden_channels": kept(middle)}) <= allowed
        low, high = (low, middle) if fits else (middle + 1, high)
    return kept(high)


def _rounded(n: int, of: int, limits: Limits) -> int:
    return min(of, max(limits.smallest, -(-n // limits.multiple) * limits.multiple))


def macs(model_config: dict[str, Any]) -> int:
    """Multiply-accumulates of a model on a second of audio."""
    model = checkpoint.build(model_config).eval()
    with torch.inference_mode():
        state = model.init_state(model.enroll(torch.zeros(1, SECOND)), SECOND)
        return n_macs(lambda wave: model.step(wave, state)[0][0], torch.zeros(1, SECOND - SECOND % getattr(model, "hop", 1)))


def smaller(model: Extractor, model_config: dict[str, Any], importance: Importance, kept: list[int]) -> Extractor:
    """What is left of a model with so many of the best hidden channels in each block (0: without the block)."""
    small = checkpoint.build({**model_config, "hidden_channels": kept})
    survivors = [(name, block, n) for (name, block), n in zip(blocks(model), kept, strict=True) if n]
    inside = tuple(f"{name}." for name, _ in blocks(model))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(inside)}
    for (name, block, n), (place, _) in zip(survivors, blocks(small), strict=True):
        weights |= {f"{place}.{inner}": value for inner, value in _cut(block, importance.by_block[name], n).items()}
    small.load_state_dict(weights)
    return small


def _cut(block: nn.Module, worth: list[Tensor], n: int) -> dict[str, Tensor]:
    """The weights of a block with its n best channels, in the order in which they were."""
    weights = dict(block.state_dict())
    for group, values in zip(groups(block), worth, strict=True):
        best = values.topk(n).indices.sort().values
        weights |= {name: weights[name][best] for name in group.given}
        weights[group.taken] = weights[group.taken][:, best]
    return weights
