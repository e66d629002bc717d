"""One speaker out of a live mixture: from a microphone, a pipe or a file to speakers, a pipe or a file.

examples:
  ss-live --enrol anna.wav                          microphone to speakers (use headphones)
  ss-live --enrol-seconds 5 --output-device Cable   record the enrolment first; to a virtual device
  ss-live --enrol call.wav@3.0-7.5                  enrol from a stretch of a recording, in seconds
  arecord -t raw -f S16_LE -r 16000 | ss-live --enrol anna.wav --input - --output - | aplay -f S16_LE -r 16000

Ctrl-C or SIGTERM ends it: what was read is extracted, files are closed; what still waits in a pipe is not read.
Exit code 0, or 2 after `error: ...`.
"""

# Needs no torch; needs sounddevice for devices. The audio is on stdout or in files, all words on stderr.
# Shapes: n samples of a block, C channels.

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from ss.audio import Wave
from ss.errors import UserError
from ss.runtime import Extractor
from ss.runtime.command import ENROL, Parser, count, model_options, positive, run_command
from ss.runtime.enrolment import split_stretch
from ss.runtime.live_device import Microphone, Speakers, shared_rate, sounddevice
from ss.runtime.live_io import FORMATS, FileSink, FileSource, PipeSink, PipeSource, Sink, Source, samples_of
from ss.runtime.live_meter import Meter, complain, dbfs, measure_live_latency, peak, show_line
from ss.signals import StopSignal

SHORTEST = 0.005  # seconds of a block by default; shorter ones cost more calls than they save time
QUIET = -50.0  # dBFS, a recorded enrolment whose peak is lower is worth a warning


def device(text: str) -> str | int:
    """A device by its number or a part of its name."""
    return int(text) if text.isdigit() else text


def check_options(args: argparse.Namespace) -> None:
    """Raises UserError for options that are missing or would do nothing."""
    from_file = args.input not in (None, "-")
    enrolments = (str(split_stretch(name)[0]) for name in args.enrol or ())
    named = (args.output, args.record, args.save_enrolment, args.report), (args.input, *enrolments)
    written, read = ([Path(name).resolve() for name in names if name not in (None, "-")] for names in named)
    wrong = {
        "expected either --enrol FILE or --enrol-seconds N": (args.enrol is None) == (args.enrol_seconds is None),
        "--save-enrolment needs --enrol-seconds": args.save_enrolment and not args.enrol_seconds,
        "--input-device is of no use with --input": args.input and args.input_device is not None,
        "--output-device is of no use with --output": args.output and args.output_device is not None,
        "--rate and --channels are for raw PCM and devices: an input file says its own": from_file and (args.rate or args.channels),
        "--input -: expected raw PCM in a pipe or a file, found a terminal": args.input == "-" and sys.stdin.isatty(),
        "--output -: expected a pipe or a file for raw PCM, found a terminal": args.output == "-" and sys.stdout.isatty(),
        "--block-ms: expected at most 60000 ms": (args.block_ms or 0) > 60000,
        "--fast is for an input file": args.fast and not from_file,
        "a file is to be written twice, or read and written": len({*written}) < len(written) or {*written} & {*read},
    }
    for message, holds in wrong.items():
        if holds:
            raise UserError(message)


def record_enrolment(args: argparse.Namespace, source: Source, stop: StopSignal) -> Wave | None:
    """The first seconds of the source [n] or [n,C], saved where the options say so; None where a stop is requested meanwhile.

    The last block is used whole, so that nothing falls between the enrolment and what is extracted. Raises UserError for a source
    that ends before.
    """
    if not args.quiet:
        print(f"enrolment: {args.enrol_seconds:g} s of the target speaker alone, from now on", file=sys.stderr)
    wanted, n, blocks = round(args.enrol_seconds * source.rate), 0, []
    while n < wanted and (block := source.read()) is not None:
        blocks.append(block)
        n += len(block)
    source.pause()
    if stop.requested:
        return None
    if n < wanted:
        raise UserError(f"expected {args.enrol_seconds:g} s for the enrolment, the input ended after {n / source.rate:g} s")
    wave = np.concatenate(blocks)
    if (level := dbfs(peak(wave))) < QUIET:
        complain("warning", f"the enrolment is nearly silent, its peak is {level:.0f} dBFS")
    if args.save_enrolment:
        with closing(FileSink(args.save_enrolment, source.rate, args.format)) as file:
            file.write(wave if wave.ndim == 1 else wave.mean(1))
    return wave


def run(args: argparse.Namespace, stop: StopSignal) -> None:
    """All of a session, from opening its ends to its summary. Raises UserError and OSError for what users can mend."""
    if args.list_devices:
        print(sounddevice().query_devices())
        return
    check_options(args)
    extractor = Extractor.from_pretrained(args.model, args.precision, args.threads)
    voice = extractor.enroll(args.enrol) if args.enrol else None  # first: where it fails, a former output stays as it was
    if not args.block_ms:  # whole hops: nothing waits in the stream for a hop to fill
        hop = extractor.hop / extractor.sample_rate
        args.block_ms = 1000 * hop * math.ceil(SHORTEST / hop)
    channels, form, repeated = args.channels or 1, args.format, args.output_channels
    with ExitStack() as open_now:
        if args.input == "-":
            source: Source = PipeSource(sys.stdin.fileno(), args.rate or extractor.sample_rate, form, channels, args.block_ms, stop)
        elif args.input:
            source = FileSource(args.input, args.block_ms, stop, args.fast)
        else:
            speakers = None if args.output else (args.output_device, repeated)
            taken_rate = args.rate or shared_rate(extractor.sample_rate, args.input_device, channels, speakers)
            source = Microphone(args.input_device, taken_rate, channels, args.block_ms, stop)
        open_now.enter_context(closing(source))
        rate, sinks = source.rate, list[Sink]()
        if args.record:
            sinks.append(open_now.enter_context(closing(FileSink(args.record, rate, form, repeated))))
        if args.output == "-":
            output: Sink = PipeSink(sys.stdout.fileno(), form, repeated)
        elif args.output:
            output = FileSink(args.output, rate, form, repeated)
        else:
            output = Speakers(args.output_device, rate, repeated, args.block_ms, args.buffer_ms, args.input is None, stop)
        sinks.append(open_now.enter_context(closing(output)))
        enrolment = voice or record_enrolment(args, source, stop)
        if enrolment is None:
            print("stopped before the enrolment was complete", file=sys.stderr)
            return
        stream, size = extractor.stream(enrolment, sample_rate=rate), samples_of(args.block_ms, rate)
        meter = Meter(source, output, measure_live_latency(extractor, stream, source, output, size), size, args.quiet)

        def give(heard: Wave, estimate: Wave, seconds: float) -> None:
            meter.count(heard, estimate, seconds)
            for sink in sinks:
                sink.write(estimate)

        try:
            while not output.done and (block := source.read()) is not None:
                before = time.perf_counter()
                estimate = stream.process(block)
                give(block, estimate, time.perf_counter() - before)
        finally:
            give(np.zeros(0, np.float32), stream.flush(), 0.0)
    ended = "stopped" if stop.requested else "output closed" if output.done else "input ended"
    if not args.quiet:
        show_line(f"{meter.summary()}; {ended}", end="\n")
    if args.report:
        Path(args.report).write_text(json.dumps({"model": args.model, "ended": ended, **meter.report()}, indent=2) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    top = Parser("ss-live", __doc__)
    add = top.add_argument_group("who is to be heard").add_argument
    add("--enrol", "--enroll", metavar="FILE", action="append", help=ENROL)
    add("--enrol-seconds", metavar="N", type=positive, help="or: the first N seconds of the input; the output begins after them")
    add("--save-enrolment", metavar="FILE", help="keep those seconds, for --enrol")
    add = top.add_argument_group("from where to where").add_argument
    add("--input", metavar="FILE", help="a file, as a microphone, or - for raw PCM on stdin; default: a microphone")
    add("--output", metavar="FILE", help="a .wav or .flac file, or - for raw PCM on stdout; default: speakers")
    add("--record", metavar="FILE", help="keep the estimate in this file too")
    add("--input-device", metavar="DEVICE", type=device, help="number or name, also of a virtual device")
    add("--output-device", metavar="DEVICE", type=device)
    add("--list-devices", action="store_true", help="list the devices and end")
    add = top.add_argument_group("samples").add_argument
    add("--rate", metavar="HZ", type=count, help="of raw PCM and devices; default: the model's (devices: or one they take)")
    add("--channels", metavar="N", type=count, help="of raw PCM and the microphone, averaged; default: 1")
    add("--output-channels", metavar="N", type=count, default=1, help="the estimate is repeated in each; default: 1")
    add("--format", choices=FORMATS, default="s16le", help="of raw PCM and of the samples in files written; default: s16le")
    add = model_options(top)
    add("--fast", action="store_true", help="read an input file as fast as possible instead of at its own pace")
    add("--block-ms", metavar="MS", type=positive, help="audio taken at once; default: hops of 5 ms or more")
    add("--buffer-ms", metavar="MS", type=positive, default=20.0, help="audio that speakers hold against stalls; default: 20")
    add("--report", metavar="FILE", help="write the figures of the summary as JSON")
    return run_command(run, top.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
