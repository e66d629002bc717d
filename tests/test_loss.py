"""The loss beyond the golden outputs (see test_model): silence, unknown speakers, parts of a batch, targets that pause."""

import numpy as np
import pytest
import torch

from ss.errors import UserError
from ss.loss import LossOutput, PresenceLoss, SpexPlusLoss, SpexPlusShortLoss, masked_si_sdr
from ss.trainer.progress import LossMeter, Monitor, Progress


def batch(n: int = 4, samples: int = 1000) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    wave, target = torch.randn(2, n, samples, generator=generator)
    return wave, torch.randn(n, 3, generator=generator), target, torch.full((n,), samples), torch.arange(n) % 3


def test_si_sdr_ignores_scale_and_what_is_behind_the_end() -> None:
    wave, _, target, lengths, _ = batch()
    lengths[0] = 600
    before = masked_si_sdr(wave, target, lengths)
    wave[0, 600:], target[0, 600:] = 7, 9
    torch.testing.assert_close(masked_si_sdr(3 * wave, target, lengths), before, rtol=1e-4, atol=1e-4)


def test_si_sdr_by_hand() -> None:
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]]) * 100
    noise = torch.tensor([[1.0, 1.0, -1.0, -1.0]]) * 10
    found = masked_si_sdr(target + noise, target, torch.tensor([4]))
    assert found.item() == pytest.approx(20, abs=1e-4)


def test_unknown_speakers_add_nothing() -> None:
    wave, logits, target, lengths, speakers = batch()
    unknown = torch.full_like(speakers, -100)
    found = SpexPlusShortLoss()([wave], logits, target, lengths, unknown)
    assert found.total.item() == pytest.approx(-found.si_sdr.mean().item())
    assert found.correct.isnan().all()
    assert SpexPlusShortLoss()([wave], logits, target, lengths, speakers).total > found.total


def test_halves_average_to_the_whole() -> None:
    wave, logits, target, lengths, speakers = batch()
    speakers[0] = -100
    loss = SpexPlusShortLoss()
    whole = loss([wave], logits, target, lengths, speakers).total
    halves = [loss([wave[i]], logits[i], target[i], lengths[i], speakers[i]).total for i in (slice(2), slice(2, 4))]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_silence_is_finite_with_finite_gradients() -> None:
    wave, logits, target, lengths, speakers = batch()
    wave[0], target[1] = 0, 0
    wave.requires_grad_()
    loss = SpexPlusShortLoss()([wave], logits, target, lengths, speakers).total
    loss.backward()
    assert loss.isfinite()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


def test_wrong_number_of_scales() -> None:
    wave, logits, target, lengths, speakers = batch()
    with pytest.raises(UserError, match="model of 3 scales, but the model gave 1"):
        SpexPlusLoss()([wave], logits, target, lengths, speakers)


RATE = 16000


def scenes(seconds: float = 1.5) -> tuple[torch.Tensor, ...]:
    """Estimates, targets and mixtures [4,S] of a target that is absent, speaks all the time, at first, and in two words."""
    generator = torch.Generator().manual_seed(1)
    samples = round(seconds * RATE)
    wave, target, interferer = 0.1 * torch.randn(3, 4, samples, generator=generator)
    target[0] = 0
    target[2, 8000:] = 0
    target[3, 8000:12000] *= 1e-3  # a pause of 0.25 s between words
    return target + 0.2 * wave, target, target + interferer


def arguments(n: int = 4, samples: int = 24000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, lengths and unknown speakers."""
    return torch.zeros(n, 3), torch.full((n,), samples), torch.full((n,), -100)


def by_hand(e: np.ndarray, s: np.ndarray, x: np.ndarray, active: slice, weight: float) -> float:
    """The loss of one utterance [S] whose active part is known."""
    inactive = np.ones(len(s), bool)
    inactive[active] = False
    loss = 0.0
    if s[active].any():
        loss += 10 * np.log10((((s - e)[active] ** 2).sum() + 1e-3 * (s[active] ** 2).sum()) / (s[active] ** 2).sum())
    if inactive.any():
        ratio = ((e[inactive] ** 2).sum() + 1e-3 * (x[inactive] ** 2).sum()) / (x[inactive] ** 2).sum()
        loss += weight * inactive.mean() * 10 * np.log10(ratio)
    return float(loss)


def test_presence_loss_by_hand() -> None:
    wave, target, mixture = scenes()
    logits, lengths, speakers = arguments()
    active = [slice(0, 0), slice(None), slice(0, 8000 + 3200), slice(None)]
    waves = [x.double().numpy() for x in (wave, target, mixture)]
    for weight in (1.0, 0.3):
        expected = [by_hand(*(x[i] for x in waves), active[i], weight) for i in range(4)]
        loss = PresenceLoss(inactive_weight=weight, tau_inactive=1e-3)
        for i in range(4):
            one = slice(i, i + 1)
            found = loss([wave[one]], logits[one], target[one], lengths[one], speakers[one], mixture[one])
            assert found.total.item() == pytest.approx(expected[i], abs=1e-3)
        found = loss([wave], logits, target, lengths, speakers, mixture)
        assert found.total.item() == pytest.approx(np.mean(expected), abs=1e-3)
    assert found.si_sdr.isnan().tolist() == [True, False, False, False]
    assert found.si_sdr[1:].tolist() == pytest.approx(masked_si_sdr(wave, target, lengths)[1:].tolist())
    e, x = (np.square(wave_[2, 11200:]).sum() for wave_ in (waves[0], waves[2]))
    assert found.inactive_db[2].item() == pytest.approx(10 * np.log10(e / x), abs=1e-3)
    assert found.inactive_db.isnan().tolist() == [False, True, False, True]


def test_presence_loss_rewards_silence_and_the_right_level() -> None:
    _, target, mixture = scenes()
    logits, lengths, speakers = arguments()

    def value(estimate: torch.Tensor) -> float:
        loss = PresenceLoss(inactive_weight=1, tau_inactive=1e-3)
        return loss([estimate], logits, target, lengths, speakers, mixture).total.item()

    assert value(target) == pytest.approx(-(30 + 30 + 30 + 30 * 12800 / 24000 + 30) / 4, abs=1e-3)
    assert value(target) < value(0.5 * target) < value(mixture)
    silent = PresenceLoss()([torch.zeros_like(target)], logits, target, lengths, speakers, mixture)
    assert silent.inactive_db[[0, 2]].tolist() == [-100, -100]


def test_presence_loss_looks_at_nothing_behind_the_end() -> None:
    wave, target, mixture = scenes()
    logits, lengths, speakers = arguments()
    lengths[:] = torch.tensor([9000, 20000, 20000, 24000])
    before = PresenceLoss()([wave], logits, target, lengths, speakers, mixture)
    for x in (wave, target, mixture):
        for i, n in enumerate(lengths):
            x[i, n:] = 3
    after = PresenceLoss()([wave], logits, target, lengths, speakers, mixture)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_halves_of_scenes_average_to_the_whole() -> None:
    wave, target, mixture = scenes()
    logits, lengths, speakers = arguments()
    speakers[1] = 2
    loss = PresenceLoss()
    whole = loss([wave], logits, target, lengths, speakers, mixture).total
    halves = [loss([wave[i]], logits[i], target[i], lengths[i], speakers[i], mixture[i]).total for i in (slice(0, 2), slice(2, 4))]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_inactive_time_that_is_short_or_silent_anyway_adds_nothing() -> None:
    wave, target, mixture = (x[2:3] for x in scenes())
    logits, lengths, speakers = arguments(1)
    silent = mixture.clone()
    silent[:, 11200:] = 0
    for samples, heard, counts in ((24000, mixture, True), (24000, silent, False), (11200 + 1500, mixture, False)):
        found = PresenceLoss()([wave], logits, target, lengths.clamp_max(samples), speakers, heard)
        assert found.inactive_db.isnan().item() != counts
        active = masked_db(wave[0, :11200], target[0, :11200])
        assert (abs(found.total.item() - active) < 1e-3) != counts


def masked_db(estimate: torch.Tensor, target: torch.Tensor) -> float:
    """Thresholded negative SDR in dB of waves [S]."""
    return (10 * torch.log10((target - estimate).square().sum() / target.square().sum() + 1e-3)).item()


@pytest.mark.parametrize("estimate", ["zeros", "target", "mixture", "noise"])
@pytest.mark.parametrize("silent", ["nothing", "targets", "all"])
def test_presence_loss_has_finite_gradients(estimate: str, silent: str) -> None:
    wave, target, mixture = scenes()
    logits, lengths, speakers = arguments()
    target, mixture = target * (silent == "nothing"), mixture * (silent != "all")
    choices = {"zeros": torch.zeros_like(wave), "target": target, "mixture": mixture, "noise": wave}
    wave = choices[estimate].clone().requires_grad_()
    found = PresenceLoss()([wave], logits, target, lengths, speakers, mixture)
    found.total.backward()
    assert found.total.isfinite()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert found.si_sdr.isnan().all() == (silent != "nothing")


def test_only_the_presence_loss_needs_the_mixture_and_fixes_the_level() -> None:
    wave, target, mixture = scenes()
    logits, lengths, speakers = arguments()
    with pytest.raises(ValueError, match="mixture: this loss needs the mixture"):
        PresenceLoss()([wave], logits, target, lengths, speakers)
    with_mixture, without = (SpexPlusShortLoss()([wave], logits, target, lengths, speakers, *more) for more in ((mixture,), ()))
    for a, b in zip(with_mixture, without, strict=True):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    assert without.inactive_db.isnan().all()
    assert [loss.fixes_level for loss in (PresenceLoss, SpexPlusLoss, SpexPlusShortLoss)] == [True, False, False]


def test_a_meter_leaves_out_what_has_no_value() -> None:
    unknown = torch.full((2,), torch.nan)
    meter = LossMeter()
    meter.add(LossOutput(torch.tensor(4.0), torch.tensor([torch.nan, 6.0]), unknown, torch.tensor([-20.0, torch.nan])))
    meter.add(LossOutput(torch.tensor(1.0), torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([-10.0])))
    assert meter.means() == pytest.approx({"loss": 3, "si_sdr": 4, "accuracy": 1, "inactive_db": -15})
    silent = LossMeter()
    silent.add(LossOutput(torch.tensor(4.0), unknown, unknown, unknown))
    assert silent.means() == silent.means(here=True) == {"loss": 4}
    silent.add(LossOutput(torch.tensor(torch.nan), unknown, unknown, unknown))
    assert np.isnan(silent.means()["loss"])


def test_progress_goes_on_from_its_state() -> None:
    progress = Progress(epoch=3, examples=20)
    progress.meter.add(LossOutput(torch.tensor(4.0), torch.tensor([1.0, 6.0]), *torch.full((2, 2), torch.nan)))
    again = Progress.restored(progress.state())
    assert again.state() == progress.state()
    assert again.meter.means() == {"loss": 4, "si_sdr": 3.5}


def test_what_is_not_finite_is_never_kept_as_the_best() -> None:
    for rule, good, better in (("max valid.si_sdr", 1.0, 2.0), ("min valid.loss", 2.0, 1.0)):
        monitor = Monitor(rule)
        assert monitor.better(np.nan, None)  # there must be one
        for value in (np.nan, np.inf, -np.inf):
            assert not monitor.better(value, good)
            assert monitor.better(good, value)
        assert monitor.better(better, good)
        assert not monitor.better(good, better)
    assert np.isnan(Monitor("max valid.accuracy").value({"valid": {"loss": 1.0}}))
