"""Learning from a larger model: part of the loss asks for the teacher's output instead of the target (Hinton et al., 2015)."""

from typing import Any

import torch
from torch import Tensor, nn

from ss.checkpoint import load_extractor
from ss.datasets import Batch
from ss.extraction import match_level, separate
from ss.loss import LossOutput
from ss.trainer import Trainer


class DistillingTrainer(Trainer):
    """A Trainer with a teacher; config["distil"] = {"teacher": a checkpoint, "weight": the part of the loss}.

    The teacher hears the same mixture and enrolment, whole or in the same chunks, and may be any extractor at the same sample rate.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight: float = self.config["distil"]["weight"]
        self.teacher = load_extractor(self.config["distil"]["teacher"], self.device).requires_grad_(False)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[LossOutput, Tensor]:
        """See Trainer. Validation is against the target alone."""
        loss, waves = super().forward(model, batch)
        if not torch.is_grad_enabled():
            return loss, waves
        with torch.no_grad():
            taught = separate(self.teacher, self.streamer, batch.mixture, batch.ref, batch.ref_lengths, batch.lengths).waves[0]
            if not self.loss.fixes_level:
                taught = match_level(taught, batch.mixture, batch.lengths)
        references = (self.loss.reference(wave, batch.lengths, batch.mixture) for wave in (taught, batch.target))
        from_teacher, from_target = (self.loss.distortion(waves, reference).mean() for reference in references)
        weight = self.weight * self.loss.weights[0]
        return loss._replace(total=loss.total + weight * (from_teacher - from_target)), waves
