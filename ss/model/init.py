"""Where training starts from: a filter bank that is a lapped transform, and masks near one, so that the mixture
nearly passes.

A random filter bank and its random inverse spend the first thousand examples on learning to pass anything at all.

Shapes: N filters, M half a kernel, L samples of a kernel.
"""

import math

import torch
from torch import Tensor, nn

from ss.model.codec import SpeechDecoder, SpeechEncoder


def mdct(kernel: int) -> Tensor:
    """The basis of the modified discrete cosine transform (Princen & Bradley, 1986), sine window: [M,L], hop M, orthonormal."""
    half = kernel // 2
    n, k = torch.arange(kernel) + 0.5, torch.arange(half)[:, None] + 0.5
    window = torch.sin(math.pi * n / kernel)
    return math.sqrt(2 / half) * window * torch.cos(math.pi / half * (n + half / 2) * k)


@torch.no_grad()
def transparent(encoder: SpeechEncoder, decoder: SpeechDecoder, masks: nn.ModuleList) -> None:
    """Sets filters to the basis and its negative (a ReLU keeps one of the two), lowest frequencies first; others stay random."""
    for kernel, analysis, synthesis, mask in zip(encoder.kernels, encoder.scales, decoder.scales, masks, strict=True):
        assert isinstance(analysis, nn.Conv1d)
        assert isinstance(synthesis, nn.ConvTranspose1d)
        assert isinstance(mask, nn.Conv1d)
        assert analysis.bias is not None
        assert synthesis.bias is not None
        assert mask.bias is not None
        basis = mdct(kernel)[: analysis.out_channels // 2]
        signed = torch.cat([basis, -basis])[:, None]
        analysis.weight[: len(signed)] = signed
        synthesis.weight.zero_()
        synthesis.bias.zero_()
        analysis.bias.zero_()
        synthesis.weight[: len(signed)] = signed * 2 * encoder.hop / kernel
        mask.weight.mul_(0.1)
        mask.bias.fill_(1)
