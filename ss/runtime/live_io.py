"""Where live audio comes from and goes to: files, and raw PCM through pipes; devices are in `live_device.py`.

Shapes: n samples of a block, C channels.
"""

import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from ss.audio import Wave, readable
from ss.errors import UserError, explain
from ss.runtime.stream import to_type
from ss.signals import SLICE, StopSignal

FILES = (".wav", ".flac")
FORMATS = {"s16le": ("<i2", "PCM_16"), "f32le": ("<f4", "FLOAT")}  # of raw PCM: the type of a sample, and its name in libsndfile
WIDTHS = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}  # bytes of a sample of raw PCM


def encode(wave: Wave, form: str, channels: int = 1) -> bytes:
    """One signal [n] in -1..1 as raw PCM, the same in every channel; whole numbers are rounded and clipped at full scale."""
    samples: NDArray[Any] = wave.astype("<f4")
    if form != "f32le":
        full = 2 ** (8 * WIDTHS[form] - 1)
        samples = np.rint(wave.astype(np.float64) * full).clip(-full, full - 1).astype("<i4") + (form == "u8") * full
    return np.repeat(samples[:, None].view(np.uint8)[:, : WIDTHS[form]], channels, 0).tobytes()


def decode(data: bytes, form: str, channels: int) -> Wave:
    """Raw PCM of whole frames -> float32 [n], or [n,C] of several channels; whole numbers are in -1..1."""
    if form == "f32le":
        wave = np.frombuffer(data, "<f4")
    else:
        padded = np.zeros((len(data) // WIDTHS[form], 4), np.uint8)  # little-endian: the highest byte is the last
        padded[:, 4 - WIDTHS[form] :] = np.frombuffer(data, np.uint8).reshape(-1, WIDTHS[form])
        padded[:, 3] ^= 0x80 * (form == "u8")
        wave = padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    return wave.reshape(-1, channels) if channels > 1 else wave


def samples_of(milliseconds: float, rate: int) -> int:
    """The samples of a block, at least one."""
    return max(1, round(rate * milliseconds / 1000))


class Source:
    """rate: samples per second; dropped: blocks that were lost; latency: seconds that the device says it adds."""

    rate: int
    dropped = 0
    latency = 0.0

    def read(self) -> Wave | None:
        """The next block [n] or [n,C]; None at the end, or when a stop is requested and all that was taken in has been given."""

    def pause(self) -> None:
        """Nothing is read for a while: a microphone is not listened to until the next `read`; a pipe holds what comes."""

    def close(self) -> None:
        """Lets go of the file or device; a pipe belongs to whoever opened it."""


class FileSource(Source):
    """An audio file as a microphone: each block comes when its last sample would have been recorded, or at once with `fast`.

    Raises UserError for a file that cannot be read.
    """

    def __init__(self, path: str | Path, block_ms: float, stop: StopSignal, fast: bool = False) -> None:
        with readable(path) as file:
            self.file = soundfile.SoundFile(file)
        self.path, self.stop, self.fast = path, stop, fast
        self.rate = self.file.samplerate
        self.block = samples_of(block_ms, self.rate)
        self.due: float | None = None

    def read(self) -> Wave | None:
        if not self.fast and not self.stop.requested:
            now = time.monotonic()
            self.due = (now if self.due is None else self.due) + self.block / self.rate
            self.stop.wait(self.due - now)
        if self.stop.requested:
            return None
        with explain(f"{self.path}: the file cannot be read any further", soundfile.LibsndfileError):
            block: Wave = self.file.read(self.block, dtype="float32")
        return block if len(block) else None

    def pause(self) -> None:
        self.due = None

    def close(self) -> None:
        self.file.close()


class PipeSource(Source):
    """Raw PCM from a file descriptor, block by block; the last block is what is left, a part of a frame at the end is reported."""

    def __init__(self, descriptor: int, rate: int, form: str, channels: int, block_ms: float, stop: StopSignal) -> None:
        self.descriptor, self.rate, self.form, self.channels, self.stop = descriptor, rate, form, channels, stop
        self.frame = WIDTHS[form] * channels
        self.block = samples_of(block_ms, rate) * self.frame

    def read(self) -> Wave | None:
        data = bytearray()
        while len(data) < self.block and not self.stop.requested:
            if not select.select([self.descriptor], [], [], SLICE)[0]:
                continue
            if not (more := os.read(self.descriptor, self.block - len(data))):
                break
            data += more
        whole = len(data) - len(data) % self.frame
        if whole < len(data) and not self.stop.requested:
            print(f"warning: the input ended within a frame: {len(data) - whole} bytes are left out", file=sys.stderr)
        return decode(bytes(data[:whole]), self.form, self.channels) if whole else None


class Sink:
    """done: nobody listens any more; dropped: blocks of silence in place of the estimate; skipped: blocks that came too late;
    buffered: seconds that a block waits in it; latency: seconds that the device says it adds."""

    done = False
    dropped = 0
    skipped = 0
    buffered = 0.0
    latency = 0.0

    def write(self, wave: Wave) -> None:
        """Takes the next samples [n] of the estimate; n may be 0."""

    def close(self) -> None:
        """Lets go of the file or device once all that was written has arrived; a pipe belongs to whoever opened it."""


class FileSink(Sink):
    """A WAV or FLAC file; every block is on its way to the disk at once, so that a crash leaves a WAV file that can be read.

    Raises UserError for another kind of file or a place that cannot be written.
    """

    def __init__(self, path: str | Path, rate: int, form: str, channels: int = 1) -> None:
        if Path(path).suffix.lower() not in FILES:
            raise UserError(f"{path}: expected a name that ends in {' or '.join(FILES)}")
        dtype, subtype = FORMATS[form]
        with explain(f"{path}: cannot be written as {form}", soundfile.LibsndfileError, OSError, ValueError):
            self.file = soundfile.SoundFile(str(path), "w", rate, channels, subtype)
        self.path, self.dtype, self.channels = path, np.dtype(dtype), channels

    def write(self, wave: Wave) -> None:
        with explain(f"{self.path}: the file cannot be written any further", soundfile.LibsndfileError):
            self.file.write(np.repeat(to_type(wave, self.dtype)[:, None], self.channels, 1))

    def close(self) -> None:
        self.file.close()


class PipeSink(Sink):
    """Raw PCM to a file descriptor, every block at once; a closed pipe is no error: `done` says so."""

    def __init__(self, descriptor: int, form: str, channels: int = 1) -> None:
        self.descriptor, self.form, self.channels = descriptor, form, channels

    def write(self, wave: Wave) -> None:
        data = memoryview(encode(wave, self.form, self.channels))
        try:
            while len(data) and not self.done:
                data = data[os.write(self.descriptor, data) :]
        except BrokenPipeError:
            self.done = True
