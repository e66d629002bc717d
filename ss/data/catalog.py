"""All that scenes are drawn from, found once: speakers with their speech, noise, and impulse responses of rooms."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.data.corpus import Corpus, Span
from ss.data.index import File, genders, index
from ss.data.sampling import Chances, Group, chances
from ss.data.sources import Sources


class Catalog(NamedTuple):
    """corpus: spans from the first speech of a file to its last, at `sample_rate`; speech: by path, starts and stops [n,2] in it;
    drawn: who is drawn how often; same_gender: by speaker, those of the same group and gender, if that is known; noise: paths and
    samples; rirs: paths. Each path is relative to its folder of `sources`."""

    sources: Sources
    corpus: Corpus
    drawn: Chances
    same_gender: dict[str, Group]
    speech: dict[str, NDArray[np.int64]]
    noise: tuple[tuple[str, int], ...]
    rirs: tuple[str, ...]


def make_catalog(sources: Sources) -> Catalog:
    """Looks into the sources. Raises ValueError where there are not two speakers, or a folder holds no audio."""
    files = index(sources)
    speech = {file.path: _resampled(file, sources.sample_rate) for file in files if file.speech}
    speakers: dict[str, tuple[Span, ...]] = {}
    for file in files:
        if file.path in speech:
            start, stop = int(speech[file.path][0, 0]), int(speech[file.path][-1, 1])
            if stop - start >= sources.min_len * sources.sample_rate:
                speakers[file.speaker] = (*speakers.get(file.speaker, ()), Span(file.path, start, stop))
    faults = tuple(file.fault for file in files if file.fault)
    if len(speakers) < 2:
        raise ValueError(
            f"{sources.audios_dir}: expected at least two speakers with {sources.min_len} s of speech in a file, found "
            f"{len(speakers)} in {len(files)} files, {len(faults)} of them unusable" + "".join(f"; {why}" for why in faults[:1])
        )
    corpus = Corpus(speakers, faults)
    noise = tuple((path, _samples(Path(str(sources.noise), path), sources.sample_rate)) for path in _below("noise", sources.noise))
    drawn = chances(corpus, sources)
    return Catalog(sources, corpus, drawn, same_gender(drawn, sources), speech, noise, tuple(_below("rirs", sources.rirs)))


def same_gender(drawn: Chances, sources: Sources) -> dict[str, Group]:
    """By speaker, those of the same group and gender. Raises ValueError where `genders` is given and knows nobody."""
    if sources.genders is None:
        return {}
    known, alike = genders(Path(sources.genders)), {}
    for group in drawn.interferers.values():
        by_gender: dict[str, dict[str, int]] = {}
        for speaker, places in group.places.items():
            if speaker in known:
                by_gender.setdefault(known[speaker], {})[speaker] = len(places)
        alike.update({speaker: own for own in map(Group.of, by_gender.values()) for speaker in own.places})
    if not alike:
        raise ValueError(f"{sources.genders}: expected the genders of speakers in {sources.audios_dir}, found only of others")
    return alike


def _resampled(file: File, rate: int) -> NDArray[np.int64]:
    edges = np.array(file.speech, np.int64)
    return edges if file.sample_rate == rate else edges * rate // file.sample_rate


def _samples(path: Path, rate: int) -> int:
    return audio.n_samples(path) * rate // audio.sample_rate_of(path)


def _below(key: str, folder: str | None) -> Iterable[str]:
    """The audio files of a folder and its subfolders. Raises ValueError where one is asked for and there are none."""
    if folder is None:
        return []
    paths = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.suffix.lower() in audio.EXTENSIONS)
    if not paths:
        raise ValueError(f"{key}: expected a folder with audio files ({' '.join(audio.EXTENSIONS)}), found none in {folder}")
    return paths
