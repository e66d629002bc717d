"""Structured pruning: whole hidden channels, and whole blocks, are taken out of the graph, and a smaller model is left.

What a channel is worth is judged by how much the training loss would change without it, to first order (Molchanov et al.,
"Importance estimation for neural network pruning", 2019): the sum over what the channel gives of weight times gradient, squared,
over a few batches. The smaller model is an ordinary one, whose `hidden_channels` is a list.

Shapes: H hidden channels of a block.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ss import checkpoint, distributed
from ss.errors import UserError
from ss.model import ExtractionModel
from ss.model.cost import n_macs
from ss.model.online import DilatedBlock
from ss.model.tcn import TCNBlock

SECOND = 16000  # samples over which operations are counted


class ChannelGroup(NamedTuple):
    """Hidden channels of a block: the names of what gives them (their first axis) and of what takes them (its second axis)."""

    given: tuple[str, ...]
    taken: str


def parameters_of(*layers: str) -> tuple[str, ...]:
    """The names of the weights and biases of layers."""
    return tuple(f"{layer}.{name}" for layer in layers for name in ("weight", "bias"))


CHANNEL_GROUPS: dict[type, tuple[ChannelGroup, ...]] = {  # all of a block's groups are of H channels
    DilatedBlock: (
        ChannelGroup(("conv.weight", *parameters_of("norm"), "norm.running_mean", "norm.running_var"), "output.weight"),
    ),
    TCNBlock: (
        ChannelGroup(parameters_of("conv1", "norm1", "depthwise"), "pointwise.weight"),
        ChannelGroup(parameters_of("pointwise", "norm2"), "conv2.weight"),
    ),
}


def prunable_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The blocks with hidden channels, by name, in the order of `hidden_channels`."""
    return ((name, module) for name, module in model.named_modules() if type(module) in CHANNEL_GROUPS)


class Importance:
    """Gathers what the channels are worth: call it after the backward pass of every batch."""

    def __init__(self, model: ExtractionModel) -> None:
        self.model = model
        self.by_block: dict[str, list[Tensor]] = {}

    def __call__(self) -> None:
        """Adds the gradients of a batch."""
        for name, block in prunable_blocks(self.model):
            for number, group in enumerate(CHANNEL_GROUPS[type(block)]):
                weight = block.get_parameter(group.taken)  # [A,H,...]
                assert weight.grad is not None
                change = (weight.detach() * weight.grad).reshape(*weight.shape[:2], -1)
                worth = change.sum((0, 2)).square()
                found = self.by_block.setdefault(name, [torch.zeros_like(worth) for _ in CHANNEL_GROUPS[type(block)]])
                found[number] += worth

    def share(self) -> None:
        """Adds up what all processes have seen."""
        self.by_block = {name: [distributed.total(one).cpu() for one in found] for name, found in self.by_block.items()}


class Limits(NamedTuple):
    """macs: the part of all multiply-accumulates that may be left; drop_blocks: so many of the blocks that are worth least go whole
    (of the online model; the other models keep theirs); smallest: channels that every other block keeps; multiple: their number is
    a multiple of this one."""

    macs: float
    drop_blocks: int = 0
    smallest: int = 16
    multiple: int = 8


def choose_channels(model_config: dict[str, Any], importance: Importance, limits: Limits) -> list[int]:
    """How many hidden channels each block keeps, so that the model needs at most `limits.macs` of its operations.

    One threshold on what a channel is worth holds for all blocks, so a channel may stay in one and go in another. Raises UserError
    where the operations outside of the blocks alone are too many, and for a model without such blocks.
    """
    if not importance.by_block:
        name = type(importance.model).__name__
        raise UserError(f"{name}: expected blocks of the online model or of the SpEx+ family, found none")
    ranked: dict[str, Tensor] = {  # what the n-th best channels of a block are worth together, best first [H]
        name: torch.stack([one.sort(descending=True).values for one in found]).sum(0) for name, found in importance.by_block.items()
    }
    order = sorted(ranked, key=lambda name: ranked[name].sum().item())
    dropped = set(order[: limits.drop_blocks] if importance.model.online else ())
    if limits.drop_blocks < 0 or len(dropped) == len(order):
        raise UserError(f"drop_blocks: expected 0 to {len(order) - 1} of the model's blocks, got {limits.drop_blocks}")
    worth = torch.cat([values for name, values in ranked.items() if name not in dropped]).sort().values
    allowed = limits.macs * count_macs(model_config)

    def channels_without(n_worst: int) -> list[int]:
        """Hidden channels of each block without the n worst."""
        threshold, kept = worth[n_worst] if n_worst < len(worth) else torch.inf, []
        for name, values in ranked.items():
            n = -(-int((values >= threshold).sum()) // limits.multiple) * limits.multiple
            kept.append(0 if name in dropped else min(len(values), max(limits.smallest, n)))
        return kept

    def fits(n_worst: int) -> bool:
        return count_macs({**model_config, "hidden_channels": channels_without(n_worst)}) <= allowed

    if not fits(len(worth)):
        raise UserError(f"macs: {limits.macs} of the operations cannot be reached with at least {limits.smallest} channels a block")
    return channels_without(bisect_left(range(len(worth)), True, key=fits))


def count_macs(model_config: dict[str, Any]) -> int:
    """Multiply-accumulates of a model on a second of audio."""
    model = checkpoint.build(model_config).eval()
    with torch.inference_mode():
        state = model.init_state(model.enroll(torch.zeros(1, SECOND)), SECOND)
        return n_macs(lambda wave: model.step(wave, state)[0][0], torch.zeros(1, SECOND - SECOND % model.hop))


def prune_channels(model: ExtractionModel, config: dict[str, Any], importance: Importance, kept: list[int]) -> ExtractionModel:
    """What is left of a model with so many of the best hidden channels in each block, in their order (0: without the block)."""
    small = checkpoint.build({**config, "hidden_channels": kept})
    survivors = [(name, block, n) for (name, block), n in zip(prunable_blocks(model), kept, strict=True) if n]
    inside = tuple(f"{name}." for name, _ in prunable_blocks(model))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(inside)}
    for (name, block, n), (new_name, _) in zip(survivors, prunable_blocks(small), strict=True):
        left = dict(block.state_dict())
        for group, worth in zip(CHANNEL_GROUPS[type(block)], importance.by_block[name], strict=True):
            best = worth.topk(n).indices.sort().values
            left |= {key: left[key][best] for key in group.given}
            left[group.taken] = left[group.taken][:, best]
        weights |= {f"{new_name}.{key}": value for key, value in left.items()}
    small.load_state_dict(weights)
    return small
