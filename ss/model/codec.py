"""The learnt filter bank of SpEx+ (Ge et al., 2020): waveform to frames at one or three scales, and back.

Shapes: B batch, W samples, N filters, T frames. All scales share the hop of half the shortest kernel.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class SpeechEncoder(nn.Module):
    """One convolution and ReLU per kernel; a longer kernel looks further ahead from the same start."""

    def __init__(self, n_filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels, self.hop = tuple(kernels), kernels[0] // 2
        self.scales = nn.ModuleList(nn.Conv1d(1, n_filters, kernel, stride=self.hop) for kernel in kernels)

    def shortfall(self, samples: int) -> int:
        """How many samples are missing to fill the last frame."""
        return max(self.kernels[0] - samples, (self.kernels[0] - samples) % self.hop)

    def n_frames(self, samples: int) -> int:
        """How many frames so many samples give, the last one filled up."""
        return (samples + self.shortfall(samples) - self.kernels[0]) // self.hop + 1

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        """wave [B,W] -> frames [B,N,T] per scale; samples that fill no frame are left out."""
        n_frames = (wave.shape[-1] - self.kernels[0]) // self.hop + 1
        ends = ((n_frames - 1) * self.hop + kernel for kernel in self.kernels)
        padded = (F.pad(wave, (0, end - wave.shape[-1])) for end in ends)
        return tuple(scale(x[:, None]).relu() for scale, x in zip(self.scales, padded, strict=True))


class SpeechDecoder(nn.Module):
    """One transposed convolution per kernel, each cut to the length asked for."""

    def __init__(self, n_filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        hop = kernels[0] // 2
        self.scales = nn.ModuleList(nn.ConvTranspose1d(n_filters, 1, kernel, stride=hop) for kernel in kernels)

    def forward(self, frames: Sequence[Tensor], samples: int) -> tuple[Tensor, ...]:
        """frames [B,N,T] per scale -> waves [B,samples] per scale."""
        return tuple(scale(x)[:, 0, :samples] for scale, x in zip(self.scales, frames, strict=True))
