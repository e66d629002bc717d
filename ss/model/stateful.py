"""Layers that carry state from chunk to chunk, and their composition.

A layer maps (x [B,C,T], speaker [B,E], state) to (x, state). Nothing on a layer changes in `forward`, so any number of streams can
share one model. A state is a tree of nested tuples of tensors, batch first; a layer that carries nothing has the state ().

Shapes: B batch, C channels, T frames of a chunk, E speaker embedding, m memory channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ss.errors import UserError

State: TypeAlias = Any  # nested tuples of tensors; () for nothing


def leaves(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    return iter((state,)) if isinstance(state, Tensor) else chain.from_iterable(map(leaves, state))


def with_leaves(state: State, tensors: Iterator[Tensor]) -> State:
    """A state of the same form with other tensors, in the order of `leaves`."""
    return next(tensors) if isinstance(state, Tensor) else tuple(with_leaves(part, tensors) for part in state)


class StatefulLayer(nn.Module, ABC):
    """A layer with explicit state. carries: the sizes of its state, a tensor of zeros at first, beside the batch; none: nothing."""

    carries: tuple[int, ...] = ()

    def init_state(self, batch: int, frames: int) -> State:
        """The state before the first chunk, for chunks of `frames` frames."""
        return self.zeros(batch, *self.carries) if self.carries else ()

    @abstractmethod
    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B,C,T], speaker [B,E], state -> x, state."""

    def zeros(self, *shape: int) -> Tensor:
        """Zeros of the layer's own device and type."""
        return next(self.parameters()).new_zeros(shape)


class Chain(StatefulLayer):
    """Layers one after the other. Carries: the states of its layers, in order."""

    def __init__(self, layers: Iterable[StatefulLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[StatefulLayer]:
        return (cast(StatefulLayer, layer) for layer in self.layers)

    def init_state(self, batch: int, frames: int) -> State:
        return tuple(layer.init_state(batch, frames) for layer in self)

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        states = []
        for layer, before in zip(self, state, strict=True):
            x, after = layer(x, speaker, before)
            states.append(after)
        return x, tuple(states)


class ChunkMemory(StatefulLayer):
    """Layers `inner` with a memory [B,m,T] of the chunk before. Carries: it (zeros at first), and the state of `inner`."""

    def __init__(self, inner: StatefulLayer, memory: int) -> None:
        super().__init__()
        self.inner, self.memory = inner, memory

    def init_state(self, batch: int, frames: int) -> State:
        return self.zeros(batch, self.memory, frames), self.inner.init_state(batch, frames)


class InputCache(ChunkMemory):
    """`inner` also sees the first m channels of the previous chunk's input, detached."""

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        cache, inner = state
        y, inner = self.inner(torch.cat([x, cache], 1), speaker, inner)
        return y, (x[:, : self.memory].detach(), inner)


class FeatureMapScaling(ChunkMemory):
    """Feature map scaling (RawNet2, Jung et al., 2020) of `inner`'s input by the previous chunk's input, detached; at first ones.

    `fc` turns the frames of that input into one gate per channel.
    """

    def __init__(self, inner: StatefulLayer, channels: int, frames: int) -> None:
        super().__init__(inner, channels)
        self.fc = nn.Linear(frames, 1)

    def init_state(self, batch: int, frames: int) -> State:
        if frames != self.fc.in_features:
            raise UserError(f"this model's time_dim is {self.fc.in_features} frames a chunk, but the chunks have {frames}")
        previous, inner = super().init_state(batch, frames)
        return previous + 1, inner

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        previous, inner = state
        y, inner = self.inner(x * self.fc(previous).sigmoid(), speaker, inner)
        return y, (x.detach(), inner)


class GatedMemory(ChunkMemory):
    """A convolutional GRU-like memory: read at the input of `inner`, written from its output.

    write: a module [B,C,T] -> [B,m,T] that proposes the new memory; `gate` decides what is kept of the old one.
    """

    def __init__(self, inner: StatefulLayer, write: nn.Module, channels: int, memory: int) -> None:
        super().__init__(inner, memory)
        self.write, self.gate = write, nn.Conv1d(channels, memory, 1)

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        memory, inner = state
        y, inner = self.inner(torch.cat([x, memory], 1), speaker, inner)
        keep = self.gate(y).sigmoid()
        return y, (keep * memory + (1 - keep) * self.write(y), inner)


class SpecialChannels(ChunkMemory):
    """The last m channels of the result pass through `inner` and on into the next chunk."""

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        special, inner = state
        y, inner = self.inner(torch.cat([x, special], 1), speaker, inner)
        return y[:, : -self.memory], (y[:, -self.memory :], inner)
