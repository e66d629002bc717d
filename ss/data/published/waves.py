"""Sources as the published scripts read and fit them.

Shapes: N samples of a source.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.data.published.rows import Part
from ss.data.published.settings import Roots
from ss.data.shards import file_of

Signal = NDArray[Any]  # float32 or float64, whichever the original has there: the last bit depends on it
RATE = 16000  # of LibriSpeech, WHAM and WSJ0


def speech(part: Part, roots: Roots) -> audio.Wave:
    """A file [N], all of it: one cut short after its header was written is an error."""
    path = file_of(roots.speech, part.path)
    wave, n = audio.read(path, RATE), audio.n_samples(path)
    if len(wave) != n:
        raise audio.AudioError(f"{path}: expected {n} samples, found {len(wave)}")
    return wave


def fit(waves: Sequence[Signal], mode: str) -> list[Signal]:
    """All as long as the shortest, or as the longest with zeros at the end."""
    length = (min if mode == "min" else max)(map(len, waves))
    return [np.pad(wave[:length], (0, max(0, length - len(wave)))) for wave in waves]
