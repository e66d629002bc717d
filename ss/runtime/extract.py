"""`ss-extract`: one speaker out of recordings: files and folders in, files out, of any length in the same memory.

Needs no torch. Nothing is on stdout; all words are on stderr. Shapes: n samples of a block.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import soundfile

from ss.errors import UserError
from ss.runtime.enrolment import faults, read_stretch, split_stretch
from ss.runtime.extractor import Conditions, Extractor
from ss.runtime.live import ENROL, Parser, model_options
from ss.runtime.live_io import StopSignal
from ss.runtime.live_meter import REFRESH, bar, show_line

WHAT = "One speaker out of recordings, at their sample rate and length, mono."
EXAMPLES = """examples:
  ss-extract call.wav --enrol anna.wav -o anna-only.wav
  ss-extract call.wav --enrol call.wav@3.0-7.5 -o anna-only.flac    enrol from 3.0 to 7.5 s of the recording itself
  ss-extract monday.mp3 tuesday/ --enrol anna1.wav --enrol anna2.wav -o anna/

Ctrl-C or SIGTERM ends it: the file that is being written is left out. Exit code 0; 2 after `error: ...`, where other files are done
nevertheless; 130 when it was stopped."""
CONTAINERS = {name.lower(): name for name in soundfile.available_formats() if name != "RAW"}
CONTAINERS |= {"opus": "OGG", "oga": "OGG", "aif": "AIFF"}
STOPPED = 130  # the exit code, as shells have it
BLOCK = 1.0  # seconds that are in memory at once


class Job(NamedTuple):
    """A recording, and where what is extracted from it goes."""

    source: Path
    target: Path


def parser() -> Parser:
    """The command line."""
    formatter = argparse.RawTextHelpFormatter
    top = Parser("ss-extract", allow_abbrev=False, description=WHAT, epilog=EXAMPLES, formatter_class=formatter)
    top.add_argument("inputs", metavar="INPUT", nargs="+", help=f"a recording, or a folder of some; {', '.join(CONTAINERS)}")
    top.add_argument("--enrol", metavar="FILE", action="append", required=True, help=ENROL)
    top.add_argument("-o", "--output", metavar="PATH", required=True, help="a file for one recording; a folder for several")
    model_options(top)
    return top


def container(path: Path) -> str | None:
    """What libsndfile calls the kind of file that a name stands for; None for a name that it does not know."""
    return CONTAINERS.get(path.suffix[1:].lower())


def plan(inputs: Sequence[str], output: Path, enrolments: Iterable[Path]) -> list[Job]:
    """What is to be extracted, and to where: a folder's recordings keep their places below it.

    A result is a .wav for a kind of file that cannot be told by the recording's name. Raises UserError for inputs that there are
    not, and for a file that would be written over an input or twice.
    """
    found: list[tuple[Path, Path]] = []
    for path in map(Path, inputs):
        if path.is_dir():
            made = output.resolve() if path.resolve() in output.resolve().parents else None  # results are no inputs
            inside = [file for file in sorted(path.rglob("*")) if container(file) and made not in file.resolve().parents]
            inside = [file for file in inside if file.is_file()]
            if not inside:
                raise UserError(f"{path}: expected recordings in this folder ({', '.join(CONTAINERS)}), found none")
            found += [(file, file.relative_to(path)) for file in inside]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise UserError(f"{path}: expected a recording or a folder, but there is none")
    if len(inputs) == 1 and not Path(inputs[0]).is_dir() and not output.is_dir() and output.suffix:
        if not container(output):
            raise UserError(f"{output}: expected a name that ends in one of .{', .'.join(CONTAINERS)}")
        jobs = [Job(found[0][0], output)]
    else:
        if output.is_file() or container(output):
            raise UserError(f"{output}: expected a folder for {len(found)} recordings, found the name of a file")
        named = ((source, output / name) for source, name in found)
        jobs = [Job(source, target if container(target) else target.with_suffix(".wav")) for source, target in named]
    read = {(stat.st_dev, stat.st_ino) for stat in (path.stat() for path in (*enrolments, *(job.source for job in jobs)))}
    written: dict[Path, Path] = {}
    for source, target in jobs:
        if target.exists() and (target.stat().st_dev, target.stat().st_ino) in read:
            raise UserError(f"{target}: would be written over a recording that is read: choose another -o")
        if target in written:
            raise UserError(f"{target}: would be written twice, from {written[target]} and {source}")
        written[target] = source
    return jobs


class ProgressLine:
    """How far a recording is, on stderr: a line that is kept up to date in a terminal, one at the end elsewhere."""

    def __init__(self, job: Job, frames: int, rate: int, quiet: bool) -> None:
        self.job, self.frames, self.rate, self.quiet = job, frames, rate, quiet
        self.begun = self.shown = time.monotonic()

    def show(self, done: int) -> None:
        """After so many samples."""
        now = time.monotonic()
        if self.quiet or not sys.stderr.isatty() or now - self.shown < REFRESH:
            return
        self.shown, part = now, min(1.0, done / max(1, self.frames))
        left = (now - self.begun) * (1 - part) / max(part, 1e-9)
        show_line(f"{self.job.source} [{bar(part)}] {part:4.0%} {clock(left)} left, {self.speed(done)}")

    def end(self, done: int) -> None:
        """After all samples."""
        if not self.quiet:
            show_line(f"{self.job.source} -> {self.job.target}: {clock(done / self.rate)}, {self.speed(done)}", end="\n")

    def speed(self, done: int) -> str:
        """How fast it went so far."""
        return f"{done / self.rate / max(1e-9, time.monotonic() - self.begun):.0f} times as fast as it plays"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def extract(extractor: Extractor, speaker: Conditions, job: Job, quiet: bool, stop: StopSignal) -> None:
    """Writes the speaker's voice in a recording; the file is there once it is whole, and not at all where a stop is requested.

    16-bit recordings stay so, rounded and clipped; others are computed with in floating point. Raises UserError, OSError and
    soundfile's errors for what cannot be read or written.
    """
    job.target.parent.mkdir(parents=True, exist_ok=True)
    aside = job.target.with_name(f".{job.target.name}.{os.getpid()}.part")
    try:
        with soundfile.SoundFile(str(job.source)) as heard:
            rate, kind = heard.samplerate, container(job.target)
            subtype = "OPUS" if job.target.suffix.lower() == ".opus" else heard.subtype
            subtype = subtype if soundfile.check_format(kind, subtype) else soundfile.default_subtype(kind)
            dtype = "int16" if heard.subtype == "PCM_16" else "float32"
            stream, progress, done = extractor.stream(speaker, rate), ProgressLine(job, heard.frames, rate, quiet), 0
            with soundfile.SoundFile(str(aside), "w", rate, 1, subtype, format=kind) as file:
                while len(block := heard.read(round(BLOCK * rate), dtype=dtype)) and not stop.requested:
                    file.write(stream.process(block))
                    done += len(block)
                    progress.show(done)
                file.write(stream.flush())
        if stop.requested:
            return
        if not done:
            raise UserError("expected audio, found no samples")
        aside.replace(job.target)
        progress.end(done)
        if done < heard.frames:
            complain("warning", f"{job.source}: it ends after {done} of {heard.frames} samples: the file is damaged")
        if stream.repaired:
            complain("warning", f"{job.source}: {stream.repaired} samples are NaN or infinite, and were taken for 0")
    finally:
        aside.unlink(missing_ok=True)


def complain(kind: str, message: str) -> None:
    """A line on stderr, an "error" or a "warning"."""
    show_line(f"{kind}: {' '.join(message.split())}", end="\n")


def run(args: argparse.Namespace, stop: StopSignal) -> int:
    """All jobs; the exit code. Raises UserError for options, a model or an enrolment that cannot be used: then nothing is done."""
    for name in args.enrol:
        for fault in faults(*read_stretch(name)):
            complain("warning", f"{name}: {fault}")
    jobs = plan(args.inputs, Path(args.output), [split_stretch(name)[0] for name in args.enrol])
    extractor = Extractor.from_pretrained(args.model, args.precision, args.threads)
    speaker, failed = extractor.enroll(args.enrol), 0
    for job in jobs:
        try:
            extract(extractor, speaker, job, args.quiet, stop)
        except (UserError, OSError, soundfile.SoundFileError) as error:
            complain("error", f"{job.source}: {error}")
            failed += 1
        if stop.requested:
            return STOPPED
    return 2 if failed else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    args = parser().parse_args(words)
    try:
        with StopSignal() as stop:
            return run(args, stop)
    except (UserError, OSError, soundfile.SoundFileError) as error:
        complain("error", str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
