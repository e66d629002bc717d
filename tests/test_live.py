"""`ss-live` as a user types it: pipes, files as microphones, stand-ins for devices, Ctrl-C, closed pipes and wrong options."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, call, voice

from ss.errors import UserError
from ss.export import export
from ss.model import SpexPlusOnline
from ss.runtime import Extractor, live_device
from ss.runtime.live import main
from ss.runtime.live_device import Microphone, Speakers
from ss.runtime.live_io import decode, encode
from ss.runtime.live_meter import Times
from ss.signals import StopSignal

FAKES = ROOT / "tests" / "assets" / "devices"
STEP = 1.01 / 32768  # of a 16-bit sample


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny exported `model`, enrol.wav, mixture.wav (16 kHz) and stereo.wav (44.1 kHz)."""
    folder = tmp_path_factory.mktemp("live")
    torch.manual_seed(0)
    sizes = {"n_channels": 16, "hidden_channels": 24, "out_channels": 12, "n_resnetblocks": 2, "n_speakers": 6}
    windows = {"kernels": [160, 320], "synthesis_kernel": 160, "hop": 80, "n_stacked_tcnblocks": 2, "n_tcnblocks": 2}
    export(SpexPlusOnline(**sizes, **windows).eval(), folder / "model")
    rng = np.random.default_rng(0)
    soundfile.write(folder / "enrol.wav", voice(rng, 130, 16000), RATE)
    soundfile.write(folder / "mixture.wav", voice(rng, 130, 15987) + voice(rng, 190, 15987), RATE)
    soundfile.write(folder / "stereo.wav", np.stack([voice(rng, 50, 30011), voice(rng, 70, 30011)], 1), 44100)
    return folder


def command(files: Path, *words: str, enrol: bool = True) -> list[str]:
    """The words of a command line with the model, and the enrolment unless told otherwise."""
    who = ["--model", f"{files}/model", *(["--enrol", f"{files}/enrol.wav"] if enrol else [])]
    return [sys.executable, "-m", "ss.runtime.live", *who, *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(FAKES), str(ROOT)]), **more}


def live(files: Path, *words: str, enrol: bool = True, data: bytes = b"", code: int = 0, **more: str) -> tuple[bytes, str]:
    """Runs the command; what it put on stdout and stderr."""
    done = subprocess.run(
        command(files, *words, enrol=enrol),
        input=data,
        env=environment(**more),
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout, done.stderr.decode()


def started(files: Path, *words: str) -> subprocess.Popen[bytes]:
    """The command at work, with pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(files, *words), env=environment(), cwd=ROOT, **pipes)


def estimate(files: Path, mixture: np.ndarray, rate: int = RATE, enrolment: np.ndarray | None = None) -> np.ndarray:
    """What the runtime makes of a whole mixture in one call."""
    enrol = str(files / "enrol.wav") if enrolment is None else enrolment
    stream = Extractor.load(files / "model").stream(enrol, sample_rate=rate)
    return np.concatenate([stream.process(mixture), stream.flush()])


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def unread(pipe: Any) -> int:
    """The bytes that wait in a pipe."""
    waiting = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return int.from_bytes(waiting, sys.byteorder)


def until(holds: Callable[[], bool | None], seconds: float = 60) -> None:
    """Waits until a function says so."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


@pytest.mark.parametrize("block_ms", ["10", "7.3", "0.5", "400"])
def test_a_pipe_gives_what_the_stream_gives(files: Path, block_ms: str) -> None:
    mixture = read(files / "mixture.wav")
    out, said = live(files, "--input", "-", "--output", "-", "--block-ms", block_ms, data=encode(mixture, "s16le"))
    heard = decode(out, "s16le", 1)
    assert heard.shape == mixture.shape
    assert np.abs(heard).max() > 0.01
    np.testing.assert_allclose(heard, estimate(files, mixture), atol=STEP)
    assert "1.00 s in" in said
    assert said.count("\n") == 1


def test_stereo_floats_of_another_rate_through_a_pipe(files: Path) -> None:
    mixture = read(files / "stereo.wav")
    options = ["--rate", "44100", "--channels", "2", "--format", "f32le", "--output-channels", "2", "--quiet"]
    out, said = live(files, "--input", "-", "--output", "-", *options, data=mixture.astype("<f4").tobytes())
    heard = decode(out, "f32le", 2)
    assert said == ""
    assert heard.shape == mixture.shape
    np.testing.assert_array_equal(heard[:, 0], heard[:, 1])
    np.testing.assert_allclose(heard[:, 0], estimate(files, mixture, 44100), atol=1e-5)


def test_a_pipe_is_not_buffered_and_ctrl_c_loses_nothing_that_was_read(files: Path) -> None:
    mixture, delay = read(files / "mixture.wav")[:1003], Extractor.load(files / "model").delay
    data = encode(mixture, "s16le")
    process = started(files, "--input", "-", "--output", "-")
    assert process.stdin
    assert process.stdout
    for start, stop in ((0, 1), (1, 642), (642, 1280)):  # four blocks of 10 ms, in odd pieces
        process.stdin.write(data[start:stop])
        process.stdin.flush()
    first = process.stdout.read(1280 - 2 * delay)  # comes while the input is still open
    process.stdin.write(data[1280:])  # ends within a block
    process.stdin.flush()
    until(lambda: not unread(process.stdin))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # as `timeout` and a terminal at once would do
    rest = process.stdout.read()
    assert process.wait(60) == 0
    heard = decode(first + rest, "s16le", 1)
    np.testing.assert_allclose(heard, estimate(files, mixture), atol=STEP)
    assert process.stderr
    assert process.stderr.read().decode().strip().endswith("stopped")


def test_a_part_of_a_frame_at_the_end_is_reported(files: Path) -> None:
    out, said = live(files, "--input", "-", "--output", "-", data=bytes(1001))
    assert len(out) == 1000
    assert "warning: the input ended within a frame: 1 bytes are left out" in said


def test_an_empty_pipe_gives_nothing(files: Path) -> None:
    out, said = live(files, "--input", "-", "--output", "-")
    assert out == b""
    assert "0.00 s in 0 blocks" in said


@pytest.mark.parametrize(("name", "form"), [("mixture", "s16le"), ("stereo", "f32le")])
def test_a_file_as_a_microphone(files: Path, tmp_path: Path, name: str, form: str) -> None:
    mixture, rate = soundfile.read(files / f"{name}.wav", dtype="float32")
    out, report = tmp_path / "out.wav", tmp_path / "report.json"
    words = [
        "--output",
        str(out),
        "--record",
        f"{tmp_path}/too.flac",
        "--format",
        form,
        "--report",
        str(report),
        "--block-ms",
        "10",
    ]
    if form == "f32le":
        words[3] = f"{tmp_path}/too.wav"  # FLAC has no floats
    begin = time.monotonic()
    live(files, "--input", f"{files}/{name}.wav", *words)
    assert time.monotonic() - begin > len(mixture) / rate
    assert soundfile.info(out).samplerate == rate
    heard = read(out)
    assert heard.shape == mixture.shape[:1]
    np.testing.assert_allclose(heard, estimate(files, mixture, rate), atol=STEP)
    np.testing.assert_array_equal(heard, read(Path(words[3])))
    figures = json.loads(report.read_text())
    assert figures["ended"] == "input ended"
    assert figures["samples_in"] == figures["samples_out"] == len(mixture)
    assert figures["blocks"] == -(-len(mixture) // (rate // 100))
    assert figures["dropped_blocks"] == {"input": 0, "output": 0, "late": 0}
    assert 0 < figures["ms_per_block"]["p50"] <= figures["ms_per_block"]["p95"] <= figures["ms_per_block"]["max"]
    assert figures["real_time_factor"] > 0
    assert figures["peak_dbfs"]["input"] == pytest.approx(20 * np.log10(np.abs(mixture).max()))
    assert figures["latency_ms"] == pytest.approx(figures["algorithmic_ms"] + figures["buffering_ms"])
    assert figures["algorithmic_ms"] == 1000 * 160 / RATE
    if name == "mixture":
        assert figures["buffering_ms"] == pytest.approx(5)  # a block less the hop that it shares with the model's latency
    else:
        assert figures["buffering_ms"] > 10  # unfinished hops, and resampling twice


def test_the_enrolment_may_be_the_beginning_of_the_input(files: Path, tmp_path: Path) -> None:
    mixture = read(files / "mixture.wav")
    saved, out = tmp_path / "enrolment.wav", tmp_path / "out.wav"
    words = ["--enrol-seconds", "0.5", "--save-enrolment", str(saved), "--fast", "--output", str(out)]
    live(files, "--input", f"{files}/mixture.wav", *words, enrol=False)
    np.testing.assert_allclose(read(saved), mixture[:8000], atol=STEP)
    np.testing.assert_allclose(read(out), estimate(files, mixture[8000:], enrolment=mixture[:8000]), atol=STEP)
    piped, _ = live(files, "--input", "-", "--output", "-", *words[:2], enrol=False, data=encode(mixture, "s16le"))
    np.testing.assert_array_equal(decode(piped, "s16le", 1), read(out))
    quiet = encode(np.tile(np.array([1, -1], np.float32) / 32768, 8000), "s16le")
    again, said = live(files, "--input", "-", "--output", "-", *words[:2], enrol=False, data=quiet)
    assert len(again) == 16000
    assert "warning: the enrolment is nearly silent, its peak is -90 dBFS" in said
    _, said = live(files, "--input", "-", "--output", "-", *words[:2], enrol=False, data=bytes(2 * 16000), code=2)
    assert "error: expected speech as enrolment, found silence" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_loses_nothing(files: Path, tmp_path: Path, number: signal.Signals) -> None:
    long, out, report = tmp_path / "long.wav", tmp_path / "out.wav", tmp_path / "report.json"
    mixture = np.tile(read(files / "mixture.wav"), 60)
    soundfile.write(long, mixture, RATE)
    process = started(files, "--input", str(long), "--output", str(out), "--report", str(report))
    until(lambda: out.exists() and out.stat().st_size > 10000)
    process.send_signal(number)
    assert process.wait(60) == 0
    figures = json.loads(report.read_text())
    heard = read(out)
    assert figures["ended"] == "stopped"
    assert 4000 < figures["samples_in"] == len(heard) < len(mixture)
    np.testing.assert_allclose(heard, estimate(files, read(long)[: len(heard)]), atol=STEP)


def test_an_insistent_signal_ends_what_is_stuck(files: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(10 * RATE), RATE)
    process = started(files, "--input", str(long), "--output", "-", "--fast")  # nobody reads its output
    assert process.stdout
    until(lambda: unread(process.stdout) > 60000)  # of the 64 KiB that a pipe holds
    time.sleep(0.2)
    begin = time.monotonic()
    for _ in range(2):  # the second one comes too soon to be meant, unless this machine stood still
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None or time.monotonic() - begin > 1
    until(lambda: process.poll() is not None or process.send_signal(signal.SIGINT))  # one of these is late enough
    assert process.wait(60) == -signal.SIGINT


def test_a_crash_leaves_a_file_that_can_be_read(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    process = started(files, "--input", "-", "--output", str(out))
    assert process.stdin
    mixture = read(files / "mixture.wav")
    process.stdin.write(encode(mixture, "s16le"))
    process.stdin.flush()
    until(lambda: out.exists() and out.stat().st_size > 2 * 15000)
    process.kill()
    process.wait(60)
    heard = read(out)
    assert len(heard) > 14900
    np.testing.assert_allclose(heard, estimate(files, mixture)[: len(heard)], atol=STEP)


def test_a_closed_pipe_ends_quietly_and_the_record_is_whole(files: Path, tmp_path: Path) -> None:
    record, report = tmp_path / "record.wav", tmp_path / "report.json"
    process = started(files, "--input", "-", "--output", "-", "--record", str(record), "--report", str(report))
    assert process.stdin
    assert process.stdout
    assert process.stderr
    data = encode(read(files / "mixture.wav"), "s16le")
    process.stdin.write(data[:3200])
    process.stdin.flush()
    process.stdout.read(100)
    process.stdout.close()
    process.stdin.write(data[3200:])
    process.stdin.flush()  # and stays open: the closed output ends it
    assert process.wait(60) == 0
    said = process.stderr.read().decode()
    assert said.count("\n") == 1
    assert said.strip().endswith("output closed")
    figures = json.loads(report.read_text())
    assert 160 <= figures["samples_in"] == len(read(record)) < len(data) // 2


ERRORS = {
    "no input": (
        ["--input", "nowhere.wav", "--output", "-"],
        "nowhere.wav: expected a readable audio file, but: there is no such file",
    ),
    "no audio": (["--input", "setup.py", "--output", "-"], "setup.py: expected a readable audio file"),
    "other file": (["--input", "-", "--output", "out.mp3"], "out.mp3: expected a name that ends in .wav or .flac"),
    "no folder": (["--input", "-", "--output", "nowhere/out.wav"], "nowhere/out.wav: cannot be written"),
    "rate": (["--input", "a.wav", "--output", "-", "--rate", "8000"], "--rate and --channels are for raw PCM and devices"),
    "fast": (["--input", "-", "--output", "-", "--fast"], "--fast is for an input file"),
    "two": (["--input", "-", "--output", "-", "--enrol-seconds", "2"], "expected either --enrol FILE or --enrol-seconds N"),
    "device": (["--input", "-", "--input-device", "1", "--output", "-"], "--input-device is of no use with --input"),
    "same": (["--input", "a.wav", "--output", "./a.wav"], "a file is to be written twice, or read and written"),
    "block": (["--input", "-", "--output", "-", "--block-ms", "0"], "expected a number above 0, got 0"),
    "blocks": (["--input", "-", "--output", "-", "--block-ms", "1e9"], "--block-ms: expected at most 60000 ms"),
    "unknown": (["--inputs", "-"], "unrecognized arguments: --inputs"),
    "save": (["--input", "-", "--output", "-", "--save-enrolment", "x.wav"], "--save-enrolment needs --enrol-seconds"),
    "threads": (["--input", "-", "--output", "-", "--threads", "0"], "expected a whole number above 0"),
}
DEVICES = {
    "broken": "the input device: No such device; --list-devices shows",
    "busy": "the input device: Device unavailable [PaErrorCode -9985]; --list-devices shows",
}


@pytest.mark.parametrize("which", ERRORS)
def test_errors_are_one_line(files: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, message = ERRORS[which]
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        done = call(main, *command(files, *words)[2:], check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("device", DEVICES)
def test_errors_of_devices_are_one_line(files: Path, device: str) -> None:
    out, said = live(files, "--output", "-", "--input-device", device, code=2, FAKE_INPUT=f"{files}/mixture.wav")
    assert out == b""
    assert said.startswith(f"error: {DEVICES[device]}")
    assert said.count("\n") == 1


def test_a_wrong_model_or_enrolment_is_one_line(files: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(10), RATE)
    for words in (["--model", str(tmp_path)], ["--enrol", "nowhere.wav"], ["--enrol", f"{tmp_path}/short.wav"]):
        _, said = live(files, "--input", "-", "--output", "-", *words, code=2)
        assert said.startswith("error: ")
        assert words[1] in said
        assert said.count("\n") == 1
    _, said = live(files, "--input", "-", "--output", "-", "--enrol-seconds", "2", enrol=False, data=bytes(3200), code=2)
    assert said.endswith("error: expected 2 s for the enrolment, the input ended after 0.1 s\n")


def test_a_wrong_enrolment_leaves_a_former_output(files: Path, tmp_path: Path) -> None:
    former = tmp_path / "former.wav"
    shutil.copy(files / "mixture.wav", former)
    words = ["--input", str(files / "mixture.wav"), "--output", str(former), "--enrol", "nowhere.wav"]
    assert call(main, "ss-live", *words, "--model", str(files / "model"), check=False).returncode == 2
    assert former.read_bytes() == (files / "mixture.wav").read_bytes()


def test_a_disk_that_is_full_is_told_with_the_file(files: Path, tmp_path: Path) -> None:
    words = ["--fast", "--input", f"{files}/mixture.wav", "--output", f"{tmp_path}/out.wav"]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command(files, *words)]  # KiB
    done = subprocess.run(limited, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/out.wav: the file cannot be written any further: ")


def test_help_and_devices_need_no_model() -> None:
    for word, expected in (("--help", "examples:"), ("--list-devices", "Fake Cable")):
        done = subprocess.run(
            [sys.executable, "-m", "ss.runtime.live", word], env=environment(), cwd=ROOT, capture_output=True, check=True
        )
        assert expected in done.stdout.decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("raise ModuleNotFoundError('no sounddevice')", "need sounddevice: pip install"),
        ("raise OSError('PortAudio library not found')", "need PortAudio (PortAudio library not found): apt install"),
    ],
)
def test_missing_sounddevice_says_how_to_install_it(files: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "sounddevice.py").write_text(content)
    _, said = live(files, code=2, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert said.startswith("error: ")
    assert message in said
    live(files, "--input", "-", "--output", "-", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))  # pipes need none


def test_a_terminal_shows_the_state(files: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = command(files, "--input", f"{files}/mixture.wav", "--output", f"{tmp_path}/out.wav")
    subprocess.run(words, env=environment(COLUMNS="120"), cwd=ROOT, stderr=theirs, timeout=120, check=True)
    shown = os.read(ours, 100000).decode().split("\r")
    assert len(shown) > 4
    assert all(part in shown[-4] for part in ("in ", "[#", "dBFS", "10+0 ms", "dropped 0/0", "RTF 0.", "p99"))
    assert "input ended" in shown[-2]


def test_microphone_to_speakers(files: Path, tmp_path: Path) -> None:
    mixture, played, report = read(files / "mixture.wav"), tmp_path / "played.npy", tmp_path / "report.json"
    options = [
        "--block-ms",
        "10",
        "--buffer-ms",
        "500",
        "--output-channels",
        "2",
        "--report",
        str(report),
        "--record",
        f"{tmp_path}/record.wav",
    ]
    _, said = live(files, *options, FAKE_INPUT=f"{files}/mixture.wav", FAKE_OUTPUT=str(played))
    figures, delay = json.loads(report.read_text()), Extractor.load(files / "model").delay
    assert figures["dropped_blocks"] == {"input": 0, "output": 0, "late": 0}, said
    assert figures["latency_ms"] == pytest.approx(10 + 505 + 8)
    expected = estimate(files, np.pad(mixture, (0, figures["samples_in"] - len(mixture))))
    silence = 160 + 8000 - (160 - delay)  # a full buffer behind the first samples
    heard = np.load(played)
    assert not heard[:silence].any()
    np.testing.assert_allclose(heard[silence:][: len(expected), 1], expected, atol=1e-5)
    assert not heard[silence + len(expected) :].any()
    np.testing.assert_allclose(read(tmp_path / "record.wav")[:, 0], expected, atol=STEP)


def test_a_microphone_that_enrols_first_and_takes_no_16_khz(files: Path, tmp_path: Path) -> None:
    out, saved, report = tmp_path / "out.wav", tmp_path / "saved.wav", tmp_path / "report.json"
    words = [
        "--enrol-seconds",
        "0.3",
        "--save-enrolment",
        str(saved),
        "--output",
        str(out),
        "--channels",
        "2",
        "--block-ms",
        "10",
        "--report",
        str(report),
    ]
    _, said = live(files, *words, enrol=False, FAKE_INPUT=f"{files}/stereo.wav", FAKE_RATES="44100")
    assert "enrolment: 0.3 s of the target speaker alone, from now on" in said
    np.testing.assert_allclose(read(saved), read(files / "stereo.wav")[: len(read(saved))].mean(1), atol=STEP)
    assert len(read(saved)) == 30 * 441
    assert json.loads(report.read_text())["dropped_blocks"]["input"] == 0
    assert json.loads(report.read_text())["samples_in"] == len(read(out)) > 30011 - 30 * 441
    _, said = live(files, *words, enrol=False, code=2, FAKE_RATES="12345")
    assert "no sample rate of 16000, 48000, 44100 Hz suits the devices with 2 channels in: Invalid sample rate 44100;" in said


def test_a_file_to_speakers_waits_instead_of_skipping(files: Path, tmp_path: Path) -> None:
    played, report = tmp_path / "played.npy", tmp_path / "report.json"
    options = ["--fast", "--block-ms", "10", "--buffer-ms", "400", "--report", str(report)]
    live(files, "--input", f"{files}/mixture.wav", *options, FAKE_OUTPUT=str(played))
    expected, heard = estimate(files, read(files / "mixture.wav")), np.load(played)[:, 0]
    assert json.loads(report.read_text())["dropped_blocks"] == {"input": 0, "output": 0, "late": 0}
    begin = 160 + 6400 - (160 - Extractor.load(files / "model").delay)
    np.testing.assert_allclose(heard[begin:][: len(expected)], expected, atol=1e-5)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that never call back: tests do."""
    stream = SimpleNamespace(latency=0.0, active=True, start=lambda: None, stop=lambda: None, close=lambda: None)
    module = SimpleNamespace(InputStream=lambda **_: stream, OutputStream=lambda **_: stream)
    monkeypatch.setattr(live_device, "sounddevice", lambda: module)


STATUS = SimpleNamespace(input_overflow=False, output_underflow=False)


def played(speakers: Speakers, blocks: int) -> list[float]:
    """What speakers play in so many blocks, one channel of the first sample of each."""
    out = []
    for _ in range(blocks):
        block = np.full((160, 1), np.nan, np.float32)
        speakers.play(block, 160, None, STATUS)
        assert np.isfinite(block).all()
        out.append(float(block[0, 0]))
    return out


@pytest.mark.usefixtures("still")
def test_speakers_keep_their_latency_after_a_stall() -> None:
    speakers = Speakers(None, RATE, 1, 10.0, 20.0, True, StopSignal())
    blocks = iter(np.repeat(np.arange(1, 100, dtype=np.float32)[:, None], 160, 1))
    speakers.write(np.zeros(0, np.float32))  # nothing yet: does not start
    speakers.write(next(blocks))
    assert played(speakers, 1) == [0]  # two blocks of silence in front
    speakers.write(next(blocks))
    assert played(speakers, 1) == [0]
    speakers.write(next(blocks))
    assert played(speakers, 1) == [1]
    assert played(speakers, 4) == [2, 3, 0, 0]  # a stall
    assert speakers.dropped == 2
    for _ in range(7):  # and all that it held back at once
        speakers.write(next(blocks))
    assert speakers.skipped == 5
    assert played(speakers, 4) == [7, 8, 9, 10]
    assert speakers.dropped == 2


@pytest.mark.usefixtures("still")
def test_a_microphone_counts_what_it_cannot_hold() -> None:
    stop = StopSignal()
    microphone = Microphone(None, RATE, 1, 10.0, stop)
    for number in range(103):
        microphone.receive(np.full((160, 1), number, np.float32), 160, None, STATUS)
    microphone.receive(np.zeros((160, 1), np.float32), 160, None, SimpleNamespace(input_overflow=True))
    assert microphone.dropped == 3 + 2
    stop.requested = True
    heard = []
    while (block := microphone.read()) is not None:
        heard.append(block[0])
    assert heard == list(range(100))


@pytest.mark.usefixtures("still")
def test_a_slow_microphone_is_waited_for_and_a_lost_one_reported() -> None:
    microphone = Microphone(None, RATE, 1, 10.0, StopSignal())
    late = threading.Timer(0.2, lambda: microphone.receive(np.ones((160, 1), np.float32), 160, None, STATUS))
    late.start()
    assert microphone.read() is not None
    late.join()
    microphone.stream.active = False
    with pytest.raises(UserError, match="the input device stopped"):
        microphone.read()


def test_samples_keep_their_values() -> None:
    ints = np.array([-32768, -1, 0, 1, 32767], "<i2")
    assert encode(decode(ints.tobytes(), "s16le", 1), "s16le") == ints.tobytes()
    assert np.frombuffer(encode(np.array([-2, 2], np.float32), "s16le", 2), "<i2").tolist() == [-32768, -32768, 32767, 32767]
    assert decode(bytes(24), "f32le", 3).shape == (2, 3)


def test_times_are_counted_within_one_percent() -> None:
    times, seconds = Times(), np.random.default_rng(0).lognormal(-7, 1, 5000)
    for second in seconds:
        times.add(float(second))
    for percent in (50, 95, 99):
        assert times.percentile(percent) == pytest.approx(np.percentile(seconds, percent, method="inverted_cdf"), rel=0.011)
    assert times.percentile(100) == times.largest == seconds.max()
    assert times.total == pytest.approx(seconds.sum())
    assert Times().percentile(99) == 0
