"""Exports of the segment family: the same extractor, streams and commands as those of online models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import RATE, ROOT, SIZES, lively, run, voice
from test_export import online
from test_runtime import blocks, close, everything

from ss import checkpoint
from ss.checkpoint import load_extractor
from ss.errors import UserError
from ss.export import export
from ss.export.extractor import ExportedExtractor
from ss.extraction import separate
from ss.inferencer import Inferencer
from ss.measure.backend import Streams
from ss.measure.latency import measure_latency
from ss.runtime import Extractor
from ss.streamer import Streamer

WINDOW = 1600
METHODS = {"half": WINDOW // 2, "nonintersec": WINDOW}
FAMILY: dict[str, dict[str, Any]] = {
    "SpexPlus": {"middle_kernel": 80, "long_kernel": 160},
    "SpexPlusShort": {},
    "SpexPlusShortRNN": {},
    "SpexPlusShortCacheModel": {"memory_size": 5},
    "SpexPlusShortSpecialChannelsModel": {"n_sp_channels": 3},
    **{f"SpexPlusShortGRUModel {v}": {"memory_size": 8, "version": v, "time_dim": 79 if v == 3 else None} for v in range(4)},
}


def save(path: Path, name: str = "SpexPlusShortGRUModel 0", method: str = "half") -> Path:
    """A checkpoint of a member of the family with random weights."""
    kind = name.split()[0]
    model = {"_target_": f"ss.model.{kind}", **SIZES, "short_kernel": 40, "causal": True, **FAMILY[name]}
    streamer = {"_target_": "ss.streamer.Streamer", "chunk_window": WINDOW, "chunk_step": METHODS[method]}
    config = {"model": model, "streamer": {**streamer, "overlap_add_method": method}, "data": {"sample_rate": RATE}}
    torch.manual_seed(0)
    weights = lively(checkpoint.build(model)).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, {"config": {**config, "loss": {"_target_": "ss.loss.SpexPlusShortLoss"}}, "model": weights})
    return path


def test_a_checkpoint_of_the_predecessor_exports(tmp_path: Path) -> None:
    streamer = {"_target_": "ss.streamer.Streamer", "chunk_window": WINDOW, "chunk_step": WINDOW // 2, "overlap_add_method": "half"}
    golden = ROOT / "tests" / "assets" / "golden" / "predecessor_checkpoint.pth"
    assert export(golden, tmp_path / "exported", streamer=streamer) < 1e-4


def in_torch(path: Path, mixture: np.ndarray, enrolment: np.ndarray) -> np.ndarray:
    """The estimate as training and testing compute it, before it is brought to a level."""
    with torch.inference_mode():
        waves = separate(
            load_extractor(path), Inferencer(path).streamer, *(torch.from_numpy(x)[None] for x in (mixture, enrolment))
        )
    return waves.waves[0][0].numpy()


@pytest.fixture(scope="module", params=METHODS)
def best(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint beside its export."""
    path = save(tmp_path_factory.mktemp("segments") / "best.pth", method=request.param)
    export(path, path.parent / "exported")
    return path


@pytest.fixture
def extractor(best: Path) -> Extractor:
    return Extractor.load(best.parent / "exported")


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    rng = np.random.default_rng(2)
    return voice(rng, 140, 12345) + voice(rng, 210, 12345)


@pytest.mark.parametrize("name", FAMILY)
def test_every_model_of_the_family(name: str, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    path = save(tmp_path / "best.pth", name)
    export(path, tmp_path / "exported")
    expected = in_torch(path, mixture, enrolment)
    assert np.abs(expected).max() > 1e-3
    close(everything(Extractor.load(tmp_path / "exported").stream(enrolment), [mixture]), expected)
    ref = torch.from_numpy(enrolment)[None]
    chunks = Inferencer(path).streamer.split(torch.from_numpy(mixture)[None])
    model, exported = load_extractor(path), ExportedExtractor(tmp_path / "exported")
    for mine, theirs in zip(exported(chunks, ref).waves, model(chunks, ref).waves, strict=False):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(exported(chunks, ref).logits, model(chunks, ref).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 799, 1600, 1601, 2400, 4000, 12345])
def test_a_stream_is_the_model_whatever_the_length(
    best: Path, extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, samples: int
) -> None:
    expected = in_torch(best, mixture[:samples], enrolment)
    for longest in (50, 9000):
        close(everything(extractor.stream(enrolment), blocks(mixture[:samples], samples, longest)), expected)
    stream = extractor.stream(enrolment)
    stream.process(mixture[5000:])
    stream.flush()
    stream.reset()
    close(everything(stream, [mixture[:samples]]), expected)


def test_a_batch_other_rates_types_and_bad_samples(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    alone = everything(extractor.stream(enrolment), [mixture])
    batch = extractor.streams([enrolment, enrolment[::-1]])
    both = np.concatenate([*(batch.process(np.stack([part] * 2)) for part in blocks(mixture, 3, 700)), batch.flush()], 1)
    close(both[0], alone)
    assert np.abs(both[1] - alone).max() > 1e-4
    at_48k = soxr.resample(mixture, RATE, 48000).astype(np.float32)
    out = everything(extractor.stream(extractor.enroll(enrolment), 48000), blocks(at_48k, 4, 3000))
    assert out.shape == at_48k.shape
    back = soxr.resample(out, 48000, RATE)
    assert np.abs(back[2000:10000] - alone[2000:10000]).max() < 0.05 * np.abs(alone).max()
    ints = everything(extractor.stream(enrolment), [np.rint(mixture * 32768).astype(np.int16)])
    close(ints / 32768, alone, 1e-3)
    bad = mixture.copy()
    bad[3000:3100] = np.nan
    stream = extractor.stream(enrolment)
    assert np.isfinite(everything(stream, [bad])).all()
    assert stream.repaired == 100


def test_latency_and_delay_are_what_the_model_says(best: Path, extractor: Extractor, enrolment: np.ndarray) -> None:
    streamer = Inferencer(best).streamer
    assert isinstance(streamer, Streamer)
    assert (extractor.hop, extractor.delay, extractor.latency) == (streamer.step, WINDOW - streamer.step, WINDOW)
    found = measure_latency(Streams(lambda: extractor.stream(enrolment).process, extractor.hop, extractor.hop))
    assert found.waits == extractor.latency


def test_the_commands_take_segments_and_say_their_latency(
    best: Path, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray
) -> None:
    soundfile.write(tmp_path / "anna.wav", enrolment, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "call.wav", mixture, RATE, subtype="FLOAT")
    run_dir = tmp_path / "exported"
    said = run("inferencing/export.py", "-cn", "export", f"checkpoint={best}", f"folder={run_dir}").stdout
    assert "SpeakerHandler.onnx" in said
    assert "from torch" in said
    expected = in_torch(best, mixture, enrolment)
    words = ["--model", str(run_dir), "--enrol", "anna.wav", "--quiet"]
    for module, more in (
        ("ss.runtime.extract", ["call.wav", "-o", "extracted.wav"]),
        (
            "ss.runtime.live",
            ["--input", "call.wav", "--fast", "--output", "live.wav", "--format", "f32le", "--report", "report.json"],
        ),
    ):
        command = [sys.executable, "-m", module, *more, *words]
        done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in ("extracted", "live"):
        close(soundfile.read(tmp_path / f"{name}.wav", dtype="float32")[0], expected)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["algorithmic_ms"] == 1000 * WINDOW / RATE
    assert report["buffering_ms"] == pytest.approx(0)


def test_a_folder_holds_one_model_the_newest(tmp_path: Path, enrolment: np.ndarray) -> None:
    path, folder = save(tmp_path / "best.pth"), tmp_path / "exported"
    export(path, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["GRUMainModel.onnx", "SpeakerHandler.onnx"]
    export(online(), folder)
    assert sorted(file.name for file in folder.iterdir()) == ["enroll.onnx", "model.ss", "step.onnx"]
    assert Extractor.load(folder).online
    assert ExportedExtractor(folder).online
    export(path, folder)
    assert not Extractor.load(folder).online
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pth", "exported"]
    (folder / "step.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="expected the files of one model, found those of two"):
        Extractor.load(folder)


def test_a_swap_that_fails_leaves_the_former_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exported"
    export(online(), folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if Path(target) == folder and not path.name.endswith(".old"):
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no space left"):
        export(online(memory="none"), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"or an export to replace; found notes\.txt in it"):
        export(online(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
