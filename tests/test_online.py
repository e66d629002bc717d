"""The online model: forward is the stream, whatever the split; more input never changes earlier output; strange input is safe."""

from typing import Any

import pytest
import torch
from conftest import SIZES, WINDOWS, lively
from torch import Tensor
from torch.nn import functional as F

from ss.errors import UserError
from ss.model import SpexPlusOnline
from ss.model.memory import recurrence
from ss.model.stft import MultiWindowSTFT, OverlapAddDecoder, Spectrum

VARIANTS = [
    {"memory": "none"},
    {"memory": "gru"},
    {"memory": "linear"},
    {"memory": "lstm", "complex_mask": True},
    {"lookahead": 3},
    {"taps": 3, "hop": 16, "synthesis_kernel": 32},
    {"hop": 32},
    {"kernels": [32, 48, 128]},
]


def model(**changes: Any) -> SpexPlusOnline:
    """A tiny model whose batch norms have seen something, in eval mode."""
    torch.manual_seed(0)
    return lively(SpexPlusOnline(**{**SIZES, **WINDOWS, **changes}))


def audio(batch: int = 2, samples: int = 1203, seed: int = 1) -> tuple[Tensor, Tensor]:
    """A mixture [B,S] and an enrolment [B,R]."""
    torch.manual_seed(seed)
    return 0.1 * torch.randn(batch, samples), 0.1 * torch.randn(batch, 900)


def streamed(online: SpexPlusOnline, mixture: Tensor, ref: Tensor, hops: list[int]) -> Tensor:
    """The mixture through `step`, so many hops at a time in turn, flushed with zeros, the delay taken out."""
    total = mixture.shape[-1] + online.delay
    padded = F.pad(mixture, (0, online.delay + -total % online.hop))
    state, out, place = online.init_state(online.enroll(ref)), [], 0
    while place < padded.shape[-1]:
        chunk = padded[:, place : place + hops[len(out) % len(hops)] * online.hop]
        (wave,), state = online.step(chunk, state)
        assert wave.shape == chunk.shape
        out.append(wave)
        place += chunk.shape[-1]
    return torch.cat(out, -1)[:, online.delay :][:, : mixture.shape[-1]]


@torch.no_grad()
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("hops", [[1], [2, 1, 5], [1000]], ids=str)
def test_any_split_gives_what_forward_gives(changes: dict[str, Any], hops: list[int]) -> None:
    online, (mixture, ref) = model(**changes), audio()
    whole = online(mixture[None], ref).waves[0][0]
    assert whole.shape == mixture.shape
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(streamed(online, mixture, ref, hops), whole, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_more_input_never_changes_earlier_output_and_latency_is_as_said(changes: dict[str, Any]) -> None:
    online, (mixture, ref) = model(**changes), audio(1)
    before = online(mixture[None], ref).waves[0][0]
    for place in range(600, 600 + online.hop):
        other = mixture.clone()
        other[:, place:] = 0.1 * torch.randn(1, mixture.shape[-1] - place, generator=torch.Generator().manual_seed(2))
        changed = (online(other[None], ref).waves[0][0] - before)[0].abs() > 1e-6
        first = int(changed.nonzero()[0])
        assert first > place - online.latency
    assert online.latency == online.delay + online.hop


@torch.no_grad()
def test_chunks_of_one_signal_are_one_signal() -> None:
    online, (mixture, ref) = model(), audio(2, 1200)
    chunks = mixture.view(2, 4, 300).movedim(1, 0)
    waves = online(chunks, ref).waves[0]
    assert waves.shape == chunks.shape
    torch.testing.assert_close(waves.movedim(0, 1).flatten(1), online(mixture[None], ref).waves[0][0])


@torch.no_grad()
def test_streams_of_a_batch_and_in_turn_are_as_alone() -> None:
    online, (mixture, ref) = model(), audio(3, 1200)
    together = streamed(online, mixture, ref, [2])
    states = [online.init_state(online.enroll(ref[i : i + 1])) for i in range(3)]
    outs: list[list[Tensor]] = [[], [], []]
    for place in range(0, 1200, online.hop):
        for i in range(3):
            (wave,), states[i] = online.step(mixture[i : i + 1, place : place + online.hop], states[i])
            outs[i].append(wave)
    alone = torch.cat([torch.cat(out, -1) for out in outs])[:, online.delay :]
    torch.testing.assert_close(together[:, : alone.shape[-1]], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_step_changes_nothing_that_it_was_given() -> None:
    online, (mixture, ref) = model(memory="gru"), audio()
    state = online.init_state(online.enroll(ref))
    first = online.step(mixture[:, :48], state)[0][0]
    weights = {name: tensor.clone() for name, tensor in online.state_dict().items()}
    torch.testing.assert_close(online.step(mixture[:, :48], state)[0][0], first, rtol=0, atol=0)
    assert all(torch.equal(weights[name], tensor) for name, tensor in online.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-40, 30.0])
def test_strange_input_gives_finite_output_and_the_stream_recovers(value: float) -> None:
    online, (mixture, ref) = model(memory="none"), audio(1, 4000)
    odd = mixture.clone()
    odd[:, 400:800] = value
    after, plain = (online(wave[None], ref).waves[0][0] for wave in (odd, mixture))
    assert torch.isfinite(after).all()
    torch.testing.assert_close(after[:, 2000:], plain[:, 2000:], rtol=0, atol=1e-5)


def test_every_weight_learns() -> None:
    online, (mixture, _) = model(), audio()
    # An enrolment so long that the encoder's last PReLU sees both signs.
    waves, logits = online.train()(mixture[None], 5 * torch.randn(2, 8000))
    (waves[0].square().sum() + logits.square().sum()).backward()
    assert [name for name, p in online.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
@pytest.mark.parametrize(("synthesis", "hop"), [(32, 20), (32, 16), (32, 32)])
def test_a_mask_of_ones_gives_the_input_back(synthesis: int, hop: int) -> None:
    encoder, decoder = MultiWindowSTFT([32, 96], synthesis, hop), OverlapAddDecoder(96, synthesis, hop)
    wave = torch.randn(2, 50 * hop)
    spectrum = encoder(F.pad(wave, (96 - hop, 0)))
    again, _ = decoder(Spectrum(*(part[..., -49:] for part in spectrum)), torch.zeros(2, synthesis - hop))
    torch.testing.assert_close(again[:, synthesis - hop :], wave[:, : again.shape[-1] - synthesis + hop], rtol=0, atol=1e-4)


def test_the_recurrence_is_its_formula_with_the_right_gradient() -> None:
    torch.manual_seed(0)
    gate, value = (torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    first = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    h, expected = first, []
    for t in range(5):
        keep = gate[:, t].sigmoid()
        h = keep * h + (1 - keep) * value[:, t]
        expected.append(h)
    torch.testing.assert_close(recurrence(gate, value, first), torch.stack(expected, 1))
    assert torch.autograd.gradcheck(recurrence, (gate, value, first))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "mamba"}, "memory: expected none, gru or linear or lstm"),
        ({"synthesis_kernel": 50}, "synthesis_kernel: expected between one and two hops"),
        ({"kernels": [96, 32]}, "the longest last"),
    ],
)
def test_sizes_that_fit_no_stream_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model(**changes)


def test_chunks_of_no_whole_hops_and_short_enrolments_are_refused() -> None:
    online, (mixture, ref) = model(), audio()
    state = online.init_state(online.enroll(ref))
    for samples in (0, 30):
        with pytest.raises(ValueError, match="expected a chunk of whole hops of 24 samples"):
            online.step(mixture[:, :samples], state)
    with pytest.raises(UserError, match="an enrolment of 100 samples is too short"):
        online.enroll(ref[:, :100])


def test_recomputing_activations_is_refused() -> None:
    with pytest.raises(UserError, match="activation_checkpointing: expected false"):
        model().checkpointing = True


def test_a_long_signal_is_computed_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    online, (mixture, ref) = model(memory="lstm", lookahead=3), audio(2, 60_007)
    whole = online(mixture[None], ref).waves[0].detach()  # gradients are wanted: one pass
    taken, step = [], online.step
    monkeypatch.setattr(online, "step", lambda chunk, state: taken.append(chunk.shape[-1]) or step(chunk, state))
    with torch.inference_mode():
        torch.testing.assert_close(online(mixture[None], ref).waves[0], whole, rtol=0, atol=1e-5)
    assert len(taken) > 2
    assert max(taken) <= 1000 * online.hop
