"""From frames of the enrolment to one embedding (the speaker encoder of SpEx+, Ge et al., 2020), and to slots for attention.

Shapes: B batch, C channels, T frames, E speaker embedding, F features, M slots, Q channels of a key, N stacks.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.distributed import BatchNorm
from ss.model.memory import LSTMLayer
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


class SlotEncoder(nn.Module):
    """A fixed number of slots from an enrolment of any length, each a weighted mean over the frames that it has learnt to ask for.

    One embedding says what a voice is like; slots say how different sounds are in this voice ("Perceiver", Jaegle et al., 2021).
    Gives what attention in each of N stacks needs of them: keys [Q,M] and values [M,C]. Values start at zero.
    """

    def __init__(self, in_channels: int, channels: int, n_slots: int, key: int, n_stacks: int) -> None:
        super().__init__()
        self.n_slots, self.n_stacks = n_slots, n_stacks
        self.norm, self.conv = nn.LayerNorm(in_channels), nn.Linear(in_channels, channels)
        self.lstm = LSTMLayer(channels, channels, batch_first=True)
        self.asked = nn.Linear(channels, n_slots)
        self.slots = nn.Parameter(torch.randn(n_slots, channels) * 0.1)
        self.keys, self.values = nn.Linear(channels, n_stacks * key), nn.Linear(channels, n_stacks * channels)
        nn.init.zeros_(self.values.weight)
        nn.init.zeros_(self.values.bias)

    def forward(self, features: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """features [B,T,F], n_frames [B] that are no padding (None: all) -> [B,N*(Q*M+M*C)]."""
        x = self.conv(self.norm(features)).relu()
        x = x + self.lstm(x)[0]
        asked = self.asked(x)
        if n_frames is not None:
            padding = torch.arange(x.shape[1], device=x.device) >= n_frames[:, None]
            asked = asked.masked_fill(padding[..., None], -torch.inf)
        slots = asked.softmax(1).transpose(1, 2).to(x.dtype) @ x + self.slots  # [B,M,C]
        keys = self.keys(slots).unflatten(-1, (self.n_stacks, -1)).permute(0, 2, 3, 1)  # [B,N,Q,M]
        values = self.values(slots).unflatten(-1, (self.n_stacks, -1)).transpose(1, 2)  # [B,N,M,C]
        return torch.cat([keys.flatten(2), values.flatten(2)], 2).flatten(1)
