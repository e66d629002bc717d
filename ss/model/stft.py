"""The filter bank of the online models: analysis windows of several lengths that all end at the same newest sample, and a
synthesis window that reaches back over the last `synthesis` samples only.

A long window resolves the harmonics of a voice; the delay of a stream is that of the short synthesis window alone (asymmetric
windows: Mauler & Martin, 2007; dual window sizes: Wang et al., "STFT-domain neural speech enhancement with very low algorithmic
latency", 2022). Analysis is a Fourier transform of each window; synthesis is learnt and starts as its inverse, so that a mask of
ones gives the input back.

Shapes: B batch, T frames, K samples of the longest window, F bins of a scale, S synthesis samples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Spectrum(NamedTuple):
    """Real and imaginary parts [B,T,F], the bins of all scales side by side, the last scale's at the end."""

    real: Tensor
    imag: Tensor


def windows(kernel: int, synthesis: int, hop: int) -> tuple[Tensor, Tensor]:
    """Analysis window [kernel] and synthesis window [synthesis] whose products, one every `hop` samples, add up to one.

    The analysis window rises slowly and falls over the samples that two synthesis windows share.
    """
    overlap, long = synthesis - hop, kernel - synthesis + hop
    fall = torch.cos(math.pi / 2 * (torch.arange(overlap) + 0.5) / overlap)
    rise = torch.sin(math.pi / 2 * (torch.arange(long) + 0.5) / long)
    analysis = torch.cat([rise, fall])
    shared = torch.sin(math.pi / 2 * (torch.arange(overlap) + 0.5) / overlap).square()
    wanted = torch.cat([shared, torch.ones(synthesis - 2 * overlap)]) / rise[-hop:]
    return analysis, torch.cat([wanted, fall])


class MultiWindowSTFT(nn.Module):
    """Frames to spectra at every scale; a shorter window hears the newest part of a frame.

    kernels: samples of the windows, the longest last; hop: samples between frames.
    """

    def __init__(self, kernels: Sequence[int], synthesis: int, hop: int) -> None:
        super().__init__()
        self.kernels, self.hop, self.kernel = tuple(kernels), hop, kernels[-1]
        self.bins = tuple(kernel // 2 + 1 for kernel in kernels)
        for number, kernel in enumerate(kernels):
            self.register_buffer(f"window{number}", windows(kernel, synthesis, hop)[0] / math.sqrt(kernel), persistent=False)

    def forward(self, samples: Tensor, hop: int | None = None) -> Spectrum:
        """samples [B, K - hop + T*hop] -> Spectrum of T frames; `hop`: another one than the stream's."""
        frames = samples.unfold(-1, self.kernel, hop or self.hop)
        windowed = (frames[..., -k:] * self.get_buffer(f"window{i}") for i, k in enumerate(self.kernels))
        spectra = torch.cat([torch.fft.rfft(x.float()) for x in windowed], -1)
        return Spectrum(spectra.real, spectra.imag)


class OverlapAddDecoder(nn.Module):
    """Spectra of the longest scale back to samples, with carried overlap.

    filters [2F,S] start as the last samples of the inverse transform, windowed, for the real and for the imaginary parts.
    """

    def __init__(self, kernel: int, synthesis: int, hop: int) -> None:
        super().__init__()
        self.hop, self.overlap = hop, synthesis - hop
        bins, samples = torch.arange(kernel // 2 + 1)[:, None], torch.arange(kernel - synthesis, kernel)
        phase = 2 * math.pi / kernel * (bins * samples % kernel)  # small angles keep their precision
        both_sides = torch.full((len(bins), 1), 2.0)
        both_sides[0] = both_sides[-1] = 1.0
        scale = both_sides * windows(kernel, synthesis, hop)[1] / math.sqrt(kernel)
        self.filters = nn.Parameter(torch.cat([phase.cos() * scale, -phase.sin() * scale]))

    def forward(self, spectrum: Spectrum, overlap: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrum [B,T,F] and the overlap [B,S-hop] of the frame before -> wave [B,T*hop], the overlap of the last frame."""
        waves = torch.cat(spectrum, -1) @ self.filters
        done, open_ = waves[..., : self.hop], waves[..., self.hop :]
        earlier = torch.cat([overlap[:, None], open_[:, :-1]], 1)
        shared = done[..., : self.overlap] + earlier
        return torch.cat([shared, done[..., self.overlap :]], -1).flatten(1), open_[:, -1]
