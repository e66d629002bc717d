"""What an extractor does when there is nothing to extract from: the target is silent, or alone already.

Shapes: S samples.
"""

import numpy as np

from ss.metric.base import Array, CannotCompute, SingleMetric, check, is_silent
from ss.metric.perceptual import STOI
from ss.metric.ratios import decibels, energy

SPEAKS = "the target speaks"
NOT_CLEAN = "the mixture is not the clean target"
OTHER_SCENES = frozenset({SPEAKS, NOT_CLEAN})  # reasons why a metric of this module is not for an utterance


class Suppression(SingleMetric):
    """Energy of the output over that of the mixture in dB where the target is silent: the lower the better.

    floor: the least value in dB; an output of zeros has it, so that it can be part of a mean.
    """

    def __init__(self, floor: float = -100.0) -> None:
        self.floor = floor

    def value(self, estimate: Array, target: Array, *mixture: Array) -> float:
        """For waves [S]. Raises CannotCompute where the target speaks or the mixture is silent as well."""
        if not estimate.size:
            raise CannotCompute("there are no samples")
        if not is_silent(target):
            raise CannotCompute(SPEAKS)
        if not np.isfinite(estimate).all():
            raise CannotCompute("the estimate is not finite")
        if is_silent(mixture[0]):
            raise CannotCompute("the mixture is silent")
        return max(self.floor, decibels(energy(estimate), energy(mixture[0])))


class STOIDrop(SingleMetric):
    """How much intelligibility a mixture that is the clean target loses: its STOI, which is 1, less that of the estimate."""

    def __init__(self, sample_rate: int = 16000) -> None:
        self.stoi = STOI(sample_rate)

    def value(self, estimate: Array, target: Array, *mixture: Array) -> float:
        """For waves [S]. Raises CannotCompute where there is anything but the target in the mixture."""
        if not np.array_equal(mixture[0], target):
            raise CannotCompute(NOT_CLEAN)
        check(estimate, target)
        return self.stoi.compute(target, target) - self.stoi.compute(estimate, target)
