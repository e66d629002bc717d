"""ss-wyoming between the package's own clients and servers: what the service hears, and what strangers may send."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from ss import audio
from ss.errors import UserError
from ss.integrations.wyoming import FORMS, MOST, Filter, address, main
from ss.runtime import Conditions, Extractor
from ss.runtime.live_io import decode, encode

pytest.importorskip("wyoming", reason="needs wyoming: pip install '.[wyoming]'")
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.server import AsyncEventHandler, AsyncServer

RATE = 16000
SPEECH = ROOT / "demo/speech"
NOBODY = Attribution("nobody", "")
MODEL = AsrModel("tiny", NOBODY, True, "a model", "1", ["en"])
PROGRAM = AsrProgram("recorder", NOBODY, True, "a service", "1", [MODEL], supports_transcript_streaming=True)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor.from_pretrained()


@pytest.fixture(scope="module")
def voices(extractor: Extractor) -> dict[str, Conditions]:
    return {name: extractor.enroll(SPEECH / file) for name, file in (("anna", "woman.flac"), ("ben", "man.flac"))}


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    """int16 [n]"""
    man, woman = (audio.read(SPEECH / f"{name}.flac", RATE)[: 2 * RATE + 55] for name in ("man", "woman"))
    return np.rint((man + woman) / 2 * 32767).astype(np.int16)


def free_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{sock.getsockname()[1]}"


class Recorder(AsyncEventHandler):
    """A speech-to-text service that writes down what it hears: the text of its transcript is what it counted."""

    heard: list[Event]  # by all of its clients, in order

    def __init__(self, heard: list[Event], *streams: Any) -> None:
        super().__init__(*streams)
        self.heard, self.bytes = heard, 0

    async def handle_event(self, event: Event) -> bool:
        self.heard.append(event)
        self.bytes += len(event.payload or b"")
        if Describe.is_type(event.type):
            await self.write_event(Info(asr=[PROGRAM]).event())
        if AudioStart.is_type(event.type):
            self.bytes = 0
        if AudioStop.is_type(event.type):
            text = json.dumps({"bytes": self.bytes})
            for answer in (TranscriptStart(), TranscriptChunk(text), Transcript(text), TranscriptStop()):
                await self.write_event(answer.event())
        return True


class Mute(AsyncEventHandler):
    """A service that never answers."""

    async def handle_event(self, event: Event) -> bool:
        return True


class Closing(AsyncEventHandler):
    """A service that goes away at the first event."""

    async def handle_event(self, event: Event) -> bool:
        return False


Job = Callable[[str, list[Event]], Awaitable[Any]]


def between(extractor: Extractor, voices: dict[str, Conditions], job: Job, service: Any = Recorder, **options: Any) -> Any:
    """Runs job(address of the filter, what the service heard) while both serve."""

    async def serve() -> Any:
        upstream, heard = free_address(), list[Event]()
        if service:
            make = (lambda *streams: Recorder(heard, *streams)) if service is Recorder else service
            behind = AsyncServer.from_uri(upstream)
            await behind.start(make)
        settings = {"timeout": 20.0, "clients": 32, "quiet": True, **options}
        uri = settings.pop("uri", None) or free_address()
        server = await Filter(extractor, voices, address(upstream), **settings).listen(address(uri))
        try:
            return await asyncio.wait_for(job(uri, heard), 120)
        finally:
            server.close()
            if service:
                await behind.stop()

    return asyncio.run(serve())


def pcm_of(events: list[Event]) -> bytes:
    return b"".join(event.payload or b"" for event in events if AudioChunk.is_type(event.type))


async def ask(client: AsyncClient, pcm: bytes, rate: int = RATE, width: int = 2, channels: int = 1, **request: Any) -> list[Event]:
    """A request as Home Assistant makes it, in chunks of 1024 frames; what came back, up to transcript-stop or the end."""
    await client.write_event(Transcribe(language="en", **request).event())
    await client.write_event(AudioStart(rate, width, channels).event())
    size = 1024 * width * channels
    for begin in range(0, len(pcm), size):
        await client.write_event(AudioChunk(rate, width, channels, pcm[begin : begin + size], timestamp=begin).event())
    await client.write_event(AudioStop().event())
    return await answers(client)


async def answers(client: AsyncClient) -> list[Event]:
    found: list[Event] = []
    while (event := await client.read_event()) is not None:
        found.append(event)
        if TranscriptStop.is_type(event.type):
            break
    return found


def extracted(extractor: Extractor, voice: Conditions, samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    stream = extractor.stream(voice, rate)
    return np.concatenate([stream.process(samples), stream.flush()])


def test_the_service_hears_what_extractor_gives(extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray) -> None:
    async def job(uri: str, heard: list[Event]) -> list[Event]:
        async with AsyncClient.from_uri(uri) as client:
            found = await ask(client, mixture.tobytes())
            assert pcm_of(heard) == extracted(extractor, voices["anna"], mixture).tobytes()
            assert [event.type for event in heard][:2] == ["transcribe", "audio-start"]
            assert heard[0].data == {"language": "en"}
            assert heard[-1].type == "audio-stop"
            heard.clear()
            again = await ask(client, mixture[:20000].tobytes(), name="ben")  # on the same connection
            assert pcm_of(heard) == extracted(extractor, voices["ben"], mixture[:20000]).tobytes()
            assert heard[0].data == {"language": "en"}
            heard.clear()
            await ask(client, mixture[:20000].tobytes(), name="tiny")
            assert pcm_of(heard) == extracted(extractor, voices["anna"], mixture[:20000]).tobytes()
            assert heard[0].data["name"] == "tiny"
        assert json.loads(again[2].data["text"]) == {"bytes": 40000}
        return found

    found = between(extractor, voices, job)
    assert [event.type for event in found] == ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]
    assert json.loads(found[2].data["text"]) == {"bytes": 2 * len(mixture)}


@pytest.mark.parametrize(("rate", "width", "channels"), [(8000, 1, 1), (22050, 2, 2), (48000, 3, 1), (44100, 4, 2), (16000, 4, 1)])
def test_formats(
    rate: int, width: int, channels: int, extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray
) -> None:
    full = 2 ** (8 * width - 1)
    frames = np.stack([mixture[: RATE + 3] / 32768, mixture[: RATE + 3] / 65536], 1)[:, :channels]
    ints = np.rint(frames * full).astype(np.int64)
    pcm = b"".join(int(value + full * (width == 1)).to_bytes(width, "little", signed=width > 1) for value in ints.ravel())

    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await ask(client, pcm, rate, width, channels)
        chunks = [event for event in heard if event.type == "audio-chunk"]
        assert all((event.data["rate"], event.data["width"], event.data["channels"]) == (rate, width, channels) for event in chunks)
        found = pcm_of(heard)
        assert len(found) == len(pcm)
        values = [int.from_bytes(found[i : i + width], "little", signed=width > 1) for i in range(0, len(found), width)]
        estimate = (np.array(values) - full * (width == 1)).reshape(-1, channels)
        samples = (ints / full).astype(np.float32) if width != 2 else ints.astype(np.int16)
        expected = extracted(extractor, voices["anna"], samples if channels > 1 else samples[:, 0], rate)
        expected = expected if width == 2 else expected * full
        assert np.abs(expected).max() > 0.001 * full
        np.testing.assert_allclose(estimate, np.repeat(expected[:, None], channels, 1), atol=1 + full * 1e-6)

    between(extractor, voices, job)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_survives(width: int) -> None:
    pcm = np.random.default_rng(0).integers(0, 256, 4 * 9 * 50, np.uint8).tobytes()
    form = FORMS[width]
    samples = decode(pcm, form, 1)
    assert samples.dtype == np.float32
    again = encode(samples, form, 1)
    if width < 4:  # float32 holds 24 bits
        assert again == pcm
    np.testing.assert_allclose(decode(again, form, 1), samples, atol=1e-7)
    assert decode(pcm, form, 3).shape == (len(pcm) // width // 3, 3)
    assert decode(encode(np.array([2.0, -2.0], np.float32), form, 2), form, 2).shape == (2, 2)


def test_info_names_the_voices_and_programs_select_them(
    extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray
) -> None:
    pcm = mixture[:16000]

    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())  # type: ignore[arg-type]
            assert [program.name for program in info.asr] == ["recorder (anna)", "recorder (ben)"]
            assert info.asr[1].models[0].name == "tiny"
            assert info.asr[1].supports_transcript_streaming
            await client.write_event(Event("select-program", {"name": "recorder (ben)"}))
            await ask(client, pcm.tobytes())
        assert heard[1].data == {"name": "recorder"}
        assert pcm_of(heard) == extracted(extractor, voices["ben"], pcm).tobytes()

    between(extractor, voices, job)


def test_many_clients_at_once(extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray) -> None:
    async def one(uri: str, n: int) -> None:
        async with AsyncClient.from_uri(uri) as client:
            found = await ask(client, mixture[:n].tobytes(), name="ben" if n % 2 else None)
        assert json.loads(found[2].data["text"]) == {"bytes": 2 * n}

    async def job(uri: str, heard: list[Event]) -> None:
        await asyncio.gather(*(one(uri, 8000 + i) for i in range(12)))
        assert len(pcm_of(heard)) == 2 * sum(8000 + i for i in range(12))

    between(extractor, voices, job)


def test_chunks_without_a_start_unknown_events_and_a_unix_socket(
    extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray, tmp_path: Path
) -> None:
    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Event("tea-time", {"sugar": [1, {"ö": None}]}, b"payload"))
            await client.write_event(AudioChunk(RATE, 2, 1, mixture[:5000].tobytes()).event())
            await client.write_event(AudioStop().event())
            assert (await answers(client))[2].type == "transcript"
        assert (heard[0].type, heard[0].data, heard[0].payload) == ("tea-time", {"sugar": [1, {"ö": None}]}, b"payload")
        assert pcm_of(heard[1:]) == extracted(extractor, voices["anna"], mixture[:5000]).tobytes()

    between(extractor, voices, job, uri=f"unix://{tmp_path}/voice.sock")


@pytest.mark.parametrize(
    ("service", "timeout", "expected"),
    [(None, 20.0, "takes no connection"), (Mute, 0.2, "gives no answer"), (Closing, 20.0, "no answer|reset|lost")],
)
def test_a_service_that_fails_is_told(
    service: Any, timeout: float, expected: str, extractor: Extractor, voices: dict[str, Conditions]
) -> None:
    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Describe().event())
            for _ in range(20):  # as Home Assistant, which reads when it has sent all
                await client.write_event(AudioChunk(RATE, 2, 1, bytes(2048)).event())
                await asyncio.sleep(0.002)
            event = await client.read_event()
            assert event is not None
            assert event.type == "error"
            assert re.search(expected, event.data["text"])
            assert await client.read_event() is None

    between(extractor, voices, job, service, timeout=timeout)


def test_a_service_that_takes_nothing_is_told(extractor: Extractor, voices: dict[str, Conditions]) -> None:
    """It does not read, so what it is sent fills the buffers of the system; the filter then takes no more from the client."""

    async def job(uri: str, _: list[Event]) -> None:
        async def sleeping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(30)

        upstream, here = free_address(), free_address()
        behind = await asyncio.start_server(sleeping, limit=1, **address(upstream))
        server = await Filter(extractor, voices, address(upstream), 0.5, 2, True).listen(address(here))
        _, writer = await asyncio.open_connection(**address(here))

        async def flood() -> None:
            while True:
                writer.write(line(type="noise", payload_length=MOST) + bytes(MOST))
                await writer.drain()

        with pytest.raises(OSError, match="."):  # the connection is closed in the end
            await flood()
        writer.close()
        server.close()
        behind.close()

    between(extractor, voices, job)


def test_a_client_that_sends_nothing_does_not_stay(extractor: Extractor, voices: dict[str, Conditions]) -> None:
    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as client:
            event = await client.read_event()
            assert event is not None
            assert event.data["text"] == "ss-wyoming: no event passed for 0.2 seconds"
            assert await client.read_event() is None

    between(extractor, voices, job, timeout=0.2)


def test_more_clients_than_allowed(extractor: Extractor, voices: dict[str, Conditions]) -> None:
    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as first:
            await first.write_event(Describe().event())
            assert await first.read_event() is not None
            async with AsyncClient.from_uri(uri) as second:
                event = await second.read_event()
                assert event is not None
                assert "at most 1 clients" in event.data["text"]
        await asyncio.sleep(0.1)
        async with AsyncClient.from_uri(uri) as third:
            await third.write_event(Describe().event())
            assert Info.is_type((await third.read_event()).type)  # type: ignore[union-attr]

    between(extractor, voices, job, clients=1)


def line(**header: Any) -> bytes:
    return json.dumps(header).encode() + b"\n"


def chunk(pcm: bytes = b"", **data: Any) -> bytes:
    return line(type="audio-chunk", data={"rate": RATE, "width": 2, "channels": 1, **data}, payload_length=len(pcm)) + pcm


MALFORMED = {
    "bytes": random.Random(1).randbytes(3000) + b"\n",
    "no type": line(data={}),
    "a type that is no text": line(type=["audio-chunk"]),
    "a list": b"[1, 2]\n",
    "a number": b"17\n",
    "nesting": b"[" * 60000 + b"\n",
    "a long line": b" " * 200000 + b"\n",
    "data that is no object": line(type="describe", data=[1]),
    "data of another kind": line(type="describe", data_length=4) + b"1234",
    "more data than allowed": line(type="describe", data_length=1 << 50),
    "more payload than allowed": line(type="audio-chunk", payload_length=MOST + 1),
    "a length that is text": line(type="audio-chunk", payload_length="12"),
    "a length that is infinite": b'{"type": "describe", "data_length": Infinity}\n',
    "half a surrogate": b'{"type": "describe", "data": {"name": "\\ud800"}}\n',
    "no format": line(type="audio-chunk", payload_length=4) + b"1234",
    "no rate": chunk(b"1234", rate=0),
    "a high rate": chunk(b"1234", rate=10**9),
    "a rate that needs large filters": chunk(b"1234", rate=47999),
    "a rate that is text": chunk(b"1234", rate="16000"),
    "no width": chunk(b"1234", width=0),
    "a negative width": chunk(b"1234", width=-2),
    "many channels": chunk(b"1234", channels=10**6),
    "a part of a frame": chunk(b"123"),
    "another format within a stream": chunk(b"1234") + chunk(b"1234", channels=2),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_ends_its_own_connection_only(
    content: bytes, extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray
) -> None:
    async def job(uri: str, heard: list[Event]) -> None:
        async with AsyncClient.from_uri(uri) as good:
            await good.write_event(AudioChunk(RATE, 2, 1, mixture[:3000].tobytes()).event())
            reader, writer = await asyncio.open_connection(**address(uri))
            writer.write(content)
            said = json.loads(await reader.readline())
            assert said["type"] == "error"
            assert "expected" in json.loads(await reader.readexactly(said["data_length"]))["text"]
            assert await reader.read() == b""
            writer.close()
            await good.write_event(AudioStop().event())
            assert (await answers(good))[2].type == "transcript"
        assert pcm_of(heard).endswith(extracted(extractor, voices["anna"], mixture[:3000]).tobytes()[-100:])

    between(extractor, voices, job)


def test_mutated_events_never_stop_the_service(extractor: Extractor, voices: dict[str, Conditions]) -> None:
    rng = random.Random(7)
    whole = line(type="transcribe", data={"name": "ben"}) + chunk(bytes(600)) + line(type="audio-stop") + line(type="describe")

    async def job(uri: str, heard: list[Event]) -> None:
        for _ in range(150):
            bad = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                place = rng.randrange(len(bad))
                bad[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            reader, writer = await asyncio.open_connection(**address(uri))
            writer.write(bad)
            writer.write_eof()
            await reader.read()
            writer.close()
        async with AsyncClient.from_uri(uri) as client:
            await client.write_event(Describe().event())
            assert Info.is_type((await client.read_event()).type)  # type: ignore[union-attr]

    between(extractor, voices, job)


def test_the_command(extractor: Extractor, voices: dict[str, Conditions], mixture: np.ndarray, tmp_path: Path) -> None:
    """The process, with a stored voice and an enrolment, until SIGTERM."""
    voices["ben"].save(tmp_path / "ss/voices/ben.voice")

    async def job(uri: str, heard: list[Event]) -> None:
        upstream, here = free_address(), free_address()
        behind = AsyncServer.from_uri(upstream)
        await behind.start(lambda *streams: Recorder(heard, *streams))
        words = ["--enrol", str(SPEECH / "woman.flac"), "--voice", "ben", "--upstream", upstream, "--uri", here]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ss.integrations.wyoming", *words),
            cwd=ROOT,
            env={**os.environ, "XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        assert process.stderr
        assert b"woman, ben: listening" in await process.stderr.readline()
        async with AsyncClient.from_uri(here) as client:
            await ask(client, mixture.tobytes(), name="ben")
        assert pcm_of(heard) == extracted(extractor, voices["ben"], mixture).tobytes()
        said = (await process.stderr.readline()).decode()
        print(said)
        assert said.startswith("ben: 2.0 s of audio")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        await behind.stop()

    between(extractor, voices, job)


def recognise(pcm: bytes) -> str:
    """The words of a real recogniser, with the model for English that it brings."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr if decoder.hyp() else ""


class Recogniser(AsyncEventHandler):
    """A speech-to-text service that ends the connection after its transcript, as most do."""

    pcm = b""

    async def handle_event(self, event: Event) -> bool:
        self.pcm += pcm_of([event])
        if AudioStop.is_type(event.type):
            await self.write_event(Transcript(await asyncio.to_thread(recognise, self.pcm)).event())
        return not AudioStop.is_type(event.type)


def test_a_recogniser_understands_more(extractor: Extractor) -> None:
    """More words of a reader alone are in the transcript of a mixture with the filter than without it."""
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx, a recogniser with its model: pip install '.[interop]'")
    reader, other = (audio.read(SPEECH / f"{name}.flac", RATE) for name in ("reader", "woman"))
    mixture = reader + 0.7 * np.resize(other, len(reader))
    alone, mixed = (np.rint(wave * 32767).clip(-32768, 32767).astype("<i2").tobytes() for wave in (reader, mixture))

    async def job(uri: str, heard: list[Event]) -> str:
        async with AsyncClient.from_uri(uri) as client:
            (transcript,) = await ask(client, mixed)
        return transcript.data["text"]

    voices = {"reader": extractor.enroll(SPEECH / "reader-enrolment.flac")}
    texts = [recognise(alone), recognise(mixed), between(extractor, voices, job, Recogniser, quiet=False, timeout=100.0)]
    for name, text in zip(("reader alone", "mixture", "mixture behind ss-wyoming"), texts, strict=True):
        print(f"{name + ':':26} {text}")
    words, without, behind = ({*text.split()} for text in texts)
    assert len(words & behind) > len(words & without)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--upstream", "tcp://127.0.0.1:1"], "expected --voice NAME or --enrol FILE"),
        (["--upstream", "tcp://127.0.0.1:1", "--voice", "nobody"], "expected a stored voice, but there is none"),
        (["--upstream", "tcp://127.0.0.1:1", "--voice", "../etc"], "expected a voice's name"),
        (["--upstream", "http://127.0.0.1:1", "--voice", "anna"], "expected tcp://HOST:PORT or unix:///PATH"),
        (["--upstream", "tcp://127.0.0.1:99999", "--voice", "anna"], "expected tcp://HOST:PORT or unix:///PATH"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    try:
        code: Any = main(words)
    except SystemExit as error:
        code = error.code
    assert code == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


def test_two_voices_of_one_name_are_refused(
    extractor: Extractor,
    voices: dict[str, Conditions],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(Extractor, "from_pretrained", lambda *_: extractor)
    paths = [tmp_path / folder / "anna.voice" for folder in ("home", "office")]
    for path in paths:
        next(iter(voices.values())).save(path)
    assert main([*("--voice", str(paths[0])), *("--voice", str(paths[1])), "--upstream", "tcp://127.0.0.1:1"]) == 2
    assert f"{paths[1]}: expected voices of different names, found two of anna" in capsys.readouterr().err


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, extractor: Extractor, voices: dict[str, Conditions]) -> None:
    monkeypatch.setitem(sys.modules, "wyoming.event", None)
    with pytest.raises(UserError, match="pip install"):
        Filter(extractor, voices, address("tcp://127.0.0.1:1"), 1.0, 1, True)
