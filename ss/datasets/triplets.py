"""Triplet folders: `<name>-mixed.wav -target.wav -ref.wav`, the name beginning with the target speaker's id and an underscore.

Shapes: S samples of the mixture and target, R of the enrolment.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ss import audio
from ss.audio import AudioError, Wave
from ss.data import manifest
from ss.data.audio_cache import AudioCache, shared_array
from ss.data.augment import SCENES, scene_of
from ss.data.catalog import group_of
from ss.data.packed import Place, shard_of, triplet_files
from ss.datasets.examples import Examples, RawExample
from ss.errors import UserError
from ss.files import read_text
from ss.loss import UNKNOWN_SPEAKER


class Triplet(NamedTuple):
    """The files of one example."""

    name: str
    mixture: Place
    ref: Place
    target: Place


def scan(folder: str | Path) -> dict[str, dict[str, Place]]:
    """Files of a folder, packed or not, by triplet name and kind.

    Raises AudioError for a missing folder, none, or two files of one kind.
    """
    found = triplet_files(folder)
    for kind, (first, *others) in (files for by_kind in found.values() for files in by_kind.items()):
        if others:
            raise AudioError(f"{others[0]}: expected one {kind} file, but there is {first.name} too")
    return {name: {kind: paths[0] for kind, paths in by_kind.items()} for name, by_kind in found.items()}


def choose_kinds(name: str, files: Mapping[str, Place], *kinds: str) -> list[Place]:
    """Of a triplet's files those of these kinds. Raises AudioError where one is missing."""
    for kind in kinds:
        if kind not in files:
            beside = next(iter(files.values()))
            missing = f"{str(beside).removesuffix(beside.name)}{name}-{kind}.*"
            raise AudioError(f"{missing}: expected beside {beside.name}, but there is no such file")
    return [files[kind] for kind in kinds]


def find_triplets(folder: str | Path) -> list[Triplet]:
    """All triplets of a folder, by name. Raises AudioError for what `scan` and `choose_kinds` do."""
    return [Triplet(name, *choose_kinds(name, files, "mixed", "ref", "target")) for name, files in scan(folder).items()]


def speaker_of(name: str) -> str:
    """The target speaker's id in a triplet's name."""
    return name.split("_", 1)[0]


def make_filenames(folder: str | Path, path: str | Path, n_speakers: int | None = None) -> list[str]:
    """Writes the speaker list of a triplet folder, one id a line; a speaker's number is its line, from 0.

    n_speakers: how many there may be at most (the model's classes). Raises UserError where there are more.
    """
    speakers = sorted({speaker_of(triplet.name) for triplet in find_triplets(folder)})
    if n_speakers is not None and len(speakers) > n_speakers:
        raise UserError(f"{folder}: expected at most {n_speakers} speakers (n_speakers of the model), found {len(speakers)}")
    manifest.write(Path(path), speakers)
    return speakers


def read_speakers(path: str | Path) -> list[str]:
    """The speaker list that `make_filenames` wrote. Raises UserError for any other file."""
    speakers = [line.strip() for line in read_text(Path(path)).splitlines() if line.strip()]
    n = len(set(speakers))
    if not n or n < len(speakers):
        raise UserError(f"{path}: expected a list of speakers, each once, found {len(speakers)} lines of {n} speakers")
    return speakers


class Triplets(Examples):
    """The examples of a triplet folder. See `Examples`.

    remix_within: a regular expression; the ids of a target and of its new interferer agree in what that matches. cache_mb:
    megabytes of decoded audio that are kept (see AudioCache).
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int = 16000,
        speakers: Sequence[str] = (),
        seed: int = 0,
        remix_within: str | None = None,
        cache_mb: float = 0,
        **changes: Any,
    ) -> None:
        super().__init__(folder, sample_rate, speakers, seed, changes)
        self.triplets, self.remix_within = find_triplets(folder), remix_within
        files = [place for _, *places in self.triplets for place in places]
        self.cache = AudioCache(files, partial(audio.read, sample_rate=sample_rate), cache_mb)
        self.scenes = shared_array(len(self.triplets), np.int8)  # a number from 1 into SCENES, once it is known
        self.alike: dict[str, list[Triplet]] = {}
        for triplet in self.triplets:
            self.alike.setdefault(group_of(speaker_of(triplet.name), remix_within), []).append(triplet)
        for group, alike in self.alike.items():
            self.check_remix((speaker_of(triplet.name) for triplet in alike), f" in {group}" if group else "")

    def __len__(self) -> int:
        return len(self.triplets)

    def shards(self) -> list[str]:
        """The shard that each mixture is in; all the same where the folder is not packed."""
        return [shard_of(triplet.mixture) for triplet in self.triplets]

    def lengths(self) -> list[int]:
        """Samples of every mixture, read from the headers."""
        return [min(audio.n_samples(triplet.mixture), self.max_samples or sys.maxsize) for triplet in self.triplets]

    def read(self, epoch: int, index: int) -> RawExample:
        triplet = self.triplets[index]
        target, ref = self.cache.read(triplet.target), self.cache.read(triplet.ref)

        def read_mixture(read: Callable[..., Wave] = self.cache.read) -> Wave:
            mixture = read(triplet.mixture)
            if len(mixture) != len(target):
                found = f"found {len(target)}"
                raise AudioError(f"{triplet.target}: expected {len(mixture)} samples as in {triplet.mixture.name}, {found}")
            return mixture

        def find_scene() -> str:
            if not self.scenes[index]:  # the mixture is looked into only once, and need not be kept for that
                self.scenes[index] = SCENES.index(scene_of(read_mixture(self.cache.decode), target)) + 1
            return SCENES[self.scenes[index] - 1]

        speaker = self.speakers.get(speaker_of(triplet.name), UNKNOWN_SPEAKER)
        return RawExample(triplet.name, speaker, target, ref, read_mixture, find_scene)

    def draw_targets(self, epoch: int, index: int, rng: np.random.Generator) -> Iterator[Wave]:
        speaker = speaker_of(self.triplets[index].name)
        alike = self.alike[group_of(speaker, self.remix_within)]
        while True:
            other = alike[rng.integers(len(alike))]
            if speaker_of(other.name) != speaker:
                yield self.cache.read(other.target)
