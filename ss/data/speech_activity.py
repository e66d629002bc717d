"""Where in a recording somebody speaks, and where there is a pause, told by its level.

Shapes: N samples of a recording, S of a cut.
"""

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave

BLOCK = 0.032  # seconds over which the level is taken to find silence
MARGIN = 2  # blocks kept around what is not silent: word onsets and ends are quiet, and stops inside words are not pauses
PAUSE = 0.1  # a cut with less than this part of its wave's mean power is mostly a pause
DRAWS = 8  # of a cut, until it is not in a pause


def find_speech(wave: Wave, db: float, sample_rate: int) -> tuple[tuple[int, int], ...]:
    """Starts and stops, in samples, of the parts of a wave [N] that are within `db` of its loudest block."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], find_active(wave, db, sample_rate), [0]]))) * round(BLOCK * sample_rate)
    return tuple((int(start), int(min(stop, len(wave)))) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def find_active(wave: Wave, db: float, sample_rate: int) -> NDArray[np.bool_]:
    """Which blocks of a wave [N] are within `db` of the loudest one, or near such a block; blocks last `BLOCK` seconds."""
    energy = np.add.reduceat(np.square(wave), np.arange(0, len(wave), round(BLOCK * sample_rate)))
    loud = energy >= energy.max() * 10 ** (-db / 10)
    return np.convolve(loud, np.ones(2 * MARGIN + 1), "full")[MARGIN:-MARGIN] > 0


def draw_speech(wave: Wave, samples: int | None, rng: np.random.Generator) -> int:
    """Where a cut of so many samples may start, drawn, but not in a pause: silence teaches nothing."""
    if samples is None or len(wave) <= samples:
        return 0
    starts = rng.integers(len(wave) - samples + 1, size=DRAWS)
    floor = PAUSE * np.square(wave).mean()
    return int(next((start for start in starts if np.square(wave[start:][:samples]).mean() >= floor), starts[0]))
