"""What a channel does: less bandwidth, codecs, clipping. Each keeps the length and the alignment of a wave [S]."""

import io
from functools import lru_cache

import numpy as np
import scipy  # loads `signal`, which takes a second, where it is first used
import soundfile

from ss.audio import Wave

TAPS = 255  # of the low-pass: 100 Hz from pass to stop at 16 kHz
MU = 255.0
FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III"), "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
SEARCH = 4096  # samples by which a codec may delay


@lru_cache
def low_pass(hz: float, sample_rate: int) -> Wave:
    """A filter with linear phase."""
    return scipy.signal.firwin(TAPS, hz, fs=sample_rate).astype(np.float32)


def narrowed(wave: Wave, hz: float, sample_rate: int) -> Wave:
    """Without what is above `hz`; linear, so it may be done to parts and sums alike."""
    return scipy.signal.fftconvolve(wave, low_pass(hz, sample_rate), "same").astype(np.float32)


def clipped(wave: Wave, db: float) -> Wave:
    """Cut off so many dB below its peak."""
    top = np.abs(wave).max() * np.float32(10 ** (-db / 20))
    return wave.clip(-top, top)


def coded(wave: Wave, codec: str, sample_rate: int) -> Wave:
    """Through a codec and back: `mulaw` (G.711's curve in 8 bits), `mp3`, `vorbis` or `opus`."""
    if codec == "mulaw":
        squeezed = np.sign(wave) * np.log1p(MU * np.abs(wave)) / np.log1p(MU)
        levels = np.rint(squeezed * 127) / 127
        return (np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(MU)) / MU).astype(np.float32)
    file, (kind, subtype) = io.BytesIO(), FORMATS[codec]
    soundfile.write(file, wave, sample_rate, format=kind, subtype=subtype)
    file.seek(0)
    back, _ = soundfile.read(file, dtype="float32")
    return aligned(back, wave)


def aligned(back: Wave, wave: Wave) -> Wave:
    """What came back, without the codec's delay, as long as what went in."""
    correlation = scipy.signal.fftconvolve(np.pad(back, (0, SEARCH)), wave[::-1])[len(wave) - 1 :][:SEARCH]
    late = int(correlation.argmax())
    back = back[late:][: len(wave)]
    return np.pad(back, (0, len(wave) - len(back)))
