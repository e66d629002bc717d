"""Models by name, folder and URL: their sums, the cache, and the command that makes a release."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, ROOT, SIZES, WINDOWS, run, voice
from test_export import online

from ss import checkpoint
from ss.errors import UserError
from ss.export import export
from ss.release import BEGIN, END
from ss.runtime import Extractor, pretrained
from ss.runtime.extractor import NativeExtractor

GRAPHS = [f"{precision}/{name}" for precision in ("float32", "int8") for name in ("enroll.onnx", "model.ss", "step.onnx")]


def write_sums(folder: Path) -> None:
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in GRAPHS]
    (folder / "SHA256SUMS").write_text("".join(sums))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two different tiny models."""
    folder = tmp_path_factory.mktemp("made") / "tiny"
    export(online(), folder / "float32")
    export(online(memory="none"), folder / "int8")
    write_sums(folder)
    return folder


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


@pytest.fixture
def server(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Server"]:
    """The release behind a URL, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server(tmp_path) as server:
        yield server


class Server(ThreadingHTTPServer):
    """Serves a folder, and notes what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}/tiny"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path.removeprefix("/tiny/"))  # type: ignore[attr-defined]
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_without_an_argument_it_is_the_model_in_the_package() -> None:
    rng = np.random.default_rng(0)
    for extractor in (Extractor.from_pretrained(), Extractor.from_pretrained("spexplus_online", precision="int8")):
        stream = extractor.stream(voice(rng, 140, 3 * RATE))
        mixture = voice(rng, 140, RATE) + voice(rng, 220, RATE)
        estimate = np.concatenate([stream.process(mixture), stream.flush()])
        assert estimate.shape == mixture.shape
        assert 1e-3 < np.abs(estimate).max() < 1
    total = sum(path.stat().st_size for path in pretrained.PACKAGED.rglob("*.onnx"))
    assert total <= 25e6
    card = (pretrained.PACKAGED / "spexplus_online" / "README.md").read_text()
    assert "| int8 |" in card[card.index(BEGIN) : card.index(END)]


def test_a_folder_is_a_release_or_an_export(release: Path) -> None:
    onnx = {"backend": "onnxruntime"}
    assert "state.body" in Extractor.from_pretrained(release, **onnx).zeros(1)
    float32, int8 = (Extractor.from_pretrained(release, precision=precision, **onnx) for precision in ("float32", "int8"))
    assert float32.shapes != int8.shapes
    assert Extractor.from_pretrained(str(release / "int8"), **onnx).shapes == int8.shapes  # an export has no sums
    with pytest.raises(UserError, match="expected a release with SHA256SUMS to choose int8 from"):
        Extractor.from_pretrained(release / "int8", precision="int8")
    with pytest.raises(UserError, match="expected one of float32, int8, found int4"):
        Extractor.from_pretrained(release, precision="int4")
    with pytest.raises(UserError, match=r"nowhere: expected a packaged model \(spexplus_online\), a folder or a URL"):
        Extractor.from_pretrained("nowhere")


def test_a_file_that_is_not_as_its_sum_says_is_refused(release: Path) -> None:
    path = release / "float32" / "step.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"float32/step\.onnx: expected the SHA-256 sum [0-9a-f]{64} of SHA256SUMS, found"):
        Extractor.from_pretrained(release)
    Extractor.from_pretrained(release, precision="int8")
    path.unlink()
    with pytest.raises(UserError, match=r"float32/step\.onnx: expected a file of the release"):
        Extractor.from_pretrained(release)


def test_a_url_is_downloaded_once_and_then_needs_no_network(server: Server, release: Path) -> None:
    first = Extractor.from_pretrained(server.url)
    assert sorted(server.asked) == ["SHA256SUMS", *GRAPHS[:3]]
    shutil.rmtree(release)
    again = Extractor.from_pretrained(server.url)
    assert len(server.asked) == 4
    assert first.metadata == again.metadata
    with pytest.raises(UserError, match=r"int8/enroll\.onnx: cannot be downloaded: HTTP Error 404"):
        Extractor.from_pretrained(server.url, precision="int8")


def test_a_download_that_is_not_as_its_sum_says_is_refused_and_not_kept(server: Server, release: Path, tmp_path: Path) -> None:
    whole = (release / "float32" / "step.onnx").read_bytes()
    (release / "float32" / "step.onnx").write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"step\.onnx: expected the SHA-256 sum [0-9a-f]{64}, found [0-9a-f]{64}: damaged"):
        Extractor.from_pretrained(server.url)
    assert not [path for path in (tmp_path / "cache").rglob("*") if "step" in path.name]
    (release / "float32" / "step.onnx").write_bytes(whole)
    Extractor.from_pretrained(server.url)
    (kept,) = (tmp_path / "cache").rglob("step.onnx")
    kept.write_bytes(b"damaged since")
    Extractor.from_pretrained(server.url)
    assert kept.read_bytes() == whole


def test_a_pinned_url_takes_no_other_release(server: Server, release: Path) -> None:
    pin = hashlib.sha256((release / "SHA256SUMS").read_bytes()).hexdigest()
    Extractor.from_pretrained(f"{server.url}#sha256={pin}")
    with pytest.raises(UserError, match=rf"SHA256SUMS: expected the SHA-256 sum {'0' * 64}, found {pin}"):
        Extractor.from_pretrained(f"{server.url}#sha256={'0' * 64}")


def test_a_model_that_the_sums_do_not_list_is_not_used(server: Server, release: Path) -> None:
    Extractor.from_pretrained(server.url)
    sums = "".join(line for line in (release / "SHA256SUMS").read_text().splitlines(True) if "model.ss" not in line)
    (release / "SHA256SUMS").write_text(sums)  # another release at the same URL, without a model for the C library
    pin = hashlib.sha256(sums.encode()).hexdigest()
    assert not isinstance(Extractor.from_pretrained(f"{server.url}#sha256={pin}"), NativeExtractor)
    with pytest.raises(UserError, match=r"float32/model\.ss: expected only files that SHA256SUMS lists"):
        Extractor.from_pretrained(release)


def test_no_network_and_nothing_in_the_cache(server: Server) -> None:
    url = server.url
    server.__exit__()
    with pytest.raises(UserError, match=r"SHA256SUMS: cannot be downloaded: .*refused"):
        Extractor.from_pretrained(url)


def test_the_commands_need_no_torch_and_no_model_option(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "anna.wav", voice(rng, 140, 4 * RATE), RATE)
    soundfile.write(tmp_path / "call.wav", voice(rng, 140, RATE) + voice(rng, 220, RATE), RATE)
    for name in ("torch", "hydra", "onnx", "scipy", "tqdm", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError('not installed')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    commands = [
        ["ss.runtime.extract", "call.wav", "--enrol", "anna.wav", "-o", "extracted.wav"],
        ["ss.runtime.live", "--input", "call.wav", "--fast", "--enrol", "anna.wav", "--output", "live.wav"],
    ]
    for words in commands:
        done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    extracted, live = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("extracted", "live"))
    np.testing.assert_allclose(extracted, live, atol=2.1 / 32768)


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.pth"
    model = {"_target_": "ss.model.SpexPlusOnline", **SIZES, **WINDOWS}
    config = {"model": model, "streamer": {"_target_": "ss.streamer.Whole"}, "data": {"sample_rate": RATE}}
    config["loss"] = {"_target_": "ss.loss.PresenceLoss"}
    checkpoint.save(path, {"config": config, "model": online().state_dict(), "speakers": ["s0"]})
    return path


def make_release(
    checkpoint: Path, triplets: Path, folder: Path, *more: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    data = [f"calibration={triplets}/dev", f"tests=[{triplets}/dev,{triplets}/test]", "metrics=fast"]
    return run(
        "inferencing/release.py", "-cn", "release", f"checkpoint={checkpoint}", f"folder={folder}", *data, *more, check=check
    )


def test_a_checkpoint_becomes_a_release(tiny_checkpoint: Path, triplets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "README.md").write_text(f"# Tiny\n\nBy hand.\n\n{BEGIN}\nold figures\n{END}\n\nMore by hand.\n")
    done = make_release(tiny_checkpoint, triplets, folder, "max_int8_loss=3")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["README.md", "SHA256SUMS", *GRAPHS]
    card = (folder / "README.md").read_text()
    assert card.startswith("# Tiny\n\nBy hand.\n")
    assert card.endswith(f"{END}\n\nMore by hand.\n")
    assert "old figures" not in card
    rows = [line.split(" | ")[:2] for line in card.splitlines() if line.startswith("| ")]
    assert rows[2:] == [["| dev", "float32"], ["| dev", "int8"], ["| test", "float32"], ["| test", "int8"]]
    assert card.split(BEGIN)[1].split(END)[0].strip() in done.stdout
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    extractor, enrolment = Extractor.from_pretrained(folder, "int8"), voice(np.random.default_rng(0), 140, RATE)
    np.testing.assert_allclose(
        extractor.enroll(enrolment).values, Extractor.from_pretrained(folder).enroll(enrolment).values, atol=0.02
    )
    assert list(tmp_path.iterdir()) == [folder]


def test_a_release_that_is_too_large_or_too_inexact_is_none(tiny_checkpoint: Path, triplets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    for limit, message in (
        ("max_mb=0.01", "expected graphs of at most 0.01 MB in sum, got 0."),
        ("max_int8_loss=-50", "dev: expected int8 within -50 dB of float32, got "),
        (f"tests=[{triplets}/dev,elsewhere/dev]", f"folders: expected different names, found {triplets}/dev and elsewhere/dev"),
        ("metrics=calls", "metrics: expected SI-SDRi among them, which int8 is judged by"),
    ):
        done = make_release(tiny_checkpoint, triplets, folder, limit, check=False)
        assert done.returncode == 2
        assert f"error: {message}" in done.stderr
        assert not list(tmp_path.iterdir())
