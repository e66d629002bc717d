"""Streams: any number of samples in, the estimate of the same signal out, sample for sample, and what is left at the end.

Shapes: B streams, n samples that come, m samples that go, D conditions.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave
from ss.runtime.resample import Resampler
from ss.runtime.samples import repaired, to_float, to_type

if TYPE_CHECKING:
    from ss.runtime.extractor import Extractor

MOST = 128  # hops in one run of the model, so that a whole recording at once needs no more memory than a second of it


class BatchStream:
    """Streams that advance together, each with a speaker of its own: one run of the model a call.

    conditions [B,D]; sample_rate: of what comes and goes, in Hz (None: the model's). repaired: samples so far that were NaN or
    infinite and have been taken for 0.
    """

    def __init__(self, extractor: "Extractor", conditions: Wave, sample_rate: int | None = None) -> None:
        self.extractor, self.conditions = extractor, conditions
        self.batch, self.sample_rate = len(conditions), sample_rate or extractor.sample_rate
        self.reset()

    def reset(self) -> None:
        """Begins anew, with the same speakers."""
        rate = self.extractor.sample_rate
        self.taken = self.given = self.repaired = 0  # samples of the outer rate
        self.heard, self.early = 0, self.extractor.delay  # samples of the model's rate; those before the beginning are dropped
        self.states = self.extractor.zeros(self.batch)
        self.waiting = self._nothing()
        self.coming = Resampler(self.batch, self.sample_rate, rate)
        self.going = Resampler(self.batch, rate, self.sample_rate)
        self.dtype, self.ended = np.dtype(np.float32), False

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """samples [B,n] or [B,n,channels], int16 or float32, any n -> the next [B,m] of the estimates, mono, of the same type.

        Raises ValueError for other shapes and types, and after `flush`.
        """
        if self.ended:
            raise ValueError("the stream has ended: call reset() to begin a new one")
        samples = np.asarray(samples)
        if samples.ndim not in (2, 3) or len(samples) != self.batch:
            raise ValueError(f"expected samples [{self.batch},n] or [{self.batch},n,channels], got shape {list(samples.shape)}")
        wave, bad = repaired(to_float(samples))
        self.repaired, self.dtype, self.taken = self.repaired + bad, samples.dtype, self.taken + samples.shape[1]
        return self._give(self.going(self._extract(self.coming(wave if wave.ndim == 2 else wave.mean(2)))))

    def flush(self) -> NDArray[Any]:
        """Ends the streams: the rest [B,m], so that as many samples have come out as went in."""
        if self.ended:
            raise ValueError("the stream has ended: call reset() to begin a new one")
        self.ended = True
        estimate = [self._extract(self.coming(self._nothing(), last=True))]
        beyond = -(self.heard + self.extractor.delay) % self.extractor.hop  # fills the last hop
        estimate.append(self._extract(np.zeros((self.batch, self.extractor.delay + beyond), np.float32)))
        tail = np.concatenate(estimate, 1)
        return self._give(self.going(tail[:, : tail.shape[1] - beyond], last=True))

    def _extract(self, wave: Wave) -> Wave:
        hop, step = self.extractor.hop, self.extractor.step
        self.heard += wave.shape[1]
        wave = np.concatenate([self.waiting, wave], 1) if self.waiting.size else wave
        whole = wave.shape[1] // hop * hop
        self.waiting, done = wave[:, whole:], []
        for begin in range(0, whole, MOST * hop):
            chunk = np.ascontiguousarray(wave[:, begin : min(begin + MOST * hop, whole)])
            estimate, self.states = step(chunk, self.conditions, self.states)
            done.append(estimate)
        return self._on_time(done[0] if len(done) == 1 else np.concatenate([self._nothing(), *done], 1))

    def _on_time(self, estimate: Wave) -> Wave:
        if not self.early:
            return estimate
        dropped = min(self.early, estimate.shape[1])
        self.early -= dropped
        return estimate[:, dropped:]

    def _give(self, estimate: Wave) -> NDArray[Any]:
        if self.ended:  # resampling may leave a sample too few or too many
            missing = self.taken - self.given - estimate.shape[1]
            estimate = np.pad(estimate, ((0, 0), (0, missing))) if missing > 0 else estimate[:, : estimate.shape[1] + missing]
        self.given += estimate.shape[1]
        return to_type(estimate, self.dtype)

    def _nothing(self) -> Wave:
        return np.zeros((self.batch, 0), np.float32)


class Stream:
    """One stream of one speaker; see BatchStream."""

    def __init__(self, batch: BatchStream) -> None:
        self.batch, self.sample_rate = batch, batch.sample_rate

    @property
    def repaired(self) -> int:
        """Samples so far that were NaN or infinite and have been taken for 0."""
        return self.batch.repaired

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """samples [n] or [n,channels], int16 or float32, any n -> the next [m] of the estimate, mono, of the same type.

        The outputs one after the other, with that of `flush`, are aligned with the input. Raises ValueError for other shapes and
        types, and after `flush`.
        """
        samples = np.asarray(samples)
        if samples.ndim not in (1, 2):
            raise ValueError(f"expected samples [n] or [n,channels], got shape {list(samples.shape)}")
        return self.batch.process(samples[None])[0]

    def flush(self) -> NDArray[Any]:
        """Ends the stream: the rest [m], so that as many samples have come out as went in."""
        return self.batch.flush()[0]

    def reset(self) -> None:
        """Begins anew, with the same speaker."""
        self.batch.reset()
