"""Training losses: distance of every scale from the target and cross-entropy of the enrolment's speaker (SpEx+, Ge et al., 2020).

Shapes: B batch, S samples, F frames, n speakers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ss.errors import UserError

UNKNOWN_SPEAKER = -100
EPS = 1e-6  # in the ratio, so that a silent target or a perfect estimate stays finite
TINY = 1e-10  # energy beside which silence has a level in dB
FRAME = 0.02  # seconds over which activity is judged
ACTIVE_DB = 40.0  # below the loudest frame of a target: it speaks in what is louder
WIDENING = 0.2  # seconds before and after what is active that count as active too: pauses between words
SHORTEST = 0.1  # seconds; less than that of an inactive target adds nothing
SILENT = 1e-4  # a mixture whose mean power where the target is inactive is this part of its own adds nothing either
LOWEST_DB = -100.0  # reported for an output of zeros


class LossOutput(NamedTuple):
    """What a loss says of a batch.

    total []: to minimise. si_sdr [B]: in dB of the first scale, NaN for a target of zeros. correct [B]: 1 where the speaker was
    recognised, NaN if unknown. inactive_db [B]: the output's energy over the mixture's where the target is inactive, in dB,
    NaN where it never is or the loss does not ask for silence.
    """

    total: Tensor
    si_sdr: Tensor
    correct: Tensor
    inactive_db: Tensor


class Reference(NamedTuple):
    """What the estimates of a batch are compared with, worked out once for all of them.

    target and mixture (None where the loss needs none) [B,S] of `lengths` [B] samples; masks, bool [B,S]: active, where the target
    is asked for; inactive, where silence is.
    """

    target: Tensor
    lengths: Tensor
    mixture: Tensor | None
    active: Tensor
    inactive: Tensor | None = None


def masked_si_sdr(estimate: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """SI-SDR in dB (Le Roux et al., 2019) of estimate and target [B,S] over their first `lengths` [B] samples, zero-mean -> [B]."""
    mask = length_mask(target, lengths)
    estimate, target = estimate * mask, target * mask
    estimate, target = ((x - x.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)) * mask for x in (estimate, target))
    scale = (estimate * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + EPS)
    error = (scale * target - estimate).square().sum(-1)
    return 10 * torch.log10((scale * target).square().sum(-1) / (error + EPS) + EPS)


def length_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """Mask of the first `lengths` [B] samples of x [B,S] -> bool [B,S]."""
    return torch.arange(x.shape[-1], device=x.device) < lengths[:, None]


def activity(target: Tensor, lengths: Tensor, sample_rate: int) -> Tensor:
    """Where a target [B,S] speaks, by its energy over frames of 20 ms -> bool [B,S]; nowhere if it is zeros.

    Frames within 40 dB of the loudest are active, and what is within 0.2 s of such a frame, so that pauses between words are.
    """
    frame, reach = round(FRAME * sample_rate), round(WIDENING / FRAME)
    mask = length_mask(target, lengths)
    padded = F.pad(target * mask, (0, -target.shape[-1] % frame))
    energy = padded.unflatten(-1, (-1, frame)).square().sum(-1)  # [B,F]
    loud = (energy >= energy.amax(-1, keepdim=True) * 10 ** (-ACTIVE_DB / 10)) & (energy > 0)
    near = F.max_pool1d(loud.float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0
    return near.repeat_interleave(frame, -1)[:, : target.shape[-1]] & mask


def energy_over(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of squares of x [B,S] over mask [B,S] -> [B]."""
    return (x * mask).square().sum(-1)


def thresholded_ratio(error: Tensor, reference: Tensor, tau: float) -> Tensor:
    """Energies [B] -> 10 log10(error / reference) in dB, not below that of tau; 0 where both are nothing."""
    return 10 * torch.log10((error + tau * reference + TINY) / (reference + TINY))


def inactive_db(estimate: Tensor, reference: Reference) -> Tensor:
    """See LossOutput; estimate [B,S] -> [B], not below -100 dB."""
    mixture, inactive = reference.mixture, reference.inactive
    if mixture is None or inactive is None:
        return torch.full_like(estimate[:, 0], torch.nan)
    level = 10 * torch.log10(energy_over(estimate, inactive) / energy_over(mixture, inactive))
    return torch.where(inactive.any(-1), level.clamp_min(LOWEST_DB), torch.nan)


class ExtractionLoss(nn.Module, ABC):
    """Sum of weights[i] * distortion of scale i, + gamma * cross-entropy; a speaker id of -100 adds nothing to the latter.

    Every term is a mean over the batch, unknown speakers included, so that losses of parts of a batch average to the whole's.
    A subclass says what the distortion is. fixes_level: whether a model trained with it has the right output level by itself.
    """

    fixes_level: ClassVar[bool] = False

    def __init__(self, weights: Sequence[float] = (0.8, 0.1, 0.1), gamma: float = 0.5) -> None:
        super().__init__()
        self.weights, self.gamma = tuple(weights), gamma

    def forward(
        self,
        waves: Sequence[Tensor],
        logits: Tensor,
        target: Tensor,
        lengths: Tensor,
        speakers: Tensor,
        mixture: Tensor | None = None,
    ) -> LossOutput:
        """waves [B,S] per scale, logits [B,n], target [B,S], lengths [B], speakers [B], mixture [B,S] -> LossOutput."""
        if len(waves) != len(self.weights):
            raise UserError(f"this loss is for a model of {len(self.weights)} scales, but the model gave {len(waves)}")
        reference = self.reference(target, lengths, mixture)
        distortions = [self.distortion(wave, reference).mean() for wave in waves]
        distortion = sum(weight * value for weight, value in zip(self.weights, distortions, strict=True))
        entropy = F.cross_entropy(logits, speakers, ignore_index=UNKNOWN_SPEAKER, reduction="none").mean()
        correct = (logits.argmax(-1) == speakers).float().masked_fill(speakers == UNKNOWN_SPEAKER, torch.nan)
        with torch.no_grad():
            silent = ~(target * length_mask(target, lengths)).any(-1)
            si_sdr = masked_si_sdr(waves[0], target, lengths).masked_fill(silent, torch.nan)
        return LossOutput(distortion + self.gamma * entropy, si_sdr, correct, inactive_db(waves[0].detach(), reference))

    def reference(self, target: Tensor, lengths: Tensor, mixture: Tensor | None) -> Reference:
        """target and mixture [B,S], lengths [B] -> Reference. Raises ValueError where a mixture is needed and missing."""
        return Reference(target, lengths, mixture, length_mask(target, lengths))

    @abstractmethod
    def distortion(self, estimate: Tensor, reference: Reference) -> Tensor:
        """How far an estimate [B,S] is from its target, in dB -> [B]."""


class SpexPlusLoss(ExtractionLoss):
    """The distortion is negative SI-SDR: it leaves the output's level open, and says nothing about a silent target."""

    def distortion(self, estimate: Tensor, reference: Reference) -> Tensor:
        return -masked_si_sdr(estimate, reference.target, reference.lengths)


class SpexPlusShortLoss(SpexPlusLoss):
    """The same for models of one scale."""

    def __init__(self, gamma: float = 0.5) -> None:
        super().__init__((1.0,), gamma)


class PresenceLoss(ExtractionLoss):
    """For models that must know when the target is silent and whose output has the target's level in the mixture.

    Where the target is active (see `activity`) the distortion of an utterance is the negative thresholded SDR
    10 log10((|s - e|^2 + tau |s|^2) / |s|^2) of Wisdom et al. ("What's all the fuss about free universal sound separation data",
    2021). Where it is inactive, 10 log10((|e|^2 + tau_inactive |x|^2) / |x|^2) with the mixture x is added, times
    `inactive_weight` and the inactive part of the utterance's duration. The taus bound what there is to gain: 1e-3 is 30 dB.
    Inactive time of less than 0.1 s, or in which the mixture is silent too, adds nothing. sample_rate: of the waves, in Hz.
    """

    fixes_level = True

    def __init__(
        self,
        gamma: float = 0.5,
        inactive_weight: float = 0.2,
        tau: float = 1e-3,
        tau_inactive: float = 1e-2,
        sample_rate: int = 16000,
        weights: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__(weights, gamma)
        self.inactive_weight, self.tau, self.tau_inactive, self.sample_rate = inactive_weight, tau, tau_inactive, sample_rate

    def reference(self, target: Tensor, lengths: Tensor, mixture: Tensor | None) -> Reference:
        """See ExtractionLoss. Silence is asked for nowhere in an utterance in which that is too short, or silent anyway."""
        if mixture is None:
            raise ValueError("mixture: this loss needs the mixture [B,S], as silence is measured against it; got none")
        heard, active = length_mask(target, lengths), activity(target, lengths, self.sample_rate)
        silent = heard & ~active
        samples = silent.sum(-1)
        power, of_all = energy_over(mixture, silent) / samples.clamp_min(1), energy_over(mixture, heard) / lengths
        counts = (samples >= SHORTEST * self.sample_rate) & (power > SILENT * of_all)
        return Reference(target, lengths, mixture, active, silent & counts[:, None])

    def distortion(self, estimate: Tensor, reference: Reference) -> Tensor:
        target, lengths, mixture, active, inactive = reference
        assert mixture is not None
        assert inactive is not None
        wrong = thresholded_ratio(energy_over(target - estimate, active), energy_over(target, active), self.tau)
        heard = thresholded_ratio(energy_over(estimate, inactive), energy_over(mixture, inactive), self.tau_inactive)
        return wrong + self.inactive_weight * inactive.sum(-1) / lengths * heard
