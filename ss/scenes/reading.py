"""Parts of audio files at one rate, as float32: decoded once and kept, as far as a budget of memory goes.

Shapes: N samples.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.audio import AudioError, Wave

FULL_SCALE = 32768


class Reader:
    """cache_mb: megabytes of decoded audio (int16) that are kept; 0: each part is decoded when it is asked for.

    One of it serves one process; what it keeps changes no byte of what it gives.
    """

    def __init__(self, sample_rate: int, cache_mb: float = 0) -> None:
        self.sample_rate, self.budget, self.used = sample_rate, int(cache_mb * 1e6), 0
        self.kept: OrderedDict[str, NDArray[np.int16]] = OrderedDict()

    def read(self, path: audio.File, start: int = 0, stop: int | None = None) -> Wave:
        """Samples start..stop of a file at the reader's rate. Raises AudioError for what cannot be read, or is shorter."""
        key = str(path)
        if not self.budget and path_can_be_cut(key) and audio.sample_rate_of(path) == self.sample_rate:
            part = on_grid(audio.read(path, self.sample_rate, start, stop, downmix=True))
        else:
            part = self.whole(key, path)[start:stop]
        wave = part.astype(np.float32) / np.float32(FULL_SCALE)
        if stop is not None and len(wave) != stop - start:
            raise AudioError(f"{path}: expected samples {start} to {stop}, found {len(wave)} of these {stop - start}")
        return wave

    def loop(self, path: audio.File, start: int, samples: int) -> Wave:
        """So many samples of a file from `start` on, which goes on with its beginning where it ends."""
        part = np.take(self.whole(str(path), path), np.arange(start, start + samples), mode="wrap")
        return part.astype(np.float32) / np.float32(FULL_SCALE)

    def whole(self, key: str, path: audio.File) -> NDArray[np.int16]:
        """A file at the reader's rate, from memory if it is there."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        wave = decoded(path, self.sample_rate)
        self.kept[key], self.used = wave, self.used + wave.nbytes
        while self.used > self.budget and self.kept:
            self.used -= self.kept.popitem(last=False)[1].nbytes
        return wave


def path_can_be_cut(path: str) -> bool:
    """Whether a part of a file decodes to the same samples as in the whole: not so where a codec needs what went before."""
    return path.lower().endswith((".wav", ".flac"))


def decoded(path: audio.File, sample_rate: int) -> NDArray[np.int16]:
    """A whole file at a rate, to 16 bits."""
    return on_grid(audio.read_any(path, sample_rate))


def on_grid(wave: Wave) -> NDArray[np.int16]:
    """A wave [N] in 16 bits."""
    return np.rint(np.clip(wave * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)
