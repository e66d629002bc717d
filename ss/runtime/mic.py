"""A virtual microphone, `ss-mic`, that gives one speaker only. For PipeWire and PulseAudio.

examples:
  ss-mic enrol                      record yourself for 10 s; or: ss-mic enrol me.wav
  ss-mic start                      then choose the microphone `ss-mic` in any program
  ss-mic enrol --voice anna         more voices have names
  ss-mic start --voice anna --rest 0.1 --source alsa_input.usb-headset
  ss-mic status                     levels, latency and load
  ss-mic stop
  ss-mic config > ~/.config/pipewire/pipewire.conf.d/ss-mic.conf    PipeWire itself starts it from now on

Exit code 0, or 2 after `error: ...`.
"""

# The work is done by the LADSPA plugin (libss/ladspa.c) within a process of the sound server; this command starts and stops it.
# Needs no torch; needs pactl and parec, and pipewire where that is the sound server.

import argparse
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ss.errors import UserError, require_file
from ss.files import whole_file
from ss.runtime.command import Parser, positive, run_command
from ss.runtime.enrolment import find_faults, read_stretch
from ss.runtime.extractor import Extractor, Recording
from ss.runtime.live import record_enrolment
from ss.runtime.live_io import PipeSource
from ss.runtime.live_meter import complain, dbfs
from ss.runtime.pretrained import DEFAULT, NATIVE, PRECISIONS, find_model
from ss.runtime.voice import voice_path
from ss.signals import StopSignal

NAME = "ss-mic"  # of the source, and a part of the names of all that is made for it
PLUGIN = Path(__file__).with_name("ss_ladspa.so")
RATE, BLOCK_MS = 48000, 20.0  # of what is recorded
CONFIG = "pipewire.conf"  # of PipeWire's process for the microphone, which is found by it
PATIENCE = 5.0  # seconds in which the microphone must be there, or gone
FILTER = """{{ name = libpipewire-module-filter-chain
    args = {{
      node.description = "One voice (ss)"
      filter.graph = {{ nodes = [
        {{ type = ladspa name = ss plugin = {plugin} label = ss control = {{ "On" = 1 "Rest" = {rest} }} }}
      ] }}
      capture.props = {{ node.name = "ss-mic.capture" audio.position = [ MONO ] node.passive = true {source} }}
      playback.props = {{ node.name = "ss-mic" audio.position = [ MONO ] media.class = Audio/Source }}
    }}
  }}"""
PROCESS = """context.spa-libs = {{ audio.convert.* = audioconvert/libspa-audioconvert support.* = support/libspa-support }}
context.modules = [
  {{ name = libpipewire-module-rt args = {{ nice.level = -11 }} flags = [ ifexists nofail ] }}
  {{ name = libpipewire-module-protocol-native }}
  {{ name = libpipewire-module-client-node }}
  {{ name = libpipewire-module-adapter }}
  {filter}
]
"""


class Status(NamedTuple):
    """What an instance of the plugin writes, `struct status` in libss/ladspa.c. busy in ns, latency in samples, rate in Hz."""

    blocks: int
    samples: int
    busy: int
    late: int
    repaired: int
    rate: int
    latency: int
    works: int
    level_in: float
    level_out: float
    highest_load: float


def runtime_folder() -> Path:
    """Where the plugin's figures and this command's files are. Raises UserError outside of a user's session."""
    if not (folder := os.environ.get("XDG_RUNTIME_DIR")):
        raise UserError("expected the environment of a desktop session, found no XDG_RUNTIME_DIR")
    return Path(folder, NAME)


def call(*words: str) -> str:
    """What a program prints. Raises UserError where it is missing or fails."""
    if not shutil.which(words[0]):
        raise UserError(f"expected the program {words[0]}, found none: apt install pulseaudio-utils")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode and "onnection" in done.stderr:
        raise UserError("no sound server answers: expected PipeWire with pipewire-pulse, or PulseAudio, to run")
    if done.returncode:
        raise UserError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip() or 'failed'}")
    return done.stdout


def enrol(args: argparse.Namespace, stop: StopSignal) -> None:
    """Stores a voice, from recordings or the microphone."""
    path, extractor = voice_path(args.voice), Extractor.from_pretrained(args.model, args.precision)
    recordings: list = [(name, *read_stretch(name)) for name in args.recordings]
    if not recordings:
        device = f"--device={find_source(args)}"
        command = ["parec", "--raw", "--format=float32le", f"--rate={RATE}", "--channels=1", "--latency-msec=20", device]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as recorder:
            try:
                source = PipeSource(recorder.stdout.fileno(), RATE, "f32le", 1, BLOCK_MS, stop)  # type: ignore[union-attr]
                wave = record_enrolment(args, source, stop)
            finally:
                recorder.terminate()
        if wave is None:
            raise UserError("stopped before the enrolment was complete")
        recordings = [("the recording", wave, RATE)]
    voices: list[Recording] = [extractor.enroll(wave, rate) for _, wave, rate in recordings]
    for name, wave, rate in recordings:
        for fault in find_faults(wave, rate):
            complain("warning", f"{name}: {fault}")
    extractor.enroll(voices).save(path)
    print(f"{path}: is heard from the next `ss-mic start` on")


def find_source(args: argparse.Namespace) -> str:
    """The real microphone that is asked for, or the default one. Raises UserError where the sound server has none of that name."""
    source = args.source or call("pactl", "get-default-source").strip()
    known = [line.split("\t")[1] for line in call("pactl", "list", "short", "sources").splitlines()]
    others = [name for name in known if not name.startswith(NAME)]
    if source not in others:
        found = ", ".join(others) or "none"
        raise UserError(f"--source: expected a microphone of the sound server ({found}), got {source}")
    return source


def make_filter(args: argparse.Namespace) -> str:
    """The part of a configuration of PipeWire that makes the microphone."""
    node = (args.source or "").removesuffix(".monitor")
    source = f"target.object = {json.dumps(node)}" if node else ""
    source += " stream.capture.sink = true" if node != (args.source or "") else ""  # of a sink, what it plays
    return FILTER.format(plugin=json.dumps(str(PLUGIN)), rest=args.rest, source=source)


def configure(args: argparse.Namespace) -> None:
    """Names model and voice in mic.conf, where the plugin looks for them. Raises UserError for what could not be used."""
    require_file(PLUGIN, "the plugin", ": install ss again where there is a C compiler")
    if not 0 <= args.rest <= 1:
        raise UserError(f"--rest: expected a number from 0 to 1, got {args.rest:g}")
    folder, voice = find_model(args.model, args.precision).resolve(), voice_path(args.voice).resolve()
    require_file(voice, "a voice", f": ss-mic enrol --voice {args.voice}")
    Extractor.load(folder, backend="c").enroll(voice)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "ss", "mic.conf")
    with whole_file(config) as aside:
        aside.write_text(f"model={folder / NATIVE}\nvoice={voice}\n")


def print_config(args: argparse.Namespace, _: StopSignal) -> None:
    """Names model and voice in mic.conf, and prints what makes PipeWire start the microphone by itself."""
    configure(args)
    print(f"context.modules = [\n  {make_filter(args)}\n]")


def start(args: argparse.Namespace, waiting: StopSignal) -> None:
    """Starts the microphone, in the place of one that runs."""
    configure(args)
    args.source, folder = find_source(args), runtime_folder()  # by its name: the default may change
    on_pipewire = "on PipeWire" in call("pactl", "info")
    stop(args, waiting)
    folder.mkdir(mode=0o700, exist_ok=True)
    log = folder / "log"
    if on_pipewire:
        (folder / CONFIG).write_text(PROCESS.format(filter=make_filter(args)))
        with log.open("w") as file:
            command = ["pipewire", "-c", str(folder / CONFIG)]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    else:
        # PulseAudio has no filter for sources: a loopback plays the microphone into a filtered sink that nobody hears
        played, form = f"{NAME}.played", ("channels=1", "channel_map=mono")
        sink = (f"sink_name={played}", f"rate={RATE}", "format=float32le", f"sink_properties=device.description={played}")
        plugin = (f'plugin="{PLUGIN.with_suffix("")}"', "label=ss", f"control=1,{args.rest}")
        ends = (f"source={args.source}", f"sink={NAME}.filter", "source_dont_move=true", "sink_dont_move=true")
        for module in (
            ("null-sink", *sink),
            ("ladspa-sink", f"sink_name={NAME}.filter", f"sink_master={played}", *plugin),
            ("loopback", *ends, "latency_msec=20"),
            ("remap-source", f"source_name={NAME}", f"master={played}.monitor"),
        ):
            call("pactl", "load-module", f"module-{module[0]}", *module[1:], *form)
    if not until(is_there, waiting):
        last = (log.read_text().splitlines() or ["no reason"])[-1] if log.is_file() else "no reason"
        raise UserError(f"the sound server has no microphone {NAME}, it says: {last}")
    print(f"it hears {args.source}; choose the microphone {NAME} in a program, or: pactl set-default-source {NAME}")


def stop(args: argparse.Namespace, waiting: StopSignal) -> None:
    """Ends the microphone, if it runs. Raises UserError for one that does not end."""
    for pid in find_processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    with suppress(UserError):  # no sound server
        for line in reversed(call("pactl", "list", "short", "modules").splitlines()):
            if f"={NAME}" in line:
                call("pactl", "unload-module", line.split()[0])
    if not until(lambda: not find_processes(), waiting):
        raise UserError(f"the microphone does not end: processes {', '.join(map(str, find_processes()))}")
    if not until(lambda: not is_there(), waiting):
        raise UserError(f"the microphone {NAME} is one of a configuration of PipeWire: leave it to that, or take it out there")


def show_status(args: argparse.Namespace, waiting: StopSignal) -> None:
    """Prints a line for each instance at work, with its load of a second."""
    before = dict(read_statuses())
    waiting.wait(1.0)
    for name, now in read_statuses():
        if name not in before or not now.works:
            print(f"{name}: {'begins' if now.works else 'silent: no model or no voice, see the messages of the sound server'}")
            continue
        samples = now.samples - before[name].samples
        load = f"{(now.busy - before[name].busy) / 1e9 * now.rate / samples:.1%}" if samples else "idle"
        levels = f"in {dbfs(now.level_in):.0f} dBFS, out {dbfs(now.level_out):.0f} dBFS"
        latency = f"latency {1000 * now.latency / now.rate:.1f} ms at {now.rate} Hz"
        blocks = f"{now.late} of {now.blocks} blocks late, {now.repaired} samples not finite"
        print(f"{name}: {levels}, {latency}, load {load} (a block at most {now.highest_load:.1%}), {blocks}")
    if not before:
        print("no program listens" if is_there() else "stopped")


def is_there() -> bool:
    """Whether there is a sound server that has the microphone."""
    with suppress(UserError):
        return f"\t{NAME}\t" in call("pactl", "list", "short", "sources")
    return False


def find_processes() -> list[int]:
    """PipeWire's processes for the microphone."""
    words, found = f"pipewire\0-c\0{runtime_folder() / CONFIG}\0".encode(), []  # after the path of the program
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().endswith(words):
                found.append(int(path.parent.name))
    return found


def read_statuses() -> Iterator[tuple[str, Status]]:
    """The instances at work by process and number; removes the files of processes that ended without doing so."""
    for path in sorted(runtime_folder().glob("[0-9]*.[0-9]*")):
        with suppress(OSError, struct.error):
            if Path("/proc", path.stem, "exe").exists():  # not so of one that ended and nobody waited for
                yield path.name, Status._make(struct.unpack("5Q3I3f", path.read_bytes()))
            else:
                path.unlink()


def until(holds: Callable[[], bool], waiting: StopSignal) -> bool:
    """Waits for something with patience; whether it came."""
    end = time.monotonic() + PATIENCE
    while not (held := holds()) and time.monotonic() < end and not waiting.wait(0.1):
        pass
    return held


JOBS = {"enrol": enrol, "start": start, "stop": stop, "status": show_status, "config": print_config}


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    top = Parser(NAME, __doc__)
    top.add_argument("job", choices=JOBS, help="what to do")
    add = top.add_argument
    add("recordings", metavar="FILE", nargs="*", help="enrol: of the speaker alone, or FILE@START-END; none: a microphone")
    add("--voice", metavar="NAME", default="me", help="who is to be heard; default: me")
    add("--source", metavar="DEVICE", help="the microphone, as `pactl list short sources` names it; default: the default one")
    add("--seconds", metavar="N", type=positive, default=10.0, dest="enrol_seconds", help="enrol: to record; default: 10")
    add("--rest", metavar="PART", type=float, default=0.0, help="of the other sound that stays, 0 to 1; default: 0")
    add("--model", metavar="MODEL", default=DEFAULT, help=f"a release or export: a name, folder or URL; default: {DEFAULT}")
    add("--precision", choices=PRECISIONS, default=PRECISIONS[0], help=f"of a release; default: {PRECISIONS[0]}")
    top.set_defaults(quiet=False, save_enrolment=None)
    args = top.parse_intermixed_args(words)
    if sys.platform != "linux":
        top.error(f"the virtual microphone is for Linux, found {sys.platform}")
    return run_command(JOBS[args.job], args)


if __name__ == "__main__":
    sys.exit(main())
