"""From a mixture and an enrolment to the estimate: the one way that training, testing and inference take.

Shapes: B batch, S samples of the mixture, R of the enrolment.
"""

from typing import TypeAlias

import torch
from torch import Tensor, nn

from ss.errors import UserError
from ss.loss import length_mask
from ss.model.extractor import Extraction, ExtractionModel
from ss.streamer import Streamer, Whole

Chunking: TypeAlias = Streamer | Whole  # what cuts and joins


def may_pad(model: ExtractionModel, streamer: Chunking) -> bool:
    """Whether zeros behind an utterance change nothing before them, so that a batch may hold utterances of different lengths."""
    return model.online or streamer.causal


def check_chunks(model: ExtractionModel, streamer: Chunking) -> None:
    """Raises UserError for an online model in chunks that overlap: it carries all it needs, and would hear a part of them twice."""
    if model.online and streamer.step != streamer.window:
        raise UserError("streamer: expected streamer=whole, as an online model streams by itself; found chunks that overlap")


def separate(
    model: nn.Module,
    streamer: Chunking,
    mixture: Tensor,
    ref: Tensor,
    ref_lengths: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Extraction:
    """mixture [B,S], ref [B,R] -> Extraction with joined waves [B,S] per scale, at the level that the model gives them.

    ref_lengths, lengths [B]: the samples of each enrolment and mixture, where they are padded.
    """
    extraction = model(streamer.split(mixture), ref, ref_lengths)
    return Extraction(tuple(streamer.join(wave, mixture.shape[-1], lengths) for wave in extraction.waves), extraction.logits)


def cut(wave: Tensor, lengths: Tensor) -> Tensor:
    """wave [B,S] with zeros behind its `lengths` [B] samples."""
    return wave * length_mask(wave, lengths)


def match_level(estimate: Tensor, mixture: Tensor, lengths: Tensor) -> Tensor:
    """Scales estimate [B,S] to its level and sign in mixture [B,S] of `lengths` [B] samples; zeros behind; silence stays silence.

    SI-SDR leaves a model's output level open. The least-squares gain is the right one where target and interferers are
    uncorrelated: what the mixture holds of the target is then the target itself.
    """
    estimate = cut(estimate, lengths)
    energy = estimate.square().sum(-1, keepdim=True)
    return estimate * (estimate * mixture).sum(-1, keepdim=True) / energy.clamp_min(torch.finfo(estimate.dtype).tiny)
