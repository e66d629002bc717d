"""Every metric of every utterance, kept on disk: an entry that was scored on a folder before is not run again. And what is known
of a mixture beside its audio, from the manifest in its folder and a table of speakers.

A condition is a number (dB, seconds, a part, a minute) or a word; what nobody knows has none.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from math import log2
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from tqdm import tqdm

from ss import audio
from ss.data import manifest
from ss.data.packed import file_of
from ss.data.pitch import median_pitch
from ss.datasets import Triplets, find_triplets
from ss.leaderboard.entries import Entry, digest_of_files
from ss.metric import Metric, UtteranceScores, evaluate

VERSION = 1  # of what is kept
FAILED = "the entry failed: "
KnownConditions: TypeAlias = dict[str, float | str]
LABELS = {
    "sir": "SIR (dB)",
    "snr": "SNR of the noise (dB)",
    "enrolment_seconds": "length of the enrolment (s)",
    "enrolment_snr": "SNR of the enrolment (dB)",
    "enrolment_level": "level of the enrolment over that of the mixture (dB)",
    "overlap": "part of the time in which both speak",
    "genders": "genders",
    "pitch": "difference in pitch of the voices (semitones)",
    "enrolment_pitch": "difference in pitch of the enrolment (semitones)",
    "minute": "minute of the session",
}


class Score(NamedTuple):
    """Metrics of one utterance, or of a piece of a long one that begins at `start` seconds of it (None: of all of a call)."""

    name: str
    start: float | None
    row: UtteranceScores


class TestSet(NamedTuple):
    """A folder of triplets, and its metrics, with their config.

    digest: of its files. conditions: of its mixtures, by name. quick: whether it is for curves only. calls: whether each mixture is
    scored as a whole, and its pieces for curves only.
    """

    name: str
    folder: Path
    digest: str
    metrics: dict[str, Metric]
    config: Mapping[str, Any]
    conditions: Mapping[str, KnownConditions] = MappingProxyType({})
    quick: bool = False
    calls: bool = False


def digest_of_folder(folder: str | Path) -> str:
    """Of all audio of a triplet folder. Raises AudioError where there is none."""
    return digest_of_files([place for one in find_triplets(folder) for place in (one.mixture, one.target, one.ref)])


def score(label: str, entry: Entry, test: TestSet, cache: Path, piece_seconds: float) -> list[Score]:
    """The scores of an entry on a test, in the order of the names; those that `cache` has are read from there.

    A file is added to utterance by utterance, so that an interrupted run goes on. An entry that fails on an utterance has no values
    there, but the reason; the next run asks it again.
    """
    about = json.dumps([VERSION, entry.fingerprint, test.digest, dict(test.config), piece_seconds])
    key = hashlib.sha256(about.encode()).hexdigest()[:16]
    path = cache / f"{test.name}-{key}.jsonl"
    found: dict[str, list[Score]] = {}
    if path.is_file():
        whole, end, _ = path.read_text().rpartition("\n")
        path.write_text(whole + end)  # without a line that a crash cut off
        for line in whole.splitlines():
            known = [Score(name, start, UtteranceScores(values, missing)) for name, start, values, missing in json.loads(line)]
            if not any(reason.startswith(FAILED) for score in known for reason in score.row.missing.values()):
                found[known[0].name] = known
    examples = Triplets(test.folder, entry.sample_rate)
    missing = [index for index, one in enumerate(examples.triplets) if one.name not in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for index in tqdm(missing, f"{label} on {test.name}", mininterval=1, disable=not missing):
            name, mixture, ref, target, _ = examples[index]
            try:
                estimate, reason = entry.estimate(mixture, ref, target), ""
            except Exception as error:  # what others' code raises is not known
                estimate, reason = mixture, f"{FAILED}{error!r}"
            scores, parts = [], pieces(len(mixture), round(piece_seconds * entry.sample_rate))
            for piece in [slice(None), *parts] if test.calls else parts:
                row = evaluate(test.metrics, *(torch.from_numpy(wave[piece]) for wave in (estimate, target, mixture)))
                if reason:
                    row = UtteranceScores({}, dict.fromkeys([*row.values, *row.missing], reason))
                scores.append(Score(name, None if piece.start is None else piece.start / entry.sample_rate, row))
            file.write(json.dumps([[*score[:2], *score.row] for score in scores]) + "\n")
            file.flush()
            found[name] = scores
    return [score for name in sorted(found) for score in found[name]]


def pieces(samples: int, longest: int) -> list[slice]:
    """A signal of so many samples in pieces of this length; what is left, if it is less than half a piece, is part of the last."""
    n = max(1, (samples + longest // 2) // longest)
    edges = [*(i * longest for i in range(n)), samples]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def read_conditions(folder: str | Path, genders: Mapping[str, str]) -> dict[str, KnownConditions]:
    """Conditions by the mixture's name, of a folder's `manifest.jsonl`; of none, nothing.

    genders: whether those of target and interferers are the same is known where all are, and the interferers agree. Pitches are
    those of the audio, known where two voices and nothing else are mixed.
    """
    conditions: dict[str, KnownConditions] = {}
    path = file_of(folder, manifest.FILE)
    if not path.is_file():
        return conditions
    triplets = {one.name: one for one in find_triplets(folder)}
    for row in manifest.read(path):
        found = conditions[row.name] = {"scene": row.pattern, "enrolment_seconds": row.ref_samples / row.sample_rate}
        if row.interferers and row.target.pieces:
            found["sir"] = float(-10 * np.log10(sum(10 ** (-voice.level / 10) for voice in row.interferers)))
            spoken = np.zeros((2, row.samples), bool)  # where target and interferers are placed
            for where, voices in zip(spoken, ((row.target,), row.interferers), strict=True):
                for time in (time for voice in voices for time in voice.spoken()):
                    where[time] = True
            found["overlap"] = float(spoken.all(0).mean())
        if row.noise:
            found["snr"] = row.noise.level
        if row.enrolment_noise:
            found["enrolment_snr"] = row.enrolment_noise.level
        if row.ref_level is not None:
            found["enrolment_level"] = row.ref_level - row.level
        own, others = genders.get(row.target.speaker), {genders.get(voice.speaker) for voice in row.interferers}
        if own and len(others) == 1 and None not in others:
            found["genders"] = f"both {own}" if own in others else "different"
        if row.pattern == "full" and len(row.interferers) == 1 and row.noise is None and row.linear and row.name in triplets:
            mixture, ref, target = (audio.read_any(place, row.sample_rate) for place in triplets[row.name][1:])
            pitch, other, enrolled = (median_pitch(wave, row.sample_rate) for wave in (target, mixture - target, ref))
            for condition, hz in (("pitch", other), ("enrolment_pitch", enrolled)):
                if pitch and hz:
                    found[condition] = abs(12 * log2(hz / pitch))
    return conditions
