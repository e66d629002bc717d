"""Streams: any number of samples in, the estimate of the same signal out, sample for sample, and what is left at the end.

Shapes: B streams, n samples that come, m samples that go, R samples of a whole recording, D conditions, W samples of a segment.
"""

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from ss.audio import Wave, to_pcm, to_wave
from ss.errors import UserError
from ss.runtime.resample import Resampler, check_rate

MOST = 128  # hops in one run of an online model
LOUDEST = 8.0  # times full scale: what lies beyond is no audio
QUIETEST = 1e-20  # below it arithmetic slows down, and nobody hears it
CHANNELS = 64  # more are samples that have been taken for channels


class BatchStream:
    """Streams that advance together, each with a speaker of its own: one run of the model a call.

    model: an Extractor, or another with its online, sample_rate, hop, window, delay, zeros and step. conditions [B,D]. sample_rate:
    of what comes and goes, in Hz (None: the model's). repaired: samples so far that were NaN or infinite and have been taken for 0.
    loudest: times full scale, where they are clipped. Raises UserError for another rate than the model's that is not within RATES.
    """

    def __init__(self, model: Any, conditions: Wave, sample_rate: int | None = None) -> None:
        self.model, self.conditions = model, conditions
        self.batch, self.sample_rate, self.loudest = len(conditions), sample_rate or model.sample_rate, LOUDEST
        if self.sample_rate != model.sample_rate:
            check_rate(self.sample_rate)
        self.reset()

    def reset(self) -> None:
        """Begins anew, with the same speakers."""
        model = self.model
        self.taken = self.given = self.repaired = 0  # samples of the outer rate
        self.heard = 0  # samples of the model's rate
        self.lag = self.early = model.delay - (model.window - model.hop)  # dropped at the beginning
        self.states = model.zeros(self.batch)
        self.waiting = self.tail = np.zeros((self.batch, 0), np.float32)
        self.coming = Resampler(self.batch, self.sample_rate, model.sample_rate)
        self.going = Resampler(self.batch, model.sample_rate, self.sample_rate)
        self.dtype, self.ended = np.dtype(np.float32), False

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """samples [B,n] or [B,n,channels], int16 or floats, any n -> the next [B,m] of the estimates, mono, of the same type.

        Raises ValueError for other shapes and types, and after `flush`.
        """
        refuse_ended(self.ended)
        samples = np.asarray(samples)
        check_shape(samples, f"{self.batch},n")
        if len(samples) != self.batch:
            raise ValueError(f"expected samples of {self.batch} streams, got {len(samples)}")
        second, done = self.sample_rate, []  # at most a second is between input and output, however much comes at once
        for begin in range(0, max(1, samples.shape[1]), second):
            block = samples[:, begin : begin + second]
            wave, bad = repair(to_float(block), self.loudest)
            self.repaired, self.dtype, self.taken = self.repaired + bad, samples.dtype, self.taken + block.shape[1]
            estimate = self.going(self._extract(self.coming(wave if wave.ndim == 2 else wave.mean(2))))
            self.given += estimate.shape[1]
            done.append(to_type(estimate, self.dtype))
        return done[0] if len(done) == 1 else np.concatenate(done, 1)

    def flush(self) -> NDArray[Any]:
        """Ends the streams: the rest [B,m], so that as many samples have come out as went in."""
        refuse_ended(self.ended)
        self.ended = True
        window, hop, nothing = self.model.window, self.model.hop, np.zeros((self.batch, 0), np.float32)
        rest = self._extract(self.coming(nothing, last=True))
        heard = self.heard
        padded = (n_segments(heard + self.lag, window, hop) - 1) * hop + window
        filled = self._extract(np.zeros((self.batch, padded - heard), np.float32))
        estimate = np.concatenate([rest, filled, self.tail], 1)
        estimate = self.going(estimate[:, : estimate.shape[1] - (padded - self.lag - heard)], last=True)
        missing = self.taken - self.given - estimate.shape[1]  # resampling may leave a sample too few or too many
        estimate = np.pad(estimate, ((0, 0), (0, missing))) if missing > 0 else estimate[:, : estimate.shape[1] + missing]
        self.given += estimate.shape[1]
        return to_type(estimate, self.dtype)

    def _extract(self, wave: Wave) -> Wave:
        """wave [B,n] at the model's rate -> what is finished of the estimate [B,m]."""
        model, window, hop = self.model, self.model.window, self.model.hop
        self.heard += wave.shape[1]
        wave = np.concatenate([self.waiting, wave], 1) if self.waiting.size else wave
        ready = max(0, (wave.shape[1] - window + hop) // hop) * hop
        most = MOST * hop if model.online else hop
        self.waiting, done = wave[:, ready:], []
        for begin in range(0, ready, most):
            chunk = np.ascontiguousarray(wave[:, begin : min(begin + most, ready) + window - hop])
            estimate, self.states = model.step(chunk, self.conditions, self.states)
            if not model.online:
                estimate, self.tail = overlap_add(estimate, self.tail, hop)
            done.append(estimate)
        estimate = done[0] if len(done) == 1 else np.concatenate([wave[:, :0], *done], 1)
        dropped = min(self.early, estimate.shape[1])
        self.early -= dropped
        return estimate[:, dropped:]


class Stream(BatchStream):
    """One stream of one speaker; conditions [1,D]. See BatchStream: here, samples and estimates have no dimension of the batch."""

    def process(self, samples: NDArray[Any]) -> NDArray[Any]:
        """samples [n] or [n,channels], int16 or floats, any n -> the next [m] of the estimate, mono, of the same type.

        The outputs one after the other, with that of `flush`, are aligned with the input. Raises ValueError for other shapes and
        types, and after `flush`.
        """
        samples = np.asarray(samples)
        check_shape(samples, "n")
        return super().process(samples[None])[0]

    def flush(self) -> NDArray[Any]:
        """Ends the stream: the rest [m], so that as many samples have come out as went in."""
        return super().flush()[0]


def refuse_ended(ended: bool) -> None:
    """Raises ValueError for a stream that has ended."""
    if ended:
        raise ValueError("the stream has ended: call reset() to begin a new one")


def check_shape(samples: NDArray[Any], known: str) -> None:
    """Raises UserError for samples that have other dimensions than these, such as "2,n", and perhaps channels behind them."""
    n = known.count(",") + 1
    if samples.ndim not in (n, n + 1) or (samples.ndim > n and not 0 < samples.shape[-1] <= CHANNELS):
        expected = f"[{known}] or [{known},channels], at most {CHANNELS} of them"
        raise UserError(f"expected samples {expected}, got shape {list(samples.shape)}")


def to_float(samples: NDArray[Any]) -> Wave:
    """int16, float32 or float64 -> float32 in -1..1. Raises ValueError for another type."""
    if samples.dtype == np.int16:
        return to_wave(samples)
    if samples.dtype in (np.float32, np.float64):
        return samples.astype(np.float32, copy=False)
    raise ValueError(f"expected samples of int16, float32 or float64, got {samples.dtype}")


def to_type(wave: Wave, dtype: np.dtype[Any]) -> NDArray[Any]:
    """float32 -> float32 or float64, or int16, rounded and clipped."""
    return wave.astype(dtype, copy=False) if dtype.kind == "f" else to_pcm(wave)


def repair(wave: Wave, loudest: float) -> tuple[Wave, int]:
    """A wave that can be computed with, and how many samples were replaced: NaN and infinite ones, by 0.

    Far too loud ones are clipped, denormal ones are 0; those are not counted.
    """
    level = np.abs(wave)
    if level.max(initial=0) <= loudest:  # not so where one is NaN
        return np.where(level < QUIETEST, np.float32(0), wave), 0
    fine = np.isfinite(wave)
    bad = int(fine.size - np.count_nonzero(fine))
    return np.where(fine & (level >= QUIETEST), wave.clip(-loudest, loudest), np.float32(0)), bad


def mono_float(samples: NDArray[Any], rate: int, wanted: int) -> Wave:
    """A whole recording [R] or [R,channels] of int16 or floats -> [R'] at the wanted rate. Raises UserError for what is none."""
    check_shape(samples, "n")
    if not len(samples):
        raise UserError("expected samples, got none")
    wave = to_float(samples)
    wave = wave if wave.ndim == 1 else wave.mean(1)
    if not np.isfinite(wave).all():
        raise UserError(f"expected finite samples, found {np.count_nonzero(~np.isfinite(wave))} that are NaN or infinite")
    return wave if rate == wanted else soxr.resample(wave, rate, wanted).astype(np.float32)


def n_segments(samples: int, window: int, step: int) -> int:
    """How many segments cover so many samples, the last one filled up with zeros; at least one."""
    return max(0, -(-(samples - window) // step)) + 1


def overlap_add(wave: Any, tail: Any, step: int) -> tuple[Any, Any]:
    """A segment's output [B,W] and the tail of the one before [B,W-P], [B,0] at first -> finished samples [B,P], its own tail.

    Arrays of numpy or torch; P is `step`. Where two segments overlap, their mean counts; so at most two may: W <= 2P.
    """
    head, rest = wave[:, :step], wave[:, step:]
    return (head + tail) / 2 if tail.shape[-1] else head, rest
