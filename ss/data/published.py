"""Published standard sets for target speaker extraction, rebuilt from their published lists where the corpora are at hand.

librimix: Libri2Mix, and Libri3Mix likewise, by the CSV files of github.com/JorisCos/LibriMix (Cosentino et al., arXiv:2005.11262).
The enrolments are those that `map_mixture2enrollment` of github.com/BUTSpeechFIT/speakerbeam fixes for dev and test, which ESPnet
and WeSep use too: a source of another mixture, as it is there. The bits are those of LibriMix's create_librimix_from_metadata.py
with the same numpy, scipy and libsndfile. At 8 kHz, copies made with scipy < 1.8 may differ by a step of 16 bits here and there, as
it filtered in float64 (scipy pull request 14737).

wsj0_2mix_extr: WSJ0-2mix-extr (Xu et al., ICASSP 2019) by its lists mix_2_spk_{tr,cv,tt}_extr.txt, as simulate_2spk_mix.m of
github.com/xuchenglin28/speaker_extraction makes it: names, steps, levels and their order are the same; the bits are NOT promised:
that script runs in MATLAB with a voicebox of no stated version, and neither they nor its output were at hand to compare with.

Shapes: N samples of a source.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import cheby2, lfilter, resample_poly, sosfilt

from ss import audio
from ss.data.folder import Output, make
from ss.data.manifest import Mixture
from ss.data.packed import check_folder, file_of
from ss.errors import UserError, explain, reject_unknown_keys
from ss.files import read_text

Signal = NDArray[Any]  # float32 or float64, whichever the original has there: the last bit depends on it
RATE = 16000  # of LibriSpeech, WHAM and WSJ0
PEAK = 0.9  # of all that belongs to one mixture of WSJ0-2mix-extr
SMOOTHING, HANGOVER, MARGIN = 0.03, 0.2, 15.9  # seconds, seconds and dB of ITU-T P.56
BAND = (200, 5500)  # Hz that it listens to
STEPS = 20  # thresholds of 3 dB


@dataclass(frozen=True)
class Roots:
    """Where the corpora are. speech: the folder that the paths of a list start from; noise: WHAM's, for mix_both."""

    speech: str
    noise: str | None = None


@dataclass(frozen=True, kw_only=True)
class Published(Output):
    """One part of a published set.

    recipe: of which set. metadata: its CSV file or list. enrolments: the map of librimix; lists of wsj0_2mix_extr name their own.
    kind: librimix without noise (mix_clean), for which there need not be any, or with (mix_both). mode: mixtures end with the
    shortest source (min) or the longest (max). Raises UserError for what there is not.
    """

    recipe: Literal["librimix", "wsj0_2mix_extr"]
    metadata: str
    roots: Roots
    enrolments: str | None = None
    kind: Literal["mix_clean", "mix_both"] = "mix_clean"
    mode: Literal["min", "max"] = "min"
    sample_rate: Literal[8000, 16000] = 16000

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.enrolments is None) == (self.recipe == "librimix"):
            raise UserError(f"enrolments: expected a map for librimix, none for others, found {self.enrolments} for {self.recipe}")
        if self.kind == "mix_both" and (self.recipe != "librimix" or self.roots.noise is None):
            raise UserError(f"kind: expected librimix and roots.noise for mix_both, found {self.recipe} and {self.roots.noise}")
        for key, root in asdict(self.roots).items():
            if root is not None:
                check_folder(f"roots.{key}", root)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Published":
        """From the keys of a config. Raises UserError for keys and values that cannot be."""
        return cls(**{**reject_unknown_keys(cls, config), "roots": Roots(**reject_unknown_keys(Roots, config["roots"]))})


@dataclass(frozen=True)
class Part:
    """A file below one of the roots; gain: a factor (librimix) or dB of its active level (wsj0_2mix_extr).

    Raises ValueError for a gain that is not finite.
    """

    path: str
    gain: float
    root: str = "speech"

    def __post_init__(self) -> None:
        if not math.isfinite(self.gain):
            raise ValueError(f"expected a finite number, found {self.gain}")

    @property
    def utterance(self) -> str:
        """Its file's name without what it ends with."""
        return Path(self.path).stem


@dataclass(frozen=True)
class PublishedRow:
    """One triplet: the sum of `parts`, of which number `target` is the target. The enrolment is number `ref` of `ref_parts`, which
    give it its length."""

    name: str
    recipe: str
    sample_rate: int
    mode: str
    parts: tuple[Part, ...]
    target: int
    ref_parts: tuple[Part, ...]
    ref: int


def rebuild(config: Mapping[str, Any]) -> int:
    """Makes the triplets that are not there yet, and says what was done. config: the fields of Published.

    Gives the exit code: 1 where some could not be made, as what is measured on the others is not comparable. Raises UserError
    where the settings or lists do not allow it, where the folder holds other mixtures, or where not one could be made.
    """
    settings = Published.from_config(config)
    rows = plan(settings)
    n_speakers = len({row.name.split("_")[0] for row in rows})
    n_same = sum(row.ref_parts[row.ref].path == row.parts[row.target].path for row in rows)
    same = f"{n_same} enrolled by the very utterance that is the target, as published"
    about = f"{len(rows)} triplets of {n_speakers} target speakers by {settings.metadata}; {same}"
    return int(make(rows, partial(render, roots=settings.roots), settings, about, []) < len(rows))


def plan(settings: Published) -> list[PublishedRow]:
    """The triplets of a set in the order of its list, each once. Raises UserError for a list that does not name any."""
    rows: dict[str, PublishedRow] = {}
    for row in librimix_rows(settings) if settings.recipe == "librimix" else wsj0_2mix_extr_rows(settings):
        if rows.setdefault(row.name, row) != row:
            raise UserError(f"{settings.metadata}: expected one triplet {row.name}, found two that differ")
    if not rows:
        raise UserError(f"{settings.enrolments or settings.metadata}: expected a line for each triplet, found none")
    return list(rows.values())


def librimix_rows(settings: Published) -> Iterator[PublishedRow]:
    """The triplets of a CSV file and a map. Raises UserError, with file and line, for what they should not hold."""
    mixtures = {}  # of each, the sources and then the noise
    with Path(settings.metadata).open(newline="") as file:
        for line, columns in enumerate(csv.DictReader(file), start=2):
            numbers = [n for n in range(1, len(columns)) if f"source_{n}_path" in columns] or [1]
            needed = "mixture_ID, source_1_path, source_1_gain, source_2_path, source_2_gain, noise_path, noise_gain"
            where = f"{settings.metadata}, line {line}"
            with explain(f"{where}: expected the columns {needed}, but", KeyError, TypeError, ValueError):
                sources = [Part(columns[f"source_{n}_path"], float(columns[f"source_{n}_gain"])) for n in numbers]
                noise = Part(columns["noise_path"], float(columns["noise_gain"]), "noise")
                mixtures[columns["mixture_ID"]] = [*sources, noise]
    assert settings.enrolments is not None
    for where, (mixture, utterance, enrolment) in read_lines(settings.enrolments, "mixture_ID utterance_ID s1/mixture_ID"):
        source, _, other = enrolment.partition("/")
        needed = f"a mixture of {settings.metadata}, one of its utterances, and a source of such a mixture"
        with explain(f"{where}: expected {needed}, found {mixture} {utterance} {enrolment}", KeyError, ValueError):
            *sources, noise = mixtures[mixture]
            *others, _ = mixtures[other]
            target = [part.utterance for part in sources].index(utterance)
            ref = [f"s{number}" for number in range(1, 1 + len(others))].index(source)
        speaker = same_speaker(where, utterance.split("-")[0], others[ref].utterance.split("-")[0])
        parts = (*sources, noise) if settings.kind == "mix_both" else tuple(sources)
        name = f"{speaker}_{mixture}"
        yield PublishedRow(name, settings.recipe, settings.sample_rate, settings.mode, parts, target, tuple(others), ref)


def wsj0_2mix_extr_rows(settings: Published) -> Iterator[PublishedRow]:
    """The triplets of a list. Raises UserError, with file and line, for what it should not hold."""
    for where, words in read_lines(settings.metadata, "target.wav SNR interferer.wav SNR enrolment.wav"):
        with explain(f"{where}: expected levels in dB as words 2 and 4, found {words[1]} and {words[3]}", ValueError):
            target, interferer = (Part(path.lstrip("/"), float(snr)) for path, snr in (words[:2], words[2:4]))
        ref = Part(words[4].lstrip("/"), 0.0)
        speaker = same_speaker(where, target.utterance[:3], ref.utterance[:3])
        name = "_".join((speaker, *(f"{part.utterance}_{part.gain:.5g}" for part in (target, interferer)), ref.utterance))
        yield PublishedRow(name, settings.recipe, settings.sample_rate, settings.mode, (target, interferer), 0, (ref,), 0)


def read_lines(path: str, form: str) -> Iterator[tuple[str, list[str]]]:
    """Where each line of a list is, and its words. Raises UserError for a line of another form."""
    for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
        if words := line.split():
            if len(words) != len(form.split()):
                raise UserError(f"{path}, line {number}: expected '{form}', found {line!r}")
            yield f"{path}, line {number}", words


def same_speaker(where: str, target: str, enrolled: str) -> str:
    """The speaker. Raises UserError where the enrolment is of another than the target."""
    if target != enrolled:
        raise UserError(f"{where}: expected an enrolment of the target's speaker {target}, found one of {enrolled}")
    return target


def render(row: PublishedRow, roots: Roots) -> Mixture:
    """The waves of a row. Raises AudioError for a source that is missing, cut short, not mono of 16 kHz, or silent and levelled."""
    if row.recipe == "librimix":  # added one after the other in the type of the first
        waves, others = (read_librimix(parts, row, roots) for parts in (row.parts, row.ref_parts))
        total = np.zeros_like(waves[0])
        for wave in waves:
            total += wave
        return Mixture(as_written(total), as_written(waves[row.target]), as_written(others[row.ref]))
    target, other = fit([read_at_level(part, row, roots) for part in row.parts], row.mode)
    written = (target + other, target, read_at_level(row.ref_parts[0], row, roots))
    scale = PEAK / max(np.abs(wave).max() for wave in (*written, other))
    return Mixture(*(np.rint(wave * scale * audio.FULL_SCALE).astype(np.int16) for wave in written))


def read_librimix(parts: Sequence[Part], row: PublishedRow, roots: Roots) -> list[Signal]:
    """The sources and the noise of a mixture, by their gains, at the row's rate, fitted."""
    waves: list[Signal] = [read_speech(part, roots) for part in parts if part.root == "speech"]
    longest = max(map(len, waves))
    waves += [read_noise(part, roots, longest) for part in parts if part.root == "noise"]
    return fit([resample_poly(w * part.gain, row.sample_rate, RATE) for w, part in zip(waves, parts, strict=True)], row.mode)


def read_at_level(part: Part, row: PublishedRow, roots: Roots) -> Signal:
    """A source of WSJ0-2mix-extr at the row's rate and its active level."""
    wave = resample_poly(read_speech(part, roots).astype(np.float64), row.sample_rate, RATE)  # with MATLAB's window
    if not wave.any():
        raise audio.AudioError(f"{Path(roots.speech, part.path)}: expected speech, found silence")
    return wave * 10 ** (part.gain / 20) / math.sqrt(active_power(wave, row.sample_rate))


def read_speech(part: Part, roots: Roots) -> audio.Wave:
    """A file [N], all of it: one cut short after its header was written is an error."""
    return audio.read(file_of(roots.speech, part.path), RATE)


def read_noise(part: Part, roots: Roots, n: int) -> Signal:
    """The first channel of a noise [n]; one that is shorter is repeated with a cross-fade, which makes it float64."""
    path = file_of(str(roots.noise), part.path)
    with audio.readable(path) as file:
        wave, rate = soundfile.read(file, dtype="float32", always_2d=True, stop=n)
    if rate != RATE:
        raise audio.AudioError(f"{path}: expected a sample rate of {RATE} Hz, found {rate} Hz")
    rise = np.hanning(RATE + 1)[: RATE // 2 + 1]
    if len(wave) < min(n, len(rise) + 1):
        raise audio.AudioError(f"{path}: expected more than {len(rise)} samples to repeat, found {len(wave)}")
    noise: Signal = wave[:, 0]
    longer = noise
    while len(longer) < n:
        joint = longer[-len(rise) :] * rise[::-1] + noise[: len(rise)] * rise
        longer = np.concatenate((longer[: -len(rise)], joint, noise[len(rise) :]))
    return longer[:n]


def fit(waves: Sequence[Signal], mode: str) -> list[Signal]:
    """All as long as the shortest, or as the longest with zeros at the end."""
    length = (min if mode == "min" else max)(map(len, waves))
    return [np.pad(wave[:length], (0, max(0, length - len(wave)))) for wave in waves]


def as_written(wave: Signal) -> NDArray[np.int16]:
    """What a 16-bit file holds once libsndfile has written floats: it clips, and rounds down."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    file.seek(0)
    return soundfile.read(file, dtype="int16")[0]


def active_power(wave: NDArray[np.float64], sample_rate: int) -> float:
    """The mean power of speech [N], not silent, while it is active: ITU-T P.56 (12/2011), method B.

    The energy between 200 and 5500 Hz, over the time in which the envelope (rectified, smoothed twice) is or was within 0.2 s above
    a threshold that is 15.9 dB below this very power. Filter, steps of 3 dB between thresholds and interpolation are those of
    voicebox's activlev.m of 2012 (within 1e-8 dB on 160 utterances). That of 2017 appends 0.35 s of zeros, which makes 0.01 dB on
    average and 0.3 dB at most; ITU-T's own sv56 (G.191), behind the same filter, differs by 0.2 dB at most, having steps of 6 dB.
    """
    wave = band(wave, sample_rate)
    pole = math.exp(-1 / sample_rate / SMOOTHING)
    envelope = lfilter([(1 - pole) ** 2], [1, -2 * pole, pole**2], np.abs(wave))
    size = math.ceil(HANGOVER * sample_rate) + 1
    held = np.square(maximum_filter1d(envelope, size, mode="constant", origin=(size - 1) // 2))  # of the last `size` samples
    thresholds = 2.0 ** (np.frexp(held.max())[1] - np.arange(1, 1 + STEPS))
    counts = [np.count_nonzero(held >= threshold) for threshold in thresholds[:-1]] + [len(held)]
    levels = 10 * np.log10(np.square(wave).sum() / counts)
    excess = levels - 10 * np.log10(thresholds) - MARGIN
    crossings = np.flatnonzero((excess[:-1] < 0) & (excess[1:] >= 0))
    if len(crossings):
        at = slice(crossings[0], crossings[0] + 2)
        return float(10 ** (np.interp(0, excess[at], levels[at]) / 10))
    return float(10 ** (levels[-1 if excess[-1] <= 0 else 0] / 10))


def band(wave: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """A wave [N] in the band of P.56: Chebyshev filters of type 2 and order 5, 0.25 dB lower at its edges and 50 dB outside."""
    edge = math.cosh(math.acosh(math.sqrt((10**5 - 1) / (10**0.025 - 1))) / 5)  # of the stop band, relative to the pass band's
    for kind, hertz, factor in zip(("highpass", "lowpass"), BAND, (1 / edge, edge), strict=True):
        if kind == "highpass" or sample_rate >= 14000:  # below, there is nothing to take away
            stop = math.atan(factor * math.tan(math.pi * hertz / sample_rate)) / math.pi  # through the bilinear transform
            wave = sosfilt(cheby2(5, 50, 2 * stop, kind, output="sos"), wave)
    return wave
