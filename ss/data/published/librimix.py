"""Libri2Mix, and Libri3Mix likewise, by the CSV files of github.com/JorisCos/LibriMix (Cosentino et al., arXiv:2005.11262).

The enrolments are those that `map_mixture2enrollment` of github.com/BUTSpeechFIT/speakerbeam fixes for dev and test, which ESPnet
and WeSep use too: a source of another mixture, as it is there. The bits are those of LibriMix's create_librimix_from_metadata.py
with the same numpy, scipy and libsndfile. At 8 kHz, copies made with scipy < 1.8 may differ by a step of 16 bits here and there, as
it filtered in float64 (scipy pull request 14737).

Shapes: S samples of mixture and target, R samples of the enrolment, N samples of a source.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from ss import audio
from ss.data.mixture import PCM, Mixture
from ss.data.published.rows import Part, PublishedRow, finite, lines, same_speaker
from ss.data.published.settings import Published, Roots
from ss.data.published.waves import RATE, Signal, fit, speech
from ss.data.shards import file_of
from ss.errors import UserError


def rows(settings: Published) -> Iterator[PublishedRow]:
    """The triplets of a CSV file and a map. Raises UserError, with file and line, for what they should not hold."""
    mixtures = _mixtures(settings.metadata)
    assert settings.enrolments is not None
    for where, (mixture, utterance, enrolment) in lines(settings.enrolments, "mixture_ID utterance_ID s1/mixture_ID"):
        source, _, other = enrolment.partition("/")
        try:
            *sources, noise = mixtures[mixture]
            *others, _ = mixtures[other]
            target = [part.utterance for part in sources].index(utterance)
            ref = [f"s{number}" for number in range(1, 1 + len(others))].index(source)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{where}: expected a mixture of {settings.metadata}, one of its utterances, and a source of such a mixture, "
                f"found {mixture} {utterance} {enrolment}"
            ) from error
        speaker = same_speaker(where, utterance.split("-")[0], others[ref].utterance.split("-")[0])
        parts = (*sources, noise) if settings.kind == "mix_both" else tuple(sources)
        yield PublishedRow(
            f"{speaker}_{mixture}", "librimix", settings.sample_rate, settings.mode, parts, target, tuple(others), ref
        )


def _mixtures(path: str) -> dict[str, list[Part]]:
    """The sources of every mixture, then its noise."""
    mixtures = {}
    with Path(path).open(newline="") as file:
        for line, columns in enumerate(csv.DictReader(file), start=2):
            numbers = [n for n in range(1, len(columns)) if f"source_{n}_path" in columns] or [1]
            try:
                parts = [Part(columns[f"source_{n}_path"], finite(columns[f"source_{n}_gain"])) for n in numbers]
                mixtures[columns["mixture_ID"]] = [*parts, Part(columns["noise_path"], finite(columns["noise_gain"]), "noise")]
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path}, line {line}: expected the columns mixture_ID, source_1_path, source_1_gain, source_2_path, "
                    f"source_2_gain, noise_path, noise_gain, but: {error!r}"
                ) from error
    return mixtures


def render(row: PublishedRow, roots: Roots) -> Mixture:
    """The parts by their gains, resampled, fitted, and added one after the other in the type of the first."""
    waves, others = (_waves(parts, row, roots) for parts in (row.parts, row.ref_parts))
    total = np.zeros_like(waves[0])
    for wave in waves:
        total += wave
    mixture, target, ref = (_as_written(wave) for wave in (total, waves[row.target], others[row.ref]))
    return Mixture(mixture, target, ref)


def _waves(parts: Sequence[Part], row: PublishedRow, roots: Roots) -> list[Signal]:
    from scipy.signal import resample_poly

    waves: list[Signal] = [speech(part, roots) for part in parts if part.root == "speech"]
    longest = max(map(len, waves))
    waves += [_noise(part, roots, longest) for part in parts if part.root == "noise"]
    scaled = (wave * part.gain for wave, part in zip(waves, parts, strict=True))
    return fit([resample_poly(wave, row.sample_rate, RATE) for wave in scaled], row.mode)


def _noise(part: Part, roots: Roots, n: int) -> Signal:
    """The first channel of a noise [n]; one that is shorter is repeated with a cross-fade, which makes it float64."""
    path = file_of(str(roots.noise), part.path)
    try:
        wave, rate = soundfile.read(
            path.open("rb") if isinstance(path, Path) else path.open(), dtype="float32", always_2d=True, stop=n
        )
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


def _as_written(wave: Signal) -> PCM:
    """What a 16-bit file holds once libsndfile has written floats: it clips, and rounds down."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    file.seek(0)
    return soundfile.read(file, dtype="int16")[0]
