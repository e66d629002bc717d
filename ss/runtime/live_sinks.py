"""Where the estimate goes: a file written block by block or raw PCM through a pipe; devices are in `live_device.py`.

Shapes: n samples of a block.
"""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from ss.audio import Wave
from ss.runtime.pcm import FORMATS, encode, quantise

FILES = (".wav", ".flac")


class Sink(Protocol):
    """done: nobody listens any more; dropped: blocks of silence in place of the estimate; skipped: blocks that came too late;

    buffered: seconds that a block waits in it; latency: seconds that the device says it adds.
    """

    done: bool
    dropped: int
    skipped: int
    buffered: float
    latency: float

    def write(self, wave: Wave) -> None:
        """Takes the next samples [n] of the estimate; n may be 0."""

    def close(self) -> None:
        """Lets go of the file or device once all that was written has arrived."""


class Undropped:
    """What holds for every sink that waits instead of dropping."""

    done = False
    dropped = 0
    skipped = 0
    buffered = 0.0
    latency = 0.0


class FileSink(Undropped):
    """A WAV or FLAC file; every block is on its way to the disk at once, so that a crash leaves a WAV file that can be read.

    Raises ValueError for another kind of file or a place that cannot be written.
    """

    def __init__(self, path: str | Path, rate: int, form: str, channels: int = 1) -> None:
        if Path(path).suffix.lower() not in FILES:
            raise ValueError(f"{path}: expected a name that ends in {' or '.join(FILES)}")
        try:
            self.file = soundfile.SoundFile(str(path), "w", rate, channels, FORMATS[form].subtype)
        except (soundfile.LibsndfileError, OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be written as {form}: {error}") from error
        self.path, self.form, self.channels = path, form, channels

    def write(self, wave: Wave) -> None:
        self.file.write(np.repeat(quantise(wave, self.form)[:, None], self.channels, 1))

    def close(self) -> None:
        self.file.close()


class PipeSink(Undropped):
    """Raw PCM to a file descriptor, every block at once; a closed pipe is no error: `done` says so.

    Raises ValueError where the output is a terminal.
    """

    def __init__(self, descriptor: int, form: str, channels: int = 1) -> None:
        if os.isatty(descriptor):
            raise ValueError("--output -: expected a pipe or a file for raw PCM, but the standard output is a terminal")
        self.descriptor, self.form, self.channels, self.done = descriptor, form, channels, False

    def write(self, wave: Wave) -> None:
        data = memoryview(encode(wave, self.form, self.channels))
        try:
            while len(data) and not self.done:
                data = data[os.write(self.descriptor, data) :]
        except BrokenPipeError:
            self.done = True

    def close(self) -> None:
        """The descriptor belongs to whoever opened it."""
