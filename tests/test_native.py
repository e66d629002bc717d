"""The C library, which the tests build, against torch and ONNX Runtime: every kind of online model, any chunks, hostile files."""

import os
import shutil
import struct
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, ROOT, voice
from test_export import VARIANTS, online
from test_runtime import blocks, close, everything

from ss.checkpoint import load_extractor
from ss.errors import UserError
from ss.export import export, largest_difference
from ss.export.extractor import ExportedExtractor
from ss.export.native import largest_factor, model_bytes
from ss.measure.backend import Workload
from ss.measure.bench import BenchSettings, write_backends
from ss.measure.worker import run_alone
from ss.model import SpexPlusOnline
from ss.runtime import Extractor, native
from ss.runtime.extractor import NativeExtractor
from ss.runtime.native import NativeModel, open_library

COMPILER = shutil.which(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
HEADER = 24  # bytes before the options


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The library, built for these tests."""
    out = tmp_path_factory.mktemp("libss")
    subprocess.run(["make", "-s", "-C", str(ROOT / "libss"), f"OUT={out}", f"{out}/libss.so"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.VARIABLE, str(out / "libss.so"))
        yield out / "libss.so"


@pytest.fixture(scope="module")
def model() -> SpexPlusOnline:
    return online(lookahead=1, memory="lstm", complex_mask=True)


@pytest.fixture(scope="module")
def folder(model: SpexPlusOnline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(model, folder)
    return folder


@pytest.fixture(scope="module")
def extractor(folder: Path) -> Extractor:
    return Extractor.load(folder)


@pytest.fixture(scope="module")
def mixture() -> np.ndarray:
    rng = np.random.default_rng(2)
    return voice(rng, 140, 20000) + voice(rng, 210, 20000)


@pytest.fixture(scope="module")
@torch.inference_mode()
def whole(model: SpexPlusOnline, enrolment: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """What torch makes of it."""
    return model(torch.from_numpy(mixture)[None, None], torch.from_numpy(enrolment)[None]).waves[0][0, 0].numpy()


def save(model: SpexPlusOnline, path: Path, int8: bool = False) -> NativeExtractor:
    """The model in the library."""
    path.write_bytes(model_bytes(model, RATE, int8=int8))
    return NativeExtractor(path)


MORE: dict[str, dict[str, Any]] = {
    "hidden channels of each block": {"hidden_channels": [8, 0, 24, 40, 0, 3], "memory": "lstm"},
    "odd sizes": {"n_channels": 13, "hidden_channels": 7, "out_channels": 5, "memory": "lstm", "complex_mask": True},
    "odd sizes, gru": {"n_channels": 37, "hidden_channels": 71, "memory": "gru", "lookahead": 3},
    "wide": {"n_channels": 80, "hidden_channels": 150, "n_stacked_tcnblocks": 3, "memory": "lstm"},
    "one tap": {"taps": 1, "memory": "none"},
    "four taps": {"taps": 4, "memory": "none", "complex_mask": True},
    "three windows, many factors": {"kernels": [44, 60, 364], "synthesis_kernel": 40, "hop": 20},
    "one embedding block": {"n_resnetblocks": 1},
    "no embedding block": {"n_resnetblocks": 0},
    "four embedding blocks": {"n_resnetblocks": 4},
    "embedding as wide as the channels": {"out_channels": 16},
    "one stack, one block": {"n_stacked_tcnblocks": 1, "n_tcnblocks": 1},
}


@pytest.mark.parametrize("kernel", ["avx512vnni", "avx2", "sse2"])
@pytest.mark.parametrize("changes", [*VARIANTS.values(), *MORE.values()], ids=[*VARIANTS, *MORE])
def test_every_variant_equals_torch(changes: dict[str, Any], kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_KERNEL", kernel)
    model = online(**changes)
    extractor = save(model, tmp_path / "model.ss")
    if extractor.kernel != kernel:
        pytest.skip(f"this processor has no {kernel}")
    assert largest_difference(model, extractor) < 1e-5


def test_facts(extractor: Extractor, folder: Path) -> None:
    other = Extractor.load(folder, backend="onnxruntime")
    assert isinstance(extractor, NativeExtractor)
    assert not isinstance(other, NativeExtractor)
    for fact in ("sample_rate", "hop", "delay", "latency", "shortest_enrolment", "online", "window", "classifies", "metadata"):
        assert getattr(extractor, fact) == getattr(other, fact), fact


@pytest.mark.parametrize(("seed", "longest"), [(0, 2), (1, 60), (2, 400), (3, 9000), (4, 40000)])
def test_any_split_equals_torch(
    extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray, seed: int, longest: int
) -> None:
    n = 3000 if longest == 2 else len(mixture)
    estimate = everything(extractor.stream(enrolment), blocks(mixture[:n], seed, longest))
    assert len(estimate) == n
    safe = n if n == len(mixture) else n - extractor.latency
    close(estimate[:safe], whole[:safe], 1e-5)


@pytest.mark.parametrize("samples", [0, 1, 23, 24, 25, 777])
def test_as_much_comes_out_as_went_in(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray, samples: int) -> None:
    assert everything(extractor.stream(enrolment), [mixture[:samples]]).shape == (samples,)


def test_nothing_is_held_back_but_delay_and_unfinished_hops(
    extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray
) -> None:
    stream, taken, given = extractor.stream(enrolment), 0, 0
    for block in blocks(mixture[:6000], 3, 90):
        estimate = stream.process(block)
        taken, given = taken + len(block), given + len(estimate)
        assert given == max(0, taken // extractor.hop * extractor.hop - extractor.delay)


def test_reset_is_a_new_stream(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    stream = extractor.stream(enrolment)
    first = everything(stream, [mixture])
    for call in (lambda: stream.process(mixture), stream.flush):
        with pytest.raises(ValueError, match="the stream has ended"):
            call()
    stream.reset()
    np.testing.assert_array_equal(everything(stream, [mixture]), first)
    stream.reset()
    stream.process(mixture[3000:8001])
    stream.reset()
    np.testing.assert_array_equal(everything(stream, [mixture]), first)


def test_a_step_after_a_flush_begins_anew(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    used, new = extractor.stream(enrolment), extractor.stream(enrolment)
    used.process(mixture[:777])
    used.flush()
    hops = np.ascontiguousarray(mixture[: 20 * extractor.hop])
    found, expected = np.empty_like(hops), np.empty_like(hops)
    for stream, out in ((used, found), (new, expected)):
        stream.library.ss_stream_step(stream.pointer, hops.ctypes.data, 20, out.ctypes.data)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, expected)


def test_interleaved_streams_do_not_disturb_each_other(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    others = [(enrolment, mixture), (enrolment[::-1], 0.3 * mixture[::-1]), (mixture, mixture[5:])]
    alone = [everything(extractor.stream(ref), [wave]) for ref, wave in others]
    streams = [extractor.stream(ref) for ref, _ in others]
    turns = zip(*(blocks(wave, seed, 300) for seed, (_, wave) in enumerate(others)), strict=False)
    pieces = [[stream.process(block) for stream, block in zip(streams, turn, strict=True)] for turn in turns]
    for mine, expected in zip(zip(*pieces, strict=True), alone, strict=True):
        together = np.concatenate(mine)
        assert len(together) > 5000
        close(together, expected[: len(together)], 1e-6)


def test_a_batch_of_streams_equals_separate_ones(extractor: Extractor, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    mixtures = np.stack([mixture, mixture[::-1], 0.1 * mixture])
    enrolments = [enrolment, mixture, enrolment[:9000]]
    batch = extractor.streams(enrolments)
    for _ in range(2):
        together = np.concatenate([*(batch.process(block.T) for block in blocks(mixtures.T, 5, 500)), batch.flush()], 1)
        for estimate, ref, wave in zip(together, enrolments, mixtures, strict=True):
            close(estimate, everything(extractor.stream(ref), [wave]), 1e-6)
        batch.reset()


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_int16_stereo_and_other_rates_as_in_onnx_runtime(
    extractor: Extractor, folder: Path, enrolment: np.ndarray, mixture: np.ndarray, rate: int
) -> None:
    other = Extractor.load(folder, backend="onnxruntime")
    speaker = extractor.enroll([enrolment, mixture])
    close(speaker.values, other.enroll([enrolment, mixture]).values, 1e-5)
    bad = mixture.copy()
    bad[3000:3100:7], bad[5000:5010], bad[7000], bad[9000] = np.nan, np.inf, 1e30, 1e-30
    stereo = np.stack([bad, mixture], 1)
    loud = np.where(np.arange(8000) % 160 < 80, 32767, -32768).astype(np.int16)
    whole, double = (mixture * 32768).astype(np.int16), mixture.astype(float)
    for wave, tolerance in ((bad, 1e-5), (stereo, 1e-5), (double, 1e-5), (whole, 1), (loud, 1), (loud[:0], 0)):
        streams = extractor.stream(speaker, rate), other.stream(speaker, rate)
        estimate, expected = (everything(stream, blocks(wave, 8, 700)) for stream in streams)
        assert estimate.dtype == expected.dtype
        close(estimate, expected, tolerance)
        assert streams[0].repaired == streams[1].repaired == np.count_nonzero(~np.isfinite(wave))


def test_a_minute_of_the_released_model_equals_torch(tmp_path: Path) -> None:
    model = load_extractor(ROOT / "models" / "spexplus_online" / "best.pth")
    assert isinstance(model, SpexPlusOnline)
    compare_long(model, save(model, tmp_path / "model.ss"), seconds=60)


@pytest.mark.slow
def test_thirty_minutes_of_the_released_model_equal_torch(tmp_path: Path) -> None:
    model = load_extractor(ROOT / "models" / "spexplus_online" / "best.pth")
    assert isinstance(model, SpexPlusOnline)
    compare_long(model, save(model, tmp_path / "model.ss"), seconds=1800)


@torch.inference_mode()
def compare_long(model: SpexPlusOnline, extractor: Extractor, seconds: int) -> None:
    """Two voices with pauses, in chunks of random lengths, against torch in pieces of ten seconds."""
    rng = np.random.default_rng(0)
    enrolment = voice(rng, 140, 5 * RATE)
    state = model.init_state(model.enroll(torch.from_numpy(enrolment)[None]))
    stream, expected, found, worst, loudest = (
        extractor.stream(enrolment),
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
        0.0,
        0.0,
    )
    for piece in range(seconds // 10):
        levels = [0.0 if piece % 5 == pause else rng.uniform(0.2, 2) for pause in (1, 3)]
        wave = (levels[0] * voice(rng, 140, 10 * RATE + 80) + levels[1] * voice(rng, 210, 10 * RATE + 80)).astype(np.float32)
        wave = wave[: len(wave) // model.hop * model.hop]
        (out,), state = model.step(torch.from_numpy(wave)[None], state)
        expected = np.concatenate([expected, out[0].numpy()[model.delay if not piece else 0 :]])
        found = np.concatenate([found, *(stream.process(block) for block in blocks(wave, piece, 600))])
        n = min(len(found), len(expected))
        worst, loudest = max(worst, float(np.abs(found[:n] - expected[:n]).max())), max(loudest, float(np.abs(expected[:n]).max()))
        expected, found = expected[n:], found[n:]
    assert worst < 1e-4
    assert loudest > 0.05


def test_int8_is_near_float32(tmp_path: Path) -> None:
    """Against the float32 estimate of the released model; what it costs against targets is in docs/c_library.md."""
    model = load_extractor(ROOT / "models" / "spexplus_online" / "best.pth")
    assert isinstance(model, SpexPlusOnline)
    rng = np.random.default_rng(0)
    enrolment, mixture = voice(rng, 140, 3 * RATE), voice(rng, 140, 3 * RATE) + voice(rng, 210, 3 * RATE)
    exact, rounded = (save(model, tmp_path / f"{int8}.ss", int8) for int8 in (False, True))
    expected, estimate = (everything(one.stream(enrolment), [mixture]) for one in (exact, rounded))
    error = 10 * np.log10(np.square(expected).sum() / np.square(estimate - expected).sum())
    assert 20 < error < 60
    assert os.path.getsize(tmp_path / "True.ss") < 0.45 * os.path.getsize(tmp_path / "False.ss")


@pytest.mark.parametrize("changes", [*VARIANTS.values(), *MORE.values()], ids=[*VARIANTS, *MORE])
def test_int8_is_the_same_with_all_instructions(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of bytes are exact; what differs is the rounding of floats before."""
    (tmp_path / "model.ss").write_bytes(model_bytes(online(**changes), RATE, int8=True))
    wave, estimates = 0.1 * np.random.default_rng(0).standard_normal(5000, np.float32), {}
    for kernel in ("avx512vnni", "avx2", "sse2"):
        monkeypatch.setenv("SS_KERNEL", kernel)
        extractor = NativeExtractor(tmp_path / "model.ss")
        estimates[extractor.kernel] = everything(extractor.stream(wave), [wave])
    (first, *others) = estimates.values()
    assert np.abs(first).max() > 1e-3
    for other in others:
        assert np.abs(other - first).max() < 0.05 * np.abs(first).max()


def test_without_the_library_a_line_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(native.VARIABLE, str(tmp_path / "none.so"))
    assert type(Extractor.load(folder)) is Extractor
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the C library is not installed, so ONNX Runtime computes, at several times the cost"
    ]
    caplog.clear()
    Extractor.load(folder, backend="onnxruntime")
    assert not caplog.records


def test_the_example_compiles_and_extracts(folder: Path, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray) -> None:
    subprocess.run(["make", "-s", "-C", str(ROOT / "libss"), f"OUT={tmp_path}", f"{tmp_path}/example"], check=True)
    for name, wave in (("enrolment", enrolment), ("call", mixture)):
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="PCM_16")
    files = [folder / "model.ss", tmp_path / "enrolment.wav", tmp_path / "call.wav", tmp_path / "out.raw"]
    subprocess.run([tmp_path / "example", *files], check=True)
    waves = [soundfile.read(path, dtype="int16")[0] for path in files[1:3]]
    expected = everything(Extractor.load(folder).stream(waves[0]), [waves[1]])
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out.raw", np.int16), expected)
    done = subprocess.run([tmp_path / "example", *files[1:], "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected a model file, found other data" in done.stderr


def test_the_bench_ends_whatever_the_chunk(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(ROOT / "libss"), f"OUT={tmp_path}", f"{tmp_path}/bench"], check=True)
    for words, message in (
        (["10", "1000"], ""),
        *((["10", chunk], f"expected a chunk from a sample to 1000 ms, got {chunk} ms\n") for chunk in ("0", "-5", "1001", "x")),
        (["10"] * 17, "expected at most 16 chunk sizes, got 17\n"),
    ):
        command = [tmp_path / "bench", folder / "model.ss", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (int(bool(message)), message)


@pytest.mark.parametrize("int8", [False, True])
def test_webassembly(
    model: SpexPlusOnline, tmp_path: Path, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray, int8: bool
) -> None:
    zig = os.environ.get("ZIG") or (f"{sys.executable} -m ziglang" if find_spec("ziglang") else "")
    if not zig or not shutil.which("node"):
        pytest.skip("needs node, and ziglang or the variable ZIG")
    target = tmp_path / "libss.wasm"
    subprocess.run(["make", "-s", "-C", str(ROOT / "libss"), f"OUT={tmp_path}", f"ZIG={zig}", str(target)], check=True)
    (tmp_path / "model.ss").write_bytes(model_bytes(model, RATE, int8=int8))
    enrolment.astype(np.float32).tofile(tmp_path / "enrolment")
    mixture.astype(np.float32).tofile(tmp_path / "mixture")
    files = [tmp_path / name for name in ("model.ss", "enrolment", "mixture", "out")]
    subprocess.run(["node", str(ROOT / "tests/assets/libss.mjs"), str(target), *map(str, files), "128"], check=True)
    found = np.fromfile(tmp_path / "out", np.float32)
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() < (0.05 * np.abs(whole).max() if int8 else 1e-5)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(300, np.float32), r"an enrolment of 0\.02 seconds is too short"),
        (np.zeros(2 * RATE, np.float32), "expected speech as enrolment, found silence"),
        (np.full(9000, np.nan, np.float32), "found 9000 that are NaN or infinite"),
    ],
    ids=["short", "silent", "NaN"],
)
def test_enrolments_that_are_none(extractor: Extractor, samples: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        extractor.enroll(samples)
    with pytest.raises(UserError, match=r"too short|silence|NaN or infinite"):
        extractor.conditions_of(samples[None])


def test_conditions_that_are_none(extractor: Extractor, enrolment: np.ndarray) -> None:
    speaker = extractor.enroll(enrolment)
    with pytest.raises(UserError, match="expected [0-9]+ conditions, as this model's enroll gives them, got 3"):
        extractor.stream(speaker._replace(values=speaker.values[:, :3]))
    with pytest.raises(UserError, match="found numbers that are not finite"):
        extractor.stream(speaker._replace(values=speaker.values * np.float32(np.nan)))


def test_input_that_is_none(extractor: Extractor, enrolment: np.ndarray) -> None:
    stream = extractor.stream(enrolment)
    with pytest.raises(ValueError, match="expected samples of int16, float32 or float64, got int32"):
        stream.process(np.zeros(10, np.int32))
    for wrong in (np.float32(1), np.zeros((10, 0), np.float32)):
        with pytest.raises(UserError, match=r"expected samples \[n\] or \[n,channels\], at most 64 of them, got shape \["):
            stream.process(wrong)  # type: ignore[arg-type]


def signed(content: bytes) -> bytes:
    """The same with the size and the checksum of what it is."""
    content = content[:16] + struct.pack("<Q", len(content)) + content[24:]
    return content[:12] + struct.pack("<I", zlib.crc32(content[16:])) + content[16:]


def with_word(content: bytes, place: int, word: int) -> bytes:
    """The same with another word of 32 bits at a place, signed."""
    return signed(content[:place] + struct.pack("<I", word) + content[place + 4 :])


def test_hostile_files(folder: Path, tmp_path: Path) -> None:
    content, path = (folder / "model.ss").read_bytes(), tmp_path / "model.ss"

    def refuse(data: bytes, message: str) -> None:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            NativeModel(path)

    for n in (0, 7, 23):
        refuse(content[:n], "found other data")
    refuse(b"x" + content[1:], "found other data")
    refuse(content[:8] + b"\1" + content[9:], "of version 2")
    for n in (24, 100, len(content) - 1):
        refuse(content[:n], "its size is not what it says")
        refuse(signed(content[:n]), "expected options of a model|expected as many weights")
    refuse(content + bytes(4), "its size is not what it says")
    refuse(signed(content + bytes(4)), "expected as many weights")
    rng = np.random.default_rng(0)
    for place in rng.integers(24, len(content), 20):
        refuse(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], "right checksum")
    for word in range(15):  # options; the file is then another model's, or none's
        for value in (0, 2**31, 2**32 - 1, 70000):
            changed = with_word(content, HEADER + 4 * word, value)
            if changed != content and (word, value) not in ((0, 70000), (3, 0)):  # another rate; no lookahead: models too
                refuse(changed, "expected options of a model|expected as many weights|at most 256 MB")
    refuse(with_word(content, len(content) - 4, 0x7FC00000), "expected finite weights")
    refuse(with_word(content, len(content) - 4, 0xFF800000), "expected finite weights")


def test_a_stream_that_needs_too_much_memory(tmp_path: Path) -> None:
    """A small file may ask for a long memory: dilations double."""
    model = online(n_tcnblocks=16, n_stacked_tcnblocks=1, taps=16, n_channels=256, hidden_channels=[1] * 16, memory="none")
    (tmp_path / "model.ss").write_bytes(model_bytes(model, RATE))
    with pytest.raises(UserError, match="at most 256 MB"):
        NativeModel(tmp_path / "model.ss")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": [32, 134]}, "kernels: the C library wants halves without a prime factor above 61, got 134"),
        ({"taps": 17}, "taps: the C library takes at most 16, got 17"),
    ],
)
def test_models_that_the_library_does_not_run(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        model_bytes(online(**changes), RATE)
    export(online(**changes), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enroll.onnx", "step.onnx"]


def test_weights_that_are_not_finite_are_not_written() -> None:
    model = online()
    torch.nn.init.constant_(model.mask.bias, torch.nan)
    with pytest.raises(UserError, match="expected a model with finite weights"):
        model_bytes(model, RATE)


def test_which_backend(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(Extractor.load(folder, threads=2), NativeExtractor)
    with pytest.raises(UserError, match="backend: expected one of c, onnxruntime, found rust"):
        Extractor.load(folder, backend="rust")
    with pytest.raises(UserError, match=r"model\.ss: expected a model for the C library, but there is none"):
        Extractor.load(tmp_path, backend="c")
    monkeypatch.setenv(native.VARIABLE, str(tmp_path / "nowhere.so"))
    assert not isinstance(Extractor.load(folder), NativeExtractor)
    with pytest.raises(UserError, match="expected the C library, but there is none"):
        Extractor.load(folder, backend="c")
    (tmp_path / "libm.so").write_bytes(b"no library")
    monkeypatch.setenv(native.VARIABLE, str(tmp_path / "libm.so"))
    with pytest.raises(UserError, match=r"libm\.so: expected the C library of ss, but: "):
        Extractor.load(folder, backend="c")


def test_largest_factor() -> None:
    assert [largest_factor(n) for n in (1, 2, 7, 12, 80, 240, 67, 134)] == [1, 2, 7, 3, 5, 5, 67, 67]


def test_the_library_is_small_and_needs_libm_only(library: Path) -> None:
    open_library(library)
    if strip := shutil.which("strip"):
        subprocess.run([strip, "-o", str(library) + ".stripped", str(library)], check=True)
        assert os.path.getsize(str(library) + ".stripped") <= 100_000
    if readelf := shutil.which("readelf"):
        said = subprocess.run([readelf, "-d", str(library)], capture_output=True, text=True, check=True).stdout
        needed = {line.split("[")[1].rstrip("]") for line in said.splitlines() if "NEEDED" in line}
        assert needed <= {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"}


def test_an_export_in_the_library_as_an_extractor(
    model: SpexPlusOnline, folder: Path, enrolment: np.ndarray, mixture: np.ndarray, whole: np.ndarray
) -> None:
    """What `+provider=c` tests: two utterances of a batch, whole."""
    chunks, ref = torch.from_numpy(np.stack([mixture, mixture[::-1]]))[None], torch.from_numpy(np.stack([enrolment] * 2))
    found = ExportedExtractor(folder, "c")(chunks, ref).waves[0][0].numpy()
    expected = ExportedExtractor(folder)(chunks, ref).waves[0][0].numpy()
    close(found, expected, 1e-5)
    close(found[0], whole, 1e-5)


def test_it_is_measured_beside_onnx_runtime(tmp_path: Path) -> None:
    settings = BenchSettings(str(tmp_path), {"_target_": "ss.streamer.Whole"}, model={"_target_": "ss.model.SpexPlusOnline"})
    backends, missing = write_backends(settings, online(), tmp_path)
    assert [backend.runtime for backend in backends] == ["torch", "onnxruntime", "c", "c int8"]
    assert not missing
    for backend in backends[2:]:
        run = run_alone(Workload(backend, [120, 160], [20, 20], 2, RATE))
        assert [len(seconds) for seconds in run.seconds] == [20, 20]
        assert run.ended > run.idle > 0
