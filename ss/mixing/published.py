"""Published standard sets for target speaker extraction, rebuilt from their published lists where the corpora are at hand.

librimix: Libri2Mix (Cosentino et al., arXiv:2005.11262; Libri3Mix likewise) by the CSV files of github.com/JorisCos/LibriMix, with
the enrolments that `map_mixture2enrollment` of github.com/BUTSpeechFIT/speakerbeam fixes for dev and test, which ESPnet and WeSep
use too: a source of another mixture, as it is there. The bits are those of LibriMix's create_librimix_from_metadata.py with the
same numpy, scipy and libsndfile. At 8 kHz, copies made with scipy < 1.8 may differ by a step of 16 bits here and there, as it
filtered in float64 (scipy pull request 14737).

wsj0_2mix_extr: WSJ0-2mix-extr (Xu et al., ICASSP 2019) by the lists mix_2_spk_{tr,cv,tt}_extr.txt of
github.com/xuchenglin28/speaker_extraction, as its simulate_2spk_mix.m makes it. Names, steps, levels and their order are the same;
the bits are NOT promised: that script runs in MATLAB with a voicebox of no stated version, and neither they nor its output were at
hand to compare with.

Shapes: S samples of mixture and target, R samples of the enrolment, N samples of a source.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from ss import audio
from ss.mixing.folder import make
from ss.mixing.render import FULL_SCALE, PCM, Triplet
from ss.mixing.settings import EXTENSIONS
from ss.mixing.speech_level import active_power
from ss.scenes import row as jsonl
from ss.scenes.scene import known

Signal = NDArray[Any]  # float32 or float64, whichever the original has there: the last bit depends on it
RATE = 16000  # of LibriSpeech, WHAM and WSJ0
CHOICES = {"mode": ("min", "max"), "kind": ("mix_clean", "mix_both"), "sample_rate": (8000, 16000), "extension": EXTENSIONS}
PEAK = 0.9  # of all that belongs to one mixture of wsj0_2mix_extr


@dataclass(frozen=True)
class Roots:
    """Where the corpora are. speech: the folder that the paths of a list start from; noise: WHAM's, for mix_both."""

    speech: str
    noise: str | None = None


@dataclass(frozen=True)
class Published:
    """One part of a published set.

    recipe: of which set. metadata: its CSV file or list. enrolments: the map of librimix; lists of wsj0_2mix_extr name their own.
    kind: librimix without noise (mix_clean), for which there need not be any, or with (mix_both). mode: mixtures end with the
    shortest source (min) or the longest (max). out_folder, extension, num_workers, overwrite: see `ss.mixing.folder.Output`.
    Raises ValueError for what there is not.
    """

    recipe: str
    metadata: str
    roots: Roots
    out_folder: str
    enrolments: str | None = None
    kind: str = "mix_clean"
    mode: str = "min"
    sample_rate: int = 16000
    extension: str = "wav"
    num_workers: int = 1
    cluster: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for key, choices in {"recipe": tuple(RECIPES), **CHOICES}.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{key}: expected one of {', '.join(map(str, choices))}, found {getattr(self, key)}")
        if self.num_workers < 1:
            raise ValueError(f"num_workers: expected more than 0, found {self.num_workers}")
        if (self.enrolments is None) == (self.recipe == "librimix"):
            raise ValueError(f"enrolments: expected a map for librimix, none for others, found {self.enrolments} for {self.recipe}")
        if self.kind == "mix_both" and (self.recipe != "librimix" or self.roots.noise is None):
            raise ValueError(f"kind: expected librimix and roots.noise for mix_both, found {self.recipe} and {self.roots.noise}")
        for key, root in asdict(self.roots).items():
            if root is not None and not Path(root).is_dir():
                raise ValueError(f"roots.{key}: expected a folder, found none at {root}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Published":
        """From the keys of a config. Raises ValueError for keys and values that cannot be."""
        return cls(**{**known(cls, config), "roots": Roots(**known(Roots, config["roots"]))})


@dataclass(frozen=True)
class Part:
    """A file below one of the roots; gain: a factor (librimix) or dB of its active level (wsj0_2mix_extr)."""

    path: str
    gain: float
    root: str = "speech"

    @property
    def utterance(self) -> str:
        """Its file's name without what it ends with."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Row:
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


class Recipe(NamedTuple):
    """How a set is made: which rows there are, and what is heard of one."""

    rows: Callable[[Published], Iterator[Row]]
    render: Callable[[Row, Roots], Triplet]


class Manifest:
    """The rows beside their triplets, one JSON object a line, so that a folder is continued with what it was begun with."""

    FILE = jsonl.FILE
    cells = staticmethod(jsonl.cells)
    write = staticmethod(jsonl.write)

    @staticmethod
    def read(path: Path) -> list[Row]:
        """The rows of a manifest. Raises ValueError with the file and line where it is not one."""
        rows = []
        for number, text in enumerate(path.read_text().splitlines(), start=1):
            try:
                content = json.loads(text)
                parts = {key: tuple(Part(**part) for part in content[key]) for key in ("parts", "ref_parts")}
                rows.append(Row(**{**content, **parts}))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: expected a row of a published set, but: {error!r}") from error
        return rows


def rebuild(config: Mapping[str, Any]) -> int:
    """Makes the triplets that are not there yet, and says what was done. config: the fields of Published.

    Gives the exit code: 1 where some could not be made, as what is measured on the others is not comparable. Raises ValueError
    where the settings or lists do not allow it, where the folder holds other mixtures, or where not one could be made.
    """
    settings = Published.of(config)
    rows = plan(settings)
    make(rows, Manifest(), partial(render, roots=settings.roots), settings, _describe(rows, settings), [])
    out = Path(settings.out_folder)
    return int(not all((out / f"{row.name}-mixed.{settings.extension}").exists() for row in rows))


def plan(settings: Published) -> list[Row]:
    """The triplets of a set in the order of its list, each once. Raises ValueError for a list that does not name any."""
    rows: dict[str, Row] = {}
    for row in RECIPES[settings.recipe].rows(settings):
        if rows.setdefault(row.name, row) != row:
            raise ValueError(f"{settings.metadata}: expected one triplet {row.name}, found two that differ")
    if not rows:
        raise ValueError(f"{settings.enrolments or settings.metadata}: expected a line for each triplet, found none")
    return list(rows.values())


def render(row: Row, roots: Roots) -> Triplet:
    """The waves of a row. Raises AudioError for a source that is missing, cut short, not mono of 16 kHz, or silent and levelled."""
    return RECIPES[row.recipe].render(row, roots)


def _describe(rows: Sequence[Row], settings: Published) -> str:
    """What the lists hold, in one line."""
    speakers = {row.name.split("_")[0] for row in rows}
    own = sum(row.ref_parts[row.ref].path == row.parts[row.target].path for row in rows)
    return (
        f"{len(rows)} triplets of {len(speakers)} target speakers by {settings.metadata}; "
        f"{own} enrolled by the very utterance that is the target, as published"
    )


def _lines(path: str, form: str) -> Iterator[tuple[str, list[str]]]:
    """Where each line of a list is, and its words. Raises ValueError for a line of another form."""
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        if words := line.split():
            if len(words) != len(form.split()):
                raise ValueError(f"{path}, line {number}: expected '{form}', found {line!r}")
            yield f"{path}, line {number}", words


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, found {text}")
    return number


def _librimix_rows(settings: Published) -> Iterator[Row]:
    mixtures = _librimix_mixtures(settings.metadata)
    assert settings.enrolments is not None
    for where, (mixture, utterance, enrolment) in _lines(settings.enrolments, "mixture_ID utterance_ID s1/mixture_ID"):
        source, _, other = enrolment.partition("/")
        try:
            *sources, noise = mixtures[mixture]
            *others, _ = mixtures[other]
            target = [part.utterance for part in sources].index(utterance)
            ref = [f"s{number}" for number in range(1, 1 + len(others))].index(source)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{where}: expected a mixture of {settings.metadata}, one of its utterances, and a source of such a mixture, "
                f"found {mixture} {utterance} {enrolment}"
            ) from error
        speaker = _same_speaker(where, utterance.split("-")[0], others[ref].utterance.split("-")[0])
        parts = (*sources, noise) if settings.kind == "mix_both" else tuple(sources)
        yield Row(f"{speaker}_{mixture}", "librimix", settings.sample_rate, settings.mode, parts, target, tuple(others), ref)


def _librimix_mixtures(path: str) -> dict[str, list[Part]]:
    """The sources of every mixture, then its noise."""
    mixtures = {}
    with Path(path).open(newline="") as file:
        for line, columns in enumerate(csv.DictReader(file), start=2):
            numbers = [n for n in range(1, len(columns)) if f"source_{n}_path" in columns] or [1]
            try:
                parts = [Part(columns[f"source_{n}_path"], _number(columns[f"source_{n}_gain"])) for n in numbers]
                mixtures[columns["mixture_ID"]] = [*parts, Part(columns["noise_path"], _number(columns["noise_gain"]), "noise")]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}, line {line}: expected the columns mixture_ID, source_1_path, source_1_gain, source_2_path, "
                    f"source_2_gain, noise_path, noise_gain, but: {error!r}"
                ) from error
    return mixtures


def _same_speaker(where: str, target: str, enrolled: str) -> str:
    if target != enrolled:
        raise ValueError(f"{where}: expected an enrolment of the target's speaker {target}, found one of {enrolled}")
    return target


def _librimix(row: Row, roots: Roots) -> Triplet:
    """The parts by their gains, resampled, fitted, and added one after the other in the type of the first."""
    waves, others = (_librimix_waves(parts, row, roots) for parts in (row.parts, row.ref_parts))
    mixture = np.zeros_like(waves[0])
    for wave in waves:
        mixture += wave
    return Triplet(*(_as_written(wave) for wave in (mixture, waves[row.target], others[row.ref])))


def _librimix_waves(parts: Sequence[Part], row: Row, roots: Roots) -> list[Signal]:
    from scipy.signal import resample_poly

    waves: list[Signal] = [_speech(part, roots) for part in parts if part.root == "speech"]
    longest = max(map(len, waves))
    waves += [_noise(part, roots, longest) for part in parts if part.root == "noise"]
    scaled = (wave * part.gain for wave, part in zip(waves, parts, strict=True))
    return _fit([resample_poly(wave, row.sample_rate, RATE) for wave in scaled], row.mode)


def _speech(part: Part, roots: Roots) -> audio.Wave:
    """A file [N], all of it: one cut short after its header was written is an error."""
    path = Path(roots.speech, part.path)
    wave, n = audio.read(path, RATE), audio.n_samples(path)
    if len(wave) != n:
        raise audio.AudioError(f"{path}: expected {n} samples, found {len(wave)}")
    return wave


def _noise(part: Part, roots: Roots, n: int) -> Signal:
    """The first channel of a noise [n]; one that is shorter is repeated with a cross-fade, which makes it float64."""
    path = Path(str(roots.noise), part.path)
    try:
        wave, rate = soundfile.read(str(path), dtype="float32", always_2d=True, stop=n)
    except (soundfile.LibsndfileError, OSError) as error:
        raise audio.AudioError(f"{path}: expected a readable audio file, but: {error}") from error
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


def _fit(waves: Sequence[Signal], mode: str) -> list[Signal]:
    """All as long as the shortest, or as the longest with zeros at the end."""
    length = (min if mode == "min" else max)(map(len, waves))
    return [np.pad(wave[:length], (0, max(0, length - len(wave)))) for wave in waves]


def _as_written(wave: Signal) -> PCM:
    """What a 16-bit file holds once libsndfile has written floats: it clips, and rounds down."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    file.seek(0)
    return soundfile.read(file, dtype="int16")[0]


def _extr_rows(settings: Published) -> Iterator[Row]:
    for where, words in _lines(settings.metadata, "target.wav SNR interferer.wav SNR enrolment.wav"):
        try:
            target, interferer = (Part(path.lstrip("/"), _number(snr)) for path, snr in (words[:2], words[2:4]))
        except ValueError as error:
            raise ValueError(f"{where}: expected levels in dB as words 2 and 4, found {words[1]} and {words[3]}") from error
        ref = Part(words[4].lstrip("/"), 0.0)
        speaker = _same_speaker(where, target.utterance[:3], ref.utterance[:3])
        name = "_".join((speaker, *(f"{part.utterance}_{part.gain:.5g}" for part in (target, interferer)), ref.utterance))
        yield Row(name, "wsj0_2mix_extr", settings.sample_rate, settings.mode, (target, interferer), 0, (ref,), 0)


def _extr(row: Row, roots: Roots) -> Triplet:
    """The parts at their active levels, fitted, and all lowered or raised together until the loudest sample is PEAK."""
    target, other = _fit([_levelled(part, row, roots) for part in row.parts], row.mode)
    ref = _levelled(row.ref_parts[0], row, roots)
    waves = (target + other, target, ref)
    scale = PEAK / max(np.abs(wave).max() for wave in (*waves, other))
    return Triplet(*(np.rint(wave * scale * FULL_SCALE).astype(np.int16) for wave in waves))


def _levelled(part: Part, row: Row, roots: Roots) -> Signal:
    from scipy.signal import resample_poly

    wave = resample_poly(_speech(part, roots).astype(np.float64), row.sample_rate, RATE)  # the window that MATLAB's resample has
    if not wave.any():
        raise audio.AudioError(f"{Path(roots.speech, part.path)}: expected speech, found silence")
    return wave * 10 ** (part.gain / 20) / math.sqrt(active_power(wave, row.sample_rate))


RECIPES = {"librimix": Recipe(_librimix_rows, _librimix), "wsj0_2mix_extr": Recipe(_extr_rows, _extr)}
