"""Makes a synthetic speech corpus in LibriSpeech's layout, for trying everything out without a download.

`python3 demo/corpus.py --out data/demo/corpus` writes `<out>/<train|dev|test>/<speaker>/<chapter>/<utterance>.flac` (16 kHz,
mono, 16 bits), the text of each chapter as LibriSpeech does, and `<out>/voices.csv`. No voice is in two splits. The same
arguments give the same bytes on the same versions of eSpeak and soxr.

Shapes: S samples.
"""

import argparse
import csv
import multiprocessing
import os
import shutil
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from espeak import Espeak, data_with
from numpy.typing import NDArray
from sentences import draw_sentence
from tqdm import tqdm
from voice import SPLITS, Voice, draw_voice

from ss.errors import UserError

SAMPLE_RATE = 16000
LEVEL = 0.04  # RMS of every utterance (-28 dBFS)
PEAK = 0.8  # above it at that level something crackles: another sentence is said
CHAPTER = "1"
TRIES = 100
WORDS_PER_SECOND = 3  # of a voice of speed 1, about


class Job(NamedTuple):
    """All that one speaker's files depend on. seconds: shortest and longest utterance."""

    voice: Voice
    utterances: int
    seconds: tuple[float, float]
    seed: int
    data: Path
    out: Path


def render_speaker(job: Job) -> None:
    """Writes one speaker's chapter. For a fresh process: eSpeak's state must be that of its start."""
    speaker = job.voice.speaker
    rng = np.random.default_rng([job.seed, *speaker.encode()])
    chapter = job.out / job.voice.split / speaker / CHAPTER
    chapter.mkdir(parents=True)
    lines = []
    espeak = Espeak(job.data, job.voice.language, speaker, seed=int(rng.integers(2**31)))
    for number in range(job.utterances):
        text, wave = _say_something(espeak, job, rng)
        name = f"{speaker}-{CHAPTER}-{number:04d}"
        soundfile.write(str(chapter / f"{name}.flac"), wave, SAMPLE_RATE, subtype="PCM_16")
        lines.append(f"{name} {text}\n")
    (chapter / f"{speaker}-{CHAPTER}.trans.txt").write_text("".join(lines))


def _say_something(espeak: Espeak, job: Job, rng: np.random.Generator) -> tuple[str, NDArray[np.float32]]:
    """A drawn sentence and its samples [S], at the corpus's rate and level and of an allowed length."""
    shortest, longest = job.seconds
    for _ in range(TRIES):
        words = rng.uniform(0.8 * shortest, 0.9 * longest) * WORDS_PER_SECOND * job.voice.speed
        text = draw_sentence(rng, int(words))
        wave = espeak.say(text)
        if shortest <= len(wave) / espeak.sample_rate / job.voice.shift <= longest:
            wave = _at_level(soxr.resample(wave, espeak.sample_rate * job.voice.shift, SAMPLE_RATE))
            if np.abs(wave).max() <= PEAK:
                return text, wave
    raise UserError(f"{job.voice.speaker}: none of {TRIES} sentences takes between {shortest} and {longest} s")


def _at_level(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    level = np.sqrt(np.mean(wave**2))
    assert level > 1e-4, "eSpeak's output is silent"
    return wave * (LEVEL / level)


def make_corpus(voices: list[Voice], args: argparse.Namespace, out: Path) -> None:
    """Renders every voice into `out`, in as many processes as asked for."""
    seconds = (args.min_seconds, args.max_seconds)
    with data_with({voice.speaker: voice.variant_file() for voice in voices}) as data:
        jobs = [Job(voice, args.utterances, seconds, args.seed, data, out) for voice in voices]
        with multiprocessing.get_context("fork").Pool(args.num_workers, maxtasksperchild=1) as pool:
            for _ in tqdm(pool.imap_unordered(render_speaker, jobs), total=len(jobs), desc="voices", unit="voice"):
                pass
    with (out / "voices.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Voice._fields)
        writer.writerows(voice.row() for voice in voices)


def draw_voices(counts: dict[str, int], seed: int) -> list[Voice]:
    """The voices of every split; no timbre is in two of them."""
    voices = [draw_voice(split, number, seed) for split in SPLITS for number in range(counts[split])]
    timbres = [{voice.variant for voice in voices if voice.split == split} for split in SPLITS]
    assert all(a.isdisjoint(b) for a, b in combinations(timbres, 2)), "a timbre is in two splits"
    return voices


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist yet")
    for split, number in zip(SPLITS, (400, 20, 20), strict=True):
        parser.add_argument(f"--{split}-voices", type=int, default=number, help=f"default {number}")
    parser.add_argument("--utterances", type=int, default=6, help="of each voice (default 6)")
    parser.add_argument("--min-seconds", type=float, default=3.0, help="shortest utterance (default 3)")
    parser.add_argument("--max-seconds", type=float, default=6.0, help="longest utterance (default 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count(), help="processes (default: every core)")
    args = parser.parse_args(arguments)
    if min(args.utterances, args.num_workers) < 1 or min(getattr(args, f"{split}_voices") for split in SPLITS) < 0:
        parser.error("expected counts of voices of at least 0, and of utterances and workers of at least 1")
    if not 0 < args.min_seconds <= args.max_seconds - 1:
        parser.error("expected --max-seconds to be at least a second more than --min-seconds, and both above 0")
    if args.out.exists():
        parser.error(f"--out: expected a folder that is not there yet, but {args.out} is; remove it to make it anew")
    if find_spec("espeakng_loader") is None:
        parser.error("the package espeakng-loader is missing: pip install .[demo]")
    return args


def main() -> None:
    """Makes the corpus beside the place and renames it into it, so that it is whole or absent."""
    args = parse()
    voices = draw_voices({split: getattr(args, f"{split}_voices") for split in SPLITS}, args.seed)
    aside = args.out.with_name(f"{args.out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        make_corpus(voices, args, aside)
    except UserError as error:
        raise SystemExit(f"corpus.py: {error}") from error
    aside.rename(args.out)
    print(f"{len(voices)} voices, {len(voices) * args.utterances} utterances")
    print(args.out)


if __name__ == "__main__":
    main()
