"""Training losses: negative SI-SDR of every scale and the cross-entropy of the enrolment's speaker (SpEx+, Ge et al., 2020).

Shapes: B batch, S samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UNKNOWN_SPEAKER = -100
EPS = 1e-6  # in the ratio, so that a silent target or a perfect estimate stays finite


class Loss(NamedTuple):
    """loss [] to minimise; si_sdr [B] in dB of the first scale; correct [B]: 1 where the speaker was recognised, NaN if unknown."""

    loss: Tensor
    si_sdr: Tensor
    correct: Tensor


def masked_si_sdr(estimate: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """SI-SDR in dB (Le Roux et al., 2019) of estimate and target [B,S] over their first `lengths` [B] samples, zero-mean -> [B]."""
    mask = torch.arange(target.shape[-1], device=target.device) < lengths[:, None]
    estimate, target = (zero_mean(x, mask) for x in (estimate, target))
    scale = (estimate * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + EPS)
    error = (scale * target - estimate).square().sum(-1)
    return 10 * torch.log10((scale * target).square().sum(-1) / (error + EPS) + EPS)


def zero_mean(x: Tensor, mask: Tensor) -> Tensor:
    """x [B,S] less its mean over mask [B,S], and zero outside of it."""
    x = x * mask
    return (x - x.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)) * mask


class SpexPlusLoss(nn.Module):
    """-(sum of weights[i] * SI-SDR of scale i) + gamma * cross-entropy; a speaker id of -100 adds nothing to the latter.

    Every term is a mean over the batch, unknown speakers included, so that losses of parts of a batch average to the whole's.
    """

    def __init__(self, weights: Sequence[float] = (0.8, 0.1, 0.1), gamma: float = 0.5) -> None:
        super().__init__()
        self.weights, self.gamma = tuple(weights), gamma

    def forward(self, waves: Sequence[Tensor], logits: Tensor, target: Tensor, lengths: Tensor, speakers: Tensor) -> Loss:
        """waves [B,S] per scale, logits [B,n], target [B,S], lengths [B], speakers [B] -> Loss."""
        if len(waves) != len(self.weights):
            raise ValueError(f"this loss is for a model of {len(self.weights)} scales, but the model gave {len(waves)}")
        scores = [masked_si_sdr(wave, target, lengths) for wave in waves]
        distortion = -sum(weight * score.mean() for weight, score in zip(self.weights, scores, strict=True))
        entropy = F.cross_entropy(logits, speakers, ignore_index=UNKNOWN_SPEAKER, reduction="none").mean()
        correct = (logits.argmax(-1) == speakers).float().masked_fill(speakers == UNKNOWN_SPEAKER, torch.nan)
        return Loss(distortion + self.gamma * entropy, scores[0].detach(), correct)


class SpexPlusShortLoss(SpexPlusLoss):
    """The same for models of one scale."""

    def __init__(self, gamma: float = 0.5) -> None:
        super().__init__((1.0,), gamma)
