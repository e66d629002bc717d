"""Metrics: the golden values, what they must not depend on, and what is reported where there is no value."""

import json
import math
import random
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ss import audio
from ss.errors import UserError
from ss.metric import (
    ACC,
    COLUMNS,
    PESQ,
    SDR,
    SISDR,
    SNR,
    STOI,
    CannotCompute,
    CompositeMetric,
    DuringSpeech,
    Improvement,
    Muted,
    PauseLevel,
    Settling,
    SingleMetric,
    STOIDrop,
    Suppression,
    Unsettled,
    UtteranceScores,
    applies,
    evaluate,
    summarize,
)

ASSETS = Path(__file__).parent / "assets/metrics"
GOLDEN = json.loads((ASSETS / "metrics.json").read_text())
CONFIGS = Path(__file__).parents[1] / "configs/groups/metrics.yaml"
SINGLES = {"SISDR": SISDR(), "SNR": SNR(), "STOI": STOI(), "PESQ": PESQ()}
HAS_PESQ = find_spec("pesq") is not None
OTHER_SCENES = {"absent-dB": "the target speaks", "STOI-drop": "the mixture is not the clean target"}
needs_pesq = pytest.mark.skipif(not HAS_PESQ, reason="the optional package pesq is not installed")


def pair(i: int, seconds: float | None = None) -> tuple[Tensor, Tensor]:
    """(estimate, target) [S] of golden pair i."""
    stop = None if seconds is None else round(16000 * seconds)
    estimate, target = (torch.from_numpy(audio.read(ASSETS / f"pair{i}-{kind}.flac", 16000)) for kind in ("estimate", "target"))
    return estimate[:stop], target[:stop]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def configured(name: str) -> dict:
    return instantiate(OmegaConf.load(CONFIGS)[name], _convert_="all")


@pytest.mark.parametrize("i", range(4))
def test_golden(i: int) -> None:
    estimate, target = pair(i)
    row = evaluate({**SINGLES, "composite": CompositeMetric()}, estimate, target, target)
    expected = {name: value for name, value in GOLDEN[f"pair{i}"].items() if name not in row.missing}
    assert row.values == pytest.approx(expected, rel=3e-4)
    assert set(row.missing) == (set() if HAS_PESQ else {"PESQ", "CSIG", "CBAK", "COVL"})


@needs_pesq
def test_a_batch_gives_what_its_utterances_give() -> None:
    estimate, target = (torch.stack(waves) for waves in zip(pair(0, 2.5), pair(1, 2.5), strict=True))
    for metric in (*SINGLES.values(), SDR()):
        assert torch.equal(metric(estimate, target), torch.cat([metric(estimate[i, None], target[i, None]) for i in range(2)]))
    rated, alone = CompositeMetric()(estimate, target), CompositeMetric()(estimate[1:], target[1:])
    assert {name: values[1:] for name, values in rated.items()} == alone


@pytest.mark.parametrize("shapes", [((80,), (80,)), ((1, 80), (1, 79)), ((2, 80), (1, 80)), ((1, 1, 80), (1, 1, 80))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    estimate, target = (noise(*shape) for shape in shapes)
    for metric in (SISDR(), CompositeMetric()):
        with pytest.raises(ValueError, match=r"one shape \[batch, samples\]"):
            metric(estimate, target)


def test_si_sdr_and_snr_of_a_known_error() -> None:
    target, error = torch.stack([torch.sin(torch.arange(8000) * f / 8000 * 2 * math.pi) for f in (100, 330)])
    estimate = target + 0.1 * error
    assert SNR()(estimate[None], target[None]).item() == pytest.approx(20, abs=1e-3)
    for scale, offset in ((1, 0), (-3, 0.5), (1e-4, -2)):
        assert SISDR()(scale * estimate[None] + offset, target[None]).item() == pytest.approx(20, abs=0.05)
    assert SNR()(0.5 * target[None], target[None]).item() == pytest.approx(20 * math.log10(2), abs=1e-4)


def test_sdr_is_what_least_squares_over_the_taps_leaves() -> None:
    taps, target = 24, noise(900).numpy().astype(float)
    estimate = np.convolve(target, noise(40, seed=1).numpy())[:900] + 0.3 * noise(900, seed=2).numpy()
    delayed = np.stack([np.concatenate([np.zeros(d), target, np.zeros(taps - 1 - d)]) for d in range(taps)], 1)
    padded = np.concatenate([estimate, np.zeros(taps - 1)])
    explained = delayed @ np.linalg.lstsq(delayed, padded, rcond=None)[0]
    expected = 10 * np.log10((explained**2).sum() / ((padded - explained) ** 2).sum())
    assert SDR(taps)(*(torch.tensor(wave)[None] for wave in (estimate, target))).item() == pytest.approx(expected, rel=1e-6)


def test_improvement_is_the_difference_to_the_mixture() -> None:
    estimate, target = (wave[None] for wave in pair(1))
    mixture = target + 0.1 * noise(*target.shape)
    for metric in (SISDR(), SDR()):
        gained = Improvement(metric)(estimate, target, mixture)
        assert gained.item() == pytest.approx((metric(estimate, target) - metric(mixture, target)).item(), rel=1e-5)
        assert Improvement(metric)(mixture, target, mixture).item() == 0


@needs_pesq
def test_a_perfect_estimate_is_infinitely_good_and_no_part_of_a_mean() -> None:
    _, target = pair(0)
    for metric in (SISDR(), SNR(), SDR()):
        assert metric(target[None], target[None]).item() == math.inf
    row = evaluate(configured("all"), target, target, target)
    perfect = {"STOI": 1, "PESQ": 4.644, "CSIG": 5, "CBAK": 5, "COVL": 5, "SSNR": 35, "STOI-drop": 0}
    assert row.values == pytest.approx(perfect, rel=1e-4)
    infinite, mixture = "the value is inf", "the mixture's own value is inf"
    missing = {"SI-SDR": infinite, "SNR": infinite, "SI-SDRi": mixture, "SDRi": mixture, "absent-dB": "the target speaks"}
    assert row.missing == missing


def waves_of(case: str) -> tuple[Tensor, Tensor]:
    """(estimate, target) [S] with something wrong."""
    estimate, target = pair(0)
    broken = {
        "estimate silent": (torch.zeros_like(target), target),
        "estimate constant": (torch.full_like(target, 0.3), target),
        "target silent": (estimate, torch.zeros_like(target)),
        "target constant": (estimate, torch.full_like(target, 0.1)),
        "estimate nan": (estimate.clone().index_fill_(0, torch.tensor([7]), torch.nan), target),
        "target inf": (estimate, target.clone().index_fill_(0, torch.tensor([7]), torch.inf)),
        "empty": (estimate[:0], target[:0]),
        "short": (estimate[20000:21600], target[20000:21600]),
        "long": (estimate.repeat(11), target.repeat(11)),
        "a click at the end": (estimate, torch.zeros_like(target).index_fill_(0, torch.tensor([len(target) - 1]), 1)),
        "a click": (estimate, torch.zeros_like(target).index_fill_(0, torch.tensor([20000]), 0.5)),
    }
    return broken[case]


@pytest.mark.parametrize(
    ("metric", "case", "reason"),
    [
        *((metric, "estimate silent", "the estimate is silent") for metric in (SISDR(), SDR(), STOI())),
        *((metric, "target silent", "the target is silent") for metric in (*SINGLES.values(), SDR())),
        *((metric, "estimate nan", "the estimate is not finite") for metric in (*SINGLES.values(), SDR())),
        *((metric, "target inf", "the target is not finite") for metric in (*SINGLES.values(), SDR())),
        *((metric, "empty", "there are no samples") for metric in (*SINGLES.values(), SDR())),
        (SISDR(), "estimate constant", "the estimate is silent"),
        (SISDR(), "target constant", "the target is silent"),
        (STOI(), "short", "less than 0.4 s of the target is speech"),
        (STOI(), "a click", "less than 0.4 s of the target is speech"),
        pytest.param(PESQ(), "estimate silent", "the estimate is silent", marks=needs_pesq),
        pytest.param(PESQ(), "short", "PESQ needs at least 0.25 s", marks=needs_pesq),
        pytest.param(PESQ(), "long", "PESQ takes at most 40 s", marks=needs_pesq),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, SingleMetric) else None,
)
def test_what_cannot_be_computed_says_why(metric: SingleMetric, case: str, reason: str) -> None:
    estimate, target = waves_of(case)
    with pytest.raises(CannotCompute) as refusal:
        metric(estimate[None], target[None])
    assert refusal.value.reason == reason
    row = evaluate({"it": metric}, estimate, target, target)
    assert row == UtteranceScores({}, {"it": reason})


@pytest.mark.parametrize(
    ("case", "computed"),
    [
        *((case, {"SSNR"}) for case in ("estimate silent", "short", "long")),
        *((case, set()) for case in ("target silent", "empty")),
        pytest.param("a click at the end", {"SSNR", "PESQ"}, marks=needs_pesq),
    ],
)
def test_the_composite_gives_what_it_can(case: str, computed: set[str]) -> None:
    estimate, target = waves_of(case)
    row = evaluate({"composite": CompositeMetric()}, estimate, target, target)
    assert set(row.values) == computed
    assert set(row.missing) == set(CompositeMetric.NAMES) - computed
    with pytest.raises(CannotCompute, match=next(iter(row.missing.values()))):
        CompositeMetric()(estimate[None], target[None])


def test_without_pesq_the_rest_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    estimate, target = pair(0)
    row = evaluate(configured("all"), estimate, target, target + 0.1 * noise(*target.shape))
    assert set(row.values) == {"SI-SDR", "SI-SDRi", "SNR", "SDRi", "STOI", "SSNR"}
    pesq = dict.fromkeys(("PESQ", "CSIG", "CBAK", "COVL"), "the package pesq is not installed")
    assert row.missing == pesq | OTHER_SCENES


@needs_pesq
def test_a_failure_inside_pesq_is_no_value() -> None:
    estimate, target = pair(0)
    estimate, target = estimate[20000:25000], torch.cat([torch.zeros(4900), target[20000:20100]])
    row = evaluate({"PESQ": PESQ()}, estimate, target, target)
    assert row == UtteranceScores({}, {"PESQ": "PESQ failed: cannot convert float NaN to integer"})


@needs_pesq
def test_pesq_runs_once_for_all_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: object) -> float:
        calls.append(args)
        return 2.0

    monkeypatch.setattr("pesq.pesq", counted)
    estimate, target = pair(0)
    row = evaluate(configured("all"), estimate, target, target + 0.1 * noise(*target.shape))
    assert len(calls) == 1
    assert row.values["PESQ"] == 2.0


def test_rates_that_pesq_does_not_know_are_refused() -> None:
    with pytest.raises(UserError, match="sample_rate: expected one of 8000, 16000, found 44100"):
        CompositeMetric(44100)


@needs_pesq
def test_digital_silence_in_part_of_the_target_leaves_the_composite_finite() -> None:
    estimate, target = pair(2)
    estimate, target = torch.cat([estimate, noise(16000) * 0.01]), torch.cat([target, torch.zeros(16000)])
    rated = CompositeMetric()(estimate[None], target[None])
    for name, value in rated.items():
        assert 1 <= value.item() <= 5 or name == "SSNR", name
    shorter = CompositeMetric()(estimate[None, :-16000], target[None, :-16000])
    assert rated["SSNR"] < shorter["SSNR"]


@needs_pesq
def test_configs_give_every_column() -> None:
    estimate, target = pair(3, 2.5)
    mixture = target + 0.1 * noise(*target.shape)
    row = evaluate(configured("all"), estimate, target, mixture)
    assert row.missing == OTHER_SCENES
    calls = evaluate(configured("calls"), estimate, target, mixture)
    assert [*row.values, *row.missing, *configured("calls")] == list(COLUMNS)
    assert set(calls.values) | set(calls.missing) == set(configured("calls"))
    assert list(evaluate(configured("fast"), estimate, target, mixture).values) == ["SI-SDR", "SI-SDRi"]


def test_other_errors_are_not_taken_for_missing_values() -> None:
    class Broken(SingleMetric):
        def compute(self, estimate: np.ndarray, target: np.ndarray) -> float:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate({"it": Broken()}, *(noise(3, 100)))


def test_a_summary_is_exact_and_independent_of_order() -> None:
    draw = random.Random(0)
    rows = [UtteranceScores({"SI-SDR": draw.gauss(0, 10.0 ** draw.randint(-8, 8)), "mine": 1.5}, {}) for _ in range(50)]
    rows += [
        UtteranceScores({"SI-SDR": 3.25}, {"mine": "b"}),
        UtteranceScores({}, {"SI-SDR": "a", "mine": "a"}),
        UtteranceScores({}, {"SI-SDR": "c", "mine": "b"}),
    ]
    summary = summarize(rows)
    exact = sum(Fraction(row.values["SI-SDR"]) for row in rows[:51]) / 51
    assert summary["metrics"]["SI-SDR"]["mean"] == pytest.approx(float(exact), rel=1e-15)
    middle = sorted(row.values["SI-SDR"] for row in rows[:51])[25]
    counts = {"median": middle, "count": 51, "missing": 2, "reasons": {"a": 1, "c": 1}}
    assert {**summary["metrics"]["SI-SDR"], "mean": 0} == {"mean": 0, **counts}
    assert summary["metrics"]["mine"] == {"mean": 1.5, "median": 1.5, "count": 50, "missing": 3, "reasons": {"a": 1, "b": 2}}
    assert summary["utterances"] == 53
    for _ in range(5):
        draw.shuffle(rows)
        assert json.dumps(summarize(rows)) == json.dumps(summary)


def test_a_metric_that_was_never_computed_has_no_mean() -> None:
    summary = summarize([UtteranceScores({}, {"PESQ": "the package pesq is not installed"})] * 3)
    reasons = {"the package pesq is not installed": 3}
    assert summary["metrics"]["PESQ"] == {"mean": None, "median": None, "count": 0, "missing": 3, "reasons": reasons}
    assert summarize([]) == {"metrics": {}, "utterances": 0}


def test_suppression_is_the_output_over_the_mixture_where_the_target_is_silent() -> None:
    mixture, silence, metrics = noise(16000), torch.zeros(16000), {"absent-dB": Suppression()}
    for gain, expected in ((1.0, 0.0), (0.1, -20.0), (2.0, 20 * math.log10(2)), (0.0, -100.0), (1e-9, -100.0)):
        assert evaluate(metrics, gain * mixture, silence, mixture).values["absent-dB"] == pytest.approx(expected, abs=1e-4)
    assert evaluate({"it": Suppression(-60)}, silence, silence, mixture).values == {"it": -60}
    nan = torch.full_like(mixture, torch.nan)
    for waves, reason in (
        ((mixture, mixture, mixture), "the target speaks"),
        ((mixture, silence, silence), "the mixture is silent"),
        ((nan, silence, mixture), "the estimate is not finite"),
        ((silence[:0],) * 3, "there are no samples"),
    ):
        assert evaluate(metrics, *waves) == UtteranceScores({}, {"absent-dB": reason})


def test_stoi_drop_is_what_clean_speech_loses() -> None:
    _, target = pair(0)
    estimate, metrics = target + 0.05 * noise(*target.shape), {"STOI-drop": STOIDrop(), "STOI": STOI()}
    row = evaluate(metrics, estimate, target, target)
    assert row.values["STOI-drop"] == pytest.approx(1 - row.values["STOI"], abs=1e-9)
    assert 0.005 < row.values["STOI-drop"] < 0.9
    silence = torch.zeros_like(target)
    for waves, reason in (
        ((estimate, target, estimate), "the mixture is not the clean target"),
        ((estimate, silence, target), "the mixture is not the clean target"),
        ((silence, target, target), "the estimate is silent"),
        ((estimate, silence, silence), "the target is silent"),
    ):
        assert evaluate(metrics, *waves).missing["STOI-drop"] == reason


def test_what_is_for_other_scenes_only_does_not_apply() -> None:
    metrics = summarize([UtteranceScores({}, {**OTHER_SCENES, "PESQ": "the package pesq is not installed"})] * 2)["metrics"]
    assert {name: applies(average) for name, average in metrics.items()} == {"PESQ": True, "absent-dB": False, "STOI-drop": False}
    mixed = summarize(
        [UtteranceScores({}, OTHER_SCENES), UtteranceScores({"absent-dB": -20.0}, {"STOI-drop": "the estimate is silent"})]
    )["metrics"]
    assert all(applies(average) for average in mixed.values())


def test_accuracy_counts_known_speakers_only() -> None:
    logits = torch.eye(4)
    assert ACC()(logits, torch.tensor([0, 2, -100, 3])).tolist() == [1, 0, 1]
    assert ACC()(logits[:2], torch.tensor([-100, -100])).tolist() == []
    with pytest.raises(ValueError, match=r"logits \[batch, speakers\]"):
        ACC()(logits, torch.tensor([0]))


def call(turns: list[tuple[float, float]], seconds: float = 20) -> tuple[Tensor, Tensor]:
    """(mixture, target) [S] of a call: the target makes noise in turns (start, stop), another one all the time, 20 dB lower."""
    time = torch.arange(round(16000 * seconds)) / 16000
    speaks = sum(((time >= start) & (time < stop)).float() for start, stop in turns)
    target = speaks * noise(len(time))
    return target + 0.1 * noise(len(time), seed=1), target


TURNS = [(1.0, 3.0), (5.0, 7.0), (8.0, 12.0), (14.0, 15.0)]


def test_a_gate_that_opens_late_settles_then() -> None:
    mixture, target = call(TURNS)
    late = [0.5, 0.0, 1.2, 0.3]
    gate = sum(call([(start + wait, stop)])[1].bool().float() for (start, stop), wait in zip(TURNS, late, strict=True))
    for estimate in (gate * mixture, gate * target * 0.1, -gate * target):
        assert Settling(1.0)(estimate[None], target[None]).item() == pytest.approx(1.2)
        assert Settling(0.0)(estimate[None], target[None]).item() == 0
        assert Settling(0.5)(estimate[None], target[None]).item() == pytest.approx(0.4)
        assert Unsettled()(estimate[None], target[None]).item() == 0
    assert Muted()((gate * mixture)[None], target[None]).item() == pytest.approx(sum(late) / 9, abs=1e-6)
    assert Settling(1.0)(mixture[None], target[None]).item() == 0


def test_a_muted_turn_counts_and_so_does_another_voice_instead_of_it() -> None:
    _, target = call(TURNS)
    rest = target.clone()
    rest[5 * 16000 : 7 * 16000] = 0
    other = noise(len(target), seed=2)
    for estimate, muted in ((rest, 2 / 9), (rest + 0.09 * (target - rest), 2 / 9), (rest + (rest == 0) * other, 0)):
        assert Muted()(estimate[None], target[None]).item() == pytest.approx(muted, abs=1e-6)
    for estimate in (rest, rest + (rest == 0) * other):
        assert Unsettled()(estimate[None], target[None]).item() == 0.25
        assert Settling(1.0)(estimate[None], target[None]).item() == pytest.approx(2)  # the length of the turn
    assert Muted()((0.11 * target)[None], target[None]).item() == 0
    assert Muted()(torch.zeros_like(target)[None], target[None]).item() == 1
    assert Unsettled()(torch.zeros_like(target)[None], target[None]).item() == 1


def test_a_good_frame_alone_settles_nothing() -> None:
    _, target = call([(1.0, 3.0)])
    estimate = 10 * noise(len(target), seed=2)
    for start in (1.0, 2.0):  # of a frame at the beginning, and of the rest
        where = slice(round(16000 * start), None if start == 2 else round(16000 * (start + 0.02)))
        estimate[where] = target[where]
    assert Settling()(estimate[None], target[None]).item() == pytest.approx(1.0)


def test_only_what_follows_half_a_second_of_silence_is_a_turn() -> None:
    _, target = call([(0.2, 1.0), (1.4, 2.0), (4.0, 4.3), (6.0, 7.0), (7.4, 8.0)])  # at the very start, short, and one with a pause
    silence = torch.zeros_like(target)
    assert Settling()(silence[None], target[None]).item() == pytest.approx(2)
    with pytest.raises(CannotCompute, match="no turn of the target"):
        Unsettled()(silence[None, : 5 * 16000], target[None, : 5 * 16000])


def test_pauses_and_speech_are_measured_apart() -> None:
    mixture, target = call(TURNS)
    speaks = target.bool()
    estimate = torch.where(speaks, target + 0.01 * noise(len(target), seed=3), 0.1 * mixture)
    assert PauseLevel()(estimate[None], target[None], mixture[None]).item() == pytest.approx(-20, abs=1e-4)
    assert PauseLevel()((estimate * speaks)[None], target[None], mixture[None]).item() == -100
    waves = [estimate[None], target[None], mixture[None]]
    gained = Improvement(DuringSpeech(SISDR()))(*waves).item()
    assert gained == pytest.approx(Improvement(SISDR())(*(wave[:, speaks] for wave in waves)).item(), abs=1e-3)
    assert gained == pytest.approx(20, abs=0.2)
    for metric, cannot, reason in (
        (PauseLevel(), [wave[:, 16000:48000] for wave in waves], "the target is never silent"),
        (PauseLevel(), [estimate[None], target[None], target[None]], "the mixture is silent"),
        (Muted(), [mixture[None], 0 * target[None]], "the target is silent"),
        (Muted(), [mixture[None, :16100], target[None, :16100]], "the target has no frame of speech"),  # but a part of one
        (DuringSpeech(SISDR()), [mixture[None, :300], mixture[None, :300]], "the target has no frame of speech"),
        (Settling(), [mixture[None, :0], target[None, :0]], "there are no samples"),
    ):
        with pytest.raises(CannotCompute, match=reason):
            metric(*cannot)
