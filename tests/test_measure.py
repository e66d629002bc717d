"""Measuring: counts against numbers worked out by hand, what a call is, and the real command. No time is asserted."""

import json
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed, run, run_command
from torch import nn

from ss import checkpoint
from ss.errors import UserError
from ss.measure.bench import BenchSettings, bare_calls, measure
from ss.measure.streams import bare_call
from ss.measure.worker import forget_peak, resident
from ss.model import SpexPlusShort, SpexPlusShortGRUModel
from ss.model.cost import n_bytes, n_macs, n_parameters
from ss.model.tcn import DepthwiseConv, TCNBlock
from ss.tables import rows_table, text_table

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "n_channels": 6,
    "hidden_channels": 10,
    "out_channels": 5,
    "short_kernel": 8,
    "n_resnetblocks": 1,
    "n_speakers": 3,
    "n_stacked_tcnblocks": 2,
    "n_tcnblocks": 2,
}
MODEL = {"_target_": "ss.model.SpexPlusShort", **TINY}
HALF = {"_target_": "ss.streamer.Streamer", "chunk_window": 160, "chunk_step": 80, "overlap_add_method": "half"}
WHOLE = {"_target_": "ss.streamer.Whole"}
BRIEF: dict[str, Any] = {
    "sample_rate": 1000,
    "utterance_seconds": 0.5,
    "enrolment_seconds": 0.4,
    "n_chunks": 4,
    "n_enrolments": 3,
    "n_warmup": 1,
    "live_seconds": 0.5,
    "session_minutes": 0.05,
}


def test_parameters_and_bytes() -> None:
    layer = nn.BatchNorm1d(4)
    assert n_parameters(layer) == 8
    assert n_bytes(layer) == 4 * (8 + 8) + 8  # running mean and variance in float32, an int64 counter
    assert n_parameters(nn.Conv1d(3, 5, 7)) == 5 * (3 * 7 + 1)


def test_a_depthwise_convolution_costs_the_same_as_multiply_adds_and_as_a_convolution() -> None:
    layer, x = DepthwiseConv(8, 3, dilation=2, causal=False), torch.randn(1, 8, 50)
    by_hand = 8 * 50 * 3
    assert n_macs(layer, x) == by_hand
    assert n_macs(nn.Conv1d(8, 8, 3, dilation=2, groups=8, padding=2), x) == by_hand


def test_the_macs_of_a_step_by_hand() -> None:
    n, h, e, frames = 6, 10, 5, 39
    inside = h * 3 + h * h
    assert n_macs(TCNBlock(n, h, n, 1, False), torch.randn(1, n, frames)) == frames * (n * h + inside + h * n)
    codec = 2 * frames * n * 8
    separator = 2 * frames * n * n
    stack = frames * ((n + e) * h + inside + h * n + n * h + inside + h * n)
    # Where the speaker is appended, the residual path still has n channels in and out: nothing to multiply.
    model = SpexPlusShort(**TINY).eval()
    state = model.init_state(torch.randn(1, e), 160)
    assert n_macs(model.step, torch.randn(1, 160), state) == codec + separator + 2 * stack


def test_calls_of_a_stream_go_on_from_chunk_to_chunk() -> None:
    torch.manual_seed(0)
    model, chunks, ref = SpexPlusShortGRUModel(**TINY, memory_size=2).eval(), torch.randn(4, 1, 160), torch.randn(1, 400)
    with torch.inference_mode():
        expected, speaker = model(chunks, ref).waves[0][:, 0].numpy(), model.enroll(ref)
    waves = chunks[:, 0].numpy()
    call = bare_call(model, speaker, "chunk", 160)
    np.testing.assert_array_equal(np.stack([call(wave) for wave in waves]), expected)
    utterance = bare_call(model, speaker, "utterance", 160)
    np.testing.assert_array_equal(utterance(waves[0]), expected[0])
    np.testing.assert_array_equal(utterance(waves[0]), expected[0])
    np.testing.assert_array_equal(bare_call(model, speaker, "enrolment", 400)(ref[0].numpy()), speaker.numpy())


def calls_of(settings: BenchSettings) -> list[tuple[str, int, int, int]]:
    return bare_calls(settings, settings.streams(settings.load()))


def test_calls_of_a_stream_and_of_whole_utterances() -> None:
    settings = BenchSettings("there", HALF, MODEL, **BRIEF)
    enrolment = ("enrolment", 400, 400, 3)
    assert calls_of(settings) == [("chunk", 160, 80, 4), enrolment]
    assert calls_of(replace(settings, streamer=WHOLE)) == [("utterance", 500, 500, 4), enrolment]


def test_a_checkpoint_of_the_predecessor_is_measured_as_it_is_said_to_be_cut() -> None:
    settings = BenchSettings.from_checkpoint(ROOT / "tests" / "assets" / "golden" / "predecessor_checkpoint.pth", streamer=HALF)
    assert isinstance(settings.load(), SpexPlusShortGRUModel)
    assert settings.sample_rate == 16000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_what_was_held_at_most() -> None:
    mebibyte = 2**20

    def hold(size: int) -> mmap.mmap:  # not from malloc: a training in this process may have told that to keep what is freed
        memory = mmap.mmap(-1, size)
        for _ in range(size // mebibyte):
            memory.write(bytes(mebibyte))
        return memory

    hold(256 * mebibyte)  # what went before does not count
    before = resident("VmRSS")
    forget_peak()
    hold(96 * mebibyte)
    assert 90 * mebibyte < resident("VmHWM") - before < 140 * mebibyte
    forget_peak()
    assert resident("VmHWM") - before < 40 * mebibyte
    kept = hold(48 * mebibyte)
    assert 45 * mebibyte < resident("VmHWM") - before < 90 * mebibyte
    assert len(kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "expected a model or a checkpoint"),
        ({"threads": 0}, "threads: expected more than 0, found 0"),
        ({"n_chunks": 0}, "n_chunks: expected more than 0, found 0"),
        ({"n_warmup": -1}, "n_warmup: expected at least 0, found -1"),
        ({"chunks": 3}, "unknown key chunks: expected some of out_folder"),
        ({"session_minutes": 0}, "session_minutes: expected more than 0, found 0"),
        ({"chunk_ms": []}, "chunk_ms: expected chunks of at least a sample, got \\[\\]"),
        ({"chunk_ms": [10, 0.1]}, "chunk_ms: expected chunks of at least a sample, got \\[10, 0.1\\]"),
        ({"devices": ["tpu"]}, "devices: expected some of .*'cpu'.*, got 'tpu'"),
        ({"model": {"_target_": "os.system"}}, "expected a _target_ in ss.model"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = {"out_folder": str(tmp_path), "streamer": HALF, "model": MODEL, **BRIEF, **changes}
    with pytest.raises(UserError, match=message):
        measure(config)
    assert not (tmp_path / "measurement.json").exists()


def check_rows(report: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert len(report["rows"]) == len(expected)
    for row, known in zip(report["rows"], expected, strict=True):
        assert {key: row[key] for key in known} == known
        milliseconds = row["milliseconds"]
        assert 0 < milliseconds["p50"] <= milliseconds["p95"] <= milliseconds["p99"] <= milliseconds["max"]
        assert row["real_time_factor"] == pytest.approx(milliseconds["mean"] / 1000 / row["hop_seconds"])
        assert row["macs_per_second"] == pytest.approx(row["macs"] / row["hop_seconds"])
        assert 0 < row["peak_memory_bytes"] < 2**29


def test_a_checkpoint_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = SpexPlusShort(**TINY)
    checkpoint.save(tmp_path / "best.pth", {"config": {"model": MODEL}, "model": model.state_dict()})
    other = {"_target_": "ss.model.SpexPlus"}
    config = {"checkpoint": str(tmp_path / "best.pth"), "model": other, "streamer": WHOLE, "devices": ["cpu"], **BRIEF}
    measure({**config, "out_folder": str(tmp_path / "out")})
    report = json.loads((tmp_path / "out/measurement.json").read_text())
    assert report["model"] == "SpexPlusShort"
    assert report["checkpoint"] == str(tmp_path / "best.pth")
    assert report["parameters"] == n_parameters(model)
    utterance = {"part": "utterance", "device": "cpu", "threads": 1, "audio_seconds": 0.5, "hop_seconds": 0.5, "calls": 4}
    check_rows(report, [utterance, {"part": "enrolment", "audio_seconds": 0.4, "calls": 3}])
    printed = capsys.readouterr().out
    assert f"SpexPlusShort ({tmp_path / 'best.pth'}): {n_parameters(model):,} parameters" in printed


def test_the_real_command_with_overrides(tmp_path: Path) -> None:
    sizes = [f"model.{key}={value}" for key, value in TINY.items()]
    script = "measure_weight_and_time/measure_weight_and_time.py"
    brief = [
        "model.memory_size=2",
        "n_chunks=6",
        "n_enrolments=2",
        "live_seconds=1.5",
        "session_minutes=0.1",
        "threads=2",
        "devices=[cpu]",
        f"out_folder={tmp_path}",
    ]
    done = run_command(script, "-cn", "spexplusshort_gru", *sizes, *brief)
    assert "cpu enrolment: 100%" in done.stderr
    report = json.loads((tmp_path / "measurement.json").read_text())
    assert report["model"] == "SpexPlusShortGRUModel"
    assert report["checkpoint"] is None
    chunk = {"part": "chunk", "device": "cpu", "threads": 2, "audio_seconds": 0.3, "hop_seconds": 0.15, "calls": 6}
    check_rows(report, [chunk, {"part": "enrolment", "audio_seconds": 5.0, "hop_seconds": 5.0, "calls": 2}])
    head, first, second = [line.split() for line in done.stdout.splitlines()[3:6]]
    assert head[:2] == ["device", "part"]
    assert first[:5] == ["cpu", "x2", "chunk", "0.3", "0.15"]
    assert second[2] == "enrolment"
    assert not (ROOT / "outputs").exists()


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("spexplus", ("utterance", 80000, 80000, 10)),
        ("spexplus_causal", ("chunk", 4800, 2400, 100)),
        ("spexplus_online", ("utterance", 80000, 80000, 100)),
        ("release", ("utterance", 80000, 80000, 100)),
        ("mini", ("chunk", 8000, 8000, 100)),
        ("spexplusshort_gru_small", ("chunk", 4800, 2400, 100)),
    ],
)
def test_a_model_is_measured_as_it_is_trained(name: str, stream: tuple[str, int, int, int]) -> None:
    settings = BenchSettings.from_config(composed("measure_weight_and_time", name))
    assert calls_of(settings)[0] == stream
    assert settings.out_folder == f"runs/{name}/measure"
    overrides = ["data.train.sources.audios_dir=x"] if name == "release" else []
    assert settings.model == composed("training", name, *overrides)["model"]


def test_another_streamer_may_be_chosen() -> None:
    settings = BenchSettings.from_config(composed("measure_weight_and_time", "spexplusshort_gru", "streamer=nonintersec"))
    assert calls_of(settings)[0] == ("chunk", 4800, 4800, 100)


def test_columns_are_aligned() -> None:
    assert text_table(["a", "b", "10"], [["long", "c", "5"]]) == "a     b  10\nlong  c   5"


def test_cells_of_rows() -> None:
    rows = [{"name": "a", "macs": 2.5e6, "times": [1, 2], "at": {"10": 0.5}}, {"name": "b", "macs": None, "times": [3], "at": {}}]
    columns = "name {name} | MMAC {macs/M:.1f} | last {times[-1]:.2f} | at 10 {at[10]:.0%}"
    expected = [["name", "MMAC", "last", "at 10"], ["a", "2.5", "2.00", "50%"], ["b", "-", "3.00", "-"]]
    assert rows_table(rows, columns, missing="-") == text_table(expected[0], expected[1:])
    with pytest.raises(KeyError, match="size"):
        rows_table(rows, "size {size}")


def test_a_users_error_is_one_line(tmp_path: Path) -> None:
    missing = [f"checkpoint={tmp_path / 'none.pth'}", f"out_folder={tmp_path}"]
    done = run("measure_weight_and_time/measure_weight_and_time.py", "-cn", "mini", *missing, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "none.pth") in done.stderr


@pytest.mark.parametrize(
    ("script", "config", "override", "message"),
    [
        ("measure_weight_and_time/training_step", "training_step", "batch_size=0", "batch_size: expected more than 0, found 0"),
        ("measure_weight_and_time/training_step", "training_step", "n_warmup=-1", "n_warmup: expected at least 0, found -1"),
        ("measure_weight_and_time/training_speed", "training_speed", "rounds=0", "rounds: expected more than 0, found 0"),
        ("measure_weight_and_time/calls", "calls", "seconds=0", "seconds: expected more than 0, found 0"),
        ("measure_weight_and_time/training_speed", "training_speed", "threads=0", "threads: expected more than 0, found 0"),
        ("pruning_and_quantization/compare", "spexplus_online", "rounds=0", "rounds: expected more than 0, found 0"),
        ("testing/test", "spexplus_online", "batch_size=0", "batch_size: expected more than 0, found 0"),
        ("testing/leaderboard", "leaderboard", "piece_seconds=0", "piece_seconds: expected more than 0, found 0"),
    ],
)
def test_counts_that_are_too_small_are_refused(script: str, config: str, override: str, message: str) -> None:
    done = run(f"{script}.py", "-cn", config, override, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {message}\n"


def test_a_training_step_has_the_same_gradient_with_and_without_checkpointing() -> None:
    norms = []
    for checkpointing in (True, False):
        sizes = [f"model.{key}={value}" for key, value in {**TINY, "memory_size": 2}.items()]
        brief = ["seconds=0.7", "batch_size=2", "threads=1", f"activation_checkpointing={checkpointing}"]
        done = run("measure_weight_and_time/training_step.py", "-cn", "training_step", *sizes, *brief)
        assert "one step of 2 mixtures of 0.7 s" in done.stdout
        norms.append(float(done.stdout.rsplit(" ", 1)[1]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
