"""Live streams of an exported model: any split, any type, any rate, whatever comes in."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import soxr
import torch
from conftest import RATE, ROOT, voice
from test_export import online

from ss.errors import UserError
from ss.export import export
from ss.model import SpexPlusOnline
from ss.runtime import Extractor, Stream
from ss.runtime.resample import Resampler

SECONDS = 1.3


@pytest.fixture(scope="module")
def model() -> SpexPlusOnline:
    return online(lookahead=1)


@pytest.fixture(scope="module")
def folder(model: SpexPlusOnline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(model, folder)
    return folder


@pytest.fixture(scope="module")
def extractor(folder: Path) -> Extractor:
    return Extractor.load(folder, backend="onnxruntime")


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    rng, samples = np.random.default_rng(2), round(SECONDS * RATE)
    return voice(rng, 140, samples) + voice(rng, 210, samples)


@pytest.fixture(scope="module")
def whole(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    return everything(extractor.stream(enrolment), [mixture])


def everything(stream: Stream, blocks: list[np.ndarray]) -> np.ndarray:
    """All that comes out for these blocks, and the end."""
    return np.concatenate([*(stream.process(block) for block in blocks), stream.flush()])


def blocks(samples: np.ndarray, seed: int, longest: int) -> list[np.ndarray]:
    """Samples in blocks of random lengths, empty ones among them."""
    ends = np.cumsum(np.random.default_rng(seed).integers(0, longest, len(samples)))
    return np.split(samples, ends[ends < len(samples)])


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=tolerance)


@torch.inference_mode()
def test_a_stream_is_the_model(model: SpexPlusOnline, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray) -> None:
    expected = model(torch.from_numpy(mixture)[None, None], torch.from_numpy(enrolment)[None]).waves[0][0, 0].numpy()
    assert np.abs(expected).max() > 0.01
    close(whole, expected)


@pytest.mark.parametrize(("seed", "longest"), [(0, 60), (1, 400), (2, 9000)])
def test_any_split_gives_the_same(
    extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray, seed: int, longest: int
) -> None:
    close(everything(extractor.stream(enrolment), blocks(mixture, seed, longest)), whole)


def test_nothing_is_held_back_but_delay_and_unfinished_hops(
    extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray
) -> None:
    stream, taken, given = extractor.stream(enrolment), 0, 0
    for block in blocks(mixture[:6000], 3, 90):
        estimate = stream.process(block)
        taken, given = taken + len(block), given + len(estimate)
        assert given == max(0, taken // extractor.hop * extractor.hop - extractor.delay)


def test_more_input_never_changes_earlier_output(
    extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray
) -> None:
    changed = mixture.copy()
    changed[5000:] = np.random.default_rng(4).standard_normal(len(mixture) - 5000) / 10
    estimate = everything(extractor.stream(enrolment), [changed])
    safe = 5000 - extractor.latency + 1
    close(estimate[:safe], whole[:safe])
    assert np.abs(estimate[safe + extractor.latency :] - whole[safe + extractor.latency :]).max() > 1e-3


@pytest.mark.parametrize("samples", [0, 1, 23, 24, 25, 777])
def test_as_much_comes_out_as_went_in(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, samples: int) -> None:
    assert everything(extractor.stream(enrolment), [mixture[:samples]]).shape == (samples,)


def test_reset_is_a_new_stream(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray) -> None:
    stream = extractor.stream(enrolment)
    stream.process(mixture[3000:8001])
    stream.flush()
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.process(mixture)
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.flush()
    stream.reset()
    np.testing.assert_array_equal(everything(stream, [mixture]), whole)


def test_interleaved_streams_do_not_disturb_each_other(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    others = [(enrolment, mixture), (enrolment[::-1], 0.3 * mixture[::-1]), (mixture, mixture[5:])]
    alone = [everything(extractor.stream(ref), [wave]) for ref, wave in others]
    streams = [extractor.stream(ref) for ref, _ in others]
    turns = zip(*(blocks(wave[:20000], seed, 300) for seed, (_, wave) in enumerate(others)), strict=False)
    pieces = [[stream.process(block) for stream, block in zip(streams, turn, strict=True)] for turn in turns]
    for mine, expected in zip(zip(*pieces, strict=True), alone, strict=True):
        together = np.concatenate(mine)
        assert len(together) > 5000
        close(together, expected[: len(together)])


def test_a_batch_of_streams_equals_separate_ones(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    mixtures = np.stack([mixture, mixture[::-1], 0.1 * mixture])
    enrolments = [enrolment, mixture, enrolment[:9000]]
    batch = extractor.streams(enrolments)
    pieces = [batch.process(block.T) for block in blocks(mixtures.T, 5, 500)]
    together = np.concatenate([*pieces, batch.flush()], 1)
    for estimate, ref, wave in zip(together, enrolments, mixtures, strict=True):
        close(estimate, everything(extractor.stream(ref), [wave]))


def test_one_run_of_the_model_a_call(folder: Path, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    extractor, runs = Extractor.load(folder, backend="onnxruntime"), []
    step = extractor.step
    extractor.step = lambda *given: (runs.append(len(given[0])), step(*given))[1]  # type: ignore[method-assign]
    extractor.streams([enrolment] * 3).process(np.stack([mixture[:480]] * 3))
    assert runs == [3]


def test_conditions_can_be_kept(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray) -> None:
    np.testing.assert_array_equal(everything(extractor.stream(extractor.enroll(enrolment)), [mixture]), whole)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_sample_rates(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, rate: int) -> None:
    low = soxr.resample(soxr.resample(mixture, RATE, 7000), 7000, RATE).astype(np.float32)  # what every rate can hold
    refs, waves = ([soxr.resample(wave, RATE, to).astype(np.float32) for to in (RATE, rate)] for wave in (enrolment, low))
    expected = soxr.resample(everything(extractor.stream(refs[0]), [waves[0]]), RATE, rate)
    stream = extractor.stream(extractor.enroll(refs[0]), sample_rate=rate)
    estimate = everything(stream, blocks(waves[1], 6, rate // 50))
    assert len(estimate) == len(waves[1])
    middle, limit = slice(rate // 4, rate), 0.02 * np.abs(expected).max()
    band = soxr.resample(soxr.resample(np.stack([estimate[: len(expected)], expected], 1), rate, 6000), 6000, rate)
    assert np.abs(np.diff(band[middle])).max() < limit
    close(extractor.enroll(refs[1], rate).values, extractor.enroll(refs[0]).values, 0.5)


@pytest.mark.parametrize(
    ("before", "after"), [(8000, 16000), (16000, 8000), (44100, 16000), (16000, 44100), (48000, 16000), (16000, 15937)]
)
def test_resampling_in_a_stream(before: int, after: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(before) / before, dtype=np.float64).astype(np.float32)[None]
    resampler, pieces, taken = Resampler(1, before, after), [], 0
    for block in blocks(tone.T, 7, before // 40):
        pieces.append(resampler(block.T))
        taken += len(block)
        assert taken / before - sum(piece.shape[1] for piece in pieces) / after < 0.003
    pieces.append(resampler(tone[:, :0], last=True))
    out = np.concatenate(pieces, 1)[0]
    assert len(out) == after
    expected = np.sin(2 * np.pi * 1000 * np.arange(after) / after)
    np.testing.assert_allclose(out[after // 10 : -after // 10], expected[after // 10 : -after // 10], atol=1e-3)


@pytest.mark.parametrize(("before", "after"), [(383983, 16000), (16000, 383983)])
def test_rates_with_nothing_in_common_take_no_great_memory(before: int, after: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(before // 10) / before).astype(np.float32)[None]
    tracemalloc.start()
    out = Resampler(1, before, after)(tone, last=True)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(out)) / after)
    inner = slice(len(out) // 10, -len(out) // 10)
    np.testing.assert_allclose(out[inner], expected[inner], atol=1e-4)
    assert peak < 100e6  # the filters of all phases would be 1 GB while they are made


def test_int16_and_stereo(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray) -> None:
    quantised = np.rint(mixture * 32768).astype(np.int16)
    estimate = everything(extractor.stream(enrolment), blocks(quantised, 8, 700))
    assert estimate.dtype == np.int16
    close(estimate / 32768, whole, 3e-4)
    stereo = np.stack([mixture + 0.1, mixture - 0.1], 1)
    close(everything(extractor.stream(np.stack([enrolment] * 2, 1)), blocks(stereo, 9, 700)), whole)
    assert extractor.stream(enrolment).process(quantised[:0]).dtype == np.int16


def test_float64_as_files_are_read_by_default(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    stream, double = extractor.stream(enrolment), extractor.stream(enrolment.astype(float))
    found = [np.concatenate([one.process(wave), one.flush()]) for one, wave in ((stream, mixture), (double, mixture.astype(float)))]
    assert [wave.dtype for wave in found] == [np.float32, np.float64]
    np.testing.assert_array_equal(*found)


def test_int16_is_clipped_not_wrapped(extractor: Extractor, enrolment: np.ndarray) -> None:
    loud = np.where(np.arange(8000) % 160 < 80, 32767, -32768).astype(np.int16)
    as_float = everything(extractor.stream(enrolment), [loud / np.float32(32768)])
    estimate = everything(extractor.stream(enrolment), [loud])
    close(estimate / 32768, as_float.clip(-1, 1), 1e-3)


def patch(kind: str, samples: int) -> np.ndarray:
    """What should never come in."""
    rng = np.random.default_rng(0)
    return {
        "silence": np.zeros(samples),
        "DC": np.full(samples, 0.9),
        "clipping": np.sign(rng.standard_normal(samples)),
        "denormals": np.full(samples, 1e-40),
        "NaN": np.full(samples, np.nan),
        "some infinite": np.where(rng.random(samples) < 0.01, -np.inf, 0.1),
        "far too loud": 1e30 * rng.standard_normal(samples),
    }[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["silence", "DC", "clipping", "denormals", "NaN", "some infinite", "far too loud"])
def test_a_bad_patch_passes(folder: Path, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray, kind: str) -> None:
    """Output is finite throughout, and that of a clean stream again once the bad patch is behind what the model hears."""
    export(online(memory="none"), tmp_path)  # hears a second back at most: it forgets exactly
    for extractor, forgets in ((Extractor.load(folder), False), (Extractor.load(tmp_path), True)):
        wave = np.concatenate([mixture[:4000], patch(kind, 2000), mixture, mixture])
        clean = wave.copy()
        clean[4000:6000] = mixture[4000:6000]
        stream = extractor.stream(enrolment)
        with np.errstate(all="raise"):
            estimate = everything(stream, [wave])
        assert stream.repaired == np.count_nonzero(~np.isfinite(wave))
        assert np.isfinite(estimate).all()
        assert np.abs(estimate).max() < 100
        assert np.abs(estimate[-8000:]).max() > 1e-3
        if forgets:
            close(estimate[8000:], everything(extractor.stream(enrolment), [clean])[8000:])


def test_a_long_session_is_as_light_at_the_end_as_at_the_beginning(extractor: Extractor, enrolment: np.ndarray) -> None:
    stream, block = extractor.stream(enrolment), voice(np.random.default_rng(3), 180, RATE // 100)
    carried, memory = [], []
    for tick in range(120 * 100):
        stream.process(block)
        if tick % 3000 == 2999:
            carried.append([value.shape for value in (*stream.states.values(), stream.waiting)])
            memory.append(resident())
    assert all(now == carried[0] for now in carried)
    assert memory[-1] - memory[0] < 4e6  # a leak of half a kilobyte a block would be more
    assert stream.states["state.body"].nbytes < 1e4


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_whole_recording_at_once_needs_no_great_memory(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    rows = []
    step = extractor.step
    try:
        extractor.step = lambda *given: (rows.append(given[0].shape[1]), step(*given))[1]  # type: ignore[method-assign]
        extractor.stream(enrolment).process(np.tile(mixture, 5))
    finally:
        del extractor.step  # type: ignore[method-assign]
    assert max(rows) <= 128 * extractor.hop


def test_another_rate_needs_no_great_memory_either(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    stream, wave = extractor.stream(extractor.enroll(enrolment), 48000), np.tile(mixture, 30)
    tracemalloc.start()
    stream.process(wave)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all windows of the resampler at once would be 100 MB, and 600 MB for six times as much


def test_files_of_any_rate_and_number_of_channels(extractor: Extractor, enrolment: np.ndarray, tmp_path: Path) -> None:
    at_44k = soxr.resample(enrolment, RATE, 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([at_44k] * 2, 1), 44100, subtype="FLOAT")
    close(extractor.enroll(tmp_path / "a.wav").values, extractor.enroll(enrolment).values, 0.1)
    close(extractor.enroll(str(tmp_path / "a.wav")).values, extractor.enroll(at_44k.astype(np.float32), 44100).values, 1e-5)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(300, np.float32), r"an enrolment of 0\.02 seconds is too short"),
        (np.zeros(2 * RATE, np.float32), "expected speech as enrolment, found silence"),
        (np.zeros(0, np.float32), "expected samples, got none"),
        (np.zeros((2, 2, 2), np.float32), r"got shape \[2, 2, 2\]"),
        (np.zeros((2, 9000), np.float32), r"at most 64 of them, got shape \[2, 9000\]"),
        (np.zeros(9000, np.int32), "expected samples of int16, float32 or float64, got int32"),
        (np.full(9000, np.nan, np.float32), "found 9000 that are NaN or infinite"),
        ("nowhere.wav", "nowhere.wav: expected a readable audio file, but: there is no such file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_enrolments_that_are_none(extractor: Extractor, samples: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor.enroll(samples)


def test_input_that_is_none(extractor: Extractor, enrolment: np.ndarray) -> None:
    stream = extractor.stream(enrolment)
    with pytest.raises(ValueError, match="expected samples of int16, float32 or float64, got int32"):
        stream.process(np.zeros(10, np.int32))
    for wrong in (np.float32(1), np.zeros((10, 0), np.float32), np.zeros((2, 10, 1), np.float32)):
        with pytest.raises(UserError, match=r"expected samples \[n\] or \[n,channels\], at most 64 of them, got shape \["):
            stream.process(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected samples of 2 streams, got 3"):
        extractor.streams([enrolment] * 2).process(np.zeros((3, 10), np.float32))
    with pytest.raises(UserError, match="expected at least one enrolment"):
        extractor.streams([])
    for rate in (3999, 384001):
        with pytest.raises(UserError, match=f"expected a sample rate from 4000 to 384000 Hz, got {rate}"):
            extractor.stream(enrolment, rate)


def test_files_that_are_no_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"enroll\.onnx: expected a file of an exported model, but there is none"):
        Extractor.load(tmp_path)
    (tmp_path / "enroll.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"enroll\.onnx: expected an exported model, but ONNX Runtime says"):
        Extractor.load(tmp_path)
    write_with(tmp_path, folder, None)
    with pytest.raises(UserError, match=r"enroll\.onnx: expected a model that ss exported, found another ONNX file"):
        Extractor.load(tmp_path)
    write_with(tmp_path, folder, "2")
    with pytest.raises(UserError, match=r"expected format 1 or older, found 2: this model needs a newer version of ss"):
        Extractor.load(tmp_path)


def write_with(to: Path, folder: Path, version: str | None) -> None:
    """The enrolling graph with another format version."""
    graph = onnx.load(folder / "enroll.onnx")
    del graph.metadata_props[:]
    if version:
        onnx.helper.set_model_props(graph, {"format": version})
    onnx.save(graph, to / "enroll.onnx")


def test_it_works_where_torch_is_not(folder: Path, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    np.savez(tmp_path / "in.npz", enrolment=enrolment, mixture=mixture)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'hydra', 'onnx', 'scipy')));"
        "import numpy as np; from ss.runtime import Extractor;"
        f"given = np.load('{tmp_path}/in.npz'); stream = Extractor.load('{folder}').stream(given['enrolment'], sample_rate=48000);"
        "assert len(stream.process(given['mixture'])) + len(stream.flush()) == len(given['mixture'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
