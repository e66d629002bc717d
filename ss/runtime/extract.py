"""One speaker out of recordings, at their sample rate and length, mono.

examples:
  ss-extract call.wav --enrol anna.wav -o anna-only.wav
  ss-extract call.wav --enrol call.wav@3.0-7.5 -o anna-only.flac    enrol from 3.0 to 7.5 s of the recording itself
  ss-extract monday.mp3 tuesday/ --enrol anna1.wav --enrol anna2.wav -o anna/

Ctrl-C or SIGTERM ends it: the file that is being written is left out. Exit code 0; 2 after `error: ...`, where other files are done
nevertheless; 130 when it was stopped.
"""

# Needs no torch. Nothing is on stdout; all words are on stderr. Files of any length take the same memory.
# Shapes: n samples of a block.

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile

from ss.audio import AudioError, n_samples, readable, sample_rate_of, samples_in_header
from ss.errors import STOPPED, UserError
from ss.files import whole_file
from ss.runtime.command import ENROL, Parser, model_options, run_command
from ss.runtime.enrolment import find_faults, read_stretch, split_stretch
from ss.runtime.extractor import Extractor
from ss.runtime.live_meter import REFRESH, bar, complain, show_line
from ss.runtime.voice import SUFFIX, Conditions
from ss.signals import StopSignal

CONTAINERS = {name.lower(): name for name in soundfile.available_formats() if name != "RAW"}
CONTAINERS |= {"opus": "OGG", "oga": "OGG", "aif": "AIFF"}
UNCODED = ("PCM_", "FLOAT", "DOUBLE", "OPUS")  # subtypes that go from one kind of file into another
BLOCK = 1.0  # seconds that are in memory at once


def container(path: Path) -> str | None:
    """What libsndfile calls the kind of file that a name stands for; None for a name that it does not know."""
    return CONTAINERS.get(path.suffix[1:].lower())


def plan(inputs: Sequence[str], output: Path, enrolments: Iterable[Path]) -> dict[Path, Path]:
    """The files to be written, and the recordings that each is extracted from: a folder's keep their places below it.

    A result is a .wav for a kind of file that cannot be told by the recording's name. Raises UserError for inputs that there are
    not, and for a file that would be written over an input or twice.
    """
    found: list[tuple[Path, Path]] = []
    for path in map(Path, inputs):
        if path.is_dir():
            made = output.resolve() if path.resolve() in output.resolve().parents else None  # results are no inputs
            files = [file for file in sorted(path.rglob("*")) if container(file) and file.is_file()]
            inside = [file for file in files if made not in file.resolve().parents]
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
        targets = [output]
    else:
        if output.is_file() or container(output):
            raise UserError(f"{output}: expected a folder for {len(found)} recordings, found the name of a file")
        targets = [output / (name if container(name) else name.with_suffix(".wav")) for _, name in found]
    read = {(stat.st_dev, stat.st_ino) for stat in (path.stat() for path in (*enrolments, *(source for source, _ in found)))}
    jobs: dict[Path, Path] = {}
    for target, (source, _) in zip(targets, found, strict=True):
        if target.exists() and (target.stat().st_dev, target.stat().st_ino) in read:
            raise UserError(f"{target}: would be written over a recording that is read: choose another -o")
        if target in jobs:
            raise UserError(f"{target}: would be written twice, from {jobs[target]} and {source}")
        jobs[target] = source
    return jobs


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def read_blocks(source: Path, heard: soundfile.SoundFile, dtype: str) -> Iterator[Any]:
    """The samples of a recording, a second at a time. Raises AudioError where it cannot be read on."""
    with readable(source):
        while len(block := heard.read(round(BLOCK * heard.samplerate), dtype=dtype)):
            yield block


def extract(extractor: Extractor, speaker: Conditions, source: Path, target: Path, quiet: bool, stop: StopSignal) -> None:
    """Writes the speaker's voice in a recording, whole or not at all, and says on stderr how far it is.

    16-bit recordings stay so, rounded and clipped; others are computed with in floating point. Raises InterruptedError where a stop
    is requested; UserError for what cannot be read, OSError and soundfile's errors for what cannot be written.
    """
    begun, rate, kind = time.monotonic(), sample_rate_of(source), container(target)
    shown = begun
    with soundfile.SoundFile(str(source)) as heard:
        frames = samples_in_header(heard)
        subtype = "OPUS" if target.suffix.lower() == ".opus" else heard.subtype
        kept = kind == heard.format or subtype.startswith(UNCODED)  # libsndfile says that it writes MP3 into WAV, but cannot
        subtype = subtype if kept and soundfile.check_format(kind, subtype) else soundfile.default_subtype(kind)
        dtype = "int16" if heard.subtype == "PCM_16" else "float32"
        stream, done, speed = extractor.stream(speaker, rate), 0, ""
        with whole_file(target) as aside:
            with soundfile.SoundFile(str(aside), "w", rate, 1, subtype, format=kind) as file:
                for block in read_blocks(source, heard, dtype):
                    if stop.requested:
                        raise InterruptedError
                    file.write(stream.process(block))
                    done += len(block)
                    now = time.monotonic()
                    speed = f"{done / rate / max(1e-9, now - begun):.0f} times as fast as it plays"
                    if not quiet and sys.stderr.isatty() and now - shown >= REFRESH:
                        shown, part = now, min(1.0, done / max(1, frames))
                        left = clock((now - begun) * (1 - part) / part)
                        show_line(f"{source} [{bar(part)}] {part:4.0%} {left} left, {speed}")
                file.write(stream.flush())
            if not done:
                raise UserError("expected audio, found no samples")
            if kind == "OGG" and (written := n_samples(aside)) < done:  # libsndfile does not say when a last page cannot be written
                raise UserError(f"expected {done} samples in {target}, but only {written} could be written: is the disk full?")
    if not quiet:
        show_line(f"{source} -> {target}: {clock(done / rate)}, {speed}", end="\n")
    if done < frames:
        complain("warning", f"{source}: it ends after {done} of {frames} samples: the file is damaged")
    if stream.repaired:
        complain("warning", f"{source}: {stream.repaired} samples are NaN or infinite, and were taken for 0")


def run(args: argparse.Namespace, stop: StopSignal) -> int:
    """All jobs; the exit code. Raises UserError for options, a model or an enrolment that cannot be used: then nothing is done."""
    for name in args.enrol:
        for fault in () if name.endswith(SUFFIX) else find_faults(*read_stretch(name)):
            complain("warning", f"{name}: {fault}")
    jobs = plan(args.inputs, Path(args.output), [split_stretch(name)[0] for name in args.enrol])
    extractor = Extractor.from_pretrained(args.model, args.precision, args.threads)
    speaker, failed = extractor.enroll(args.enrol), 0
    for target, source in jobs.items():
        try:
            extract(extractor, speaker, source, target, args.quiet, stop)
        except InterruptedError:
            return STOPPED
        except (UserError, OSError, soundfile.SoundFileError) as error:
            place = f"{source}: " if isinstance(error, UserError) else f"{target}: could not be written: "
            hint = " Is the disk full?" if str(error) == "System error." else ""  # all that libsndfile says then
            complain("error", f"{'' if isinstance(error, AudioError) else place}{error}{hint}")
            failed += 1
    return 2 if failed else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    top = Parser("ss-extract", __doc__)
    top.add_argument("inputs", metavar="INPUT", nargs="+", help=f"a recording, or a folder of some; {', '.join(CONTAINERS)}")
    top.add_argument("--enrol", "--enroll", metavar="FILE", action="append", required=True, help=ENROL)
    top.add_argument("-o", "--output", metavar="PATH", required=True, help="a file for one recording; a folder for several")
    model_options(top)
    return run_command(run, top.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
