"""All that scenes are drawn from, found once: speakers and how often each is drawn, their speech, noise, and responses of rooms."""

import math
import re
from collections.abc import Mapping
from glob import glob
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ss import audio
from ss.data.corpus import Span, read_genders
from ss.data.index import index
from ss.data.packed import Place, contents, file_of, is_packed
from ss.data.sources import Sources
from ss.errors import UserError

CHANCE = 10  # seconds of speech for each of a speaker's chances


class Group(NamedTuple):
    """Speakers who are mixed with each other: `names` holds each once per chance, `places` says where in it."""

    names: list[str]
    places: dict[str, range]

    @classmethod
    def from_chances(cls, chances: Mapping[str, int]) -> "Group":
        """From the number of chances of each speaker."""
        names = [name for name, n in chances.items() for _ in range(n)]
        ends = accumulate(chances.values())
        return cls(names, {name: range(end - n, end) for (name, n), end in zip(chances.items(), ends, strict=True)})


class Chances(NamedTuple):
    """Who can be drawn: the targets, each once per chance, and the interferers by group."""

    targets: list[str]
    interferers: dict[str, Group]


class Catalog(NamedTuple):
    """speakers: of each, spans from the first speech of a file to its last, at `sample_rate`; unusable: why others are not used;
    drawn: who is drawn how often; same_gender: by speaker, those of the same group and gender, if that is known; by_pitch: those of
    each group, from the lowest voice to the highest; speech: by path, starts and stops [n,2] of it; noise: paths and samples;
    rirs: paths. Each path is relative to its folder of `sources`."""

    sources: Sources
    speakers: dict[str, tuple[Span, ...]]
    unusable: tuple[str, ...]
    drawn: Chances
    same_gender: dict[str, Group]
    by_pitch: dict[str, list[str]]
    speech: dict[str, NDArray[np.int64]]
    noise: tuple[tuple[str, int], ...]
    rirs: tuple[str, ...]

    @property
    def files(self) -> list[Place]:
        """All that is read to render."""
        folders = self.sources.audios_dir, str(self.sources.noise), str(self.sources.rirs)
        names = self.speech, [path for path, _ in self.noise], self.rirs
        return [file_of(folder, name) for folder, several in zip(folders, names, strict=True) for name in several]


def make_catalog(sources: Sources) -> Catalog:
    """Looks into the sources. Raises UserError where there are not two speakers, or a folder holds no audio."""
    files, rate = index(sources), sources.sample_rate
    speech: dict[str, NDArray[np.int64]] = {}
    speakers: dict[str, tuple[Span, ...]] = {}
    pitches: dict[str, list[float]] = {}
    for file in files:
        if file.speech:
            speech[file.path] = edges = np.array(file.speech, np.int64) * rate // file.sample_rate
            start, stop = int(edges[0, 0]), int(edges[-1, 1])
            if stop - start >= sources.min_len * rate:
                speakers[file.speaker] = (*speakers.get(file.speaker, ()), Span(file.path, start, stop))
                pitches.setdefault(file.speaker, []).append(file.pitch)
    faults = [file.fault for file in files if file.fault]
    if len(speakers) < 2:
        wanted = f"at least two speakers with {sources.min_len} s of speech in a file"
        found = "; ".join([f"{len(speakers)} in {len(files)} files, {len(faults)} of them unusable", *faults[:1]])
        raise UserError(f"{sources.audios_dir}: expected {wanted}, found {found}")
    noise = []
    for path in list_audio("noise", sources.noise):
        place = file_of(str(sources.noise), path)
        if samples := audio.n_samples(place) * rate // audio.sample_rate_of(place):
            noise.append((path, samples))
        else:
            faults.append(f"{place}: expected noise, found less than a sample at {rate} Hz")
    rirs, drawn = tuple(list_audio("rirs", sources.rirs)), make_chances(speakers, sources)
    groups = drawn.interferers.items()
    by_pitch = {name: sorted(group.places, key=lambda speaker: median(pitches[speaker])) for name, group in groups}
    return Catalog(sources, speakers, tuple(faults), drawn, group_by_gender(drawn, sources), by_pitch, speech, tuple(noise), rirs)


def list_audio(key: str, folder: str | None) -> list[str]:
    """The audio files of a folder and its subfolders, linked or not. Raises UserError where one is asked for and there are none."""
    if folder is None:
        return []
    names = contents(folder) if is_packed(folder) else glob("**/*", root_dir=folder, recursive=True)
    paths = sorted(name for name in names if name.lower().endswith(audio.EXTENSIONS))
    if not paths:
        raise UserError(f"{key}: expected a folder with audio files ({' '.join(audio.EXTENSIONS)}), found none in {folder}")
    return paths


def make_chances(speakers: Mapping[str, tuple[Span, ...]], sources: Sources) -> Chances:
    """The speakers that can be the target are those with two files, or with one that is split. Raises UserError if none can."""
    rate, regex, chances = sources.sample_rate, sources.speaker_group_regex, {}
    members: dict[str, dict[str, int]] = {}
    for speaker, spans in speakers.items():
        by_duration = math.ceil(sum(span.stop - span.start for span in spans) / (CHANCE * rate))
        chances[speaker] = 1 if sources.speaker_sampling == "uniform" else by_duration
        members.setdefault(group_of(speaker, regex), {})[speaker] = chances[speaker]
    groups = {group: Group.from_chances(names) for group, names in members.items() if len(names) > 1}
    if not groups:
        raise UserError(f"speaker_group_regex: expected two speakers whose ids agree in {regex}, found none")
    targets = []
    for speaker, (span, *more) in speakers.items():
        splits = sources.split_single_utterances and (span.stop - span.start) // 2 >= max(1, sources.min_len * rate)  # each half
        if (more or splits) and group_of(speaker, regex) in groups:
            targets += [speaker] * chances[speaker]
    if not targets:
        hint = "split_single_utterances=true takes target and enrolment from the two halves of one"
        wanted = "expected a speaker with two utterances (one of them the enrolment), found none"
        raise UserError(f"{sources.audios_dir}: {wanted}; {hint}")
    return Chances(targets, groups)


def group_of(speaker: str, regex: str | None) -> str:
    """What a speaker's id has in common with those of its group: what the expression matches first."""
    found = re.search(regex, speaker) if regex else None
    return found[0] if found else ""


def group_by_gender(drawn: Chances, sources: Sources) -> dict[str, Group]:
    """By speaker, those of the same group and gender. Raises UserError where `genders` is given and knows nobody."""
    if sources.genders is None:
        return {}
    known = read_genders(Path(sources.genders))
    members: dict[tuple[str, str], dict[str, int]] = {}
    for name, group in drawn.interferers.items():
        for speaker, places in group.places.items():
            if speaker in known:
                members.setdefault((name, known[speaker]), {})[speaker] = len(places)
    alike = {speaker: own for own in map(Group.from_chances, members.values()) for speaker in own.places}
    if not alike:
        raise UserError(f"{sources.genders}: expected the genders of speakers in {sources.audios_dir}, found only of others")
    return alike


def draw_others(group: Group, speaker: str, n: int, rng: np.random.Generator) -> list[str]:
    """n speakers of the group beside this one, all different, each draw by the chances of those that are left.

    Raises UserError where there are not so many.
    """
    if len(group.places) <= n:
        raise UserError(f"interferers: expected {n} speakers beside {speaker}, found {len(group.places) - 1}")
    chosen = [speaker]
    for _ in range(n):
        taken = sorted((group.places[name] for name in chosen), key=lambda places: places.start)
        place = int(rng.integers(len(group.names) - sum(map(len, taken))))
        for places in taken:  # in order: steps over all that are before it
            place += len(places) * (place >= places.start)
        chosen.append(group.names[place])
    return chosen[1:]
