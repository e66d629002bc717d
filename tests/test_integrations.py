"""A call's audio through CallFilter, a real Pipecat pipeline and real LiveKit streams: out comes what the file gives, later."""

import asyncio
import importlib
import json
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conftest import RATE, ROOT, run

from ss.errors import UserError
from ss.integrations.call import PIECE, PIECES, CallFilter
from ss.runtime import Conditions, Extractor

SPEECH = ROOT / "demo/speech"
ENROLMENT = SPEECH / "reader-enrolment.flac"
has_pipecat = pytest.mark.skipif(not find_spec("pipecat"), reason="needs pipecat-ai")
has_livekit = pytest.mark.skipif(not (find_spec("livekit") and find_spec("livekit.rtc")), reason="needs livekit")
has_agents = pytest.mark.skipif(not (find_spec("livekit") and find_spec("livekit.agents")), reason="needs livekit-agents")
Log = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor.from_pretrained()


@pytest.fixture(scope="module")
def alone() -> np.ndarray:
    """A pause with a little noise, and the reader's speech, twice: int16 [n]."""
    reader, _ = soundfile.read(ENROLMENT, dtype="float32")
    noise = 1e-4 * np.random.default_rng(0).standard_normal(RATE, np.float32)
    return (np.concatenate([noise, reader, noise, reader]) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    """The reader and a man: int16 [n]."""
    reader, man = (soundfile.read(SPEECH / f"{name}.flac", dtype="float32")[0][: 2 * RATE] for name in ("reader", "man"))
    return ((reader + man) * 16000).astype(np.int16)


def cut(samples: np.ndarray, seed: int, longest: int = 1000) -> list[np.ndarray]:
    """Frames of random lengths, empty ones among them."""
    ends = np.cumsum(np.random.default_rng(seed).integers(0, longest, len(samples)))
    return np.split(samples, ends[ends < len(samples)])


def through(call: CallFilter, frames: list[np.ndarray]) -> np.ndarray:
    """What comes out; every frame has its own type and shape."""
    out = []
    for frame in frames:
        out.append(call.process(frame))
        assert (out[-1].shape, out[-1].dtype) == (frame.shape, frame.dtype)
    return np.concatenate(out)


def whole(extractor: Extractor, enrolment: Any, samples: np.ndarray, rate: int = RATE) -> np.ndarray:
    """What the file gives."""
    stream = extractor.stream(extractor.enroll(enrolment), rate)
    return np.concatenate([stream.process(samples), stream.flush()])


def equal_later(actual: np.ndarray, expected: np.ndarray, delay: int) -> None:
    """Up to rounding, which depends on how the samples were split."""
    assert np.abs(expected).max() > 1000
    assert not actual[:delay].any()
    np.testing.assert_allclose(actual[delay:], expected[: len(actual) - delay], atol=1)


@pytest.mark.parametrize("rate", [8000, 11025, RATE, 24000, 44100, 48000])
@pytest.mark.parametrize("longest", [9, 1000])
def test_any_frames_give_what_the_file_gives_after_the_delay(
    extractor: Extractor, mixture: np.ndarray, rate: int, longest: int
) -> None:
    samples = soxr.resample(mixture, RATE, rate)[: rate if longest == 9 else None]
    call = CallFilter(extractor, ENROLMENT, rate)
    assert call.delay <= 0.0151 * rate
    equal_later(through(call, cut(samples, longest, longest)), whole(extractor, ENROLMENT, samples, rate), call.delay)


def test_bytes_arrays_and_channels_are_the_same(extractor: Extractor, mixture: np.ndarray) -> None:
    expected = CallFilter(extractor, ENROLMENT).process(mixture)
    as_bytes = CallFilter(extractor, ENROLMENT).process(mixture.tobytes())
    assert as_bytes == expected.tobytes()
    assert CallFilter(extractor, ENROLMENT).process(memoryview(mixture)) == as_bytes
    stereo = np.repeat(mixture[:, None], 2, 1)
    assert CallFilter(extractor, ENROLMENT, channels=2).process(stereo.tobytes()) == np.repeat(expected, 2).tobytes()
    floats = CallFilter(extractor, ENROLMENT).process(stereo / np.float32(32768))
    np.testing.assert_allclose(floats[:, 1] * 32768, expected, atol=0.51)


@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("rate", [RATE, 8000])
def test_the_caller_is_enrolled_from_the_first_seconds(
    extractor: Extractor, alone: np.ndarray, mixture: np.ndarray, mute: bool, rate: int, tmp_path: Path
) -> None:
    samples, log, begun, done = np.concatenate([alone, mixture]), Log(), 0, 0
    samples = samples if rate == RATE else soxr.resample(samples, RATE, rate)
    call = CallFilter(extractor, sample_rate=rate, mute=mute, on_state=lambda state, details: log.append((state, details)))
    out = []
    for frame in cut(samples, 1):
        out.append(call.process(frame))
        done += len(frame)
        begun = begun or (done if call.state == "extracting" else 0)
    assert [state for state, _ in log] == ["waiting", "enrolling", "extracting"]
    assert 6 * rate < begun < len(alone) * rate / RATE
    before, after = np.split(np.concatenate(out), [begun + call.delay])
    assert (before[call.delay :] == (0 if mute else samples[:begun])).all()
    voice: Conditions = log[-1][1]["conditions"]
    voice.save(tmp_path / "caller.voice")
    expected = whole(extractor, tmp_path / "caller.voice", samples[begun:], rate)
    np.testing.assert_allclose(after, expected[: len(after)], atol=1)
    recordings = (soundfile.read(path, dtype="float32")[0] for path in (ENROLMENT, SPEECH / "man.flac"))
    reader, man = (extractor.enroll(soxr.resample(wave, RATE, rate), rate).values for wave in recordings)
    assert np.linalg.norm(voice.values - reader) < np.linalg.norm(voice.values - man) / 2


def test_noisy_speech_is_no_enrolment_and_clean_speech_after_it_is(extractor: Extractor, alone: np.ndarray) -> None:
    log = Log()
    call = CallFilter(extractor, on_state=lambda state, details: log.append((state, details)))
    noise = np.random.default_rng(0).standard_normal(len(alone)) * 1000
    through(call, cut((alone / 4 + noise).astype(np.int16), 2))
    assert {state for state, _ in log} == {"waiting", "enrolling"}
    assert "it is noisy" in next(details for state, details in log[1:] if state == "waiting")["faults"][0]
    through(call, cut(np.concatenate([alone, alone]), 3))
    assert log[-1][0] == "extracting"


def test_who_says_little_is_enrolled_too_and_memory_is_bounded(extractor: Extractor, alone: np.ndarray) -> None:
    call = CallFilter(extractor)
    pause = np.zeros(4 * RATE, np.int16)
    for begin in range(RATE, 8 * RATE, RATE):  # words of a second, in 35 seconds
        assert call.state != "extracting"
        call.process(np.concatenate([alone[begin : begin + RATE], pause]))
        assert sum(map(len, call.pieces)) + len(call.piece) <= PIECE * (PIECES + 1) * RATE
        if call.state == "extracting":
            break
    assert call.state == "extracting"
    assert not call.pieces


def test_re_enrolling_and_disabling_keep_the_time(extractor: Extractor, alone: np.ndarray, mixture: np.ndarray) -> None:
    states: list[str] = []
    call = CallFilter(extractor, ENROLMENT, on_state=lambda state, _: states.append(state))
    parts = [call.process(mixture)]
    call.enable(False)
    parts.append(call.process(mixture))
    call.enable(True)
    parts.append(call.process(mixture))
    call.re_enroll()
    parts.append(call.process(mixture))
    call.re_enroll(SPEECH / "man.flac")
    parts.append(call.process(mixture))
    assert states == ["extracting", "disabled", "extracting", "waiting", "enrolling", "extracting"]
    reader, man = (whole(extractor, SPEECH / name, mixture) for name in (ENROLMENT.name, "man.flac"))
    expected = np.concatenate([np.zeros(call.delay, np.int16), reader, mixture, reader, mixture, man])
    np.testing.assert_allclose(np.concatenate(parts), expected[: -call.delay], atol=1)
    with pytest.raises(UserError, match="nobody"):
        call.re_enroll("nobody.wav")
    assert call.state == "extracting"


def test_another_rate_in_the_middle_keeps_the_speaker(extractor: Extractor, alone: np.ndarray, mixture: np.ndarray) -> None:
    call = CallFilter(extractor)
    call.process(alone[: 4 * RATE])
    call.restart(48000)
    call.process(soxr.resample(alone[4 * RATE : 12 * RATE], RATE, 48000))
    assert call.state == "extracting"
    assert call.conditions
    call.restart(8000)
    samples = soxr.resample(mixture, RATE, 8000)
    equal_later(call.process(samples), whole(extractor, call.conditions, samples, 8000), call.delay)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_as_much_goes_out(extractor: Extractor, alone: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    call = CallFilter(extractor, ENROLMENT if seed % 2 else None, channels=1 + seed % 3, mute=seed > 3)
    for _ in range(300):
        match rng.integers(9):
            case 0:
                data = rng.bytes(rng.integers(0, 3000))
                size = 2 * call.channels
                assert len(call.process(data)) == len(data) // size * size
            case 1:
                wave = rng.choice(np.float32([np.nan, np.inf, -np.inf, 1e38, 1e-40, 0, 0.1]), rng.integers(0, 2000))
                out = call.process(wave)
                assert len(out) == len(wave)
                assert np.isfinite(out).all()
            case 2:
                shape = rng.integers(0, 500), rng.integers(1, 5)
                assert call.process(rng.integers(-32768, 32767, shape, np.int16)).shape == shape
            case 3 if rng.random() < 0.2:
                call.restart(int(rng.choice([8000, 16000, 22050, 44100, 48000])))
            case 4:
                call.enable(bool(rng.integers(2)))
            case 5 if rng.random() < 0.2:
                call.re_enroll(ENROLMENT if rng.integers(2) else None)
            case 6:
                with pytest.raises(ValueError, match="expected samples"):
                    call.process(np.zeros((5, 0), np.int16) if rng.integers(2) else np.zeros(5, np.int32))
            case _:
                begin = rng.integers(len(alone))
                out = call.process(alone[begin : begin + 1600])
                assert len(out) == len(alone[begin : begin + 1600])
    assert call.repaired


def test_values_that_cannot_be_are_refused(extractor: Extractor) -> None:
    for wrong, said in [
        ({"channels": 0}, "channels: expected at least 1"),
        ({"seconds": 1.0}, "seconds: expected 3 to 15 s"),
        ({"sample_rate": 100}, "expected a sample rate from 4000"),
        ({"sample_rate": 10**9}, "expected a sample rate from 4000"),
        ({"enrolment": np.zeros(RATE, np.float32)}, "found silence"),
    ]:
        with pytest.raises(UserError, match=said):
            CallFilter(extractor, **wrong)


@pytest.mark.parametrize(
    ("module", "package"), [("ss.integrations.pipecat", "pipecat.frames.frames"), ("ss.integrations.livekit", "livekit.rtc")]
)
def test_a_missing_package_is_named(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match=f"{module} needs .*pip install"):
        importlib.import_module(module)
    monkeypatch.delitem(sys.modules, module, raising=False)


@has_pipecat
def test_a_pipecat_pipeline_behind_a_websocket(extractor: Extractor, mixture: np.ndarray) -> None:
    """Audio goes over a real socket into Pipecat's transport; a processor behind it gets what the file gives."""
    import websockets
    from pipecat.frames import frames
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.serializers.protobuf import ProtobufFrameSerializer
    from pipecat.transports.websocket.server import SingleClientWebsocketServerParams, SingleClientWebsocketServerTransport
    from pipecat.workers.runner import WorkerRunner

    from ss.integrations.pipecat import TargetSpeakerFilter

    got, arrived = bytearray(), asyncio.Event()

    class Listener(FrameProcessor):
        async def process_frame(self, frame: frames.Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, frames.InputAudioRawFrame):
                got.extend(frame.audio)
                arrived.set()
            await self.push_frame(frame, direction)

    async def run_call() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serializer, ready = ProtobufFrameSerializer(), asyncio.Event()
        speaker = TargetSpeakerFilter(extractor, ENROLMENT)
        params = SingleClientWebsocketServerParams(audio_in_enabled=True, audio_in_filter=speaker, serializer=serializer)
        transport = SingleClientWebsocketServerTransport(params, host="127.0.0.1", port=port)

        @transport.event_handler("on_websocket_ready")
        async def on_websocket_ready(_: Any) -> None:
            ready.set()

        worker = PipelineWorker(Pipeline([transport.input(), Listener()]), params=PipelineParams(audio_in_sample_rate=RATE))
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await asyncio.wait_for(ready.wait(), 60)

        async with websockets.connect(f"ws://127.0.0.1:{port}") as client:

            async def say(samples: np.ndarray) -> None:
                """Sends frames of 20 ms, and waits until all of them have arrived behind the filter."""
                wanted = len(got) + 2 * len(samples)
                for frame in np.split(samples, range(320, len(samples), 320)):
                    await client.send(await serializer.serialize(frames.OutputAudioRawFrame(frame.tobytes(), RATE, 1)))
                while len(got) < wanted:
                    arrived.clear()
                    await asyncio.wait_for(arrived.wait(), 60)

            async def set_filter(frame: frames.FilterControlFrame, state: str) -> None:
                await worker.queue_frame(frame)
                while speaker.call.state != state:
                    await asyncio.sleep(0.01)

            await say(mixture)
            await asyncio.wait_for(set_filter(frames.FilterEnableFrame(enable=False), "disabled"), 60)
            await say(mixture)
            await asyncio.wait_for(set_filter(frames.FilterEnableFrame(enable=True), "extracting"), 60)
            await worker.queue_frame(frames.FilterUpdateSettingsFrame(settings={"enrolment": "nobody.wav"}))  # refused
            await asyncio.wait_for(set_filter(frames.FilterUpdateSettingsFrame(settings={"enrolment": None}), "waiting"), 60)
            await say(mixture[:6000])
        await worker.cancel()
        await asyncio.wait_for(running, 60)
        reader = whole(extractor, ENROLMENT, mixture)
        expected = np.concatenate([np.zeros(speaker.call.delay, np.int16), reader, mixture, mixture[:6000]])
        np.testing.assert_array_equal(np.frombuffer(got, np.int16), expected[: -speaker.call.delay])

    asyncio.run(run_call())


async def play(source: Any, samples: np.ndarray, rate: int) -> None:
    """Into a LiveKit source, at its own pace."""
    from livekit import rtc

    for frame in np.split(samples, range(rate // 100, len(samples), rate // 100)):
        await source.capture_frame(rtc.AudioFrame(frame.tobytes(), rate, 1, len(frame)))


def record_input(speaker: Any) -> list[np.ndarray]:
    """What LiveKit will have given to a processor: it begins with silence of its own, and may be resampled."""
    taken, process = list[np.ndarray](), speaker._process

    def record(frame: Any) -> Any:
        taken.append(np.array(frame.data))
        return process(frame)

    speaker._process = record
    return taken


@has_livekit
def test_a_livekit_audio_stream(extractor: Extractor, mixture: np.ndarray) -> None:
    """A real rtc.AudioStream over a local track."""
    from livekit import rtc

    from ss.integrations.livekit import TargetSpeakerProcessor

    async def run_call() -> None:
        source, speaker = rtc.AudioSource(RATE, 1), TargetSpeakerProcessor(extractor, ENROLMENT)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        taken = record_input(speaker)
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20, noise_cancellation=speaker)
        playing, got = asyncio.create_task(play(source, mixture, RATE)), list[np.ndarray]()
        while sum(map(len, got)) < RATE * 3 // 2:
            event = await asyncio.wait_for(anext(stream), 60)
            got.append(np.array(event.frame.data))
            assert event.frame.samples_per_channel == 320
        await playing
        await stream.aclose()
        equal_later(np.concatenate(got), whole(extractor, ENROLMENT, np.concatenate(taken)), speaker.call.delay)

    asyncio.run(run_call())


@has_livekit
def test_a_livekit_processor(extractor: Extractor, alone: np.ndarray, mixture: np.ndarray) -> None:
    from livekit import rtc

    from ss.integrations.livekit import TargetSpeakerProcessor

    def give(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> np.ndarray:
        data = np.repeat(samples, channels)
        out = speaker._process(rtc.AudioFrame(data.tobytes() + b"more", rate, channels, len(samples), userdata={"a": 1}))
        assert (out.sample_rate, out.num_channels, out.samples_per_channel) == (rate, channels, len(samples))
        assert out.userdata == {"a": 1}
        return np.array(out.data)

    speaker = TargetSpeakerProcessor(extractor)
    assert isinstance(speaker, rtc.FrameProcessor)  # others are not called
    assert not callable(speaker)  # LiveKit Agents would call it to make one
    joined = {"room_name": "room", "publication_sid": "sid"}
    speaker._on_stream_info_updated(participant_identity="anna", **joined)
    give(soxr.resample(alone[: 8 * RATE], RATE, 48000), 48000, channels=2)
    speaker._on_stream_info_updated(participant_identity="anna", **joined)
    give(alone[8 * RATE :], RATE)
    assert speaker.call.state == "extracting"
    assert speaker.call.conditions
    speaker.enabled = False
    assert not speaker.enabled
    speaker.enabled = True
    equal_later(give(mixture), whole(extractor, speaker.call.conditions, mixture), speaker.call.delay)
    speaker._on_stream_info_updated(participant_identity="bert", **joined)
    assert speaker.call.state == "waiting"
    speaker = TargetSpeakerProcessor(extractor, ENROLMENT)
    for name in ("anna", "bert"):  # the enrolment says who is to be heard
        speaker._on_stream_info_updated(participant_identity=name, **joined)
    assert speaker.call.state == "extracting"
    speaker._close()


@has_agents
@pytest.mark.parametrize("chosen", [False, True])
def test_a_livekit_agents_room_input(extractor: Extractor, mixture: np.ndarray, chosen: bool) -> None:
    """The room input of LiveKit Agents with its real options and a local track; participant and publication are stand-ins."""
    from livekit import rtc
    from livekit.agents.voice.room_io import AudioInputOptions, RoomOptions
    from livekit.agents.voice.room_io._input import _ParticipantAudioInputStream

    from ss.integrations.livekit import TargetSpeakerProcessor

    async def run_call() -> None:
        made = TargetSpeakerProcessor(extractor, ENROLMENT)
        taken = record_input(made)
        cancellation = (lambda params: made) if chosen else made
        options = AudioInputOptions(sample_rate=24000, noise_cancellation=cancellation)
        options = RoomOptions(audio_input=options).get_audio_input_options() or options
        room, source = rtc.Room(), rtc.AudioSource(48000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        audio = _ParticipantAudioInputStream(
            room,
            sample_rate=options.sample_rate,
            num_channels=options.num_channels,
            noise_cancellation=options.noise_cancellation,
            auto_gain_control=False,
            pre_connect_audio_handler=None,
            frame_size_ms=options.frame_size_ms,
        )
        publication = SimpleNamespace(source=rtc.TrackSource.SOURCE_MICROPHONE, sid="sid", audio_features=[], track=track)
        caller = SimpleNamespace(identity="anna", track_publications={"sid": publication})
        audio.set_participant("anna")
        room.emit("track_subscribed", track, publication, caller)
        playing, got = asyncio.create_task(play(source, soxr.resample(mixture, RATE, 48000), 48000)), list[np.ndarray]()
        while sum(map(len, got)) < 24000 * 3 // 2:
            frame = await asyncio.wait_for(anext(audio), 60)
            assert (frame.sample_rate, frame.samples_per_channel) == (24000, 1200)
            got.append(np.array(frame.data))
        await playing
        await audio.aclose()
        equal_later(np.concatenate(got), whole(extractor, ENROLMENT, np.concatenate(taken), 24000), made.call.delay)

    asyncio.run(run_call())


def test_the_costs_of_calls_are_measured(tmp_path: Path) -> None:
    words = ["precisions=[int8]", "frame_ms=[20]", "n_calls=[2]", "seconds=0.5", f"out_folder={tmp_path}"]
    done = run("measure_weight_and_time/calls.py", "-cn", "calls", *words)
    (row,) = json.loads((tmp_path / "calls.json").read_text())["rows"]
    assert 0 < row["milliseconds"]["p50"] <= row["milliseconds"]["max"]
    assert f"{row['calls_per_core']:.0f}" in done.stdout
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    refused = run("measure_weight_and_time/calls.py", "-cn", "calls", *words, f"speech={tmp_path}/noise.wav", check=False)
    assert refused.returncode == 2
    assert "expected clean speech of one speaker" in refused.stderr
