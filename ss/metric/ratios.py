"""Ratios of target to error in dB: SNR, SI-SDR and the SDR of BSS Eval. A perfect estimate has infinitely many.

Shapes: B batch, S samples, L taps of a filter.
"""

import math

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import LinAlgError, solve_toeplitz

from ss.metric.base import Array, CannotCompute, SingleMetric, check_audible


class SNR(SingleMetric):
    """Signal-to-noise ratio of zero-mean waves: what differs from the target is noise, its level included. Silence has 0 dB."""

    def compute(self, estimate: Array, target: Array) -> float:
        """In dB, of waves [S]."""
        target = target - target.mean()
        return decibels(energy(target), energy(estimate - estimate.mean() - target))


class SISDR(SingleMetric):
    """Scale-invariant signal-to-distortion ratio of zero-mean waves (Le Roux et al., 2019)."""

    def compute(self, estimate: Array, target: Array) -> float:
        """In dB, of waves [S]."""
        check_audible(estimate)
        target, estimate = target - target.mean(), estimate - estimate.mean()
        nearest = (estimate * target).sum() / energy(target) * target
        return decibels(energy(nearest), energy(estimate - nearest))


class SDR(SingleMetric):
    """Signal-to-distortion ratio of BSS Eval (Vincent et al., 2006), the one that papers report: filtering the target is free.

    taps: of that filter; all use 512. Computed as Scheibler (2022) does, by the correlations and a Toeplitz system.
    """

    def __init__(self, taps: int = 512) -> None:
        self.taps = taps

    def compute(self, estimate: Array, target: Array) -> float:
        """In dB, of waves [S]."""
        check_audible(estimate)
        estimate, target = estimate / np.abs(estimate).max(), target / np.abs(target).max()
        size = next_fast_len(len(target) + self.taps - 1, real=True)
        said, heard = rfft(target, size), rfft(estimate, size)
        own = irfft(np.abs(said) ** 2, size)[: self.taps]
        cross = irfft(said.conj() * heard, size)[: self.taps]
        try:
            explained = float((cross * solve_toeplitz(own, cross)).sum())
        except LinAlgError as error:
            raise CannotCompute("the target's spectrum is too narrow for a filter on it") from error
        left = energy(estimate) - explained
        # What lies below the rounding of the correlations is no distortion.
        return decibels(explained, left if left > 1e-12 * explained else 0.0)


def energy(wave: Array) -> float:
    """Sum of squares of [S]."""
    return float((wave**2).sum())


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); infinite where one of them is nothing."""
    if signal <= 0:
        return -math.inf
    return 10 * math.log10(signal / noise) if noise else math.inf
