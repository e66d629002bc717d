"""The command line of `ss-live`: its options, and what is wrong with them in one line; `ss-extract` shares some of them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ss.runtime.enrolment import split_stretch
from ss.runtime.pcm import FORMATS
from ss.runtime.pretrained import DEFAULT, PRECISIONS

WHAT = "One speaker out of a live mixture: from a microphone, a pipe or a file to speakers, a pipe or a file."
EXAMPLES = """examples:
  ss-live --enrol anna.wav                          microphone to speakers (use headphones)
  ss-live --enrol-seconds 5 --output-device Cable   record the enrolment first; to a virtual device
  ss-live --enrol call.wav@3.0-7.5                  enrol from a stretch of a recording, in seconds
  arecord -t raw -f S16_LE -r 16000 | ss-live --enrol anna.wav --input - --output - | aplay -f S16_LE -r 16000

Ctrl-C or SIGTERM ends it: what was read is extracted, files are closed; what still waits in a pipe is not read.
Exit code 0, or 2 after `error: ...`."""
ENROL = "a recording of the target speaker alone, or FILE@START-END in seconds; several are averaged"


class Parser(argparse.ArgumentParser):
    """Reports a wrong option in one line, as all errors here."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help explains)\n")


def positive(text: str) -> float:
    """An option's number above zero."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return float(text)


def count(text: str) -> int:
    """An option's whole number above zero."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text}")
    return int(text)


def device(text: str) -> str | int:
    """A device by its number or a part of its name."""
    return int(text) if text.isdigit() else text


def parser() -> Parser:
    """The command line."""
    formatter = argparse.RawTextHelpFormatter
    top = Parser("ss-live", allow_abbrev=False, description=WHAT, epilog=EXAMPLES, formatter_class=formatter)
    add = top.add_argument_group("who is to be heard").add_argument
    add("--enrol", metavar="FILE", action="append", help=ENROL)
    add("--enrol-seconds", metavar="N", type=positive, help="or: the first N seconds of the input; the output begins after them")
    add("--save-enrolment", metavar="FILE", help="keep those seconds, for --enrol")
    add = top.add_argument_group("from where to where").add_argument
    add("--input", metavar="FILE", help="a file, as a microphone, or - for raw PCM on stdin; default: a microphone")
    add("--output", metavar="FILE", help="a .wav or .flac file, or - for raw PCM on stdout; default: speakers")
    add("--record", metavar="FILE", help="keep the estimate in this file too")
    add("--input-device", metavar="DEVICE", type=device, help="number or name, also of a virtual device")
    add("--output-device", metavar="DEVICE", type=device)
    add("--list-devices", action="store_true", help="list the devices and end")
    how(top)
    return top


def how(top: Parser) -> None:
    """The options that have a default."""
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


def model_options(top: Parser) -> Callable[..., argparse.Action]:
    """The options of every command that runs a model; adds to their group."""
    add = top.add_argument_group("how").add_argument
    add("--model", metavar="MODEL", default=DEFAULT, help=f"a release or export: a name, folder or URL; default: {DEFAULT}")
    add("--precision", choices=PRECISIONS, default=PRECISIONS[0], help=f"of a release; default: {PRECISIONS[0]}")
    add("--threads", metavar="N", type=count, default=1, help="of the model; default: 1")
    add("--quiet", action="store_true", help="print errors and warnings only")
    return add


def files(*options: str | None) -> list[Path]:
    """Those of the options that name a file."""
    return [Path(option).resolve() for option in options if option not in (None, "-")]


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that are missing or would do nothing."""
    from_file = args.input not in (None, "-")
    enrolments = (str(split_stretch(name)[0]) for name in args.enrol or ())
    written, read = files(args.output, args.record, args.save_enrolment, args.report), files(args.input, *enrolments)
    wrong = {
        "expected either --enrol FILE or --enrol-seconds N": (args.enrol is None) == (args.enrol_seconds is None),
        "--save-enrolment needs --enrol-seconds": args.save_enrolment and not args.enrol_seconds,
        "--input-device is of no use with --input": args.input and args.input_device is not None,
        "--output-device is of no use with --output": args.output and args.output_device is not None,
        "--rate and --channels are for raw PCM and devices: an input file says its own": from_file and (args.rate or args.channels),
        "--fast is for an input file": args.fast and not from_file,
        "a file is to be written twice, or read and written": len({*written}) < len(written) or {*written} & {*read},
    }
    for message, holds in wrong.items():
        if holds:
            raise ValueError(message)
