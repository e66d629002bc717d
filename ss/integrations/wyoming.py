"""Stands in front of a speech-to-text service that speaks the Wyoming protocol, so that it hears an enrolled voice only.

examples:
  ss-wyoming --enrol anna.wav --upstream tcp://127.0.0.1:10300
  ss-wyoming --voice anna --voice ben --upstream tcp://127.0.0.1:10300 --uri tcp://0.0.0.0:10400

A client gets the first voice, or the one that it names: in `transcribe` as the model's name, or by `select-program`.
Ctrl-C or SIGTERM ends it. Exit code 0, or 2 after `error: ...`.
"""

# Wyoming is the protocol between Home Assistant and such services: events of JSON with PCM behind them. Every event passes, both
# ways. The audio of an audio-chunk on its way to the service is replaced by what is extracted from it.
# Shapes: n samples of a chunk, C channels.

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ss.errors import UserError, explain, import_extra, require_file
from ss.runtime.command import ENROL, Parser, count, model_options, positive, run_command
from ss.runtime.enrolment import split_stretch
from ss.runtime.extractor import Extractor
from ss.runtime.live_io import decode, encode
from ss.runtime.live_meter import REFRESH, show_line
from ss.runtime.voice import SUFFIX, Conditions, voice_path
from ss.signals import StopSignal

MOST = 1 << 20  # bytes of an event's data, and of its payload: half a minute at 16 kHz
RATES, RATE_STEP = range(8000, 192001), 25  # Hz; finer steps would need large filters
LONGEST, REFUSAL = 300, 1.0  # characters of an error, and seconds for telling it
FORMS = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}  # of samples, by their width in bytes
CHANNELS = range(1, 9)

Address: TypeAlias = dict[str, Any]


def address(uri: str) -> Address:
    """tcp://HOST:PORT or unix:///PATH -> the arguments with which asyncio opens it."""
    place = urlsplit(uri)
    with suppress(ValueError):  # of a port that is no number
        if place.scheme == "tcp" and place.hostname and place.port is not None:
            return {"host": place.hostname, "port": place.port}
    if place.scheme == "unix" and place.path:
        return {"path": place.path}
    raise argparse.ArgumentTypeError(f"expected tcp://HOST:PORT or unix:///PATH, got {uri}")


class PcmStream:
    """The extraction of one voice from PCM as Wyoming has it: little-endian, of 1 to 4 bytes, those of one byte unsigned.

    Raises UserError for a format that is none.
    """

    def __init__(self, extractor: Extractor, voice: Conditions, rate: Any, width: Any, channels: Any) -> None:
        known = all(type(value) is int for value in (rate, width, channels)) and width in FORMS and channels in CHANNELS
        if not known or rate not in RATES or rate % RATE_STEP:
            rates = f"{RATES[0]} to {RATES[-1]} Hz in steps of {RATE_STEP}"
            wanted = f"{rates}, 1 to {max(FORMS)} bytes and 1 to {CHANNELS[-1]} channels"
            raise UserError(f"expected {wanted}; got {rate!r} Hz, {width!r} bytes, {channels!r} channels")
        self.format = {"rate": rate, "width": width, "channels": channels}  # as events tell it
        self.stream = extractor.stream(voice, rate)
        self.samples, self.seconds = 0, 0.0  # per channel; of CPU

    def process(self, pcm: bytes | None) -> bytes:
        """The next PCM -> what is finished of the estimate, the same in every channel; None ends the stream.

        Raises UserError for a part of a frame.
        """
        begin, width, channels = time.thread_time(), self.format["width"], self.format["channels"]
        if pcm is None:
            estimate = self.stream.flush()
        elif len(pcm) % (width * channels):
            raise UserError(f"expected whole frames of {width * channels} bytes, got {len(pcm)} bytes")
        else:
            samples = decode(pcm, FORMS[width], channels)
            self.samples += len(samples)
            estimate = self.stream.process(samples)
        self.seconds += time.thread_time() - begin
        return encode(estimate, FORMS[width], channels)


class BoundedReader:
    """What wyoming reads an event from. It reads a part of any length; this raises ValueError for one that is too long."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader, self.readline = reader, reader.readline  # asyncio bounds a line: 64 KiB

    async def readexactly(self, n: int) -> bytes:
        """So many bytes, which are no more than allowed."""
        if n > MOST:
            raise ValueError
        return await self.reader.readexactly(n)


class Filter:
    """Serves any number of clients; for each there is a connection to the service behind.

    voices: by their names, the first is the default. upstream: where the service is. timeout: seconds in which it must take a
    connection, and after which a connection ends where no event passes. clients: how many there may be at a time. Raises UserError
    where the package wyoming is not installed.
    """

    def __init__(
        self, extractor: Extractor, voices: dict[str, Conditions], upstream: Address, timeout: float, clients: int, quiet: bool
    ) -> None:
        self.extractor, self.voices, self.upstream, self.timeout, self.clients = extractor, voices, upstream, timeout, clients
        self.quiet, self.served = quiet, 0
        self.events = import_extra("wyoming.event", "expected the package wyoming: pip install 'ss[wyoming]'")

    async def listen(self, at: Address) -> asyncio.Server:
        """Begins to serve."""
        return await (asyncio.start_unix_server if "path" in at else asyncio.start_server)(self.serve, **at)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client until its end. What is wrong is told to it, in an event `error`, and ends its connection only."""
        self.served += 1
        writers = [writer]
        try:
            if self.served > self.clients:
                raise UserError(f"expected at most {self.clients} clients at a time")
            connect = asyncio.open_unix_connection if "path" in self.upstream else asyncio.open_connection
            with explain("the speech-to-text service takes no connection", OSError, asyncio.TimeoutError):
                behind = await asyncio.wait_for(connect(**self.upstream), self.timeout)
            writers.append(behind[1])
            await Connection(self, (reader, writer), behind).run()
        except (UserError, OSError) as error:
            text = str(error)[:LONGEST]  # it may cite a stranger
            if not self.quiet:
                show_line(f"a connection ended: {text}", end="\n")
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self.refuse(text, reader, writer), REFUSAL)
        except asyncio.CancelledError:
            pass  # all end; asyncio would print it
        finally:
            self.served -= 1
            for each in writers:
                each.close()

    async def refuse(self, text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tells a client what is wrong, and reads on until it goes: it might not see the answer in a connection that breaks."""
        await self.events.async_write_event(self.events.Event("error", {"text": f"ss-wyoming: {text}"}), writer)
        writer.write_eof()
        while await reader.read(MOST):
            pass


Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection:
    """A client, and its own connection to the service behind. voice: of the next stream."""

    def __init__(self, filter: Filter, client: Streams, service: Streams) -> None:
        self.filter, self.client, self.service = filter, client, service
        self.selected = self.voice = next(iter(filter.voices))
        self.stream: PcmStream | None = None
        self.answered, self.active = True, time.monotonic()

    async def run(self) -> None:
        """Passes events both ways until one side ends, or none comes in time. Raises UserError for what is wrong, and OSError."""
        ways = [asyncio.ensure_future(way) for way in (self.pass_to_service(), self.pass_to_client())]
        done: set[asyncio.Task[None]] = set()
        try:
            while not done and (left := self.active + self.filter.timeout - time.monotonic()) > 0:
                done, _ = await asyncio.wait(ways, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        for way in done:
            way.result()  # raises what it ended with
        if not self.answered and ways[0] not in done:
            raise UserError("the speech-to-text service gives no answer")
        if not done:
            raise UserError(f"no event passed for {self.filter.timeout:g} seconds")

    async def read(self, reader: asyncio.StreamReader, who: str) -> Any:
        """The next event; None at the end. Raises UserError for one that is malformed or too long."""
        try:
            event = await self.filter.events.async_read_event(BoundedReader(reader))
            if event is None and reader.at_eof():
                return None
            if not isinstance(event.type, str) or not isinstance(event.data, dict | None):
                raise TypeError
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, asyncio.IncompleteReadError) as error:
            raise UserError(f"expected events of the Wyoming protocol of at most {MOST} bytes from the {who}") from error
        event.data = event.data or {}  # wyoming 1.5 says None
        self.active = time.monotonic()
        return event

    async def write(self, writer: asyncio.StreamWriter, event: Any) -> None:
        """Gives an event to a side, and waits until it is taken. Raises UserError for text that is none, and OSError."""
        with explain("expected text in Unicode", UnicodeEncodeError):
            await self.filter.events.async_write_event(event, writer)

    async def pass_to_service(self) -> None:
        """Events of the client."""
        writer, voices = self.service[1], self.filter.voices
        while event := await self.read(self.client[0], "client"):
            begin, name = time.monotonic(), event.data.get("name")
            name = name if isinstance(name, str) else ""
            if event.type == "audio-chunk":
                await self.extract(event)
                continue
            if event.type == "select-program":
                for voice in voices:
                    if name.endswith(mark := f" ({voice})"):
                        self.selected = self.voice = voice
                        event.data["name"] = name.removesuffix(mark)
            elif event.type == "transcribe":
                self.voice = name if name in voices else self.selected
                if name in voices:
                    del event.data["name"]
            elif event.type in ("audio-start", "audio-stop") and self.stream:
                stream, self.stream = self.stream, None
                if event.type == "audio-stop":
                    await self.give(stream, None, stream.format)
                    self.report(stream, begin)
            self.answered &= event.type not in ("describe", "audio-start")
            await self.write(writer, event)

    async def extract(self, event: Any) -> None:
        """Gives the service what a chunk finishes of the estimate. The first chunk begins a stream, with or without audio-start."""
        form = {key: event.data.get(key) for key in ("rate", "width", "channels")}
        if self.stream is None:
            self.answered = False
            self.stream = PcmStream(self.filter.extractor, self.filter.voices[self.voice], **form)
        elif form != self.stream.format:
            raise UserError(f"expected chunks of the same format until audio-stop, got {form} after {self.stream.format}")
        await self.give(self.stream, event.payload or b"", event.data)

    async def give(self, stream: PcmStream, pcm: bytes | None, data: dict[str, Any]) -> None:
        """Processes PCM beside the other connections, and passes the estimate on. data: of the event."""
        if payload := await asyncio.to_thread(stream.process, pcm):
            await self.write(self.service[1], self.filter.events.Event("audio-chunk", data, payload))

    def report(self, stream: PcmStream, begin: float) -> None:
        """A line for a stream that has ended; begin: when audio-stop came."""
        if not self.filter.quiet:
            seconds, late = stream.samples / stream.format["rate"], 1000 * (time.monotonic() - begin)
            cost = stream.seconds / max(seconds, 1e-9)
            line = f"{self.voice}: {seconds:.1f} s of audio, {cost:.4f} s of CPU per second, its end passed on after {late:.1f} ms"
            show_line(line, end="\n")

    async def pass_to_client(self) -> None:
        """Events of the service."""
        while event := await self.read(self.service[0], "speech-to-text service"):
            self.answered |= event.type in ("info", "transcript", "error")
            if event.type == "info" and isinstance(programs := event.data.get("asr"), list):
                named = [program for program in programs if isinstance(program, dict) and "name" in program]
                event.data["asr"] = [{**p, "name": f"{p['name']} ({voice})"} for voice in self.filter.voices for p in named]
            await self.write(self.client[1], event)


def run(args: argparse.Namespace, stop: StopSignal) -> None:
    """Serves until a stop is requested. Raises UserError for a voice, a model or an address that cannot be used, and OSError."""
    if not (args.voice or args.enrol):
        raise UserError("expected --voice NAME or --enrol FILE")
    extractor = Extractor.from_pretrained(args.model, args.precision, args.threads)
    voices = {}
    if args.enrol:
        voices[split_stretch(args.enrol[0])[0].stem] = extractor.enroll(args.enrol)
    for name in args.voice:
        path = Path(name) if name.endswith(SUFFIX) else voice_path(name)
        require_file(path, "a stored voice")
        if path.stem in voices:
            raise UserError(f"{path}: expected voices of different names, found two of {path.stem}")
        voices[path.stem] = extractor.enroll(path)

    async def serve() -> None:
        server = await Filter(extractor, voices, args.upstream, args.timeout, args.clients, args.quiet).listen(args.uri)
        if not args.quiet:
            print(f"{', '.join(voices)}: listening at {[socket.getsockname() for socket in server.sockets]}", file=sys.stderr)
        while not stop.requested:
            await asyncio.sleep(REFRESH)

    asyncio.run(serve())


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    top = Parser("ss-wyoming", __doc__)
    add = top.add_argument_group("who is to be heard").add_argument
    add("--voice", metavar="NAME", action="append", default=[], help="a stored voice, by its name or as a path of a .voice file")
    add("--enrol", metavar="FILE", action="append", help=f"{ENROL};\nthe voice has the name of the first file")
    add = top.add_argument_group("from where to where").add_argument
    where = "the speech-to-text service: tcp://HOST:PORT or unix:///PATH"
    add("--upstream", metavar="URI", type=address, required=True, help=where)
    add("--uri", metavar="URI", type=address, default="tcp://127.0.0.1:10400", help="where to listen; default: %(default)s")
    add("--timeout", metavar="SECONDS", type=positive, default=60.0, help="without an event that end a connection; default: 60")
    add("--clients", metavar="N", type=count, default=32, help="that may be connected at a time; default: 32")
    model_options(top)
    return run_command(run, top.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
