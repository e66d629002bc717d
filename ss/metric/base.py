"""What every metric is: a measure of an estimate against its target, utterance by utterance, that says why it cannot be given.

A metric never answers 0 or NaN for "no answer": it raises CannotCompute with the reason. All arithmetic is done in float64 on
one utterance at a time, so that a value depends neither on the batch nor on the process it was computed in.

Shapes: B batch, S samples.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ss.loss import UNKNOWN_SPEAKER

Array = NDArray[np.float64]
NO_SPEECH = "the target has no frame of speech"  # a reason of several metrics


class CannotCompute(Exception):  # noqa: N818, the name says what happened
    """This metric has no value for this utterance. `reason`: why, in the same words for the same cause, to be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UtteranceScores(NamedTuple):
    """What the metrics gave for one utterance: finite values by column, and for the columns without one the reason."""

    values: dict[str, float]
    missing: dict[str, str]


class Metric(ABC):
    """A measure of an estimate that fills one or more columns of a table."""

    @abstractmethod
    def record(self, column: str, estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
        """The values for one utterance, waves [S]; `column` names the value of a metric that has only one."""


class SingleMetric(Metric):
    """A metric with one value: `compute` gives it from estimate and target; one that needs the mixture too overrides `value`."""

    def compute(self, estimate: Array, target: Array) -> float:
        """The value for finite waves [S] whose target is not silent. Raises CannotCompute; may be infinite but not NaN."""
        raise NotImplementedError

    def value(self, estimate: Array, target: Array, *mixture: Array) -> float:
        """The value for any waves [S]. Raises CannotCompute."""
        check(estimate, target)
        return self.compute(estimate, target)

    def __call__(self, *waves: Tensor) -> Tensor:
        """estimate, target and, for a metric that needs it, mixture [B,S] -> values [B]. Raises CannotCompute if any has none."""
        return torch.tensor([self.value(*utterance) for utterance in utterances(*waves)], device=waves[0].device)

    def record(self, column: str, estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
        """See Metric. An infinite value is missing too: no mean could hold it."""
        try:
            value = self.value(estimate, target, mixture)
        except CannotCompute as error:
            return UtteranceScores({}, {column: error.reason})
        assert not math.isnan(value), column
        if math.isinf(value):
            return UtteranceScores({}, {column: f"the value is {value}"})
        return UtteranceScores({column: value}, {})


class Improvement(SingleMetric):
    """How much better `metric` finds the estimate than the mixture: of SISDR it makes SI-SDRi, of SDR SDRi, in dB."""

    def __init__(self, metric: SingleMetric) -> None:
        self.metric = metric

    def value(self, estimate: Array, target: Array, *mixture: Array) -> float:
        """The difference for waves [S]. Raises CannotCompute, also where the mixture's own value is infinite."""
        after = self.metric.value(estimate, target)
        try:
            before = self.metric.value(*mixture, target)
        except CannotCompute as error:
            raise CannotCompute(f"with the mixture as estimate: {error.reason}") from error
        if math.isinf(before):
            raise CannotCompute(f"the mixture's own value is {before}")
        return after - before


def utterances(*waves: Tensor) -> list[tuple[Array, ...]]:
    """The waves [B,S] as one tuple of waves [S] per utterance. Raises ValueError for different shapes, or others than [B,S]."""
    if waves[0].ndim != 2 or any(wave.shape != waves[0].shape for wave in waves):
        raise ValueError(f"a metric takes waves of one shape [batch, samples], got {[tuple(wave.shape) for wave in waves]}")
    return list(zip(*(wave.detach().cpu().double().numpy() for wave in waves), strict=True))


def check(estimate: Array, target: Array) -> None:
    """Raises CannotCompute where nothing can be said about an estimate [S] of a target [S]."""
    if not estimate.size:
        raise CannotCompute("there are no samples")
    for what, wave in (("estimate", estimate), ("target", target)):
        if not np.isfinite(wave).all():
            raise CannotCompute(f"the {what} is not finite")
    if is_silent(target):
        raise CannotCompute("the target is silent")


def check_audible(estimate: Array) -> None:
    """Raises CannotCompute where the estimate [S] is silent."""
    if is_silent(estimate):
        raise CannotCompute("the estimate is silent")


def is_silent(wave: Array) -> bool:
    """Whether a wave [S] is constant, but for rounding."""
    return bool(np.abs(wave - wave.mean()).max() <= 1e-10 * np.abs(wave).max())


class ACC:
    """Accuracy of the speaker classifier. An unknown speaker (id -100) is nobody's mistake and gives no value."""

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """logits [B,n], ids [B] -> 1 or 0 for each speaker that is known, in order; empty where none is."""
        if logits.ndim != 2 or ids.shape != logits.shape[:1]:
            got = f"{tuple(logits.shape)} and {tuple(ids.shape)}"
            raise ValueError(f"accuracy takes logits [batch, speakers] and ids [batch], got {got}")
        known = ids != UNKNOWN_SPEAKER
        return (logits[known].argmax(-1) == ids[known]).float()
