"""The learnt filter bank of SpEx+ (Ge et al., 2020): waveform to frames at one or three scales, and back.

Shapes: B batch, W samples, N filters, K scales (1 or 3), T frames. All scales share the hop of half the shortest kernel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SpeechEncoder(nn.Module):
    """One convolution and ReLU per kernel; a longer kernel looks further ahead from the same start."""

    def __init__(self, n_filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels, self.hop = tuple(kernels), kernels[0] // 2
        self.scales = nn.ModuleList(nn.Conv1d(1, n_filters, kernel, stride=self.hop) for kernel in kernels)

    def n_frames(self, samples: int) -> int:
        """How many frames so many samples give. Raises ValueError where they do not fill one."""
        if samples < self.kernels[0]:
            raise ValueError(f"{samples} samples are fewer than the encoder's kernel of {self.kernels[0]}")
        return (samples - self.kernels[0]) // self.hop + 1

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        """wave [B,W] -> K times [B,N,T]."""
        reach = (self.n_frames(wave.shape[-1]) - 1) * self.hop
        short, *longer = wave, *(F.pad(wave, (0, reach + kernel - wave.shape[-1])) for kernel in self.kernels[1:])
        return tuple(scale(x[:, None]).relu() for scale, x in zip(self.scales, (short, *longer), strict=True))


class SpeechDecoder(nn.Module):
    """One transposed convolution per kernel, each cut or padded to the length asked for."""

    def __init__(self, n_filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        hop = kernels[0] // 2
        self.scales = nn.ModuleList(nn.ConvTranspose1d(n_filters, 1, kernel, stride=hop) for kernel in kernels)

    def forward(self, frames: Sequence[Tensor], samples: int) -> tuple[Tensor, ...]:
        """K times [B,N,T] -> K times [B,samples]."""
        waves = (scale(x)[:, 0] for scale, x in zip(self.scales, frames, strict=True))
        return tuple(F.pad(wave, (0, samples - wave.shape[-1])) for wave in waves)


class SpeakerEncoder(nn.Module):
    """From frames of the enrolment to one embedding: norm, 1x1 convolutions and residual blocks, mean over time."""

    def __init__(self, in_channels: int, channels: int, embedding: int, n_resnetblocks: int) -> None:
        super().__init__()
        self.norm, self.conv1 = nn.LayerNorm(in_channels), nn.Conv1d(in_channels, channels, 1)
        widths = [channels, channels] + [embedding] * (n_resnetblocks - 1)
        self.blocks = nn.ModuleList(ResNetBlock(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.conv2 = nn.Conv1d(widths[-1], embedding, 1)
        self.stride = 3**n_resnetblocks

    def forward(self, frames: Tensor, n_frames: Tensor | None = None) -> Tensor:
        """frames [B,C,T], n_frames [B] that are not padding (all if None) -> embedding [B,E]."""
        x = self.conv1(self.norm(frames.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        x = self.conv2(x)
        if n_frames is None:
            return x.mean(-1)
        kept = n_frames // self.stride
        real = torch.arange(x.shape[-1], device=x.device) < kept[:, None]
        return (x * real[:, None]).sum(-1) / kept[:, None]

class ResNetBlock(nn.Module):
    """Two 1x1 convolutions with batch norm, a residual path, and every third frame's maximum: [B,C,T] -> [B,C',T//3]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels)
        self.conv2, self.norm2 = nn.Conv1d(out_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels)
        self.prelu1, self.prelu2 = nn.PReLU(), nn.PReLU()
        same = in_channels == out_channels
        self.residual = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,T] -> [B,C',T//3]."""
        y = self.prelu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.max_pool1d(self.prelu2(y + self.residual(x)), 3)
