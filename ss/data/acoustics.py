"""What a room and a channel do to a voice.

Rooms are impulse responses from files, or simulated (image sources, Allen and Berkley, 1979, by pyroomacoustics). A channel takes
bandwidth, and codes; all of that keeps the length and the alignment of a wave. Shapes: N samples of a response, S of a voice.
"""

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy  # loads `fft` and `signal`, which takes a second, where they are first used
import soundfile
import soxr

from ss.audio import Wave
from ss.data.manifest import Room
from ss.errors import explain, import_extra

ROOMS_KEPT = 256
REFLECTIONS = 17  # of image sources at most, for speed: what comes later is far below
TAPS = 255  # of a filter; the low-pass goes from pass to stop in 100 Hz at 16 kHz
OCTAVES = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz: the middles of an equalizer's bands
ENVELOPE = 0.032  # seconds of a frame whose envelope moves
VOCAL_TRACT = 0.0019  # seconds: later coefficients of a cepstrum are the pitch
QUIET = 1e-6  # of a magnitude: less has no envelope
MOST_GAIN = 2.0  # of formants that are moved: 17 dB, as a natural logarithm
MU = 255.0
FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III"), "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
CODEC_RATES = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
}  # Hz
OTHER_RATE = 48000  # Hz at which another rate is coded
SEARCH = 4096  # samples by which a codec may delay


def reverberate(voice: Wave, *responses: Wave) -> list[Wave]:
    """A voice [S] through each of the responses, as long as it was."""
    size = scipy.fft.next_fast_len(len(voice) + max(map(len, responses)) - 1, real=True)
    spectrum = scipy.fft.rfft(voice, size)  # float32 all the way
    return [scipy.fft.irfft(spectrum * scipy.fft.rfft(response, size), size)[: len(voice)] for response in responses]


@lru_cache(ROOMS_KEPT)
def simulate_room(room: Room, sample_rate: int) -> Wave:
    """The response of a shoebox. Raises UserError where pyroomacoustics is not there, or no walls give such a reverberation."""
    acoustics = import_extra("pyroomacoustics", "rt60: simulated rooms need pyroomacoustics: pip install 'ss[rooms]'")
    with explain(f"rt60: expected a reverberation that a room of {room.size} m can have, found {room.rt60} s", ValueError):
        absorption, order = acoustics.inverse_sabine(room.rt60, room.size)
    walls, order = acoustics.Material(absorption), min(order, REFLECTIONS)
    box = acoustics.ShoeBox(room.size, fs=sample_rate, materials=walls, max_order=order, use_rand_ism=False)
    box.add_source(list(room.source))
    box.add_microphone(list(room.microphone))
    box.compute_rir()
    return np.asarray(box.rir[0][0], np.float32)


@lru_cache
def low_pass(hz: float, sample_rate: int) -> Wave:
    """A filter with linear phase."""
    return scipy.signal.firwin(TAPS, hz, fs=sample_rate).astype(np.float32)


def limit_band(wave: Wave, hz: float, sample_rate: int) -> Wave:
    """Without what is above `hz`, if there is any; linear, so it may be done to parts and sums alike."""
    if hz >= sample_rate / 2:
        return wave
    return scipy.signal.fftconvolve(wave, low_pass(hz, sample_rate), "same").astype(np.float32)


def equalize(wave: Wave, gains: Sequence[float], sample_rate: int) -> Wave:
    """A wave [S] in which each of OCTAVES is louder by its gain in dB, and frequencies between two by a gain between; no delay."""
    size = scipy.fft.next_fast_len(len(wave) + TAPS, real=True)  # longer, so that the end does not reach the beginning
    frequencies = np.maximum(scipy.fft.rfftfreq(size, 1 / sample_rate), 1.0)
    curve = 10 ** (np.interp(np.log2(frequencies), np.log2(OCTAVES), gains) / 20)
    return scipy.fft.irfft(scipy.fft.rfft(wave, size) * curve.astype(np.float32), size)[: len(wave)]


def restore_formants(wave: Wave, pitch: float, sample_rate: int) -> Wave:
    """Gives a voice [S] that was played `pitch` times as fast its formants back, so that only its pitch and its pace have changed.

    The first coefficients of the cepstrum of each short spectrum are its envelope. The envelope moves back; the harmonics stay.
    """
    size = 2 ** round(np.log2(ENVELOPE * sample_rate))
    order, bins = round(VOCAL_TRACT * sample_rate), np.arange(size // 2 + 1)
    _, _, spectra = scipy.signal.stft(wave, nperseg=size, noverlap=3 * size // 4)
    cepstra = scipy.fft.irfft(np.log(np.abs(spectra) + QUIET), axis=0)
    cepstra[order : 1 - order] = 0
    envelopes = scipy.fft.rfft(cepstra, axis=0).real
    restored = np.stack([np.interp(bins * pitch, bins, envelope) for envelope in envelopes.T], 1)
    gains = np.exp(np.clip(restored - envelopes, -MOST_GAIN, MOST_GAIN))
    return scipy.signal.istft(spectra * gains, nperseg=size, noverlap=3 * size // 4)[1][: len(wave)].astype(np.float32)


def apply_codec(wave: Wave, codec: str, sample_rate: int) -> Wave:
    """Through a codec and back, without its delay: `mulaw` (G.711's curve in 8 bits), `mp3`, `vorbis` or `opus`."""
    if codec == "mulaw":
        squeezed = np.sign(wave) * np.log1p(MU * np.abs(wave)) / np.log1p(MU)
        levels = np.rint(squeezed * 127) / 127
        return (np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU).astype(np.float32)
    file, (kind, subtype) = io.BytesIO(), FORMATS[codec]
    rate = sample_rate if sample_rate in CODEC_RATES.get(codec, (sample_rate,)) else OTHER_RATE
    soundfile.write(file, soxr.resample(wave, sample_rate, rate), rate, format=kind, subtype=subtype)
    file.seek(0)
    back = soxr.resample(soundfile.read(file, dtype="float32")[0], rate, sample_rate)
    correlation = scipy.signal.fftconvolve(np.pad(back, (0, SEARCH)), wave[::-1])[len(wave) - 1 :][:SEARCH]
    back = back[int(correlation.argmax()) :][: len(wave)]
    return np.pad(back, (0, len(wave) - len(back)))
