"""Stored voices: a speaker without the recording, for one model, in Python and in C; damaged files."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, voice
from test_export import online

from ss.errors import UserError
from ss.export import export
from ss.runtime import Conditions, Extractor, extract
from ss.runtime.native import find_library
from ss.runtime.voice import voice_path

BACKENDS = ["onnxruntime", pytest.param("c", marks=pytest.mark.skipif(find_library() is None, reason="needs the C library"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model, the same in int8, and one with other weights."""
    found = [tmp_path_factory.mktemp(name) / "exported" for name in ("model", "int8", "other")]
    model = online(memory="lstm")
    export(model, found[0])
    export(model, found[1], int8=True)
    export(online(memory="lstm", n_speakers=4), found[2])
    return found


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return voice(np.random.default_rng(1), 140, 20000)


@pytest.fixture
def stored(folders: list[Path], recording: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "voices" / "anna.voice"
    Extractor.load(folders[0]).enroll(recording).save(path)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stored_voice_is_the_recording(folders: list[Path], recording: np.ndarray, tmp_path: Path, backend: str) -> None:
    extractor, path = Extractor.load(folders[0], backend=backend), tmp_path / "anna.voice"
    speaker = extractor.enroll(recording)
    speaker.save(path)
    for given in (path, str(path), Conditions.load(path), [path], [path, path]):
        np.testing.assert_array_equal(extractor.enroll(given).values, speaker.values)
        assert extractor.enroll(given).model == speaker.model
    twice = extractor.enroll([path, recording[::-1].copy()])
    assert np.abs(twice.values - speaker.values).max() > 0


def test_a_voice_is_for_one_model_in_any_precision(folders: list[Path], stored: Path) -> None:
    model, int8, other = map(Extractor.load, folders)
    np.testing.assert_array_equal(model.enroll(stored).values, int8.enroll(stored).values)
    with pytest.raises(UserError, match=r"anna\.voice: expected a voice of this model, found one of another"):
        other.enroll(stored)
    with pytest.raises(UserError, match="expected a voice of this model, found one of another"):
        other.enroll(Conditions.load(stored))


def test_commands_take_voices(folders: list[Path], stored: Path, recording: np.ndarray, tmp_path: Path) -> None:
    enrolment, mixture = tmp_path / "enrolment.wav", tmp_path / "mixture.wav"
    soundfile.write(enrolment, recording, RATE, "FLOAT")
    soundfile.write(mixture, recording[::-1], RATE)
    for name, enrol in (("a", enrolment), ("b", stored)):
        words = [str(mixture), "--enrol", str(enrol), "--model", str(folders[0]), "-o", str(tmp_path / f"{name}.wav"), "--quiet"]
        assert extract.main(words) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def signed(body: bytes, version: int = 1) -> bytes:
    return b"ss-voice" + struct.pack("<II", version, zlib.crc32(body)) + body


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_voices(folders: list[Path], stored: Path, tmp_path: Path, backend: str) -> None:
    extractor, content = Extractor.load(folders[0], backend=backend), stored.read_bytes()
    body, path = content[16:], tmp_path / "bad.voice"
    cases = {
        "found another file": [b"", content[:15], content[:16], content[:48], content[:-1], b"x" + content[1:], bytes(1 << 20)],
        "format 1, found 2": [signed(body, 2)],
        "it is damaged": [
            content[:60] + bytes([content[60] ^ 1]) + content[61:],
            content[:-4],
            signed(body[:-4] + struct.pack("<f", np.nan)),
            signed(bytes(32) + body[32:]),
        ],
        "one of another": [signed(b"0" * 32 + body[32:])],
    }
    for message, contents in cases.items():
        for data in contents:
            path.write_bytes(data)
            with pytest.raises(UserError, match=message):
                extractor.enroll(path)
    with pytest.raises(UserError, match=r"nowhere.voice: expected a stored voice, but it cannot be read: .*No such file"):
        extractor.enroll(tmp_path / "nowhere.voice")
    path.write_bytes(signed(body[:-4]))
    with pytest.raises(UserError, match="bad.voice: expected [0-9]+ conditions, as this model's enroll gives them"):
        extractor.stream(path)


@pytest.mark.skipif(find_library() is None, reason="needs the C library")
def test_the_library_reads_voices(folders: list[Path], stored: Path, tmp_path: Path) -> None:
    extractor, other = (Extractor.load(folder, backend="c") for folder in (folders[0], folders[2]))

    def load(extractor: Extractor, path: Path) -> np.ndarray | str:
        values = Conditions.load(stored).values[0] * 0
        failed = extractor.library.ss_voice_load(extractor.pointer, str(path).encode(), values.ctypes.data)
        return extractor.library.ss_error().decode() if failed else values

    np.testing.assert_array_equal(load(extractor, stored), Conditions.load(stored).values[0])
    assert "one of another" in str(load(other, stored))
    assert "cannot be read" in str(load(extractor, tmp_path / "nowhere.voice"))
    content, bad = stored.read_bytes(), tmp_path / "bad.voice"
    for data, message in (
        (content[:40], "found other data"),
        (content[:-4], "right checksum"),
        (signed(content[16:], 2), "version 1"),
        (signed(content[16:-4]), "one of another"),
        (signed(bytes(32) + content[48:]), "one of another"),
    ):
        bad.write_bytes(data)
        assert message in str(load(extractor, bad))


def test_where_voices_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert voice_path("anna-2") == tmp_path / "ss" / "voices" / "anna-2.voice"
    for name in ("", "../x", "a/b", "a.b", "x" * 65, "a b"):
        with pytest.raises(UserError, match="expected a voice's name"):
            voice_path(name)


def test_what_cannot_be_stored(folders: list[Path], recording: np.ndarray, tmp_path: Path) -> None:
    speaker = Extractor.load(folders[0]).enroll(recording)
    with pytest.raises(UserError, match=r"ends in \.voice"):
        speaker.save(tmp_path / "anna.wav")
    with pytest.raises(UserError, match="export it again"):
        Conditions(speaker.values).save(tmp_path / "anna.voice")
