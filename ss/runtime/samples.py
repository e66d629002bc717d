"""Samples as they come, and as the model wants them: mono float32 of the model's rate.

Shapes: R or n samples.
"""

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from ss.audio import Wave

LOUDEST = 8.0  # times full scale: what lies beyond is no audio
QUIETEST = 1e-20  # below it arithmetic slows down, and nobody hears it
FULL_SCALE = 32768.0


def to_float(samples: NDArray[Any]) -> Wave:
    """int16 or float32 -> float32 in -1..1. Raises ValueError for another type."""
    if samples.dtype == np.float32:
        return samples
    if samples.dtype == np.int16:
        return samples / np.float32(FULL_SCALE)
    raise ValueError(f"expected samples of int16 or float32, got {samples.dtype}")


def to_type(wave: Wave, dtype: np.dtype[Any]) -> NDArray[Any]:
    """float32 -> float32, or int16, rounded and clipped."""
    if dtype == np.float32:
        return wave
    return np.rint(wave * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(dtype)


def repaired(wave: Wave) -> tuple[Wave, int]:
    """A wave that can be computed with, and how many samples were replaced: NaN and infinite ones, by 0.

    Far too loud ones are clipped, denormal ones are 0; those are not counted.
    """
    level = np.abs(wave)
    if level.max(initial=0) <= LOUDEST:  # not so where one is NaN
        return np.where(level < QUIETEST, np.float32(0), wave), 0
    fine = np.isfinite(wave)
    bad = int(fine.size - np.count_nonzero(fine))
    return np.where(fine & (level >= QUIETEST), wave.clip(-LOUDEST, LOUDEST), np.float32(0)), bad


def mono_float(samples: NDArray[Any], rate: int, wanted: int) -> Wave:
    """A whole recording [R] or [R,channels] of int16 or float32 -> [R'] at the wanted rate. Raises ValueError for what is none."""
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"expected samples [n] or [n,channels], got an array of shape {list(samples.shape)}")
    wave = to_float(samples)
    wave = wave if wave.ndim == 1 else wave.mean(1)
    if not np.isfinite(wave).all():
        raise ValueError(f"expected finite samples, found {np.count_nonzero(~np.isfinite(wave))} that are NaN or infinite")
    return wave if rate == wanted else soxr.resample(wave, rate, wanted).astype(np.float32)
