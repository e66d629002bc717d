"""What is wrong with one triplet, and what can be measured of it: by its waves, and by what its manifest expects.

Checks give why a triplet is at fault, by their names: an empty string where it is sound, nothing where that cannot be told.
Shapes: S samples of the mixture and target, N and M of any two waves.
"""

import hashlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ss.audio import AudioError, Wave, read_whole
from ss.data import manifest
from ss.data.packed import Place, file_of
from ss.errors import UserError, require_positive

KINDS = {"mixed": "mixture", "target": "target", "ref": "enrolment"}
FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
LSB = 1 / 32768
OVERLAP = 1.0  # seconds that two recordings must share at least: vowels alone are alike for a shorter time
PAUSE = 0.1  # part of a wave's mean power below which nothing is compared: hum and silence are alike for long


@dataclass(frozen=True)
class AuditSettings:
    """What is held against the triplets.

    folders: of triplets, each with its manifest if it has one. sample_rate: Hz of all files; None: what most of them have.
    min_len, ref_min_len: seconds that mixtures and enrolments have at least. silent_db: dB of full scale below which the peak of
    silence is. clip_run: so many samples in a row at full scale are clipped. same: the correlation from which enrolment and target
    are of one recording. sir_tolerance: dB between the planned SIR and the one that is heard. disjoint: whether folders must not
    share target speakers. Raises UserError for a value that cannot be.
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
        object.__setattr__(self, "folders", list(map(str, self.folders or [])))
        if not self.folders or len({Path(folder).resolve() for folder in self.folders}) < len(self.folders):
            raise UserError(f"folders: expected one or several, each once, found {self.folders}")
        positive = ("clip_run", "num_workers", "min_len", "ref_min_len", "same", "sir_tolerance")
        require_positive(vars(self), *positive, or_none=["sample_rate"])
        if not self.silent_db < 0:
            raise UserError(f"silent_db: expected less than 0, found {self.silent_db}")


ABSENT = "absent"  # as names end that the scenes give


class Expected(NamedTuple):
    """What a manifest says of a triplet, as far as the waves can be held against it; None: nothing.

    target: whether the target speaks at all; others: whether anything else is heard in the mixture. sir: dB of the target over the
    interferer, mean powers, each while it speaks (`spoken`: when, of both); why_no_sir: why it is not known. shared: what enrolment
    and target both hold, else empty.
    """

    target: bool | None = None
    others: bool | None = None
    sir: float | None = None
    why_no_sir: str = "not in a manifest"
    shared: str = ""
    spoken: tuple[tuple[slice, ...], ...] = ()


def read_expected(folder: str) -> dict[str, Expected]:
    """By name, what `manifest.jsonl` in a folder says, if there. Raises UserError for one that is none."""
    path = file_of(folder, manifest.FILE)
    return {row.name: expect(row) for row in manifest.read(path)} if path.is_file() else {}


def expect(row: manifest.Row) -> Expected:
    """What a row says. Its SIR is known where one other speaks and nothing else changes what is heard of both."""
    in_a_room = row.target.rir is not None or row.target.room is not None
    others: bool | None = bool(row.interferers) or row.noise is not None
    if not others and (not row.linear or (row.early_ms is not None and in_a_room)):
        others = None  # what a codec or a room adds to the mixture may be anything
    reasons = {
        "no single interferer beside a target": len(row.interferers) != 1 or not row.target.pieces,
        "levels by loudness": row.loudness is not None,
        "in a room": in_a_room or any(voice.rir is not None or voice.room is not None for voice in row.interferers),
        "noise or a channel": row.noise is not None or row.bandwidth is not None or not row.linear,
    }
    why = next((reason for reason, holds in reasons.items() if holds), "")
    common = [
        f"both from {one.path}, samples {start} to {stop}"
        for one, other in product(row.target.pieces, row.enrolment.pieces)
        if one.path == other.path and (start := max(one.start, other.start)) < (stop := min(one.stop, other.stop))
    ]
    return Expected(
        target=bool(row.target.pieces),
        others=others,
        sir=None if why else row.interferers[0].level,
        why_no_sir=why,
        shared=common[0] if common else "",
        spoken=() if why else tuple(voice.spoken() for voice in (row.target, *row.interferers)),
    )


class AuditedTriplet(NamedTuple):
    """What is known of a triplet before it is heard: its files by kind (there may be none or two of one)."""

    folder: str
    name: str
    files: dict[str, list[Place]]
    expected: Expected


class Facts(NamedTuple):
    """What was found. faults: by check, why, or an empty string; digests: of the samples by kind, where they are not silent.

    seconds, ref_seconds; sir: dB, where target and interferer are heard; peak: dB of full scale of the mixture. None: not known.
    """

    triplet: AuditedTriplet
    faults: dict[str, str]
    rates: dict[str, int]
    digests: dict[str, str]
    seconds: float | None
    ref_seconds: float | None
    sir: float | None
    peak: float | None


def examine(triplet: AuditedTriplet, settings: AuditSettings) -> Facts:
    """Reads the files of a triplet and makes all checks that need no other."""
    waves: dict[str, Wave] = {}
    rates: dict[str, int] = {}
    unreadable = []
    for kind, paths in triplet.files.items():
        try:
            waves[kind], rates[kind] = read_whole(paths[0])
        except AudioError as error:
            unreadable.append(str(error))
    incomplete = [f"no {word}" for kind, word in KINDS.items() if kind not in triplet.files]
    incomplete += [f"{len(paths)} files -{kind}" for kind, paths in triplet.files.items() if len(paths) > 1]
    faults = {
        "incomplete": ", ".join(incomplete),
        "unreadable": "; ".join(unreadable),
        "unnamed": "" if triplet.name.find("_") > 0 else "no underscore after a speaker's id",
    }
    for kind, wave in waves.items():
        faults |= check_wave(kind, wave, rates[kind], settings)
    sir = None
    if {"mixed", "target"} <= set(waves) and rates["mixed"] == rates["target"]:
        sir = measure_sir(waves["mixed"], waves["target"], triplet.expected, settings)
        faults |= check_scene(waves["mixed"], waves["target"], sir, triplet.expected, settings)
    loud = {kind: wave for kind, wave in waves.items() if not is_silent(wave, settings)}
    if {"target", "ref"} <= set(loud) and rates["target"] == rates["ref"]:
        faults["leak"] = triplet.expected.shared
        alike = 0.0 if faults["leak"] else likeness(loud["target"], loud["ref"], round(OVERLAP * rates["ref"]))
        if alike >= settings.same:
            faults["leak"] = f"the same audio, correlation {alike:.3f}"
    seconds = {kind: len(wave) / rates[kind] for kind, wave in waves.items()}
    return Facts(
        triplet=triplet,
        faults=faults,
        rates=rates,
        digests={kind: hashlib.blake2b(wave.tobytes(), digest_size=16).hexdigest() for kind, wave in loud.items()},
        seconds=seconds.get("mixed"),
        ref_seconds=seconds.get("ref"),
        sir=sir,
        peak=float(20 * np.log10(np.abs(loud["mixed"]).max())) if "mixed" in loud else None,
    )


def is_silent(wave: Wave, settings: AuditSettings) -> bool:
    """Whether the peak of a wave [N] is so low that there is no speech in it."""
    return bool(np.abs(wave).max() < 10 ** (settings.silent_db / 20))


def check_wave(kind: str, wave: Wave, rate: int, settings: AuditSettings) -> dict[str, str]:
    """Whether a wave is clipped; of mixtures and enrolments also whether it is long enough, and not silent."""
    run, full = settings.clip_run, np.flatnonzero(np.abs(wave) >= FULL_SCALE)
    in_a_row = np.any(full[run - 1 :] - full[: max(len(full) - run + 1, 0)] == run - 1)  # no peak of a voice
    faults = {f"clipped_{kind}": f"{len(full)} samples at full scale" if in_a_row else ""}
    if kind != "target":
        seconds, least = len(wave) / rate, settings.ref_min_len if kind == "ref" else settings.min_len
        faults[f"short_{kind}"] = "" if seconds >= least else f"{seconds:.2f} s"
        faults[f"silent_{kind}"] = "silent" if is_silent(wave, settings) else ""
    return faults


def measure_sir(mixture: Wave, target: Wave, expected: Expected, settings: AuditSettings) -> float | None:
    """dB of the target [S] over mixture - target: mean powers while each speaks, if known, else up to the zeros at its end.

    None where one is silent, or the lengths differ.
    """
    if len(mixture) != len(target) or is_silent(target, settings) or is_silent(mixture - target, settings):
        return None
    waves = (target, mixture - target)
    spoken = expected.spoken or [[slice(np.flatnonzero(np.abs(wave) >= LSB / 2)[-1] + 1)] for wave in waves]
    parts = (np.concatenate([wave[time] for time in times]) for wave, times in zip(waves, spoken, strict=True))
    powers = [np.square(part).mean() for part in parts]
    return float(10 * np.log10(powers[0] / powers[1]))


def check_scene(mixture: Wave, target: Wave, sir: float | None, expected: Expected, settings: AuditSettings) -> dict[str, str]:
    """Whether mixture and target [S] are of one length, and hold what the manifest expects.

    Where nothing says of what scene a triplet is, it is taken for a full one.
    """
    same_length, silent = len(mixture) == len(target), is_silent(target, settings)
    alone = same_length and is_silent(mixture - target, settings)
    faults = {"lengths": "" if same_length else f"mixture of {len(mixture)} samples, target of {len(target)}"}
    if expected.target is None:
        faults["unexplained"] = "silent target" if silent else "the mixture is the target" if alone else ""
    elif expected.target:
        faults["silent_target"] = "silent, though the manifest lets it speak" if silent else ""
    if expected.target is False:
        faults["other_scene"] = "" if silent else "the target speaks, but is to be absent"
    elif expected.others is False:
        faults["other_scene"] = "" if alone else "the mixture is not the target alone, but is to be clean"
    if expected.others:
        faults["no_interferer"] = "mixture - target is silent" if alone else ""
    if expected.sir is not None and sir is not None:
        other = abs(sir - expected.sir) > settings.sir_tolerance
        faults["sir"] = f"{sir:.1f} dB, planned {expected.sir:g} dB" if other else ""
    return faults


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
