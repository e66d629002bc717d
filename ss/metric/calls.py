"""What a listener meets in a call of minutes, where the target speaks in turns: what is heard in its pauses, how much of its speech
is lost, and how soon it is heard when it begins.

All of it is decided frame by frame, by the target's level over its own loudest frame: above -30 dB it speaks, at most -60 dB it is
silent, and what lies between (ends of words, breath, the hum of its recording) counts as neither.

Shapes: S samples, N frames of 20 ms, L samples of a frame.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ss.metric.absence import Suppression
from ss.metric.base import NO_SPEECH, Array, CannotCompute, SingleMetric

FRAME = 0.02  # seconds
SPEECH_DB, SILENCE_DB = -30, -60
MUTED_DB = -20  # of the estimate over the target: a tenth of its amplitude, more than any error of the level
HALF_SECOND = 25  # frames


class PauseLevel(Suppression):
    """Energy of the output over that of the mixture in dB, in the frames where the target is silent: the lower the better."""

    def __init__(self, sample_rate: int = 16000, floor: float = -100.0) -> None:
        super().__init__(floor)
        self.sample_rate = sample_rate

    def value(self, estimate: Array, target: Array, *mixture: Array) -> float:
        """For waves [S]. Raises CannotCompute where the target is never silent, or the mixture is silent as well."""
        heard, said, mixed = (cut_frames(wave, self.sample_rate) for wave in (estimate, target, *mixture))
        silent = level_of(said) <= SILENCE_DB
        if not silent.any():
            raise CannotCompute("the target is never silent")
        return super().value(heard[silent].ravel(), np.zeros(1), mixed[silent].ravel())


class DuringSpeech(SingleMetric):
    """Another metric, of the frames where the target speaks, joined together. sample_rate: in Hz."""

    def __init__(self, metric: SingleMetric, sample_rate: int = 16000) -> None:
        self.metric, self.sample_rate = metric, sample_rate

    def compute(self, estimate: Array, target: Array) -> float:
        return self.metric.value(*(frames.ravel() for frames in cut_speech(estimate, target, self.sample_rate)))


class CallMetric(SingleMetric):
    """A metric of frames. sample_rate: in Hz."""

    def __init__(self, sample_rate: int = 16000) -> None:
        self.sample_rate = sample_rate


class Muted(CallMetric):
    """Share of the frames where the target speaks in which the output is more than 20 dB below it."""

    def compute(self, estimate: Array, target: Array) -> float:
        heard, said = map(energies, cut_speech(estimate, target, self.sample_rate))
        return float(np.mean(heard < said * 10 ** (MUTED_DB / 10)))


class Settling(SingleMetric):
    """Seconds from the beginning of a turn of the target until it is heard: a quantile of all turns (0.5: the median).

    A turn begins when the target speaks after half a second without, and lasts half a second or more. It is heard from the first
    frame on that has an SI-SDR above 0 dB (more of the target than of all else), if the half second that begins with it has so too:
    a frame may be good by chance, and a half second may be good before the target is heard. A turn that is never heard counts with
    its whole length. sample_rate: in Hz.
    """

    def __init__(self, quantile: float = 0.5, sample_rate: int = 16000) -> None:
        self.quantile, self.sample_rate = quantile, sample_rate

    def compute(self, estimate: Array, target: Array) -> float:
        return float(np.quantile([seconds for seconds, _ in wait_for_turns(estimate, target, self.sample_rate)], self.quantile))


class Unsettled(CallMetric):
    """Share of the turns of the target that are never heard, see `Settling`."""

    def compute(self, estimate: Array, target: Array) -> float:
        return float(np.mean([not is_heard for _, is_heard in wait_for_turns(estimate, target, self.sample_rate)]))


def wait_for_turns(estimate: Array, target: Array, sample_rate: int) -> list[tuple[float, bool]]:
    """Of each turn of the target [S] the seconds until the estimate [S] has it, or its length, and whether it has it at all.

    Raises CannotCompute where there is no turn.
    """
    heard, said = (cut_frames(wave, sample_rate) for wave in (estimate, target))
    sums = np.stack([energies(heard), energies(said), (heard * said).sum(1)])  # [3,N]
    frames = np.flatnonzero(level_of(said) > SPEECH_DB)
    turns = np.split(frames, np.flatnonzero(np.diff(frames) > HALF_SECOND) + 1)
    places = [(int(turn[0]), int(turn[-1]) + 1) for turn in turns if len(turn)]
    places = [(start, stop) for start, stop in places if start >= HALF_SECOND and stop - start >= HALF_SECOND]
    if not places:
        raise CannotCompute("no turn of the target begins after half a second without it")
    halves = sliding_window_view(sums, HALF_SECOND, axis=1).sum(-1)  # of the half second from each frame on
    now, soon = (2 * common**2 > heard * said for heard, said, common in (sums[:, : halves.shape[1]], halves))  # above 0 dB
    waits = []
    for start, stop in places:
        good = np.flatnonzero((now & soon)[start : stop - HALF_SECOND + 1])
        waits.append((FRAME * float(good[0] if len(good) else stop - start), bool(len(good))))
    return waits


def cut_frames(wave: Array, sample_rate: int) -> Array:
    """The whole frames of a wave [S]: [N,L]."""
    samples = round(FRAME * sample_rate)
    return wave[: len(wave) // samples * samples].reshape(-1, samples)


def cut_speech(estimate: Array, target: Array, sample_rate: int) -> tuple[Array, Array]:
    """The frames of both [S] in which the target speaks [N,L]. Raises CannotCompute where it does in none."""
    heard, said = (cut_frames(wave, sample_rate) for wave in (estimate, target))
    speech = level_of(said) > SPEECH_DB
    if not speech.any():
        raise CannotCompute(NO_SPEECH)
    return heard[speech], said[speech]


def energies(frames: Array) -> Array:
    """[N,L] -> [N]."""
    return np.square(frames).sum(1)


def level_of(frames: Array) -> Array:
    """dB of frames [N,L] over the loudest one [N]; silence is below everything."""
    energy = energies(frames)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(10 * np.log10(energy / energy.max(initial=0)), nan=-np.inf, neginf=-np.inf)
