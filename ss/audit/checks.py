"""What is wrong with one triplet, and what can be measured of it: by its waves, and by what its manifest expected.

A check gives why a triplet is at fault, an empty string where it is sound, and None where that cannot be told. Shapes: S samples
of the mixture and target, N and M of any two waves.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ss import audio
from ss.audio import AudioError, Wave
from ss.audit.expected import Expected
from ss.data.scene import reject_unknown_keys
from ss.data.shards import Place

KINDS = {"mixed": "mixture", "target": "target", "ref": "enrolment"}
FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
LSB = 1 / 32768
OVERLAP = 1.0  # seconds that two recordings must share at least: vowels alone are alike for a shorter time
PAUSE = 0.1  # part of a wave's mean power below which nothing is compared: hum and silence are alike for long
WHOLE = ("sample_rate", "clip_run", "num_workers")
NUMBERS = (*WHOLE, "min_len", "ref_min_len", "silent_db", "same", "sir_tolerance")


@dataclass(frozen=True)
class Settings:
    """What is held against the triplets.

    folders: of triplets, each with its manifest if it has one. sample_rate: Hz of all files; None: what most of them have.
    min_len, ref_min_len: seconds that mixtures and enrolments have at least. silent_db: dB of full scale below which the peak of
    silence is. clip_run: so many samples in a row at full scale are clipped. same: the correlation from which enrolment and target
    are of one recording. sir_tolerance: dB between the planned SIR and the one that is heard. disjoint: whether folders must not
    share target speakers. Raises ValueError for a value that cannot be.
    """

    folders: list[str]
    out_folder: str
    sample_rate: int | None = None
    min_len: float = 0.5
    ref_min_len: float = 1.0
    silent_db: float = -60.0
    clip_run: int = 3
    same: float = 0.8
    sir_tolerance: float = 0.5
    disjoint: bool = True
    num_workers: int = 1

    def __post_init__(self) -> None:
        several = [self.folders] if isinstance(self.folders, str) else self.folders or []
        object.__setattr__(self, "folders", list(map(str, several)))
        if not self.folders or len({Path(folder).resolve() for folder in self.folders}) < len(self.folders):
            raise ValueError(f"folders: expected one or several, each once, found {self.folders}")
        for key in NUMBERS:
            value, sign = getattr(self, key), -1 if key == "silent_db" else 1
            fits = isinstance(value, int if key in WHOLE else int | float) and value * sign > 0
            if not fits and (key, value) != ("sample_rate", None):
                what = "a whole number" if key in WHOLE else "a number"
                raise ValueError(f"{key}: expected {what} {'below' if sign < 0 else 'above'} 0, found {value}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """From the keys of a config. Raises ValueError for keys and values that cannot be."""
        return cls(**reject_unknown_keys(cls, config))


class Triplet(NamedTuple):
    """What is known of a triplet before it is heard: its files by kind (there may be none or two of one)."""

    folder: str
    name: str
    files: dict[str, list[Place]]
    expected: Expected


class LoadedTriplet(NamedTuple):
    """Those files of a triplet that can be read, by kind, with their rates in Hz."""

    waves: dict[str, Wave]
    rates: dict[str, int]
    expected: Expected
    settings: Settings


class Facts(NamedTuple):
    """What was found. faults: by check, why, or an empty string; digests: of the samples by kind, where they are not silent.

    seconds, ref_seconds; sir: dB, where target and interferer are heard; peak: dB of full scale of the mixture. None: not known.
    """

    triplet: Triplet
    faults: dict[str, str]
    rates: dict[str, int]
    digests: dict[str, str]
    seconds: float | None
    ref_seconds: float | None
    sir: float | None
    peak: float | None


def examine(triplet: Triplet, settings: Settings) -> Facts:
    """Reads the files of a triplet and makes all checks that need no other."""
    loaded, unreadable = LoadedTriplet({}, {}, triplet.expected, settings), []
    for kind, paths in triplet.files.items():
        try:
            loaded.waves[kind], loaded.rates[kind] = read(paths[0])
        except AudioError as error:
            unreadable.append(str(error))
    faults = {"incomplete": incomplete(triplet.files), "unreadable": "; ".join(unreadable), "unnamed": unnamed(triplet.name)}
    for check, (kinds, why) in CHECKS.items():
        if set(kinds) <= set(loaded.waves) and len({loaded.rates[kind] for kind in kinds}) == 1:
            found = why(loaded)
            faults |= {} if found is None else {check: found}
    loud = {kind: wave for kind, wave in loaded.waves.items() if not silent(wave, settings)}
    mixture = loud.get("mixed")
    return Facts(
        triplet=triplet,
        faults=faults,
        rates=loaded.rates,
        digests={kind: hashlib.blake2b(wave.tobytes(), digest_size=16).hexdigest() for kind, wave in loud.items()},
        seconds=_seconds(loaded, "mixed"),
        ref_seconds=_seconds(loaded, "ref"),
        sir=sir(loaded) if "lengths" in faults else None,
        peak=None if mixture is None else float(20 * np.log10(np.abs(mixture).max())),
    )


def read(path: Place) -> tuple[Wave, int]:
    """The samples of a file and its rate in Hz. Raises AudioError for one that cannot be used, or is cut short."""
    samples = audio.n_samples(path)
    rate = audio.sample_rate_of(path)
    wave = audio.read(path, rate)
    if len(wave) < samples:
        raise AudioError(f"{path}: expected {samples} samples, as it says, found {len(wave)}")
    return wave, rate


def incomplete(files: Mapping[str, list[Place]]) -> str:
    """Which kinds are missing or there twice."""
    missing = [f"no {word}" for kind, word in KINDS.items() if kind not in files]
    return ", ".join(missing + [f"{len(paths)} files -{kind}" for kind, paths in files.items() if len(paths) > 1])


def unnamed(name: str) -> str:
    """Names begin with the speaker's id, which an underscore ends."""
    return "" if name.partition("_")[0] and "_" in name else "no underscore after a speaker's id"


def lengths(loaded: LoadedTriplet) -> str:
    """Mixture and target are equally long."""
    mixture, target = loaded.waves["mixed"], loaded.waves["target"]
    return "" if len(mixture) == len(target) else f"mixture of {len(mixture)} samples, target of {len(target)}"


def short(kind: str, loaded: LoadedTriplet) -> str:
    """A wave is long enough."""
    least = loaded.settings.ref_min_len if kind == "ref" else loaded.settings.min_len
    seconds = len(loaded.waves[kind]) / loaded.rates[kind]
    return "" if seconds >= least else f"{seconds:.2f} s"


def clipped(kind: str, loaded: LoadedTriplet) -> str:
    """So many samples in a row at full scale are no peak of a voice."""
    run, full = loaded.settings.clip_run, np.flatnonzero(np.abs(loaded.waves[kind]) >= FULL_SCALE)
    runs = np.count_nonzero(full[run - 1 :] - full[: max(len(full) - run + 1, 0)] == run - 1)
    return f"{len(full)} samples at full scale" if runs else ""


def quiet(kind: str, loaded: LoadedTriplet) -> str:
    """A wave is not silent."""
    return "silent" if silent(loaded.waves[kind], loaded.settings) else ""


def silent(wave: Wave, settings: Settings) -> bool:
    """Whether the peak of a wave [N] is so low that there is no speech in it."""
    return bool(np.abs(wave).max() < 10 ** (settings.silent_db / 20))


def silent_target(loaded: LoadedTriplet) -> str | None:
    """A target that is to speak does."""
    if not loaded.expected.target:
        return None
    return "silent, though the manifest lets it speak" if quiet("target", loaded) else ""


def unexplained(loaded: LoadedTriplet) -> str | None:
    """Where nothing says of what scene a triplet is, it is taken for a full one."""
    if loaded.expected.target is not None:
        return None
    return "silent target" if quiet("target", loaded) else "the mixture is the target" if alone(loaded) else ""


def other_scene(loaded: LoadedTriplet) -> str | None:
    """An absent target does not speak, and a clean mixture is its target."""
    if loaded.expected.target is False:
        return "" if quiet("target", loaded) else "the target speaks, but is to be absent"
    if loaded.expected.others is False:
        return "" if alone(loaded) else "the mixture is not the target alone, but is to be clean"
    return None


def no_interferer(loaded: LoadedTriplet) -> str | None:
    """Where there is to be something else beside the target, mixture - target is not silent."""
    if not loaded.expected.others:
        return None
    return "mixture - target is silent" if alone(loaded) else ""


def alone(loaded: LoadedTriplet) -> bool:
    """Whether the mixture [S] holds nothing beside its target; no where their lengths differ, as then nobody knows."""
    mixture, target = loaded.waves["mixed"], loaded.waves["target"]
    return len(mixture) == len(target) and silent(mixture - target, loaded.settings)


def sir(loaded: LoadedTriplet) -> float | None:
    """dB of the target over mixture - target: mean powers while each speaks, where that is known, else up to the zeros at its end.

    None where one is silent.
    """
    if lengths(loaded):
        return None
    target, other = loaded.waves["target"], loaded.waves["mixed"] - loaded.waves["target"]
    if silent(target, loaded.settings) or silent(other, loaded.settings):
        return None
    spoken = loaded.expected.spoken or [[slice(np.flatnonzero(np.abs(wave) >= LSB / 2)[-1] + 1)] for wave in (target, other)]
    parts = (np.concatenate([wave[time] for time in times]) for wave, times in zip((target, other), spoken, strict=True))
    powers = [np.square(part).mean() for part in parts]
    return float(10 * np.log10(powers[0] / powers[1]))


def other_sir(loaded: LoadedTriplet) -> str | None:
    """The SIR is the one expected."""
    planned = loaded.expected.sir
    achieved = None if planned is None else sir(loaded)
    if planned is None or achieved is None:
        return None
    return "" if abs(achieved - planned) <= loaded.settings.sir_tolerance else f"{achieved:.1f} dB, planned {planned:g} dB"


def leak(loaded: LoadedTriplet) -> str | None:
    """Enrolment and target are of different recordings, or of different parts of one."""
    target, ref = loaded.waves["target"], loaded.waves["ref"]
    if silent(target, loaded.settings) or silent(ref, loaded.settings):
        return None
    if loaded.expected.shared:
        return loaded.expected.shared
    alike = likeness(target, ref, round(OVERLAP * loaded.rates["ref"]))
    return f"the same audio, correlation {alike:.3f}" if alike >= loaded.settings.same else ""


def likeness(a: Wave, b: Wave, least: int) -> float:
    """How alike two waves [N] and [M], not silent, are where they match: 1 if both hold a part of one recording, at any level.

    The lag is where their phases agree best (generalised cross-correlation with phase transform, Knapp and Carter, 1976), which
    finds also a small common part; there, blocks are compared by their normalised correlation, and the best counts: of `least`
    samples in common (or all of the shorter wave), at least one block is whole. Blocks of low energy do not count.
    """
    least, size = min(least, len(a), len(b)), next_fast_len(len(a) + len(b) - 1, real=True)
    spectrum = rfft(a, size).conj() * rfft(b, size)
    spectrum /= np.maximum(np.abs(spectrum), np.finfo(np.float32).tiny)
    lags = np.arange(least - len(a), len(b) - least + 1)  # of b behind a
    lag = int(lags[np.abs(irfft(spectrum, size)[lags]).argmax()])
    x, y = a[max(-lag, 0) :], b[max(lag, 0) :]
    block = max(least // 2, 1)
    n = min(len(x), len(y)) // block
    x, y = x[: n * block].reshape(n, block), y[: n * block].reshape(n, block)
    powers = np.square(x).mean(1), np.square(y).mean(1)
    heard = (powers[0] > PAUSE * np.square(a).mean()) & (powers[1] > PAUSE * np.square(b).mean())
    products = np.abs((x * y).mean(1)[heard]) / np.sqrt(powers[0] * powers[1])[heard]
    return float(products.max(initial=0))


def _seconds(loaded: LoadedTriplet, kind: str) -> float | None:
    return len(loaded.waves[kind]) / loaded.rates[kind] if kind in loaded.waves else None


CHECKS: dict[str, tuple[tuple[str, ...], Callable[[LoadedTriplet], str | None]]] = {
    "lengths": (("mixed", "target"), lengths),
    "short_mixed": (("mixed",), partial(short, "mixed")),
    "short_ref": (("ref",), partial(short, "ref")),
    "clipped_mixed": (("mixed",), partial(clipped, "mixed")),
    "clipped_target": (("target",), partial(clipped, "target")),
    "clipped_ref": (("ref",), partial(clipped, "ref")),
    "silent_mixed": (("mixed",), partial(quiet, "mixed")),
    "silent_ref": (("ref",), partial(quiet, "ref")),
    "silent_target": (("target",), silent_target),
    "other_scene": (("mixed", "target"), other_scene),
    "no_interferer": (("mixed", "target"), no_interferer),
    "unexplained": (("mixed", "target"), unexplained),
    "sir": (("mixed", "target"), other_sir),
    "leak": (("target", "ref"), leak),
}
