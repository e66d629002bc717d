"""Decoded audio in memory, shared by the processes that prepare batches.

Shapes: S samples.
"""

import mmap
from collections.abc import Sequence
from multiprocessing import Lock

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.audio import Wave


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
