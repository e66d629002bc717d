"""The waves of a mixture, as they are written.

Shapes: S samples of mixture and target, R samples of the enrolment.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EXTENSIONS = ("wav", "flac")  # of the files that hold them
PCM = NDArray[np.int16]
FULL_SCALE = 32768
PEAK = 0.9  # no wave goes beyond this part of full scale


class Mixture(NamedTuple):
    """What one row gives. others: the part of the target that is not asked for (its late reverberation), and noise [S]."""

    mixture: PCM  # [S]
    target: PCM  # [S]
    ref: PCM  # [R]
    interferers: tuple[PCM, ...] = ()
    others: tuple[PCM, ...] = ()
