"""Measuring live streams: latency against models whose latency is known, buffers, real commands. No time is asserted."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZES, composed, run
from hydra import initialize_config_dir
from torch import Tensor

from ss import checkpoint
from ss.errors import UserError
from ss.extraction import separate
from ss.measure import bench, worker
from ss.measure.backend import ONNX, Backend, Process, streams_of
from ss.measure.bench import BenchSettings, chunk_sizes, measure, write_backends
from ss.measure.family import FamilySettings, apart, measure_family
from ss.measure.latency import longest_wait, measure_latency
from ss.measure.streams import model_streams
from ss.measure.worker import run_alone
from ss.model import ExtractionModel, SpexPlusOnline, SpexPlusShort, SpexPlusShortGRUModel
from ss.runtime.native import VARIABLE
from ss.streamer import Streamer, Whole

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "measure_weight_and_time/configs"
SIZE: dict[str, Any] = {
    "n_channels": 6,
    "hidden_channels": 10,
    "out_channels": 5,
    "n_resnetblocks": 1,
    "n_speakers": 3,
    "n_stacked_tcnblocks": 2,
    "n_tcnblocks": 2,
}
SEGMENT = {**SIZE, "short_kernel": 8}
ONLINE = {**SIZE, "kernels": [16, 40], "synthesis_kernel": 16, "hop": 8}
TINY = [f"{key}={value}" for key, value in SIZES.items()]
needs_onnx = pytest.mark.skipif(not (find_spec("onnx") and find_spec("onnxruntime")), reason="needs onnx and onnxruntime")


def online(**changes: Any) -> SpexPlusOnline:
    torch.manual_seed(0)
    return SpexPlusOnline(**{**ONLINE, **changes}).eval()


def segment(**changes: Any) -> SpexPlusShort:
    torch.manual_seed(0)
    return SpexPlusShort(**{**SEGMENT, **changes}).eval()


def latency_of(model: ExtractionModel, streamer: Any) -> tuple[int, int]:
    speaker = torch.randn(1, SIZE["out_channels"], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return measure_latency(model_streams(model, streamer, speaker, 1000))


@pytest.mark.parametrize(
    ("hop", "synthesis", "kernels", "lookahead", "memory"),
    [
        (80, 160, [160, 480], 0, "linear"),
        (80, 160, [160, 320], 2, "gru"),
        (120, 160, [160, 480], 0, "linear"),
        (120, 200, [240], 2, "none"),
        (7, 11, [20], 3, "linear"),
    ],
)
def test_the_online_models_latency_is_its_window_and_what_it_looks_ahead(
    hop: int, synthesis: int, kernels: list[int], lookahead: int, memory: str
) -> None:
    model = online(hop=hop, synthesis_kernel=synthesis, kernels=kernels, lookahead=lookahead, memory=memory)
    known = synthesis + lookahead * hop
    assert latency_of(model, Whole()) == (known, known)
    assert model.latency == known


@pytest.mark.parametrize(
    ("window", "step", "method"), [(160, 80, "half"), (160, 160, "nonintersec"), (4800, 2400, "half"), (800, 800, "nonintersec")]
)
def test_the_latency_of_segments_is_their_window(window: int, step: int, method: str) -> None:
    assert latency_of(segment(), Streamer(window, step, method)) == (window, window)
    gru = SpexPlusShortGRUModel(**SEGMENT, memory_size=2).eval()
    assert latency_of(gru, Streamer(window, step, method)) == (window, window)


def test_a_listener_waits_for_the_window_of_a_model_that_hardly_looks_ahead() -> None:
    assert latency_of(segment(causal=True), Streamer(160, 80, "half")) == (160, SEGMENT["short_kernel"])


@needs_onnx
@pytest.mark.parametrize("lookahead", [0, 2])
def test_the_export_has_the_same_latency(lookahead: int, tmp_path: Path) -> None:
    from ss.export import export

    model = online(lookahead=lookahead)
    export(model, tmp_path)
    enrolment = 0.1 * np.random.default_rng(0).standard_normal(400).astype(np.float32)
    assert measure_latency(streams_of(Backend(ONNX, str(tmp_path)), enrolment)) == (model.latency, model.latency)


def feed(process: Process, wave: Tensor, sizes: list[int]) -> Tensor:
    parts = np.split(wave[0].numpy(), np.cumsum(sizes))
    return torch.from_numpy(np.concatenate([process(part) for part in parts]))[None]


@torch.inference_mode()
def test_what_a_stream_of_segments_gives_is_what_is_joined_offline() -> None:
    model, wave, ref = segment(), torch.randn(1, 1000), torch.randn(1, 500)
    for streamer in (Streamer(160, 80, "half"), Streamer(160, 160, "nonintersec")):
        expected = separate(model, streamer, wave, ref).waves[0]
        for sizes in ([], [1, 159, 80, 333, 0, 7], [400]):
            live = feed(model_streams(model, streamer, model.enroll(ref), 0).open(), wave, sizes)
            assert live.shape[-1] == (1000 - 160) // streamer.step * streamer.step + streamer.step
            assert torch.allclose(live, expected[:, : live.shape[-1]], atol=1e-6)


@torch.inference_mode()
def test_what_an_online_stream_gives_is_what_the_whole_pass_gives() -> None:
    model, wave, ref = online(lookahead=1), torch.randn(1, 1000), torch.randn(1, 500)
    expected = separate(model, Whole(), wave, ref).waves[0]
    for sizes in ([], [1, 7, 8, 9, 300, 0, 5], [3, 2, 1]):
        live = feed(model_streams(model, Whole(), model.enroll(ref), 0).open(), wave, sizes)
        assert live.shape[-1] == 1000 - model.delay
        assert torch.allclose(live, expected[:, : 1000 - model.delay], atol=1e-5)


def test_a_stream_waits_until_something_is_complete() -> None:
    streams = model_streams(online(), Whole(), torch.randn(1, 5), 0)  # 8 samples late, 8 in a hop
    process, rng = streams.open(), np.random.default_rng(0)
    assert process(rng.standard_normal(7, np.float32)).shape == (0,)
    assert process(rng.standard_normal(10, np.float32)).shape == (8,)
    assert longest_wait(streams.open(), rng) == 16


def test_the_online_model_refuses_a_streamer_for_segments(tmp_path: Path) -> None:
    half = {"_target_": "ss.streamer.Streamer", "chunk_window": 160, "chunk_step": 80, "overlap_add_method": "half"}
    model = {"_target_": "ss.model.SpexPlusOnline", **ONLINE}
    with pytest.raises(UserError, match="the online model streams by itself; expected streamer=whole"):
        measure({"out_folder": str(tmp_path), "streamer": half, "model": model, "devices": ["cpu"], "enrolment_seconds": 0.1})


def settings_of(tmp_path: Path, **changes: Any) -> BenchSettings:
    whole, model = {"_target_": "ss.streamer.Whole"}, {"_target_": "ss.model.SpexPlusOnline", **ONLINE}
    return BenchSettings(str(tmp_path), whole, model, **{"sample_rate": 1000, "enrolment_seconds": 0.5, "n_warmup": 2, **changes})


def test_chunk_sizes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, utterance_seconds=0.5)
    assert chunk_sizes(settings, settings.streams(online()), [5, 10.4, 150]) == [5, 10, 150]
    assert chunk_sizes(settings, settings.streams(segment()), [5, 10]) == [500]
    half = {"_target_": "ss.streamer.Streamer", "chunk_window": 160, "chunk_step": 80, "overlap_add_method": "half"}
    assert chunk_sizes(settings, replace(settings, streamer=half).streams(segment()), [5, 10]) == [80]


def test_why_there_is_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    _, missing = write_backends(settings, segment(), tmp_path)
    assert missing == {ONNX: "SpexPlusShort takes whole utterances here: exports are of online models and of segments"}
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert write_backends(settings, online(), tmp_path)[1] == {ONNX: "onnx and onnxruntime not installed"}


@needs_onnx
def test_segments_are_measured_as_they_are_exported(tmp_path: Path) -> None:
    half = {"_target_": "ss.streamer.Streamer", "chunk_window": 160, "chunk_step": 80, "overlap_add_method": "half"}
    brief = {"sample_rate": 1000, "enrolment_seconds": 0.5, "n_chunks": 3, "n_enrolments": 2, "live_seconds": 0.5}
    model = {"_target_": "ss.model.SpexPlusShortGRUModel", **SEGMENT, "memory_size": 2}
    config = {"out_folder": str(tmp_path), "streamer": half, "model": model, "devices": ["cpu"], "session_minutes": 0.02}
    measure({**config, **brief})
    report = json.loads((tmp_path / "measurement.json").read_text())
    assert report["latency"]["samples"] == 160
    assert [(row["runtime"], row["chunk_seconds"], row["calls"]) for row in report["live"]] == [
        ("torch", 0.08, 6),
        ("onnxruntime", 0.08, 6),
    ]
    assert [row["runtime"] for row in report["sessions"]] == ["torch", "onnxruntime"]
    assert set(report["file_bytes"]) == {"weights", "SpeakerHandler.onnx", "GRUMainModel.onnx"}
    assert report["headline"]["runtime"] == "onnxruntime"
    assert report["not_measured"] == {}


@needs_onnx
def test_onnx_runtime_is_weighed_without_torch(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (_, backend, *_), _ = write_backends(settings, settings.load(), tmp_path)
    assert backend.runtime == ONNX
    work = settings.live_workload(backend, [5, 16], 0.5)
    without = "import sys; sys.modules['torch'] = sys.modules['hydra'] = None; " + worker.SCRIPT
    command = [sys.executable, "-c", without, str(worker.__file__)]
    done = subprocess.run(command, input=json.dumps(work._asdict()), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = worker.WorkerRun(**json.loads(done.stdout))
    assert [len(seconds) for seconds in result.seconds] == work.calls == [100, 31]
    assert 0 < result.idle < result.loaded <= result.peak < result.idle + 150e6
    assert min(result.cpu_seconds) > 0


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    backend = Backend("torch", str(tmp_path / "none.pth"), settings.streamer)
    with pytest.raises(RuntimeError, match=r"measuring with torch failed:\n(.|\n)*none.pth"):
        run_alone(settings.live_workload(backend, [5], 0.5))


MODEL = [f"model.{each}" for each in TINY]


@needs_onnx
def test_the_online_models_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))  # without the C library, which tests/test_native.py measures
    brief = ["live_seconds=0.5", "session_minutes=0.02", "n_chunks=2", "n_enrolments=2", "devices=[cpu]"]
    script = "measure_weight_and_time/measure_weight_and_time.py"
    done = run(script, "-cn", "spexplus_online", *MODEL, *brief, "enrolment_seconds=1.5", f"out_folder={tmp_path}")
    report = json.loads((tmp_path / "measurement.json").read_text())
    latency = report["latency"]
    assert latency["samples"] == latency["depends_samples"] == 160
    assert latency["milliseconds"] == 10
    rows = report["live"]
    assert [(row["runtime"], 1000 * row["chunk_seconds"]) for row in rows] == [
        (runtime, ms) for runtime in ("torch", "onnxruntime") for ms in (5, 10, 20, 40, 150)
    ]
    for row in rows:
        times = row["milliseconds"]
        assert row["calls"] == round(0.5 / row["chunk_seconds"])
        assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
        assert row["real_time_factor"] == pytest.approx(times["mean"] / 1000 / row["chunk_seconds"])
        assert row["cpu_seconds_per_second"] > 0
    assert [row["runtime"] for row in report["sessions"]] == ["torch", "onnxruntime"]
    for row in report["sessions"]:
        assert row["minutes"] == pytest.approx(0.02)
        assert len(row["mean_milliseconds"]) == 10
        assert row["over_idle_bytes"] == row["ended_bytes"] - row["idle_bytes"] > 0
    assert report["sessions"][1]["over_idle_bytes"] < 150e6
    assert set(report["file_bytes"]) == {"weights", "enroll.onnx", "model.ss", "step.onnx"}
    assert min(report["file_bytes"].values()) > 1000
    assert report["headline"] == {"real_time_factor": rows[6]["real_time_factor"], "runtime": "onnxruntime"}
    assert [row["part"] for row in report["rows"]] == ["utterance", "enrolment"]
    assert report["not_measured"] == {}
    assert "algorithmic latency: 10 ms (160 samples; the output depends on input up to 159 samples later)" in done.stdout


def test_a_checkpoint_is_measured_at_its_own_rate(tmp_path: Path) -> None:
    config = {"model": {"_target_": "ss.model.SpexPlusOnline", **ONLINE}, "data": {"sample_rate": 8000}}
    checkpoint.save(tmp_path / "best.pth", {"config": config, "model": SpexPlusOnline(**ONLINE).state_dict()})
    settings = composed("measure_weight_and_time", "spexplus_online", f"checkpoint={tmp_path}/best.pth")
    assert BenchSettings.from_config(settings).sample_rate == 8000


def family(out: Path, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    sizes = [f"+each.model.{each}" for each in TINY]
    brief = ["each.live_seconds=0.3", "+each.enrolment_seconds=1.5", "+each.utterance_seconds=1", "rounds=2"]
    names = ["models=[spexplus,spexplus_online]", "baseline=spexplus", f"out_folder={out}"]
    return run("measure_weight_and_time/family.py", "-cn", "family", *names, *sizes, *brief, *overrides, check=check)


@needs_onnx
def test_the_family_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    done = family(tmp_path)
    report = json.loads((tmp_path / "family.json").read_text())
    offline, live = report["rows"]
    assert [row["name"] for row in report["rows"]] == ["spexplus", "spexplus_online"]
    assert [row["latency"]["milliseconds"] for row in report["rows"]] == [None, 10]
    assert [list(row["runtimes"]) for row in report["rows"]] == [["torch"], ["torch", "onnxruntime"]]
    assert [row["chunk_seconds"] for row in report["rows"]] == [1, 0.01]
    assert offline["times_less_cpu"] == 1
    for row, runtime in ((offline, "torch"), (live, "onnxruntime")):
        own = row["runtimes"][runtime]["cpu_seconds_per_second"]
        assert row["cpu_seconds_per_second"] == own
        assert row["times_less_cpu"] == pytest.approx(offline["cpu_seconds_per_second"] / own)
        assert row["macs_per_second"] > 0
        assert all(found["over_idle_bytes"] > 0 for found in row["runtimes"].values())
    whole = "SpexPlus takes whole utterances here: exports are of online models and of segments"
    assert offline["not_measured"] == {"onnxruntime": whole}
    picture = (tmp_path / "family.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 5000
    table = done.stdout[done.stdout.index("\nname ") :]  # behind what matplotlib may log of its first import
    head, *lines = [line.split() for line in table.splitlines()[1:4]]
    assert [line[:2] for line in (head, *lines)] == [
        ["name", "model"],
        ["spexplus", "SpexPlus"],
        ["spexplus_online", "SpexPlusOnline"],
    ]
    assert [line.count("n/a") for line in lines] == [3, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "other"}, "baseline: expected one of spexplus, mini, found other"),
        ({"rounds": 0}, "rounds: expected more than 0, found 0"),
        ({"speed": 3}, "unknown key speed: expected some of models"),
    ],
)
def test_what_is_no_family_is_refused(changes: dict[str, Any], message: str) -> None:
    whole = {"models": ["spexplus", "mini"], "out_folder": "there", "baseline": "mini", "each": {}}
    with pytest.raises(UserError, match=message):
        measure_family({**whole, **changes})


@pytest.mark.parametrize(
    ("override", "message"),
    [("+each.model.depth=3", "'depth' is not in struct"), ("models=[none,spexplus]", "Cannot find primary config 'none'")],
)
def test_a_familys_errors_are_clear(override: str, message: str, tmp_path: Path) -> None:
    done = family(tmp_path, override, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not (tmp_path / "family.json").exists()


def test_every_model_of_the_family_has_a_config() -> None:
    config = FamilySettings(**composed("measure_weight_and_time", "family"))
    with initialize_config_dir(str(CONFIGS), version_base=None):
        settings = [config.settings(name) for name in config.models]
    assert {one.live_seconds for one in settings} == {config.each["live_seconds"]}
    assert len(set(config.models)) == len(config.models) > 10


def test_labels_are_moved_apart_in_groups() -> None:
    assert apart([0.1, 0.9], 0.1) == [0.1, 0.9]
    assert apart([0.5, 0.5, 0.5, 0.9], 0.1) == pytest.approx([0.4, 0.5, 0.6, 0.9])
    assert apart([0.5, 0.55, 0.62], 0.1) == pytest.approx([0.4567, 0.5567, 0.6567], abs=1e-4)


def test_training_steps_side_by_side(tmp_path: Path) -> None:
    sizes = [f"+each.model.{each}" for each in TINY]
    brief = ["models=[spexplusshort,spexplus_online]", "rounds=2", "seconds=0.9", "batch_size=2", "threads=1"]
    done = run("measure_weight_and_time/training_step.py", "-cn", "training_step", *sizes, *brief, f"out_folder={tmp_path}")
    report = json.loads((tmp_path / "training_step.json").read_text())
    rows = report["rows"]
    assert [(row["name"], row["loss"]) for row in rows] == [
        ("spexplusshort", "SpexPlusShortLoss"),
        ("spexplus_online", "PresenceLoss"),
    ]
    for row in rows:
        assert row["mixture_seconds_per_cpu_second"] == pytest.approx(2 * 0.9 / row["cpu_seconds"])
        assert row["peak_bytes"] > 0
        assert row["times_peak_bytes"] == pytest.approx(row["peak_bytes"] / rows[0]["peak_bytes"])
    assert rows[0]["times_mixture_seconds_per_cpu_second"] == 1
    assert [line.split()[0] for line in done.stdout.splitlines()[4:6]] == [row["name"] for row in rows]
