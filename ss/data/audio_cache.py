"""Decoded audio in memory: files are decoded once and kept, as far as a budget of memory goes.

`AudioCache` holds the files of a data set, which every epoch asks for once each, for all processes that are forked from one.
`Reader` holds parts of files of a corpus of any size, at one rate, for one process, those that were used last.
Shapes: N or S samples.
"""

import mmap
from collections import OrderedDict
from collections.abc import Sequence
from multiprocessing import Lock

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.audio import AudioError, Wave
from ss.data.triplet import FULL_SCALE


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


class AudioCache:
    """Files of one sample rate; each is decoded once and then kept, as long as there is room for it: nothing is thrown out.

    For every epoch asks for every file once, so that of a cache that throws out what is old, least would be found again. Processes
    that are forked from this one share what any of them has decoded; memory is taken as it fills. A process that is started in
    another way begins with an empty cache of its own. megabytes: 4 bytes a sample; 0 for none.
    """

    def __init__(self, files: Sequence[audio.File], sample_rate: int, megabytes: float) -> None:
        self.sample_rate, self.megabytes, self.files = sample_rate, megabytes, list(files)
        self.numbers = {str(file): number for number, file in enumerate(files)}
        self.samples: Wave = shared_array(int(megabytes * 1e6) // 4, np.float32)
        self.spans: NDArray[np.int64] = shared_array(2 * len(files) + 1, np.int64)  # start and stop of each, and where room begins
        self.lock = Lock()

    def __reduce__(self) -> tuple[type["AudioCache"], tuple[Sequence[audio.File], int, float]]:
        return AudioCache, (self.files, self.sample_rate, self.megabytes)

    def read(self, file: audio.File) -> Wave:
        """The samples [S] of one of the files, not to be changed. Raises AudioError as `ss.audio.read` does."""
        number = self.numbers[str(file)]
        start, stop = self.spans[2 * number : 2 * number + 2]
        if stop:
            return self.samples[start:stop]
        wave = audio.read(file, self.sample_rate)
        with self.lock:
            start, stop = self.spans[-1], self.spans[-1] + len(wave)
            if stop > len(self.samples):
                return wave
            self.spans[-1] = stop
        self.samples[start:stop] = wave
        self.spans[2 * number], self.spans[2 * number + 1] = start, stop
        return wave


def shared_array(length: int, dtype: type) -> NDArray:
    """Zeros [length] that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(1, length) * np.dtype(dtype).itemsize), dtype)[:length]
