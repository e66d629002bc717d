"""`ss-extract` as a user types it: files, folders, stretches, several enrolments, warnings, wrong files, constant memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT, call, voice
from test_export import online
from test_live import until

from ss.export import export
from ss.runtime import Extractor
from ss.runtime.enrolment import find_faults, read_stretch
from ss.runtime.extract import main

STEP = 1.01 / 32768  # of a 16-bit sample


def speech(rng: np.random.Generator, pitch: float, samples: int) -> np.ndarray:
    """A voice that pauses for 0.1 s in every half of a second [samples]."""
    return voice(rng, pitch, samples) * (np.arange(samples) % 8000 >= 1600)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny exported `model`, anna.wav and bert.wav to enrol, call.wav (int16), and stereo.flac at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("extract")
    export(online(), folder / "model")
    rng = np.random.default_rng(0)
    for name, pitch in (("anna", 130), ("bert", 210)):
        soundfile.write(folder / f"{name}.wav", speech(rng, pitch, 5 * RATE), RATE)
    soundfile.write(folder / "call.wav", voice(rng, 130, 40007) + voice(rng, 210, 40007), RATE)
    soundfile.write(folder / "stereo.flac", np.stack([voice(rng, 50, 66001), voice(rng, 70, 66001)], 1), 44100)
    return folder


def extract(files: Path, *words: str | Path, code: int = 0, enrol: str = "anna.wav") -> str:
    """Calls the command in `files`; what it said on stderr."""
    who = ["--enrol", enrol] if enrol else []
    done = call(main, "ss-extract", *map(str, words), "--model", str(files / "model"), *who, check=False, folder=files)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return done.stderr


def expected(files: Path, mixture: np.ndarray, rate: int = RATE, enrolment: object = None) -> np.ndarray:
    """What the runtime makes of a whole mixture in one call."""
    stream = Extractor.load(files / "model").stream(enrolment or files / "anna.wav", rate)  # type: ignore[arg-type]
    return np.concatenate([stream.process(mixture), stream.flush()])


def test_a_file_gives_what_a_stream_gives(files: Path, tmp_path: Path) -> None:
    said = extract(files, "call.wav", "-o", tmp_path / "anna-only.wav")
    mixture = soundfile.read(files / "call.wav", dtype="int16")[0]
    estimate, rate = soundfile.read(tmp_path / "anna-only.wav", dtype="int16")
    assert rate == RATE
    assert soundfile.info(tmp_path / "anna-only.wav").subtype == "PCM_16"
    np.testing.assert_allclose(estimate / 32768, expected(files, mixture) / 32768, atol=STEP)
    assert np.abs(estimate).max() > 100
    assert said.startswith(f"call.wav -> {tmp_path}/anna-only.wav: 0:03, ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "anna-only.wav"]
    assert extract(files, "call.wav", "-o", tmp_path / "again.wav", "--quiet") == ""


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")]
)
def test_rate_length_and_container(files: Path, tmp_path: Path, suffix: str, subtype: str) -> None:
    out = tmp_path / f"out.{suffix}"
    extract(files, "stereo.flac", "-o", out)
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (44100, 1, subtype)
    assert info.frames == 66001 or suffix == "mp3"
    if suffix in ("wav", "flac"):
        stereo = soundfile.read(files / "stereo.flac", dtype="int16")[0]
        np.testing.assert_allclose(soundfile.read(out)[0], expected(files, stereo, 44100) / 32768, atol=STEP)


def test_float_files_stay_float_and_16_bits_are_clipped(files: Path, tmp_path: Path) -> None:
    loud = 6 * soundfile.read(files / "call.wav", dtype="float32")[0]
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="FLOAT")
    extract(files, tmp_path / "loud.wav", "-o", tmp_path / "float.wav")
    extract(files, tmp_path / "loud.wav", "-o", tmp_path / "fixed.flac")
    estimate = expected(files, loud)
    assert soundfile.info(tmp_path / "float.wav").subtype == "FLOAT"
    np.testing.assert_allclose(soundfile.read(tmp_path / "float.wav")[0], estimate, atol=1e-4)
    assert np.abs(estimate).max() > 1
    np.testing.assert_allclose(soundfile.read(tmp_path / "fixed.flac")[0], estimate.clip(-1, 1), atol=2 * STEP)


def test_a_folder_and_several_inputs_keep_their_names(files: Path, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    (recordings / "monday").mkdir(parents=True)
    for name in ("one.wav", "monday/two.flac"):
        soundfile.write(recordings / name, soundfile.read(files / "call.wav")[0][:20000], RATE)
    (recordings / "notes.txt").write_text("no audio")
    extract(files, recordings, "call.wav", "-o", recordings / "out")
    made = sorted(str(path.relative_to(recordings / "out")) for path in (recordings / "out").rglob("*") if path.is_file())
    assert made == ["call.wav", "monday/two.flac", "one.wav"]
    assert soundfile.info(recordings / "out" / "monday" / "two.flac").frames == 20000
    extract(files, recordings, "-o", recordings / "out")  # what was made before is no input
    assert not (recordings / "out" / "out").exists()


def test_a_stretch_of_a_recording_enrols(files: Path, tmp_path: Path) -> None:
    wave = soundfile.read(files / "anna.wav", dtype="float32")[0]
    extract(files, "call.wav", "-o", tmp_path / "out.wav", enrol="anna.wav@0.5-3.25")
    mixture = soundfile.read(files / "call.wav", dtype="int16")[0]
    np.testing.assert_allclose(
        soundfile.read(tmp_path / "out.wav")[0],
        expected(files, mixture, enrolment=Extractor.load(files / "model").enroll(wave[8000:52000])) / 32768,
        atol=STEP,
    )
    soundfile.write(tmp_path / "odd@1-2", wave, RATE, format="WAV")
    assert len(read_stretch(tmp_path / "odd@1-2")[0]) == len(wave)  # such a file is taken whole
    for stretch, message in (("2-1", "expected a stretch within the 5.00 seconds"), ("2-9", "expected a stretch within")):
        said = extract(files, "call.wav", "-o", tmp_path / "no.wav", enrol=f"anna.wav@{stretch}", code=2)
        assert said.startswith(f"error: anna.wav@{stretch}: {message}")
        assert said.count("\n") == 1
    assert "error: no.wav: expected a readable audio file" in extract(files, "call.wav", "-o", "x.wav", enrol="no.wav@1-2", code=2)


def test_several_enrolments_are_averaged(files: Path, tmp_path: Path) -> None:
    extract(files, "call.wav", "--enrol", "bert.wav", "-o", tmp_path / "out.wav")
    extractor, mixture = Extractor.load(files / "model"), soundfile.read(files / "call.wav", dtype="int16")[0]
    names = [files / "anna.wav", files / "bert.wav"]
    both = extractor.enroll(names)
    np.testing.assert_allclose(both.values, (extractor.enroll(names[0]).values + extractor.enroll(names[1]).values) / 2, atol=1e-6)
    assert np.abs(both.values - extractor.enroll(names[0]).values).max() > 1e-3
    np.testing.assert_allclose(soundfile.read(tmp_path / "out.wav")[0], expected(files, mixture, enrolment=both) / 32768, atol=STEP)


def test_nothing_is_written_over_what_is_read(files: Path, tmp_path: Path) -> None:
    before = (files / "call.wav").read_bytes()
    (tmp_path / "link.wav").symlink_to(files / "call.wav")
    for words in (["call.wav", "-o", "call.wav"], ["call.wav", "-o", tmp_path / "link.wav"], [".", "-o", "."]):
        said = extract(files, *words, code=2)
        assert "would be written over a recording that is read" in said
        assert said.count("\n") == 1
    assert "would be written over" in extract(files, "call.wav", "-o", "anna.wav", code=2)
    assert (files / "call.wav").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "call.wav").write_bytes(before)
    assert "would be written twice" in extract(files, "call.wav", tmp_path / "other" / "call.wav", "-o", tmp_path / "out", code=2)


def test_a_bad_file_is_named_and_the_others_are_done(files: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "bad.wav").write_text("no audio")
    soundfile.write(inputs / "empty.wav", np.zeros(0), RATE)
    fast = bytearray((files / "call.wav").read_bytes())
    fast[24:28] = (2000000011).to_bytes(4, "little")  # the rate in the header
    (inputs / "fast.wav").write_bytes(fast)
    (inputs / "good.wav").write_bytes((files / "call.wav").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "empty.wav").write_text("from before")
    said = extract(files, inputs, "-o", tmp_path / "out", code=2, enrol="anna.wav").splitlines()
    assert [line.split(" ")[0:2] for line in said[:3]] == [["error:", f"{inputs}/{name}.wav:"] for name in ("bad", "empty", "fast")]
    assert said[1].endswith("expected audio, found no samples")
    assert said[2].endswith("expected a sample rate from 4000 to 384000 Hz, got 2000000011")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["empty.wav", "good.wav"]
    assert (tmp_path / "out" / "empty.wav").read_text() == "from before"


def test_mp3_becomes_wav(files: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.mp3", soundfile.read(files / "call.wav")[0], RATE)
    extract(files, tmp_path / "call.mp3", "-o", tmp_path / "out.wav", enrol="anna.wav")
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_16"


def test_a_stretch_is_in_seconds(files: Path, tmp_path: Path) -> None:
    said = extract(files, files / "call.wav", "-o", tmp_path / "out.wav", code=2, enrol="anna.wav@0:01-0:02")
    assert "anna.wav@0:01-0:02: expected FILE@START-END with both in seconds, such as call.wav@3.0-7.5" in said


def test_a_file_without_a_header_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "x.raw").write_bytes(bytes(32000))
    message = f"error: {tmp_path}/x.raw: expected a readable audio file, but: a .raw file does not say its sample rate"
    assert extract(files, tmp_path / "x.raw", "-o", tmp_path / "y.wav", code=2, enrol="anna.wav").splitlines() == [message]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.ogg", "call.wav: expected 40007 samples in {out}, but only "),
        ("out.wav", "{out}: could not be written: System error. Is the disk full?\n"),
        ("out.flac", "{out}: could not be written: System error. Is the disk full?\n"),
    ],
)
def test_a_file_that_the_disk_does_not_hold_is_none(files: Path, tmp_path: Path, name: str, message: str) -> None:
    words = ["call.wav", "-o", f"{tmp_path}/{name}", "--enrol", "anna.wav", "--model", "model"]
    limited = 'ulimit -f 8; exec "$@"'  # KiB
    command = ["bash", "-c", limited, "bash", sys.executable, "-m", "ss.runtime.extract", *words]
    done = subprocess.run(
        command, cwd=files, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "error: " + message.format(out=f"{tmp_path}/{name}") in done.stderr
    assert not list(tmp_path.iterdir())


ERRORS = {
    "no input": (["nowhere.wav", "-o", "x.wav"], "nowhere.wav: expected a recording or a folder, but there is none"),
    "kind": (["call.wav", "-o", "x.m4a"], "x.m4a: expected a name that ends in one of ."),
    "file for two": (
        ["call.wav", "stereo.flac", "-o", "x.wav"],
        "x.wav: expected a folder for 2 recordings, found the name of a file",
    ),
    "nothing inside": (["model", "-o", "x"], "model: expected recordings in this folder"),
    "no output": (["call.wav"], "the following arguments are required: -o/--output"),
    "precision": (["call.wav", "-o", "x.wav", "--precision", "int8"], "expected a release with SHA256SUMS to choose int8 from"),
    "rate": (["stereo.flac", "-o", "x.opus"], "x.opus: could not be written: Error opening"),
}


@pytest.mark.parametrize("which", ERRORS)
def test_errors_are_one_line(files: Path, which: str) -> None:
    words, message = ERRORS[which]
    said = extract(files, *words, code=2)
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not list(files.glob("*.part"))


def test_bad_enrolments_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    wave = speech(rng, 140, 6 * RATE).astype(np.float32)
    noise = (wave.std() * rng.standard_normal(len(wave))).astype(np.float32)
    assert find_faults(wave + 1e-3 * noise, RATE) == []
    (short,) = find_faults(wave[: 2 * RATE], RATE)
    assert short.startswith("only 1.7 s of speech: record at least 3 s")
    (clipped,) = find_faults((2 * wave / np.abs(wave).max()).clip(-1, 1), RATE)
    assert clipped.startswith("it is clipped: record it at a lower level")
    (noisy,) = find_faults(wave + 0.3 * noise, RATE)
    assert noisy.startswith("it is noisy, its speech about 11 dB above the background")


def test_a_warning_is_one_line_and_does_not_stop(files: Path, tmp_path: Path) -> None:
    said = extract(files, "call.wav", "-o", tmp_path / "out.wav", "--quiet", enrol="anna.wav@0-1")
    assert said.startswith("warning: anna.wav@0-1: only 0.8 s of speech")
    assert said.count("\n") == 1
    assert (tmp_path / "out.wav").exists()


def test_a_recording_that_is_cut_short_is_extracted_with_a_warning(files: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes((files / "call.wav").read_bytes()[:-40000])
    said = extract(files, tmp_path / "cut.wav", "-o", tmp_path / "out.wav", "--quiet")
    assert said == f"warning: {tmp_path}/cut.wav: it ends after 20007 of 40007 samples: the file is damaged\n"
    assert soundfile.info(tmp_path / "out.wav").frames == 20007


def test_an_interrupted_file_is_left_out(files: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.tile(soundfile.read(files / "call.wav")[0], 700), RATE)
    who = ["--enrol", files / "anna.wav", "--model", files / "model"]
    command = [sys.executable, "-m", "ss.runtime.extract", tmp_path / "long.wav", "-o", tmp_path / "out" / "long.wav", *who]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: any((tmp_path / "out").glob(".long.wav.*.part")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in said.splitlines() if not line.startswith("the C library is not installed")] == []
    assert not list((tmp_path / "out").iterdir())


MEMORY = """
import sys
from pathlib import Path
from ss.runtime.extract import main
assert main(sys.argv[1:]) == 0
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_recording(files: Path, tmp_path: Path) -> None:
    peaks = []
    call = soundfile.read(files / "call.wav")[0]
    for repeats in (4, 80):  # 10 and 200 s: 6 MB of int16, 25 MB as float32 and back
        soundfile.write(tmp_path / "long.wav", np.tile(call, repeats), RATE)
        words = [
            tmp_path / "long.wav",
            "-o",
            tmp_path / "out.wav",
            "--enrol",
            files / "anna.wav",
            "--model",
            files / "model",
            "--quiet",
        ]
        command = [sys.executable, "-c", MEMORY, *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=True)
        peaks.append(int(done.stdout) * 1024)
        assert soundfile.info(tmp_path / "out.wav").frames == repeats * len(call)
    assert peaks[1] - peaks[0] < 5e6
