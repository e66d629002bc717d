"""Triplet folders: `<name>-mixed.wav -target.wav -ref.wav`, the name beginning with the target speaker's id and an underscore.

Shapes: S samples of the mixture and target, R of the enrolment.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ss import audio
from ss.audio import AudioError, Wave
from ss.data.audio_cache import AudioCache, shared_array
from ss.data.augment import SCENES, change_gains, change_speed, change_speeds, replace_interferer, scene_of, speaking, start_of_cut
from ss.data.sampling import group_of
from ss.data.shards import Place, files_in, shard_of
from ss.errors import UserError
from ss.files import read_text
from ss.loss import UNKNOWN_SPEAKER

KINDS = ("mixed", "target", "ref")
SHORTEST_ENROLMENT = 0.5  # seconds: no speed makes one shorter than that, as models need up to 0.42
SILENT_TARGETS = 1000  # drawn in a row for an interferer: there is no other


class Triplet(NamedTuple):
    """The files of one example; target is None where only inference is asked for."""

    name: str
    mixture: Place
    ref: Place
    target: Place | None = None


class Example(NamedTuple):
    """The audio of one triplet: mixture [S], ref [R], target [S]; speaker: its number or -100."""

    name: str
    mixture: Wave
    ref: Wave
    target: Wave
    speaker: int


def scan(folder: str | Path) -> dict[str, dict[str, Place]]:
    """Files of a folder, packed or not, by triplet name and kind.

    Raises AudioError for a missing folder, none, or two files of one kind.
    """
    found: dict[str, dict[str, Place]] = {}
    for path in files_in(folder):
        name, _, kind = path.stem.rpartition("-")
        if path.suffix.lower() not in audio.EXTENSIONS or kind not in KINDS or path.name.startswith("."):
            continue
        files = found.setdefault(name, {})
        if kind in files:
            raise AudioError(f"{path}: expected one {kind} file, but there is {files[kind].name} too")
        files[kind] = path
    if not found:
        raise AudioError(
            f"{folder}: expected files named <name>-mixed, -target and -ref ({', '.join(audio.EXTENSIONS)}), found none"
        )
    return found


def triplet_of(name: str, files: Mapping[str, Place], kinds: Sequence[str] = KINDS) -> Triplet:
    """The triplet that these files make. Raises AudioError where one of the kinds is missing."""
    for kind in kinds:
        if kind not in files:
            beside = next(iter(files.values()))
            raise AudioError(f"{beside.parent}/{name}-{kind}.*: expected beside {beside.name}, but there is no such file")
    return Triplet(name, files["mixed"], files["ref"], files.get("target"))


def find_triplets(folder: str | Path) -> list[Triplet]:
    """All triplets of a folder, by name. Raises AudioError for what `scan` and `triplet_of` do."""
    return [triplet_of(name, files) for name, files in scan(folder).items()]


def speaker_of(name: str) -> str:
    """The target speaker's id in a triplet's name."""
    return name.split("_", 1)[0]


def make_filenames(folder: str | Path, path: str | Path, n_speakers: int | None = None) -> list[str]:
    """Writes the speaker list of a triplet folder, one id a line; a speaker's number is its line, from 0.

    n_speakers: how many there may be at most (the model's classes). Raises UserError where there are more.
    """
    speakers = sorted({speaker_of(triplet.name) for triplet in find_triplets(folder)})
    write_speakers(speakers, path, n_speakers, folder)
    return speakers


def write_speakers(speakers: Sequence[str], path: str | Path, n_speakers: int | None, source: str | Path) -> None:
    """Writes a speaker list. Raises UserError, naming the source, for more than n_speakers."""
    if n_speakers is not None and len(speakers) > n_speakers:
        raise UserError(f"{source}: expected at most {n_speakers} speakers (n_speakers of the model), found {len(speakers)}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(f"{speaker}\n" for speaker in speakers))


def read_speakers(path: str | Path) -> list[str]:
    """The speaker list that `make_filenames` wrote. Raises UserError for any other file."""
    speakers = read_text(path).split()
    if len(set(speakers)) != len(speakers) or not speakers:
        raise UserError(
            f"{path}: expected a list of speakers, each once, found {len(speakers)} lines of {len(set(speakers))} speakers"
        )
    return speakers


class Triplets(Dataset[Example]):
    """The examples of a triplet folder.

    max_length, ref_max_length: seconds to cut the mixture with its target, and the enrolment, to. remix: the share of examples
    whose interferer is the target of another example instead, of another speaker, at an SNR drawn from `remix_snr` in dB: the
    same files give new mixtures in every epoch; remix_within: a regular expression, the ids of both speakers agree in what that
    matches. An example whose target is silent gets another interferer at the level of its own;
    one whose mixture is its target stays as it is. gain_db: the range of a level in dB that is drawn for mixture and target
    together, and another for the enrolment. speed: the range of factors for the share `speed_share` of the examples, in which the
    target with its enrolment is played so much faster, and the interferer by another factor: that makes new speakers of few, whose
    number is -100. cache_mb: megabytes of decoded audio that are kept (see AudioCache).
    What is drawn is cut out first, and only that is played at another speed.
    An item is asked for by its index (then it is cut from its start, and never changed) or by (epoch, index): what is drawn is a
    function of those and the seed, so it is the same in any worker, process or resumed run.
    speakers: the training set's list; anybody else's number is -100.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int = 16000,
        max_length: float | None = None,
        ref_max_length: float | None = None,
        remix: float = 0.0,
        remix_snr: tuple[float, float] = (-5.0, 5.0),
        remix_within: str | None = None,
        speakers: Sequence[str] = (),
        seed: int = 0,
        gain_db: tuple[float, float] | None = None,
        speed: tuple[float, float] = (0.85, 1.18),
        speed_share: float = 0.0,
        cache_mb: float = 0,
    ) -> None:
        self.triplets = find_triplets(folder)
        self.sample_rate, self.seed, self.remix, self.remix_snr = sample_rate, seed, remix, remix_snr
        self.gain_db, self.speed, self.speed_share = gain_db, speed, speed_share
        self.remix_within = remix_within
        self.alike: dict[str, list[Triplet]] = {}
        for triplet in self.triplets:
            self.alike.setdefault(group_of(speaker_of(triplet.name), remix_within), []).append(triplet)
        self.max_samples, self.ref_max_samples = (
            None if s is None else round(s * sample_rate) for s in (max_length, ref_max_length)
        )
        self.speakers = {speaker: number for number, speaker in enumerate(speakers)}
        files = [file for triplet in self.triplets for file in triplet[1:] if file is not None]
        self.cache = AudioCache(files, partial(audio.read, sample_rate=sample_rate), cache_mb)
        self.scenes = shared_array(len(self.triplets), np.int8)  # a number from 1 into SCENES, once it is known
        for group, alike in self.alike.items():
            if remix and len({speaker_of(triplet.name) for triplet in alike}) < 2:
                where = f" in {group}" if group else ""
                raise UserError(f"{folder}: expected at least two target speakers to remix{where}, found one")

    def __len__(self) -> int:
        return len(self.triplets)

    def shards(self) -> list[str]:
        """The shard that each mixture is in; all the same where the folder is not packed."""
        return [shard_of(triplet.mixture) for triplet in self.triplets]

    def lengths(self) -> list[int]:
        """Samples of every mixture, read from the headers."""
        longest = self.max_samples or sys.maxsize
        return [min(audio.n_samples(triplet.mixture), longest) for triplet in self.triplets]

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        triplet = self.triplets[index]
        speaker = self.speakers.get(speaker_of(triplet.name), UNKNOWN_SPEAKER)
        if epoch is None:
            mixture, ref, target = load(triplet, self.sample_rate)
            mixture, target = mixture[: self.max_samples], target[: self.max_samples]
            return Example(triplet.name, mixture, ref[: self.ref_max_samples], target, speaker)
        rng = np.random.default_rng((self.seed, epoch, index))
        scene = self.scene(index)
        speed = interferer_speed = 1.0
        if self.speed_share and rng.random() < self.speed_share:
            speed, interferer_speed = rng.uniform(*self.speed, size=2)
            speaker = UNKNOWN_SPEAKER
        remix = scene != "clean" and rng.random() < self.remix
        assert triplet.target is not None
        target = self.cache.read(triplet.target)
        mixture = target if remix and scene == "full" else self.cache.read(triplet.mixture)  # which is not needed there
        needed = samples_at(speed if remix else max(speed, interferer_speed), self.max_samples)
        start = start_of_cut(scene, mixture, target, needed, rng)
        mixture, target = mixture[start:][:needed], target[start:][:needed]
        if remix:
            if not target.any():
                mixture = self.cache.read(triplet.mixture)[start:][:needed]
            target = change_speed(target, speed)[: self.max_samples]
            interferer = self.interferer(triplet, len(target), interferer_speed, rng)
            mixture = replace_interferer(scene, mixture, target, interferer, rng.uniform(*self.remix_snr))
        else:
            mixture, target = (wave[: self.max_samples] for wave in change_speeds(mixture, target, speed, interferer_speed))
        ref, needed = self.cache.read(triplet.ref), samples_at(speed, self.ref_max_samples)
        ref = ref[speaking(ref, needed, rng) :][:needed]
        least = min(len(ref), round(SHORTEST_ENROLMENT * self.sample_rate))
        ref = change_speed(ref, speed)[: self.ref_max_samples]
        if len(ref) < least:  # it goes on with its beginning
            ref = np.resize(ref, min(least, self.ref_max_samples or least))
        mixture, target, ref = change_gains(mixture, target, ref, self.gain_db, rng)
        return Example(triplet.name, mixture, ref, target, speaker)

    def scene(self, index: int) -> str:
        """What is heard in an example (see `scene_of`); its mixture is looked into only once. Raises AudioError as `load` does."""
        if not self.scenes[index]:
            triplet = self.triplets[index]
            assert triplet.target is not None
            mixture, target = audio.read(triplet.mixture, self.sample_rate), self.cache.read(triplet.target)
            check_lengths(triplet, mixture, target)
            self.scenes[index] = SCENES.index(scene_of(mixture, target)) + 1
        return SCENES[self.scenes[index] - 1]

    def interferer(self, triplet: Triplet, samples: int, speed: float, rng: np.random.Generator) -> Wave:
        """So many samples of the target of an example of another speaker, not silent. Raises AudioError where all are.

        speed: it is played so many times as fast.
        """
        silent, alike = 0, self.alike[group_of(speaker_of(triplet.name), self.remix_within)]
        while silent < SILENT_TARGETS:
            other = alike[rng.integers(len(alike))]
            if speaker_of(other.name) == speaker_of(triplet.name):
                continue
            assert other.target is not None
            wave, needed = self.cache.read(other.target), samples_at(speed, samples)
            wave = wave[speaking(wave, needed, rng) :][:needed]
            if wave.any():
                wave = change_speed(wave, speed)[:samples]
                return np.pad(wave, (0, samples - len(wave)))
            silent += 1
        raise AudioError(f"{triplet.mixture.parent}: expected targets of other speakers that speak, to remix {triplet.name} with")


def samples_at(speed: float, samples: int | None) -> int | None:
    """How many samples make so many when they are played `speed` times as fast; None: all there are."""
    return None if samples is None else math.ceil(samples * speed)


def load(triplet: Triplet, sample_rate: int) -> tuple[Wave, Wave, Wave]:
    """(mixture [S], ref [R], target [S]). Raises AudioError for an unusable file or a target of another length."""
    assert triplet.target is not None
    mixture, ref, target = (audio.read(path, sample_rate) for path in (triplet.mixture, triplet.ref, triplet.target))
    check_lengths(triplet, mixture, target)
    return mixture, ref, target


def check_lengths(triplet: Triplet, mixture: Wave, target: Wave) -> None:
    """Raises AudioError for a target of another length."""
    if len(mixture) != len(target):
        raise AudioError(f"{triplet.target}: expected {len(mixture)} samples as in {triplet.mixture.name}, found {len(target)}")
