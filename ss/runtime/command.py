"""What the commands of the runtime share: how options are read, those of the model, and how a command ends."""

import argparse
from collections.abc import Callable
from typing import NoReturn

import soundfile

from ss.errors import UserError
from ss.runtime.live_meter import complain
from ss.runtime.pretrained import DEFAULT, PRECISIONS
from ss.signals import StopSignal

ENROL = "a recording of the target speaker alone, FILE@START-END in seconds, or a stored NAME.voice; several are averaged"


class Parser(argparse.ArgumentParser):
    """Of a command's options; reports a wrong one in one line, as all errors here.

    doc: of the command's module; its first paragraph is above the options in --help, the others are below.
    """

    def __init__(self, name: str, doc: str) -> None:
        what, _, more = doc.partition("\n\n")
        super().__init__(name, allow_abbrev=False, description=what, epilog=more, formatter_class=argparse.RawTextHelpFormatter)

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


def model_options(top: Parser) -> Callable[..., argparse.Action]:
    """The options of every command that runs a model; adds to their group."""
    add = top.add_argument_group("how").add_argument
    add("--model", metavar="MODEL", default=DEFAULT, help=f"a release or export: a name, folder or URL; default: {DEFAULT}")
    add("--precision", choices=PRECISIONS, default=PRECISIONS[0], help=f"of a release; default: {PRECISIONS[0]}")
    add("--threads", metavar="N", type=count, default=1, help="of the model; default: 1")
    add("--quiet", action="store_true", help="print errors and warnings only")
    return add


def run_command(job: Callable[[argparse.Namespace, StopSignal], int | None], args: argparse.Namespace) -> int:
    """A command's exit code: that of its job (None: 0), or 2 after a line `error: ...` on stderr."""
    try:
        with StopSignal() as stop:
            return job(args, stop) or 0
    except (UserError, OSError, soundfile.SoundFileError) as error:
        complain("error", str(error))
        return 2
