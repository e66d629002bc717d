"""`ss-live`: one speaker out of a live mixture, from a microphone, a pipe or a file to speakers, a pipe or a file.

Needs no torch: numpy, soundfile, onnxruntime, and sounddevice for devices. The audio is on stdout or in files, all words on stderr.
Shapes: n samples of a block, C channels.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import soundfile

from ss.audio import Wave
from ss.runtime import Extractor, Stream
from ss.runtime.live_device import Microphone, Speakers, shared_rate, sounddevice
from ss.runtime.live_meter import Meter, dbfs, latency_of, peak
from ss.runtime.live_options import check, parser
from ss.runtime.live_sinks import FileSink, PipeSink, Sink
from ss.runtime.live_sources import FileSource, PipeSource, Source, Stop, first_seconds, samples_of

SHORTEST = 0.005  # seconds of a block by default; shorter ones cost more calls than they save time
QUIET = -50.0  # dBFS, a recorded enrolment whose peak is lower is worth a warning


def open_source(args: argparse.Namespace, model_rate: int, stop: Stop) -> Source:
    """The input that the options ask for. Raises ValueError."""
    channels = args.channels or 1
    if args.input == "-":
        return PipeSource(sys.stdin.fileno(), args.rate or model_rate, args.format, channels, args.block_ms, stop)
    if args.input:
        return FileSource(args.input, args.block_ms, stop, args.fast)
    output = None if args.output else (args.output_device, args.output_channels)
    rate = args.rate or shared_rate(model_rate, args.input_device, channels, output)
    return Microphone(args.input_device, rate, channels, args.block_ms, stop)


def open_sink(args: argparse.Namespace, rate: int, stop: Stop) -> Sink:
    """The output that the options ask for. Raises ValueError."""
    if args.output == "-":
        return PipeSink(sys.stdout.fileno(), args.format, args.output_channels)
    if args.output:
        return FileSink(args.output, rate, args.format, args.output_channels)
    live = args.input is None
    return Speakers(args.output_device, rate, args.output_channels, args.block_ms, args.buffer_ms, live, stop)


def pump(source: Source, stream: Stream, sinks: Sequence[Sink], meter: Meter) -> None:
    """Moves blocks through the stream until the source ends or the last sink is done, then what the stream still holds."""
    try:
        while not sinks[-1].done and (block := source.read()) is not None:
            before = time.perf_counter()
            estimate = stream.process(block)
            meter.count(block, estimate, time.perf_counter() - before)
            for sink in sinks:
                sink.write(estimate)
    finally:
        tail = stream.flush()
        meter.tail(tail)
        for sink in sinks:
            sink.write(tail)


def recorded_enrolment(args: argparse.Namespace, source: Source, stop: Stop) -> Wave | None:
    """The first seconds of the source [n] or [n,C], saved where the options say so; None where a stop is requested meanwhile.

    Raises ValueError for a source that ends before.
    """
    if not args.quiet:
        print(f"enrolment: {args.enrol_seconds:g} s of the target speaker alone, from now on", file=sys.stderr)
    wave = first_seconds(source, args.enrol_seconds)
    if stop.requested:
        return None
    if len(wave) < round(args.enrol_seconds * source.rate):
        raise ValueError(
            f"expected {args.enrol_seconds:g} s for the enrolment, the input ended after {len(wave) / source.rate:g} s"
        )
    level = dbfs(peak(wave))
    if level < QUIET:
        print(f"warning: the enrolment is nearly silent, its peak is {level:.0f} dBFS", file=sys.stderr)
    if args.save_enrolment:
        with closing(FileSink(args.save_enrolment, source.rate, args.format)) as file:
            file.write(wave if wave.ndim == 1 else wave.mean(1))
    return wave


def run(args: argparse.Namespace, stop: Stop) -> None:
    """All of a session. Raises ValueError and OSError for what the user can mend."""
    extractor = Extractor.from_pretrained(args.model, args.precision, args.threads)
    args.block_ms = args.block_ms or 1000 * whole_hops(extractor)
    with ExitStack() as open_now:
        source = open_now.enter_context(closing(open_source(args, extractor.sample_rate, stop)))
        sinks: list[Sink] = []
        if args.record:
            sinks.append(open_now.enter_context(closing(FileSink(args.record, source.rate, args.format, args.output_channels))))
        sinks.append(open_now.enter_context(closing(open_sink(args, source.rate, stop))))
        enrolment = args.enrol or recorded_enrolment(args, source, stop)
        if enrolment is None:
            print("stopped before the enrolment was complete", file=sys.stderr)
            return
        stream = extractor.stream(enrolment, sample_rate=source.rate)
        block = samples_of(args.block_ms, source.rate)
        meter = Meter(source, sinks[-1], latency_of(extractor, stream, source, sinks[-1], block), block, args.quiet)
        pump(source, stream, sinks, meter)
    finish(args, meter, "stopped" if stop.requested else "output closed" if sinks[-1].done else "input ended")


def whole_hops(extractor: Extractor) -> float:
    """Seconds of the shortest block of whole hops that is worth a call: nothing waits in the stream for a hop to fill."""
    hop = extractor.hop / extractor.sample_rate
    return hop * math.ceil(SHORTEST / hop)


def finish(args: argparse.Namespace, meter: Meter, ended: str) -> None:
    """The summary and the report."""
    if not args.quiet:
        meter.show(f"{meter.summary()}; {ended}", end="\n")
    if args.report:
        Path(args.report).write_text(json.dumps({"model": args.model, "ended": ended, **meter.report()}, indent=2) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a line `error: ...` on stderr."""
    args = parser().parse_args(words)
    try:
        if args.list_devices:
            print(sounddevice().query_devices())
            return 0
        check(args)
        with Stop() as stop:
            run(args, stop)
    except (ValueError, OSError, soundfile.SoundFileError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
