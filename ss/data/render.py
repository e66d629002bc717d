"""From one row to its waves: a pure function of the row and the files that it names.

Levels are relative to the target's speech, whose mean power over its own pieces (or whose loudness) is 1 before the mixture gets
its level: so they are the same whether the target is there or not. All waves are int16, and the mixture is exactly the sum of its
parts, unless a codec or clipping came after. Shapes: S samples of the mixture, R of the enrolment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from math import ceil, floor, isfinite
from typing import Any

import numpy as np

from ss.audio import FULL_SCALE, PCM, AudioError, File, Wave, read_any, to_pcm, to_wave
from ss.data import acoustics
from ss.data.audio_cache import AudioCache
from ss.data.augment import change_speed
from ss.data.manifest import Mixture, Noise, Piece, Row, Voice
from ss.data.packed import file_of
from ss.data.sources import Sources

DIGITAL_SILENCE = 1e-10  # mean power: -100 dB of full scale
FADE = 0.005  # seconds at both ends of a piece
PEAK = 0.9  # no wave goes beyond this part of full scale


class Renderer:
    """Renders rows of some sources; cache_mb: megabytes of decoded audio that are kept, of these files (`Catalog.files`)."""

    def __init__(self, sources: Sources, cache_mb: float = 0, files: Iterable[File] = ()) -> None:
        self.sources = sources
        self.cache = AudioCache(files, partial(read_any, sample_rate=sources.sample_rate), cache_mb, np.int16)

    def __call__(self, row: Row) -> Mixture:
        """The waves of a row. Raises AudioError for a file that cannot be read, is shorter than the row says, or is silent."""
        target, late = self.voice(row.target, row.samples, row, row.early_ms)
        parts = [target, *(self.voice(interferer, row.samples, row)[0] for interferer in row.interferers)]
        n_voices = len(parts)
        parts += [wave for wave in (late, self.noise(row.noise, row.samples, row)) if wave is not None]
        if row.bandwidth is not None:
            parts = [acoustics.limit_band(wave, row.bandwidth, row.sample_rate) for wave in parts]
        scaled = on_one_scale(parts, row)
        mixture: PCM = np.asarray(np.sum(scaled, axis=0, dtype=np.int16))
        if not row.linear:
            mixture = distort(mixture, row)
        enrolment, _ = self.voice(row.enrolment, row.ref_samples, row)
        if row.ref_pitch is not None:
            enrolment = acoustics.restore_formants(enrolment, row.ref_pitch, row.sample_rate)
        if row.ref_equalizer is not None:
            enrolment = acoustics.equalize(enrolment, row.ref_equalizer, row.sample_rate)
        noise = self.noise(row.enrolment_noise, row.ref_samples, row)
        ref_row = row if row.ref_level is None else replace(row, level=row.ref_level, loudness=None)
        (ref,) = on_one_scale([enrolment if noise is None else enrolment + noise], ref_row)
        return Mixture(mixture, scaled[0], ref, tuple(scaled[1:n_voices]), tuple(scaled[n_voices:]))

    def voice(self, voice: Voice, samples: int, row: Row, early_ms: float | None = None) -> tuple[Wave, Wave | None]:
        """A voice [samples] at its level, and apart from it the reverberation that comes later than early_ms (None: nothing)."""
        dry, spoken = np.zeros(samples, np.float32), np.zeros(samples, bool)
        for piece in voice.pieces:
            wave = self.piece(piece, voice.speed, samples - piece.at, row.sample_rate)
            dry[piece.at :][: len(wave)] += wave
            spoken[piece.at :][: len(wave)] = True
        if not voice.pieces:
            return dry, None
        n_spoken = int(np.count_nonzero(spoken))
        if np.square(dry).sum() < DIGITAL_SILENCE * n_spoken:
            raise AudioError(f"{voice.pieces[0].path}: expected speech, found silence in {row.name}")
        wet, early, response = dry, None, self.response(voice, row)
        if response is not None and early_ms is None:
            (wet,) = acoustics.reverberate(dry, response)
        elif response is not None and early_ms is not None:
            first = response[: max(1, round(early_ms * row.sample_rate / 1000))]
            wet, early = acoustics.reverberate(dry, response, first)
        gain = np.float32(10 ** (-voice.level / 20) / amplitude(wet, n_spoken, row, voice.pieces[0].path))
        return (gain * wet, None) if early is None else (gain * early, gain * (wet - early))

    def piece(self, piece: Piece, speed: float, room_left: int, rate: int) -> Wave:
        """A piece, at its speed, faded at both ends."""
        path = file_of(self.sources.audios_dir, piece.path)
        wave = self.cache.read(path, piece.start, min(piece.stop, piece.start + ceil(room_left * speed)))
        wave = change_speed(wave, speed)[: min(room_left, floor((piece.stop - piece.start) / speed))]
        n = min(round(FADE * rate), len(wave) // 2)
        if n:
            ramp = (np.arange(n, dtype=np.float32) + 1) / (n + 1)
            wave[:n] *= ramp
            wave[-n:] *= ramp[::-1]
        return wave

    def response(self, voice: Voice, row: Row) -> Wave | None:
        """The response of the room that a voice is in, from its direct sound on, which becomes 1: a voice keeps its place in time
        and nearly its level."""
        if voice.room is not None:
            response = acoustics.simulate_room(voice.room, row.sample_rate)
        elif voice.rir is not None:
            path = file_of(str(self.sources.rirs), voice.rir)
            response = self.cache.read(path)
            if not response.any():
                raise AudioError(f"{path}: expected an impulse response, found silence")
        else:
            return None
        direct = int(np.abs(response).argmax())
        return response[direct:] / response[direct]

    def noise(self, noise: Noise | None, samples: int, row: Row) -> Wave | None:
        """Noise [samples] at its level."""
        if noise is None:
            return None
        wave = self.cache.loop(file_of(str(self.sources.noise), noise.path), noise.start, samples)
        return wave * np.float32(10 ** (-noise.level / 20) / amplitude(wave, samples, row, noise.path)) if wave.any() else wave


def amplitude(wave: Wave, spoken: int, row: Row, path: str) -> float:
    """How loud a wave [S] is, of which so many samples are spoken: the root of their mean power, or 1 for a loudness of 0 LUFS.

    Raises AudioError, naming the path, for a wave that is too short or too quiet for its loudness to be measured.
    """
    if row.loudness is None:
        return float(np.sqrt(np.square(wave).sum() / spoken))
    meter = loudness_meter(row.sample_rate)
    least = round(meter.block_size * row.sample_rate)
    if len(wave) < least:
        raise AudioError(f"{path}: expected at least {least} samples to measure the loudness of, found {len(wave)}")
    loudness = float(meter.integrated_loudness(wave))
    if not isfinite(loudness):
        raise AudioError(f"{path}: expected speech, found silence by its loudness")
    return float(10 ** (loudness / 20))


@cache
def loudness_meter(sample_rate: int) -> Any:
    """Measures integrated loudness in LUFS (ITU-R BS.1770-4)."""
    import pyloudnorm  # brings scipy.signal: only for those who ask for it

    return pyloudnorm.Meter(sample_rate)


def on_one_scale(parts: Sequence[Wave], row: Row) -> list[PCM]:
    """Parts [S] in 16 bits at the level or loudness of the row, or lower where a peak would be too high."""
    mixture = np.sum(parts, axis=0)
    peak = max(float(max(wave.max(), -wave.min())) for wave in (mixture, *parts))
    if not peak:
        return [np.zeros(len(mixture), np.int16) for _ in parts]
    # parts may cancel each other: then a peak sets the gain
    rms = float(np.sqrt(np.square(mixture).mean())) or float(np.finfo(float).tiny)
    asked = 10 ** (row.level / 20) / rms if row.loudness is None else 10 ** (row.loudness / 20)
    gain = min(asked, PEAK / peak) * FULL_SCALE
    return [np.rint(wave * np.float32(gain)).astype(np.int16) for wave in parts]


def distort(mixture: PCM, row: Row) -> PCM:
    """What clipping, so many dB below the peak, and a codec leave of a mixture [S]."""
    wave = to_wave(mixture)
    if row.clip_db is not None:
        top = np.abs(wave).max() * np.float32(10 ** (-row.clip_db / 20))
        wave = wave.clip(-top, top)
    if row.codec is not None:
        wave = acoustics.apply_codec(wave, row.codec, row.sample_rate)
    return to_pcm(wave)
