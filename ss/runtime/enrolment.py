"""Recordings to enrol a speaker from: a file or a stretch of one, and what may be wrong with it.

Shapes: R samples.
"""

import re
from pathlib import Path

import numpy as np

from ss import audio
from ss.audio import AudioError, Wave

STRETCH = re.compile(r"(.+)@(\d+(?:\.\d*)?)-(\d+(?:\.\d*)?)")
FRAME = 0.03  # seconds
SPEECH_DB = 30.0  # below the loud frames (their 95th percentile), where speech ends
SHORTEST = 3.0  # seconds of speech
CLIPPED = 0.0005  # part of the samples that are within 1 % of the peak, as the sample before is
NOISY_DB = 15.0  # of the mean power over the quietest tenth of the frames


def split_stretch(name: str | Path) -> tuple[Path, float | None, float | None]:
    """`FILE@START-END` -> the file and the seconds; a file that has such a name is taken whole."""
    found = None if Path(name).is_file() else STRETCH.fullmatch(str(name))
    return (Path(found[1]), float(found[2]), float(found[3])) if found else (Path(name), None, None)


def read_stretch(name: str | Path) -> tuple[Wave, int]:
    """The samples [R] of `FILE` or of `FILE@START-END` in seconds, the mean of its channels, and their sample rate in Hz.

    Raises AudioError for a file that cannot be used and a stretch that does not lie in it.
    """
    path, begin, end = split_stretch(name)
    if begin is None and not path.is_file() and Path(str(path).rpartition("@")[0]).is_file():
        raise AudioError(f"{path}: expected FILE@START-END with both in seconds, such as call.wav@3.0-7.5")
    if begin is None or end is None:
        return audio.read_whole(path, downmix=True)
    rate = audio.sample_rate_of(path)
    seconds = audio.n_samples(path) / rate
    if not begin < end <= seconds + 1 / rate:
        raise AudioError(f"{name}: expected a stretch within the {seconds:.2f} seconds of {path}, its begin before its end")
    return audio.read(path, rate, round(begin * rate), round(end * rate), downmix=True), rate


def find_faults(wave: Wave, rate: int) -> list[str]:
    """What makes a recording [R] a bad enrolment, in words, and what to do; nothing for a good one."""
    size = max(1, round(FRAME * rate))
    frames = np.pad(wave, (0, -len(wave) % size)).reshape(-1, size).astype(np.float64)
    powers = np.square(frames).mean(1)
    levels = 10 * np.log10(powers + 1e-10)
    seconds = FRAME * np.count_nonzero(levels > np.percentile(levels, 95) - SPEECH_DB)
    snr = 10 * np.log10(powers.mean() + 1e-10) - np.percentile(levels, 10)
    top = np.abs(wave) > 0.99 * np.abs(wave).max()
    faults = {
        f"only {seconds:.1f} s of speech: record at least {SHORTEST:g} s, better 5 to 15": seconds < SHORTEST,
        "it is clipped: record it at a lower level": len(wave) > 1 and np.mean(top[1:] & top[:-1]) > CLIPPED,
        f"it is noisy, its speech about {snr:.0f} dB above the background: record it in a quiet place": snr < NOISY_DB,
    }
    return [fault for fault, holds in faults.items() if holds]
