"""Testing many utterances: a padded batch gives what each gives alone, and metrics in processes what they give here."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RATE, SIZES, WINDOWS, lively, make_triplets

from ss import audio, checkpoint
from ss.extraction import may_pad
from ss.inferencer import Inferencer
from ss.metric import SISDR, STOI, Metric, SingleMetric, Utterance, UtteranceScores, evaluate_all
from ss.metric.base import Array
from ss.model import ExtractionModel, SpexPlus, SpexPlusOnline, SpexPlusShort, SpexPlusShortGRUModel, SpexPlusShortRNN
from ss.tester import run_from_config, run_test

HALF = {"_target_": "ss.streamer.Streamer", "chunk_window": 960, "chunk_step": 480, "overlap_add_method": "half"}
JOINED = {**HALF, "chunk_step": 960, "overlap_add_method": "nonintersec"}
WHOLE = {"_target_": "ss.streamer.Whole"}
SHORT = {**SIZES, "short_kernel": 20}
CASES: list[tuple[type[ExtractionModel], dict[str, Any], dict[str, Any]]] = [
    (SpexPlusOnline, {**SIZES, **WINDOWS, "memory": "lstm", "lookahead": 1}, WHOLE),
    (SpexPlusOnline, {**SIZES, **WINDOWS}, JOINED),
    (SpexPlusShortGRUModel, {**SHORT, "memory_size": 5}, HALF),
    (SpexPlusShortRNN, SHORT, JOINED),
    (SpexPlus, {**SHORT, "middle_kernel": 40, "long_kernel": 80, "causal": True}, HALF),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven triplets, no two of one length."""
    return make_triplets(tmp_path_factory.mktemp("data") / "test", [f"s{i % 3}_{i}" for i in range(7)], seconds=0.3)


@pytest.mark.parametrize(("kind", "sizes", "streamer"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_padded_batch_gives_what_each_utterance_gives_alone(
    kind: type[ExtractionModel], sizes: dict[str, Any], streamer: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = {"model": {"_target_": f"ss.model.{kind.__name__}", **sizes}, "streamer": streamer, "data": {"sample_rate": RATE}}
    checkpoint.save(tmp_path / "best.pth", {"model": lively(kind(**sizes)).state_dict(), "config": config})
    extractor, calls = Inferencer(tmp_path / "best.pth"), []
    assert may_pad(extractor.model, extractor.streamer)
    extractor.model.register_forward_hook(lambda _model, inputs, _output: calls.append(inputs[0].shape[1]))
    metrics = {"last": LastSamples(), "SI-SDR": SISDR()}
    alone, batched = (run_test(extractor, metrics, folder, size) for size in (1, 3))
    assert calls == [*[1] * 7, 3, 3, 1]
    assert list(batched) == list(alone) == sorted(alone)
    for name, row in alone.items():
        assert batched[name].values == pytest.approx(row.values, abs=1e-4), name
        assert row.values["last"] > 1e-3


def test_a_model_that_hears_the_end_is_not_padded(folder: Path, tmp_path: Path) -> None:
    config = {"model": {"_target_": "ss.model.SpexPlusShort", **SHORT}, "streamer": WHOLE}
    checkpoint.save(tmp_path / "best.pth", {"model": SpexPlusShort(**SHORT).state_dict(), "config": config})
    extractor, calls = Inferencer(tmp_path / "best.pth"), []
    extractor.model.register_forward_hook(lambda _model, inputs, _output: calls.append(inputs[0].shape[1]))
    assert not may_pad(extractor.model, extractor.streamer)
    run_test(extractor, {"SI-SDR": SISDR()}, folder, 3)
    assert calls == [1] * 7


def test_metrics_are_of_the_models_rate(tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "test", ["s0_a", "s1_b"])
    for path in folder.iterdir():
        audio.write(path, audio.read(path, RATE), 8000)
    config = {
        "model": {"_target_": "ss.model.SpexPlusOnline", **SIZES, **WINDOWS},
        "streamer": WHOLE,
        "data": {"sample_rate": 8000},
    }
    checkpoint.save(tmp_path / "best.pth", {"model": SpexPlusOnline(**SIZES, **WINDOWS).state_dict(), "config": config})  # type: ignore[arg-type]
    test = {"inferencer": "ss.inferencer.Inferencer", "checkpoint": str(tmp_path / "best.pth"), "folder": str(folder)}
    stoi = {"_target_": "ss.metric.STOI", "sample_rate": 16000}
    found, _ = run_from_config({**test, "metrics": {"STOI": stoi}, "batch_size": 1, "num_workers": 0})
    expected = run_test(Inferencer(tmp_path / "best.pth"), {"STOI": STOI(8000)}, folder, 1)
    assert [row.values for row in found.values()] == [row.values for row in expected.values()]


class LastSamples(SingleMetric):
    """Level of the last samples of the estimate, which is where padding would show first."""

    def compute(self, estimate: Array, target: Array) -> float:
        return float(np.abs(estimate[-200:]).sum())


class Process(Metric):
    """The number of the process, of the length of the utterance."""

    def record(self, column: str, estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
        return UtteranceScores(
            {"process": os.getpid(), "samples": len(estimate), "sum": float((estimate + target + mixture).sum())}, {}
        )


class Failing(Metric):
    """Fails, or ends its process, for utterances that begin with such a value."""

    def record(self, column: str, estimate: Array, target: Array, mixture: Array) -> UtteranceScores:
        if estimate[0] == 2:
            raise ZeroDivisionError("no such thing")
        if estimate[0] == 3:
            os._exit(1)
        return UtteranceScores({column: 0.0}, {})


def utterances(n: int, first: float = 1) -> list[Utterance]:
    waves = [np.full(10 + i, first if i == n // 2 else 1, np.float32) for i in range(n)]
    return [Utterance(f"u{i}", wave, wave, wave) for i, wave in enumerate(waves)]


def test_workers_give_every_row_once_and_in_order() -> None:
    here, there = (list(evaluate_all({"it": Process()}, iter(utterances(23)), n)) for n in (0, 2))
    assert [name for name, _ in here] == [name for name, _ in there] == [f"u{i}" for i in range(23)]
    for (_, a), (_, b) in zip(here, there, strict=True):
        assert a.values.pop("process") == os.getpid()
        assert b.values.pop("process") != os.getpid()
        assert a == b


def test_the_model_goes_on_while_workers_compute() -> None:
    taken = []
    rows = evaluate_all({"it": Process()}, (taken.append(one.name) or one for one in utterances(23)), 1)
    assert next(rows)[0] == "u0"
    assert 1 < len(taken) < 10  # ahead, but not by so many that they fill the memory
    assert [name for name, _ in rows] == taken[1:]


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_error_in_a_metric_names_the_utterance(n_workers: int) -> None:
    with pytest.raises(RuntimeError, match="^u2: no such thing"):
        list(evaluate_all({"it": Failing()}, utterances(5, first=2), n_workers))


def test_a_metric_that_ends_its_process_is_told_with_the_utterance() -> None:
    with pytest.raises(RuntimeError, match=r"a metric ended its process, with one of the utterances .*\bu2\b"):
        list(evaluate_all({"it": Failing()}, utterances(5, first=3), 1))
