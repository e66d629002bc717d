"""Examples for training and evaluation, whatever they come from, and what is changed in them while training.

Shapes: S samples of the mixture and target, R of the enrolment.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ss.audio import AudioError, Wave
from ss.data.augment import change_speed, change_speeds, draw_start, replace_interferer
from ss.data.speech_activity import draw_speech
from ss.errors import UserError, reject_unknown_keys, require_positive
from ss.loss import UNKNOWN_SPEAKER

SHORTEST_ENROLMENT = 0.5  # seconds: no speed makes one shorter than that, as models need up to 0.42
SILENT_TARGETS = 1000  # drawn in a row for an interferer: there is no other


class Example(NamedTuple):
    """mixture [S], ref [R], target [S]; speaker: its number or -100."""

    name: str
    mixture: Wave
    ref: Wave
    target: Wave
    speaker: int


class RawExample(NamedTuple):
    """An example before it is changed; what is not always needed is a function. find_scene gives one of SCENES."""

    name: str
    speaker: int
    target: Wave
    ref: Wave
    read_mixture: Callable[[], Wave]
    find_scene: Callable[[], str]


@dataclass(frozen=True)
class Changes:
    """What is changed in examples while training. What is drawn is cut out first, and only that is played at another speed.

    max_length, ref_max_length: seconds to cut the mixture with its target, and the enrolment, to. speed: the range of factors for
    the share `speed_share` of the examples, in which the target with its enrolment is played so much faster, and the interferer by
    another factor: that makes new speakers of few, whose number is -100. remix: the share of examples whose interferer is the
    target of another example instead, of another speaker, at an SNR drawn from `remix_snr` in dB: the same recordings give new
    mixtures in every epoch. An example whose target is silent gets another interferer at the level of its own; one whose mixture is
    its target stays as it is. gain_db: the range of a level in dB that is drawn for mixture and target together, and another for
    the enrolment; None: unchanged.
    """

    max_length: float | None = None
    ref_max_length: float | None = None
    speed: tuple[float, float] = (0.85, 1.18)
    speed_share: float = 0.0
    remix: float = 0.0
    remix_snr: tuple[float, float] = (-5.0, 5.0)
    gain_db: tuple[float, float] | None = None


class Examples(Dataset[Example]):
    """Examples of any source. One is asked for by its index (then it is cut from its start, and not changed) or by (epoch, index):
    what is drawn is a function of those and the seed, so it is the same in any worker, process or resumed run.

    origin: what errors name. speakers: the training set's list; anybody else's number is -100. changes: the fields of Changes.
    """

    def __init__(self, origin: str | Path, sample_rate: int, speakers: Sequence[str], seed: int, changes: dict[str, Any]) -> None:
        self.origin, self.sample_rate, self.seed = origin, sample_rate, seed
        self.changes = Changes(**reject_unknown_keys(Changes, changes))
        require_positive(vars(self.changes), or_none=["max_length", "ref_max_length"])
        lengths = self.changes.max_length, self.changes.ref_max_length
        self.max_samples, self.ref_max_samples = (None if s is None else round(s * sample_rate) for s in lengths)
        self.speakers = {speaker: number for number, speaker in enumerate(speakers)}

    def read(self, epoch: int, index: int) -> RawExample:
        """An example of an epoch, as it is. Raises AudioError for what cannot be used."""
        raise NotImplementedError

    def draw_targets(self, epoch: int, index: int, rng: np.random.Generator) -> Iterator[Wave]:
        """Targets of examples of other speakers than this one, without end."""
        raise NotImplementedError

    def generators(self, epoch: int, index: int) -> tuple[np.random.Generator, np.random.Generator]:
        """What draws the changes of an example, and its gains."""
        rng = np.random.default_rng((self.seed, epoch, index))
        return rng, rng

    def check_remix(self, speakers: Iterable[str], where: str = "") -> None:
        """Raises UserError where new interferers are asked for and these target speakers are not two."""
        if self.changes.remix and len(set(speakers)) < 2:
            raise UserError(f"{self.origin}: expected at least two target speakers to remix{where}, found one")

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        source, gain_db = self.read(epoch or 0, index), self.changes.gain_db
        if epoch is None:
            mixture, most = source.read_mixture(), self.max_samples
            return Example(source.name, mixture[:most], source.ref[: self.ref_max_samples], source.target[:most], source.speaker)
        rng, gain_rng = self.generators(epoch, index)
        example = self.change(source, self.draw_targets(epoch, index, rng), rng)
        if gain_db is None:
            return example
        gain, ref_gain = (np.float32(10 ** (gain_rng.uniform(*gain_db) / 20)) for _ in range(2))
        return example._replace(mixture=gain * example.mixture, target=gain * example.target, ref=ref_gain * example.ref)

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Example] | UserError:
        """For torch's loader: a user's error is returned, as torch makes of an exception in a worker the text of a traceback."""
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error

    def change(self, source: RawExample, others: Iterator[Wave], rng: np.random.Generator) -> Example:
        """An example cut, with speeds and interferer as they are drawn; others: what may be an interferer, without end."""
        name, speaker, target, ref, read_mixture, find_scene = source
        most, most_ref, changes, scene = self.max_samples, self.ref_max_samples, self.changes, find_scene()
        speed = interferer_speed = 1.0
        if changes.speed_share and rng.random() < changes.speed_share:
            speed, interferer_speed = rng.uniform(*changes.speed, size=2)
            speaker = UNKNOWN_SPEAKER
        remix = scene != "clean" and rng.random() < changes.remix
        mixture = target if remix and scene == "full" else read_mixture()  # which is not needed there
        needed = samples_at(speed if remix else max(speed, interferer_speed), most)
        start = draw_start(scene, mixture, target, needed, rng)
        mixture, target = mixture[start:][:needed], target[start:][:needed]
        if remix:
            if not target.any():
                mixture = read_mixture()[start:][:needed]
            target = change_speed(target, speed)[:most]
            needed = samples_at(interferer_speed, len(target))
            for wave in islice(others, SILENT_TARGETS):
                if (cut := wave[draw_speech(wave, needed, rng) :][:needed]).any():
                    break
            else:
                raise AudioError(f"{self.origin}: expected targets of other speakers that speak, to remix {name} with")
            interferer = change_speed(cut, interferer_speed)[: len(target)]
            interferer = np.pad(interferer, (0, len(target) - len(interferer)))
            mixture = replace_interferer(scene, mixture, target, interferer, rng.uniform(*changes.remix_snr))
        else:
            mixture, target = (wave[:most] for wave in change_speeds(mixture, target, speed, interferer_speed))
        needed = samples_at(speed, most_ref)
        ref = ref[draw_speech(ref, needed, rng) :][:needed]
        least = min(len(ref), round(SHORTEST_ENROLMENT * self.sample_rate))
        ref = change_speed(ref, speed)[:most_ref]
        if len(ref) < least:  # it goes on with its beginning
            ref = np.resize(ref, min(least, most_ref or least))
        return Example(name, mixture, ref, target, speaker)


def samples_at(speed: float, samples: int | None) -> int | None:
    """How many samples make so many when they are played `speed` times as fast; None: all there are."""
    return None if samples is None else math.ceil(samples * speed)
