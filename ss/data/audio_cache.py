"""Decoded audio in memory: a file is decoded once and kept, as far as a budget of memory goes.

Shapes: N samples of a file, S of a part of it.
"""

import mmap
from collections.abc import Callable, Iterable
from multiprocessing import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss.audio import AudioError, File, Wave, to_pcm, to_wave


class AudioCache:
    """Files that are kept once they are decoded; all processes that are forked from this one share what any of them has decoded.

    Nothing is thrown out: examples are drawn from everywhere, so what is old is asked for again as soon as what is new. Memory is
    taken as it fills. A process that is started in another way begins with an empty cache. What is kept changes no byte of what is
    read. files: those that may be kept; others can be read too. decode: gives samples `start` to `stop` of a file. dtype: float32,
    or int16: half the memory, as all that is read is rounded to 16 bits.
    """

    def __init__(self, files: Iterable[File], decode: Callable[..., Wave], megabytes: float = 0, dtype: type = np.float32) -> None:
        self.files, self.decode, self.megabytes, self.dtype = list(files) if megabytes else [], decode, megabytes, dtype
        self.numbers = {str(file): number for number, file in enumerate(self.files)}
        self.samples: NDArray[Any] = shared_array(int(megabytes * 1e6) // np.dtype(dtype).itemsize, dtype)
        self.spans: NDArray[np.int64] = shared_array(2 * len(self.files) + 1, np.int64)  # start and stop of each; where room begins
        self.lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioCache, (self.files, self.decode, self.megabytes, self.dtype)

    @property
    def used(self) -> int:
        """Bytes of decoded audio that are kept."""
        return self.samples.itemsize * int((self.spans[1:-1:2] - self.spans[:-1:2]).sum())

    def read(self, file: File, start: int = 0, stop: int | None = None) -> Wave:
        """Samples start..stop [S] of a file, not to be changed. Raises AudioError for one that cannot be read, or is shorter."""
        kept = self._kept(file)
        part = self._decode(file, start=start, stop=stop) if kept is None else kept[start:stop]
        if stop is not None and len(part) != stop - start:
            raise AudioError(f"{file}: expected samples {start} to {stop}, found {len(part)} of these {stop - start}")
        return self._as_wave(part)

    def loop(self, file: File, start: int, samples: int) -> Wave:
        """So many samples [S] of a file from `start` on, which goes on with its beginning where it ends."""
        kept = self._kept(file)
        whole = self._decode(file) if kept is None else kept
        return self._as_wave(np.take(whole, np.arange(start, start + samples), mode="wrap"))

    def _kept(self, file: File) -> NDArray[Any] | None:
        """All of a file [N], if it is in memory or there is room for it."""
        number = self.numbers.get(str(file))
        if number is None:
            return None
        if stop := self.spans[2 * number + 1]:  # is written last, so it is read first
            return self.samples[self.spans[2 * number] : stop]
        if self.spans[-1] == len(self.samples):
            return None
        whole = self._decode(file)
        with self.lock:
            if not self.spans[2 * number + 1]:  # nobody else has decoded it meanwhile
                start, stop = self.spans[-1], self.spans[-1] + len(whole)
                self.spans[-1] = min(stop, len(self.samples))  # what does not fit ends the filling: it would be decoded every time
                if stop <= len(self.samples):
                    self.samples[start:stop] = whole
                    self.spans[2 * number], self.spans[2 * number + 1] = start, stop
        return whole

    def _decode(self, file: File, **part: int | None) -> NDArray[Any]:
        """A file or a part of it, as it is kept."""
        wave = self.decode(file, **part)
        return wave if self.dtype is np.float32 else to_pcm(wave)

    def _as_wave(self, samples: NDArray[Any]) -> Wave:
        return samples if self.dtype is np.float32 else to_wave(samples)


def shared_array(length: int, dtype: type) -> NDArray:
    """Zeros [length] that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(1, length) * np.dtype(dtype).itemsize), dtype)[:length]
