"""What is wrong with one triplet, and what can be measured of it: by its waves, and by what its manifest promised.

A check gives why a triplet is at fault, an empty string where it is sound, and None where that cannot be told. Shapes: S samples
of the mixture and target, N and M of any two waves.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ss import audio
from ss.audio import AudioError, Wave
from ss.data.audit.expected import Promise
from ss.data.audit.settings import Settings
from ss.data.shards import Place

KINDS = {"mixed": "mixture", "target": "target", "ref": "enrolment"}
FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
LSB = 1 / 32768
OVERLAP = 1.0  # seconds that two recordings must share at least: vowels alone are alike for a shorter time
PAUSE = 0.1  # part of a wave's mean power below which nothing is compared: hum and silence are alike for long


class Triplet(NamedTuple):
    """What is known of a triplet before it is heard: its files by kind (there may be none or two of one)."""

    folder: str
    name: str
    files: dict[str, list[Place]]
    promise: Promise


class Heard(NamedTuple):
    """Those files of a triplet that can be read, by kind, with their rates in Hz."""

    waves: dict[str, Wave]
    rates: dict[str, int]
    promise: Promise
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
    heard, unreadable = Heard({}, {}, triplet.promise, settings), []
    for kind, paths in triplet.files.items():
        try:
            heard.waves[kind], heard.rates[kind] = read(paths[0])
        except AudioError as error:
            unreadable.append(str(error))
    faults = {"incomplete": incomplete(triplet.files), "unreadable": "; ".join(unreadable), "unnamed": unnamed(triplet.name)}
    for check, (kinds, why) in CHECKS.items():
        if set(kinds) <= set(heard.waves) and len({heard.rates[kind] for kind in kinds}) == 1:
            found = why(heard)
            faults |= {} if found is None else {check: found}
    loud = {kind: wave for kind, wave in heard.waves.items() if not silent(wave, settings)}
    mixture = loud.get("mixed")
    return Facts(
        triplet=triplet,
        faults=faults,
        rates=heard.rates,
        digests={kind: hashlib.blake2b(wave.tobytes(), digest_size=16).hexdigest() for kind, wave in loud.items()},
        seconds=_seconds(heard, "mixed"),
        ref_seconds=_seconds(heard, "ref"),
        sir=sir(heard) if "lengths" in faults else None,
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


def lengths(heard: Heard) -> str:
    """Mixture and target are equally long."""
    mixture, target = heard.waves["mixed"], heard.waves["target"]
    return "" if len(mixture) == len(target) else f"mixture of {len(mixture)} samples, target of {len(target)}"


def short(kind: str, heard: Heard) -> str:
    """A wave is long enough."""
    least = heard.settings.ref_min_len if kind == "ref" else heard.settings.min_len
    seconds = len(heard.waves[kind]) / heard.rates[kind]
    return "" if seconds >= least else f"{seconds:.2f} s"


def clipped(kind: str, heard: Heard) -> str:
    """So many samples in a row at full scale are no peak of a voice."""
    run, full = heard.settings.clip_run, np.flatnonzero(np.abs(heard.waves[kind]) >= FULL_SCALE)
    runs = np.count_nonzero(full[run - 1 :] - full[: max(len(full) - run + 1, 0)] == run - 1)
    return f"{len(full)} samples at full scale" if runs else ""


def quiet(kind: str, heard: Heard) -> str:
    """A wave is not silent."""
    return "silent" if silent(heard.waves[kind], heard.settings) else ""


def silent(wave: Wave, settings: Settings) -> bool:
    """Whether the peak of a wave [N] is so low that there is no speech in it."""
    return bool(np.abs(wave).max() < 10 ** (settings.silent_db / 20))


def silent_target(heard: Heard) -> str | None:
    """A target that is to speak does."""
    if not heard.promise.target:
        return None
    return "silent, though the manifest lets it speak" if quiet("target", heard) else ""


def unexplained(heard: Heard) -> str | None:
    """Where nothing says of what scene a triplet is, it is taken for a full one."""
    if heard.promise.target is not None:
        return None
    return "silent target" if quiet("target", heard) else "the mixture is the target" if alone(heard) else ""


def other_scene(heard: Heard) -> str | None:
    """An absent target does not speak, and a clean mixture is its target."""
    if heard.promise.target is False:
        return "" if quiet("target", heard) else "the target speaks, but is to be absent"
    if heard.promise.others is False:
        return "" if alone(heard) else "the mixture is not the target alone, but is to be clean"
    return None


def no_interferer(heard: Heard) -> str | None:
    """Where there is to be something else beside the target, mixture - target is not silent."""
    if not heard.promise.others:
        return None
    return "mixture - target is silent" if alone(heard) else ""


def alone(heard: Heard) -> bool:
    """Whether the mixture [S] holds nothing beside its target; no where their lengths differ, as then nobody knows."""
    mixture, target = heard.waves["mixed"], heard.waves["target"]
    return len(mixture) == len(target) and silent(mixture - target, heard.settings)


def sir(heard: Heard) -> float | None:
    """dB of the target over mixture - target: mean powers, zeros at the end not counted. None where one is silent."""
    if lengths(heard):
        return None
    target, other = heard.waves["target"], heard.waves["mixed"] - heard.waves["target"]
    if silent(target, heard.settings) or silent(other, heard.settings):
        return None
    powers = [np.square(wave[: np.flatnonzero(np.abs(wave) >= LSB / 2)[-1] + 1]).mean() for wave in (target, other)]
    return float(10 * np.log10(powers[0] / powers[1]))


def other_sir(heard: Heard) -> str | None:
    """The SIR is the one promised."""
    planned = heard.promise.sir
    achieved = None if planned is None else sir(heard)
    if planned is None or achieved is None:
        return None
    return "" if abs(achieved - planned) <= heard.settings.sir_tolerance else f"{achieved:.1f} dB, planned {planned:g} dB"


def leak(heard: Heard) -> str | None:
    """Enrolment and target are of different recordings, or of different parts of one."""
    target, ref = heard.waves["target"], heard.waves["ref"]
    if silent(target, heard.settings) or silent(ref, heard.settings):
        return None
    if heard.promise.shared:
        return heard.promise.shared
    alike = likeness(target, ref, round(OVERLAP * heard.rates["ref"]))
    return f"the same audio, correlation {alike:.3f}" if alike >= heard.settings.same else ""


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


def _seconds(heard: Heard, kind: str) -> float | None:
    return len(heard.waves[kind]) / heard.rates[kind] if kind in heard.waves else None


CHECKS: dict[str, tuple[tuple[str, ...], Callable[[Heard], str | None]]] = {
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
