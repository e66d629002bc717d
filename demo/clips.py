"""Audio for the page: a recording as a spectrogram and as a player, both inside the HTML.

Shapes: S samples, F frequencies, T frames.
"""

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from ss import audio

SAMPLE_RATE = 16000
WINDOW, HOP = 512, 128
RANGE_DB = 70


def read_clip(path: Path, seconds: float) -> audio.Wave:
    """The beginning of a recording, at most so long. Raises ss.audio.AudioError for a file that cannot be used."""
    return audio.read(path, SAMPLE_RATE, stop=min(round(seconds * SAMPLE_RATE), audio.n_samples(path)))


def spectrogram(wave: audio.Wave) -> NDArray[np.uint8]:
    """The levels [F,T] of a recording [S]: 255 is the loudest, 0 is RANGE_DB below it or less; lowest frequency last."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, WINDOW // 2), WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2
    decibels = 10 * np.log10(power / max(power.max(), 1e-12) + 1e-12)
    return (255 * np.clip(1 + decibels / RANGE_DB, 0, 1)).astype(np.uint8).T[::-1]


def picture(wave: audio.Wave) -> str:
    """The spectrogram of a recording [S] as the data URI of a PNG."""
    image = Image.fromarray(np.ascontiguousarray(spectrogram(wave)), mode="P")
    image.putpalette((255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def sound(wave: audio.Wave) -> str:
    """A recording [S] as the data URI of a FLAC of 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    return _data_uri("audio/flac", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
