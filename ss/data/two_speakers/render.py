"""From one row to its three waves: a pure function of the row and the corpus.

All waves are int16, so that what is written is what was computed: mixture = target + scaled interferer, sample by sample, on
one scale. Shapes: S samples of mixture and target, R samples of the enrolment, N samples of a source.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ss import audio
from ss.data.corpus import Span
from ss.data.shards import Place, file_of
from ss.data.speech import merge, trim
from ss.data.triplet import FULL_SCALE, PCM, PEAK, Triplet
from ss.data.two_speakers.manifest import Row

SILENT = 1e-6  # mean power of -60 dB of full scale: no usable speech is below it
PAUSE = 0.01  # a cut with less than this part of its source's mean power is mostly a pause
DRAWS = 20  # of a cut, until it is not in a pause
SILENT_SHARE = (0.3, 0.7)  # of its time that a partly absent target is silent
FADE = 0.01  # seconds in which it falls silent, and begins again


def render(row: Row, audios_dir: str | Path) -> Triplet:
    """The waves of a row.

    With `audio_len`, target and interferer are cut to it at a random place, or padded with zeros at the end where they are
    shorter. Without, the target is whole, and the interferer is cut or padded to its length. No cut is made in a pause.
    The SNR is the mean power of the target over that of the interferer, each where it is (padding not counted): the ratio of
    their energies where both are as long as the mixture. With `loudness`, it is the difference of their integrated loudness
    instead, the target's being `loudness`. Where a peak would go beyond `PEAK`, all is lowered together. The enrolment is at
    most `ref_max_len` long, cut at a random place, on a scale of its own: as it was, or lower where its peak is beyond `PEAK`.
    Where the target is absent, the interferer is as loud as if it were there; where it is partly absent, its power is taken from
    where it speaks; a clean mixture is the target.
    Raises AudioError for a source that cannot be read, is shorter than the row says, or is silent.
    """
    rng, root = np.random.default_rng(row.seed), str(audios_dir)
    target = _load(root, row.target, row, _samples(row.audio_len, row), rng)
    length = _samples(row.audio_len, row) or len(target)
    interferer = _load(root, row.interferer, row, length, rng)
    ref = _load(root, row.ref, row, _samples(row.ref_max_len, row), rng)
    if row.scene == "partly_absent":
        target = _silence_a_part(target, row, rng)
    target_gain, gain = _gains(target, interferer, length, row)
    target_gain, gain = target_gain * (row.scene != "absent"), gain * (row.scene != "clean")
    target, interferer = _pad(target * target_gain, length), _pad(interferer * gain, length)
    scale = _scale(target, interferer, target + interferer)
    clean, other = _quantise(target, scale), _quantise(interferer, scale)
    return Triplet(clean + other, clean, _quantise(ref, _scale(ref)))


def _samples(seconds: float | None, row: Row) -> int | None:
    return None if seconds is None else max(1, round(seconds * row.sample_rate))


def _load(root: str, span: Span, row: Row, longest: int | None, rng: np.random.Generator) -> audio.Wave:
    """A source without silence, of at most `longest` samples. Nothing is decoded that is not needed."""
    path, n, floor = file_of(root, span.path), span.stop - span.start, SILENT
    whole = None
    if row.trim_db is not None or row.vad_db is not None:
        whole = _spoken(_read(path, row.sample_rate, span.start, span.stop), row)
        n = len(whole)
        if longest is not None and longest < n:
            floor = max(SILENT, PAUSE * _power(whole))
    for _ in range(DRAWS):
        start, stop = _cut(n, longest, rng)
        wave = _read(path, row.sample_rate, span.start + start, span.start + stop) if whole is None else whole[start:stop]
        if _power(wave) >= floor:
            return wave
    raise audio.AudioError(f"{path}: expected speech, found silence in samples {span.start} to {span.stop}")


def _spoken(wave: audio.Wave, row: Row) -> audio.Wave:
    if row.trim_db is not None:
        wave = trim(wave, row.trim_db, row.sample_rate)
    return wave if row.vad_db is None else merge(wave, row.vad_db, row.sample_rate)


def _read(path: Place, sample_rate: int, start: int, stop: int) -> audio.Wave:
    """The samples, all of them: a file cut short after its header was written is an error."""
    wave = audio.read(path, sample_rate, start, stop)
    if len(wave) != stop - start:
        raise audio.AudioError(f"{path}: expected samples {start} to {stop}, found {len(wave)} of these {stop - start}")
    return wave


def _cut(n: int, longest: int | None, rng: np.random.Generator) -> tuple[int, int]:
    """Where to begin and end, at random, to have at most `longest` of n samples."""
    if longest is None or n <= longest:
        return 0, n
    start = int(rng.integers(n - longest + 1))
    return start, start + longest


def _silence_a_part(wave: audio.Wave, row: Row, rng: np.random.Generator) -> audio.Wave:
    """A target with zeros at its beginning, middle or end; what stays is not a pause, and fades at the borders."""
    floor = max(SILENT, PAUSE * _power(wave))
    for _ in range(DRAWS):
        silent = round(len(wave) * rng.uniform(*SILENT_SHARE))
        first = round((len(wave) - silent) * (0, rng.uniform(0.25, 0.75), 1)[rng.integers(3)])  # of the zeros
        fade = round(FADE * row.sample_rate)
        last = first + silent - 1
        gain = np.interp(np.arange(len(wave)), (first - fade, first, last, last + fade), (1, 0, 0, 1))
        if _power(wave[gain > 0]) >= floor:
            return (wave * gain).astype(np.float32)
    raise audio.AudioError(f"{row.target.path}: expected speech beside a silenced part, found {DRAWS} times none")


def _pad(wave: audio.Wave, length: int) -> audio.Wave:
    return wave if len(wave) == length else np.pad(wave, (0, length - len(wave)))


def _power(wave: audio.Wave) -> float:
    return float(np.square(wave).mean())


def _gains(target: audio.Wave, interferer: audio.Wave, length: int, row: Row) -> tuple[float, float]:
    """The factors of target and interferer that give the SNR once both are padded to `length`."""
    if row.loudness is None:
        heard = target[target != 0] if row.scene == "partly_absent" else target
        return 1.0, math.sqrt(_power(heard) / _power(interferer)) * _factor(-row.snr)
    level, other = _loudness(_pad(target, length), row.target, row), _loudness(_pad(interferer, length), row.interferer, row)
    return _factor(row.loudness - level), _factor(row.loudness - row.snr - other)


def _factor(db: float) -> float:
    return float(10 ** (db / 20))


def _loudness(wave: audio.Wave, span: Span, row: Row) -> float:
    """The integrated loudness of a wave in LUFS (ITU-R BS.1770-4)."""
    meter = _meter(row.sample_rate)
    least = round(meter.block_size * row.sample_rate)
    if len(wave) < least:
        raise audio.AudioError(f"{span.path}: expected at least {least} samples to measure the loudness of, found {len(wave)}")
    loudness = float(meter.integrated_loudness(wave))
    if not math.isfinite(loudness):
        raise audio.AudioError(f"{span.path}: expected speech, found silence by its loudness")
    return loudness


@cache
def _meter(sample_rate: int) -> Any:
    import pyloudnorm  # brings scipy: only for those who ask for it

    return pyloudnorm.Meter(sample_rate)


def _scale(*waves: audio.Wave) -> float:
    """The factor to the int16 grid, lower where one of the waves would go beyond `PEAK`."""
    peak = max(float(max(wave.max(), -wave.min())) for wave in waves)
    return FULL_SCALE * min(1.0, PEAK / peak)


def _quantise(wave: audio.Wave, scale: float) -> PCM:
    return np.rint(wave * scale).astype(np.int16)
