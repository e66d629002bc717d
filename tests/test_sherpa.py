"""Exports in sherpa-onnx: its own denoiser gives what Extractor gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, SIZES, WINDOWS, lively, run

from ss import audio
from ss.errors import UserError
from ss.export import export
from ss.model import SpexPlusOnline, SpexPlusShort
from ss.runtime import Extractor
from ss.runtime.pretrained import ENROLL

sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs sherpa-onnx: pip install '.[interop]'")
SECONDS = 3
SPEECH = ROOT / "demo/speech"


def assert_equals_extractor(folder: Path, extractor: Extractor, blocks: list[int]) -> None:
    """The denoiser, fed in blocks of these sizes in turn, gives Extractor's estimate, but for the end."""
    enrolment = audio.read(SPEECH / "reader-enrolment.flac", RATE)[: SECONDS * RATE]
    soundfile.write(folder / "voice.wav", enrolment, RATE, subtype="FLOAT")
    mixture = audio.read(SPEECH / "man.flac", RATE)[: 2 * RATE + 77] + audio.read(SPEECH / "woman.flac", RATE)[: 2 * RATE + 77]
    voxlock = sherpa_onnx.OfflineSpeechDenoiserVoxLockModelConfig(
        enroll_model=str(folder / ENROLL), chunk_model=str(folder / "chunk.onnx"), voice_sample=str(folder / "voice.wav")
    )
    model = sherpa_onnx.OfflineSpeechDenoiserModelConfig(voxlock=voxlock)
    denoiser, found, begin = sherpa_onnx.OnlineSpeechDenoiser(sherpa_onnx.OnlineSpeechDenoiserConfig(model=model)), [], 0
    while begin < len(mixture):
        block = mixture[begin : begin + blocks[len(found) % len(blocks)]]
        found.append(np.array(denoiser(block, RATE).samples, np.float32))
        begin += len(block)
    live = np.concatenate([*found, np.array(denoiser.flush().samples, np.float32)])
    whole = sherpa_onnx.OfflineSpeechDenoiser(sherpa_onnx.OfflineSpeechDenoiserConfig(model=model))(mixture, RATE).samples
    stream = extractor.stream(enrolment)
    expected = np.concatenate([stream.process(mixture), stream.flush()])
    end = len(mixture) - extractor.latency
    assert len(live) == len(whole) == len(mixture)
    assert np.abs(expected[:end]).max() > 1e-3
    for estimate in (live, whole):
        np.testing.assert_allclose(estimate[:end], expected[:end], atol=1e-5)


def test_the_released_model(tmp_path: Path) -> None:
    words = ["checkpoint=models/spexplus_online/best.pth", f"folder={tmp_path}/exported", f"sherpa={SECONDS}"]
    run("inferencing/export.py", "-cn", "export", *words)
    assert_equals_extractor(tmp_path / "exported", Extractor.from_pretrained(), [1, 160, 333, 4000])


def test_a_segment_model_is_refused(tmp_path: Path) -> None:
    streamer = {"_target_": "ss.streamer.Streamer", "chunk_window": 800, "chunk_step": 400, "overlap_add_method": "half"}
    model = SpexPlusShort(**SIZES, short_kernel=40)
    with pytest.raises(UserError, match="sherpa: expected whole seconds, .* of a SpexPlusOnline; got 3 of a SpexPlusShort"):
        export(model, tmp_path, streamer=streamer, sherpa=SECONDS)


@pytest.mark.parametrize("changes", [{}, {"lookahead": 2, "memory": "lstm"}, {"synthesis_kernel": 24}])
def test_exports(changes: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    export(lively(SpexPlusOnline(**{**SIZES, **WINDOWS, **changes})), tmp_path / "exported", sherpa=SECONDS)
    assert_equals_extractor(tmp_path / "exported", Extractor.load(tmp_path / "exported"), [480])
