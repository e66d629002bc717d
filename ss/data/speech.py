"""Which parts of a recording are speech and which are pauses, by their level.

Shapes: N samples.
"""

import numpy as np
from numpy.typing import NDArray

from ss import audio

BLOCK = 0.032  # seconds over which the level is taken to find silence
MARGIN = 2  # blocks kept around what is not silent: word onsets and ends are quiet, and stops inside words are not pauses


def active(wave: audio.Wave, db: float, sample_rate: int) -> NDArray[np.bool_]:
    """Which blocks of a wave [N] are within `db` of the loudest one, or near such a block; blocks last `BLOCK` seconds."""
    energy = np.add.reduceat(np.square(wave), np.arange(0, len(wave), round(BLOCK * sample_rate)))
    loud = energy >= energy.max() * 10 ** (-db / 10)
    return np.convolve(loud, np.ones(2 * MARGIN + 1), "full")[MARGIN:-MARGIN] > 0
