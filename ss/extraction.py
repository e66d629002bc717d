"""From a mixture and an enrolment to the estimate: the one way that training, testing and inference take.

Shapes: B batch, S samples of the mixture, R of the enrolment.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from ss.model.extractor import Extraction


class Chunking(Protocol):
    """What cuts and joins: a Streamer, or Whole."""

    def split(self, wave: Tensor) -> Tensor: ...

    def join(self, chunks: Tensor, samples: int) -> Tensor: ...


def separate(model: nn.Module, streamer: Chunking, mixture: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
    """mixture [B,S], ref [B,R] -> Extraction with joined waves [B,S] per scale, as the model gives them."""
    extraction = model(streamer.split(mixture), ref, ref_lengths)
    return Extraction(tuple(streamer.join(wave, mixture.shape[-1]) for wave in extraction.waves), extraction.logits)


@torch.inference_mode()
def extract(model: nn.Module, streamer: Chunking, mixture: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Tensor:
    """mixture [B,S], ref [B,R] -> estimate [B,S] of the first scale at the target's level in the mixture."""
    return match_level(separate(model, streamer, mixture, ref, ref_lengths).waves[0], mixture)


def match_level(estimate: Tensor, mixture: Tensor) -> Tensor:
    """Scales estimate [B,S] to the level (and sign) at which it is in the mixture [B,S]; silence stays silence.

    SI-SDR leaves a model's output level open. The least-squares gain is right where target and interferers are uncorrelated:
    the mixture's projection on the target is then the target itself.
    """
    energy = estimate.square().sum(-1, keepdim=True)
    gain = (estimate * mixture).sum(-1, keepdim=True) / energy.clamp_min(torch.finfo(estimate.dtype).tiny)
    return estimate * gain
