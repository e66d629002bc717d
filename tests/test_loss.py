"""The loss beyond the golden outputs (see test_model): silence, unknown speakers, parts of a batch."""

import pytest
import torch

from ss.loss import SpexPlusLoss, SpexPlusShortLoss, masked_si_sdr


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
    assert found.loss.item() == pytest.approx(-found.si_sdr.mean().item())
    assert found.correct.isnan().all()
    assert SpexPlusShortLoss()([wave], logits, target, lengths, speakers).loss > found.loss


def test_halves_average_to_the_whole() -> None:
    wave, logits, target, lengths, speakers = batch()
    speakers[0] = -100
    loss = SpexPlusShortLoss()
    whole = loss([wave], logits, target, lengths, speakers).loss
    halves = [loss([wave[i]], logits[i], target[i], lengths[i], speakers[i]).loss for i in (slice(2), slice(2, 4))]
    assert (sum(halves) / 2).item() == pytest.approx(whole.item(), rel=1e-5)


def test_silence_is_finite_with_finite_gradients() -> None:
    wave, logits, target, lengths, speakers = batch()
    wave[0], target[1] = 0, 0
    wave.requires_grad_()
    loss = SpexPlusShortLoss()([wave], logits, target, lengths, speakers).loss
    loss.backward()
    assert loss.isfinite()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()


def test_wrong_number_of_scales() -> None:
    wave, logits, target, lengths, speakers = batch()
    with pytest.raises(ValueError, match="model of 3 scales, but the model gave 1"):
        SpexPlusLoss()([wave], logits, target, lengths, speakers)
