"""Audio files: read one channel at one sample rate or say what is wrong with which file; write whole files or none.

Shapes: S samples.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ss.errors import UserError
from ss.files import Readable, whole_file

Wave = NDArray[np.float32]
PCM = NDArray[np.int16]
FULL_SCALE = 32768  # of 16 bits


File: TypeAlias = str | Readable
EXTENSIONS = (".wav", ".flac", ".opus", ".ogg")
CUT_SHORT = re.compile(r"(?:data|SSND) : (\d+) \(should be ([1-9]\d*)\)")  # libsndfile on the bytes in a header, and in the file
UNKNOWN = 0x7FFFF000  # bytes; a header says at least so many where its writer did not know
SEEKABLE = (".wav", ".flac")  # a part decodes to the same samples as in the whole


class AudioError(UserError):
    """A file that cannot be used: the message names it, what was expected and what came."""


def to_wave(pcm: PCM) -> Wave:
    """16 bits to -1..1."""
    wave = pcm.astype(np.float32)
    wave *= np.float32(1 / FULL_SCALE)  # in place: four times as fast as a division, and as exact
    return wave


def to_pcm(wave: Wave) -> PCM:
    """-1..1 to 16 bits; what is beyond is clipped."""
    scaled = wave * np.float32(FULL_SCALE)
    return np.rint(scaled.clip(-FULL_SCALE, FULL_SCALE - 1, out=scaled), out=scaled).astype(np.int16)


def read(path: File, sample_rate: int, start: int = 0, stop: int | None = None, downmix: bool = False) -> Wave:
    """The samples [S] of a mono file (from `start` up to `stop`), as float32 in -1..1; downmix: the mean of any channels.

    Raises AudioError for a file that is missing, unreadable, empty, cut short, not mono, of another rate, or not finite.
    """
    with readable(path) as source, soundfile.SoundFile(source) as file:
        if file.samplerate != sample_rate:
            raise AudioError(f"{path}: expected a sample rate of {sample_rate} Hz, found {file.samplerate} Hz")
        if file.channels != 1 and not downmix:
            raise AudioError(f"{path}: expected one channel, found {file.channels}")
        return _decode(path, file, start, stop)


def read_whole(path: File, downmix: bool = False) -> tuple[Wave, int]:
    """All samples [S] of a file of any rate, and its rate. Raises AudioError as `read` does."""
    rate = sample_rate_of(path)
    return read(path, rate, downmix=downmix), rate


def read_any(path: File, sample_rate: int, start: int = 0, stop: int | None = None) -> Wave:
    """The mean of the channels of a file of any rate, at this one, from `start` up to `stop` [S]. Raises AudioError as `read` does.

    A part has the very samples that it has in the whole: where the codec or the resampler would change them, all is decoded.
    """
    with readable(path) as source, soundfile.SoundFile(source) as file:
        rate = file.samplerate
        if rate == sample_rate and str(path).lower().endswith(SEEKABLE):
            return _decode(path, file, start, stop)
        whole = _decode(path, file)
    return (whole if rate == sample_rate else soxr.resample(whole, rate, sample_rate))[start:stop]


def _decode(path: File, file: soundfile.SoundFile, start: int = 0, stop: int | None = None) -> Wave:
    """The mean of the channels, from `start` up to `stop` [S]."""
    if start:  # GSM in a WAV cannot be sought in
        file.seek(start)
    wave = file.read(max(0, (file.frames if stop is None else stop) - start), "float32", always_2d=True)
    if not len(wave):
        raise AudioError(f"{path}: expected audio, found no samples")
    n, found, rate = samples_in_header(file), start + len(wave), file.samplerate
    if found < min(n, n if stop is None else stop):
        raise AudioError(f"{path}: expected {n / rate:.3f} s, as its header says, found {found / rate:.3f} s: it is cut short")
    if not np.isfinite(wave).all():
        raise AudioError(f"{path}: expected finite samples, found {np.count_nonzero(~np.isfinite(wave))} that are NaN or infinite")
    return wave.mean(1) if wave.shape[1] > 1 else wave[:, 0]


def samples_in_header(file: soundfile.SoundFile) -> int:
    """How many samples a file says it has: more than its `frames` where a WAV or AIFF is cut short."""
    cut = CUT_SHORT.search(file.extra_info)
    return file.frames * int(cut[1]) // int(cut[2]) if cut and int(cut[1]) < UNKNOWN else file.frames


def sample_rate_of(path: File) -> int:
    """A file's sample rate in Hz, from its header alone. Raises AudioError where it cannot be read."""
    with readable(path) as file:
        return int(soundfile.info(file).samplerate)


def n_samples(path: File) -> int:
    """How many samples a file holds, from its header alone. Raises AudioError where it has none, or cannot be read."""
    with readable(path) as file:
        samples = int(soundfile.info(file).frames)
    if samples <= 0:
        raise AudioError(f"{path}: expected audio, found no samples")
    return samples


@contextmanager
def readable(path: File) -> Iterator[str | BinaryIO]:
    """What soundfile reads a file from; its errors meanwhile become AudioErrors."""
    try:
        if isinstance(path, (str, Path)) and not Path(path).is_file():
            raise FileNotFoundError("there is no such file")  # libsndfile only says "System error"
        if str(path).lower().endswith(".raw"):
            raise OSError("a .raw file does not say its sample rate")
        yield str(path) if isinstance(path, (str, Path)) else io.BytesIO(path.read_bytes())
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: expected a readable audio file, but: {error}") from error


def write(path: str | Path, wave: NDArray[np.generic], sample_rate: int, subtype: str = "PCM_16") -> None:
    """Writes the samples [S]; the file is whole or absent.

    wave: float32 in -1..1 or int16; subtype: as libsndfile calls it (PCM_16, FLOAT).
    """
    path = Path(path)
    encoded = io.BytesIO()  # in memory, as soundfile waits for the disk at the end of every file
    soundfile.write(encoded, wave, sample_rate, subtype=subtype, format=path.suffix[1:].upper())
    with whole_file(path) as aside:
        aside.write_bytes(encoded.getbuffer())
