"""Temporal convolutional blocks, and a stack of them told who the target speaker is (SpEx+, Ge et al., 2020).

Shapes: B batch, C channels, H hidden channels, T frames, E speaker embedding.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.errors import UserError
from ss.model.stateful import State, StatefulLayer

Hidden: TypeAlias = int | Sequence[int]  # channels inside the blocks of a model: all alike, or a number for each, in order


def widths(hidden: Hidden) -> Iterator[int]:
    """The hidden channels of one block after the other. Raises UserError where a list ends before the blocks do."""
    if isinstance(hidden, int):
        yield from repeat(hidden)
    else:
        yield from hidden
        raise UserError(f"hidden_channels: expected a number for each block, got only {len(hidden)}")


def check_widths(hidden: Hidden, n_blocks: int) -> None:
    """Raises UserError for a list of hidden channels that is not of so many blocks."""
    if not isinstance(hidden, int) and len(hidden) != n_blocks:
        raise UserError(f"hidden_channels: expected a number for each of {n_blocks} blocks, got {len(hidden)}")


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each frame by itself: x [B,C,T] -> [B,C,T]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Norm(nn.BatchNorm1d):
    """The online model's: batch norm of x [B,T,C].

    In a stream it is a constant scale and offset, which the export folds into the product beside it. Each process takes its own
    batch's statistics: thousands of frames are enough, and there are too many norms to wait at.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view(x.shape)


def sequence_norm(channels: int, causal: bool) -> nn.Module:
    """The norm inside a block: frame by frame when causal, else over channels and time (Conv-TasNet's gLN)."""
    return ChannelNorm(channels) if causal else nn.GroupNorm(1, channels, eps=1e-6)


class DepthwiseConv(nn.Conv1d):
    """A dilated convolution of each channel by itself that keeps the number of frames: [B,C,T] -> [B,C,T].

    causal: a frame sees only itself and the past; otherwise it sits in the middle of what it sees.
    """

    def __init__(self, channels: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__(channels, channels, kernel, dilation=dilation, groups=channels)
        reach = (kernel - 1) * dilation
        self.reach = (reach, 0) if causal else (reach - reach // 2, reach // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [B,C,T] with this weight [C,1,kernel] -> [B,C,T]."""
        padded = F.pad(x, self.reach)
        if x.is_cuda or torch.onnx.is_in_onnx_export():
            return self._conv_forward(padded, weight, self.bias)
        # On a CPU a few shifted multiply-adds are about twice as fast as a grouped convolution.
        assert self.bias is not None
        out = self.bias[:, None]
        for tap in range(self.kernel_size[0]):
            start = tap * self.dilation[0]
            out = torch.addcmul(out, weight[:, :, tap], padded[..., start : start + x.shape[-1]])
        return out


class TCNBlock(nn.Module):
    """One block: 1x1 convolution, dilated depthwise-separable convolution, 1x1 convolution, and a residual path.

    in_channels: C of x; speaker: E of the embedding appended to every frame (0: none); out_channels: C of the result.
    The residual path is a 1x1 convolution where `in_channels` and `out_channels` differ.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int, dilation: int, causal: bool, speaker: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(in_channels + speaker, hidden, 1)
        self.prelu1, self.norm1 = nn.PReLU(), sequence_norm(hidden, causal)
        self.depthwise = DepthwiseConv(hidden, 3, dilation, causal)
        self.pointwise = nn.Conv1d(hidden, hidden, 1)
        self.prelu2, self.norm2 = nn.PReLU(), sequence_norm(hidden, causal)
        self.conv2 = nn.Conv1d(hidden, out_channels, 1)
        self.residual = nn.Identity() if in_channels == out_channels else nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, speaker: Tensor | None = None, memory: Tensor | None = None) -> Tensor:
        """x [B,C,T], speaker [B,E], memory [B,C] added to what the convolutions see of x -> [B,out_channels,T]."""
        y = x if memory is None else x + memory[..., None]
        if speaker is not None:
            y = torch.cat([y, speaker[..., None].expand(-1, -1, x.shape[-1])], 1)
        y = self.norm1(self.prelu1(self.conv1(y)))
        y = self.norm2(self.prelu2(self.pointwise(self.depthwise(y))))
        return self.conv2(y) + self.residual(x)


class Stack(StatefulLayer):
    """Blocks of dilation 1, 2, 4, ... in a row, of which the first takes `in_channels` and the speaker. Carries nothing."""

    def __init__(
        self, in_channels: int, hidden: Iterator[int], out_channels: int, speaker: int, n_blocks: int, causal: bool
    ) -> None:
        super().__init__()
        first = TCNBlock(in_channels, next(hidden), out_channels, 1, causal, speaker)
        others = (TCNBlock(out_channels, next(hidden), out_channels, 2**i, causal) for i in range(1, n_blocks))
        self.blocks = nn.ModuleList([first, *others])

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        x = self.blocks[0](x, speaker)
        for block in self.blocks[1:]:
            x = block(x)
        return x, state


class RecurrentStack(Stack):
    """A stack with a vector [B,C] that is added inside each block and gated by the blocks' outputs. Carries: it.

    The second block is a branch of its own: with the third it decides how much of the vector is renewed; the other blocks are
    the chain, and the mean of its output over time is what the vector is renewed by.
    """

    def __init__(self, channels: int, hidden: Iterator[int], speaker: int, n_blocks: int, causal: bool) -> None:
        if n_blocks < 3:
            raise UserError(f"a recurrent stack needs at least 3 blocks, got {n_blocks}")
        super().__init__(channels, hidden, channels, speaker, n_blocks, causal)
        self.gate, self.carries = nn.Conv1d(2 * channels, channels, 1), (channels,)

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        first, branch, second, *others = self.blocks
        x = first(x, speaker, state)
        side, x = branch(x, memory=state), second(x, memory=state)
        pair = torch.cat([side, x], 1).mean(-1, keepdim=True)
        for block in others:
            x = block(x, memory=state)
        renew = self.gate(pair).sigmoid()[..., 0]
        return x, (1 - renew) * state + renew * x.mean(-1)
