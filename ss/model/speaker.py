"""From frames of the enrolment to one embedding (the speaker encoder of SpEx+, Ge et al., 2020).

Shapes: B batch, C channels, T frames, E speaker embedding.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.distributed import BatchNorm
from ss.model.tcn import ChannelNorm


class ResNetBlock(nn.Module):
    """Two 1x1 convolutions with batch norm, a residual path, and the maximum of every three frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(in_channels, out_channels, 1, bias=False), BatchNorm(out_channels)
        self.conv2, self.norm2 = nn.Conv1d(out_channels, out_channels, 1, bias=False), BatchNorm(out_channels)
        self.prelu1, self.prelu2 = nn.PReLU(), nn.PReLU()
        same = in_channels == out_channels
        self.residual = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,T] -> [B,C',T//3]."""
        y = self.norm2(self.conv2(self.prelu1(self.norm1(self.conv1(x)))))
        return F.max_pool1d(self.prelu2(y + self.residual(x)), 3)


class SpeakerEncoder(nn.Module):
    """Norm, 1x1 convolution, residual blocks, 1x1 convolution, mean over time. One embedding frame per `stride` frames.

    The last block but one goes from C channels to E, as the predecessor's does (a single block does too).
    """

    def __init__(self, in_channels: int, channels: int, embedding: int, n_resnetblocks: int) -> None:
        super().__init__()
        widths = [channels] * max(1, n_resnetblocks - 1) + [embedding] * min(2, n_resnetblocks)
        self.norm, self.conv1 = ChannelNorm(in_channels), nn.Conv1d(in_channels, channels, 1)
        self.blocks = nn.ModuleList(ResNetBlock(a, b) for a, b in pairwise(widths))
        self.conv2 = nn.Conv1d(widths[-1], embedding, 1)
        self.stride = 3**n_resnetblocks

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """frames [B,C,T], n_frames [B] that are no padding (None: all) -> embedding [B,E]."""
        x = self.conv1(self.norm(frames))
        for block in self.blocks:
            x = block(x)
        x = self.conv2(x)
        if n_frames is None:
            return x.mean(-1)
        kept = (n_frames // self.stride)[:, None]
        real = torch.arange(x.shape[-1], device=x.device) < kept
        return (x * real[:, None]).sum(-1) / kept
