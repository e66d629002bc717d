"""Raw PCM: bytes of interleaved samples to arrays in -1..1 and back.

Shapes: n samples, C channels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss.audio import Wave
from ss.runtime.stream import to_float, to_type


class Format(NamedTuple):
    """dtype: of a sample in the bytes; subtype: what libsndfile calls it in a file."""

    dtype: str
    subtype: str


FORMATS = {"s16le": Format("<i2", "PCM_16"), "f32le": Format("<f4", "FLOAT")}


def frame_bytes(form: str, channels: int) -> int:
    """The bytes of one sample of every channel."""
    return np.dtype(FORMATS[form].dtype).itemsize * channels


def quantise(wave: Wave, form: str) -> NDArray[np.generic]:
    """Samples in -1..1 as the format's own numbers, of the same shape: 16-bit ones are rounded and clipped at full scale."""
    return to_type(wave, np.dtype(FORMATS[form].dtype))


def encode(wave: Wave, form: str, channels: int = 1) -> bytes:
    """One signal [n] as bytes, the same in every channel."""
    return np.repeat(quantise(wave, form), channels).tobytes()


def decode(data: bytes, form: str, channels: int) -> Wave:
    """Bytes of whole frames -> float32 [n], or [n,C] of several channels; 16-bit samples are in -1..1."""
    wave = to_float(np.frombuffer(data, FORMATS[form].dtype))
    return wave.reshape(-1, channels) if channels > 1 else wave
