"""Decoded audio in memory: a file is decoded once and kept, as far as a budget of memory goes.

Shapes: N samples of a file, S of a part of it.
"""

import mmap
from collections.abc import Callable, Iterable
from multiprocessing import Lock

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.audio import AudioError, Wave
from ss.data.triplet import FULL_SCALE, PCM


class AudioCache:
    """Files in 16 bits; all processes that are forked from this one share what any of them has decoded.

    Nothing is thrown out: examples are drawn from everywhere, so what is old is asked for again as soon as what is new. Memory is
    taken as it fills. A process that is started in another way begins with an empty cache. What is kept changes no byte of what is
    read. files: those that may be kept; others can be read too. decode: gives samples `start` to `stop` of a file.
    """

    def __init__(self, files: Iterable[audio.File], decode: Callable[..., Wave], megabytes: float = 0) -> None:
        self.files, self.decode, self.megabytes = list(files) if megabytes else [], decode, megabytes
        self.numbers = {str(file): number for number, file in enumerate(self.files)}
        self.samples: PCM = shared_array(int(megabytes * 1e6) // 2, np.int16)
        self.spans: NDArray[np.int64] = shared_array(2 * len(self.files) + 1, np.int64)  # start and stop of each; where room begins
        self.lock = Lock()

    def __reduce__(self) -> tuple[type["AudioCache"], tuple[Iterable[audio.File], Callable[..., Wave], float]]:
        return AudioCache, (self.files, self.decode, self.megabytes)

    @property
    def used(self) -> int:
        """Bytes of decoded audio that are kept."""
        return 2 * int((self.spans[1:-1:2] - self.spans[:-1:2]).sum())

    def read(self, file: audio.File, start: int = 0, stop: int | None = None) -> Wave:
        """Samples start..stop [S] of a file. Raises AudioError for one that cannot be read, or is shorter."""
        kept = self._kept(file)
        pcm = _to_pcm(self.decode(file, start=start, stop=stop)) if kept is None else kept[start:stop]
        if stop is not None and len(pcm) != stop - start:
            raise AudioError(f"{file}: expected samples {start} to {stop}, found {len(pcm)} of these {stop - start}")
        return pcm.astype(np.float32) / np.float32(FULL_SCALE)

    def loop(self, file: audio.File, start: int, samples: int) -> Wave:
        """So many samples [S] of a file from `start` on, which goes on with its beginning where it ends."""
        kept = self._kept(file)
        pcm = _to_pcm(self.decode(file)) if kept is None else kept
        return np.take(pcm, np.arange(start, start + samples), mode="wrap").astype(np.float32) / np.float32(FULL_SCALE)

    def _kept(self, file: audio.File) -> PCM | None:
        """All of a file [N], if it is in memory or there is room for it."""
        number = self.numbers.get(str(file))
        if number is None:
            return None
        start, stop = self.spans[2 * number : 2 * number + 2]
        if stop:
            return self.samples[start:stop]
        if self.spans[-1] == len(self.samples):
            return None
        pcm = _to_pcm(self.decode(file))
        with self.lock:
            start, stop = self.spans[-1], self.spans[-1] + len(pcm)
            self.spans[-1] = min(stop, len(self.samples))  # what does not fit ends the filling, or it would be decoded every time
        if stop > len(self.samples):
            return pcm
        self.samples[start:stop] = pcm
        self.spans[2 * number], self.spans[2 * number + 1] = start, stop
        return pcm


def _to_pcm(wave: Wave) -> PCM:
    return np.rint(np.clip(wave * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1)).astype(np.int16)


def shared_array(length: int, dtype: type) -> NDArray:
    """Zeros [length] that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(1, length) * np.dtype(dtype).itemsize), dtype)[:length]
