"""The learnt filter bank of SpEx+ (Ge et al., 2020): waveform to frames at one or three scales, and back.

Shapes: B batch, W samples, N filters, T frames, M half a kernel, L samples of a kernel. All scales share the hop of half the
shortest kernel.
"""

import math
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


def mdct(kernel: int) -> Tensor:
    """The basis of the modified discrete cosine transform (Princen & Bradley, 1986), sine window: [M,L], hop M, orthonormal."""
    half = kernel // 2
    n, k = torch.arange(kernel) + 0.5, torch.arange(half)[:, None] + 0.5
    window = torch.sin(math.pi * n / kernel)
    return math.sqrt(2 / half) * window * torch.cos(math.pi / half * (n + half / 2) * k)


@torch.no_grad()
def start_transparent(encoder: SpeechEncoder, decoder: SpeechDecoder, masks: nn.ModuleList) -> None:
    """Lets a training start with masks near one, so that the mixture nearly passes.

    A random filter bank and its random inverse spend the first thousand examples on learning to pass anything at all. So filters
    are set to the basis and its negative (a ReLU keeps one of the two), lowest frequencies first; others stay random.
    """
    for kernel, analysis, synthesis, mask in zip(encoder.kernels, encoder.scales, decoder.scales, masks, strict=True):
        weight, inverse, masking = (layer.get_parameter("weight") for layer in (analysis, synthesis, mask))
        basis = mdct(kernel)[: len(weight) // 2]
        signed = torch.cat([basis, -basis])[:, None]
        weight[: len(signed)] = signed
        inverse.zero_()
        inverse[: len(signed)] = signed * 2 * encoder.hop / kernel
        masking.mul_(0.1)
        for layer, bias in ((analysis, 0), (synthesis, 0), (mask, 1)):
            layer.get_parameter("bias").fill_(bias)
