"""All that scenes are drawn from, found once: speakers with their speech, noise, and impulse responses of rooms."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.data.corpus import Span, read_genders
from ss.data.index import IndexedFile, index
from ss.data.sampling import Chances, Group, make_chances
from ss.data.shards import Place, contents, file_of, is_packed
from ss.data.sources import Sources
from ss.errors import UserError


class Catalog(NamedTuple):
    """speakers: of each, spans from the first speech of a file to its last, at `sample_rate`; unusable: why others are not used;
    drawn: who is drawn how often; same_gender: by speaker, those of the same group and gender, if that is known; speech: by path,
    starts and stops [n,2] of it; noise: paths and samples; rirs: paths. Each path is relative to its folder of `sources`."""

    sources: Sources
    speakers: dict[str, tuple[Span, ...]]
    unusable: tuple[str, ...]
    drawn: Chances
    same_gender: dict[str, Group]
    speech: dict[str, NDArray[np.int64]]
    noise: tuple[tuple[str, int], ...]
    rirs: tuple[str, ...]

    @property
    def files(self) -> list[Place]:
        """All that is read to render."""
        noise, rirs = (
            ((str(self.sources.noise), path) for path, _ in self.noise),
            ((str(self.sources.rirs), path) for path in self.rirs),
        )
        return [
            file_of(folder, path) for folder, path in (*((self.sources.audios_dir, path) for path in self.speech), *noise, *rirs)
        ]


def make_catalog(sources: Sources) -> Catalog:
    """Looks into the sources. Raises UserError where there are not two speakers, or a folder holds no audio."""
    files, rate = index(sources), sources.sample_rate
    speech = {file.path: _resampled(file, rate) for file in files if file.speech}
    speakers: dict[str, tuple[Span, ...]] = {}
    for file in files:
        if file.path in speech:
            start, stop = int(speech[file.path][0, 0]), int(speech[file.path][-1, 1])
            if stop - start >= sources.min_len * rate:
                speakers[file.speaker] = (*speakers.get(file.speaker, ()), Span(file.path, start, stop))
    faults = tuple(file.fault for file in files if file.fault)
    if len(speakers) < 2:
        raise UserError(
            f"{sources.audios_dir}: expected at least two speakers with {sources.min_len} s of speech in a file, found "
            f"{len(speakers)} in {len(files)} files, {len(faults)} of them unusable" + "".join(f"; {why}" for why in faults[:1])
        )
    noise = tuple(
        (path, _samples(file_of(str(sources.noise), path), sources.sample_rate)) for path in _below("noise", sources.noise)
    )
    rirs = tuple(_below("rirs", sources.rirs))
    drawn = make_chances(speakers, sources)
    return Catalog(sources, speakers, faults, drawn, same_gender(drawn, sources), speech, noise, rirs)


def same_gender(drawn: Chances, sources: Sources) -> dict[str, Group]:
    """By speaker, those of the same group and gender. Raises UserError where `genders` is given and knows nobody."""
    if sources.genders is None:
        return {}
    known, alike = read_genders(Path(sources.genders)), {}
    for group in drawn.interferers.values():
        by_gender: dict[str, dict[str, int]] = {}
        for speaker, places in group.places.items():
            if speaker in known:
                by_gender.setdefault(known[speaker], {})[speaker] = len(places)
        alike.update({speaker: own for own in map(Group.of, by_gender.values()) for speaker in own.places})
    if not alike:
        raise UserError(f"{sources.genders}: expected the genders of speakers in {sources.audios_dir}, found only of others")
    return alike


def _resampled(file: IndexedFile, rate: int) -> NDArray[np.int64]:
    edges = np.array(file.speech, np.int64)
    return edges if file.sample_rate == rate else edges * rate // file.sample_rate


def _samples(path: Place, rate: int) -> int:
    return audio.n_samples(path) * rate // audio.sample_rate_of(path)


def _below(key: str, folder: str | None) -> Iterable[str]:
    """The audio files of a folder and its subfolders. Raises UserError where one is asked for and there are none."""
    if folder is None:
        return []
    names = contents(folder) if is_packed(folder) else (str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    paths = sorted(name for name in names if name.lower().endswith(audio.EXTENSIONS))
    if not paths:
        raise UserError(f"{key}: expected a folder with audio files ({' '.join(audio.EXTENSIONS)}), found none in {folder}")
    return paths
