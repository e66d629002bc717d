"""The family against the golden outputs, and what every extractor promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import ss.model
from ss.errors import UserError
from ss.loss import SpexPlusLoss, SpexPlusShortLoss, masked_si_sdr
from ss.model import ExtractionModel
from ss.streamer import Streamer, Whole
from ss.utils.predecessor import load_predecessor_checkpoint, load_predecessor_weights

GOLDEN = Path(__file__).parent / "assets" / "golden"
INDEX = json.loads((GOLDEN / "index.json").read_text())
HALVES = "SpeakerHandler_GRUMainModel.npz"
EXTRACTORS = sorted(set(INDEX) - {HALVES})


class Golden:
    """A golden file: its arrays as tensors, and the extractor with its weights."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / name) as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.about = INDEX[name]

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def weights(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def extractor(self) -> ExtractionModel:
        arch = {"type": self.about["class_name"], "args": self.about["args"]}
        return load_predecessor_checkpoint({"model": self.weights("param/"), "config": {"arch": arch}}).eval()

    def chunks(self) -> Tensor:
        return self["chunks"].reshape(int(self["n_chunks"]), len(self["mix"]), -1)


@pytest.fixture(params=EXTRACTORS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.reshape(found.shape), rtol=0, atol=tolerance)


def relative(found: float, expected: Tensor) -> None:
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_parameter_count(golden: Golden) -> None:
    assert sum(p.numel() for p in golden.extractor().parameters()) == golden.about["n_params"]


@torch.no_grad()
def test_outputs_logits_and_memory(golden: Golden) -> None:
    model = golden.extractor()
    speaker = model.enroll(golden["ref"])
    if "ref_vec" in golden:
        close(speaker, golden["ref_vec"])
    close(model.classifier(speaker), golden["logits"])
    state = model.init_state(speaker, int(golden["window"]))
    scales = len(model.encoder.kernels)
    expected = [golden[f"chunked_s{i + 1}"].reshape(golden.chunks().shape) for i in range(scales)]
    for number, chunk in enumerate(golden.chunks()):
        waves, state = model.step(chunk, state)
        for wave, want in zip(waves, expected, strict=True):
            close(wave, want[number])
    if "last_memory" in golden:
        assert any(leaf.shape == golden["last_memory"].shape and _equal(leaf, golden["last_memory"]) for leaf in leaves(state))


def _equal(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item()))


def leaves(state: object) -> list[Tensor]:
    """The tensors of a state."""
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in leaves(part)]  # type: ignore[attr-defined]


@torch.no_grad()
def test_forward_through_the_streamer(golden: Golden) -> None:
    model, streamer = golden.extractor(), Streamer(int(golden["window"]), int(golden["step"]), "half")
    waves, logits = model(streamer.split(golden["mix"]), golden["ref"])
    close(streamer.join(waves[0], golden["mix"].shape[-1]), golden["stream_s1"])
    close(logits, golden["logits"])


@torch.no_grad()
def test_offline(golden: Golden) -> None:
    if "offline_s1" not in golden:  # only the models that carry nothing have been run offline
        assert golden.about["class_name"] not in ("SpexPlus", "SpexPlusShort")
        return
    waves, _ = golden.extractor()(Whole().split(golden["mix"]), golden["ref"])
    for i, wave in enumerate(waves):
        close(wave, golden[f"offline_s{i + 1}"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_loss_and_gradient(golden: Golden, checkpointing: bool) -> None:
    model, streamer = golden.extractor().train(), Streamer(int(golden["window"]), int(golden["step"]), "half")
    model.checkpointing = checkpointing
    extraction = model(streamer.split(golden["mix"]), golden["ref"])
    waves = [streamer.join(wave, golden["mix"].shape[-1]) for wave in extraction.waves]
    loss = SpexPlusLoss() if len(waves) == 3 else SpexPlusShortLoss()
    found = loss(waves, extraction.logits, golden["target"], golden["lens"], golden["target_id"])
    found.total.backward()
    relative(found.total.item(), golden["train_loss"])
    relative(found.si_sdr.mean().item(), golden["train_si_sdr"])
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    assert len(norms) == len(list(model.parameters()))
    relative(torch.stack(norms).norm().item(), golden["train_grad_norm"])


@torch.no_grad()
def test_the_two_halves_of_the_gru_model() -> None:
    golden = Golden(HALVES)
    handler = ss.model.SpexPlusShortSpeakerHandler(**golden.about["args"][0]).eval()
    main = ss.model.SpexPlusShortGRUMainModel(**golden.about["args"][1]).eval()
    load_predecessor_weights(handler, golden.weights("handler/"))
    load_predecessor_weights(main, golden.weights("main/"))
    speaker, logits = handler(golden["ref"])
    wave, memory = main(golden["chunk"], golden["ref_vec"], golden["memory"])
    close(speaker, golden["ref_vec"])
    close(logits, golden["logits"])
    close(wave, golden["s1"])
    close(memory, golden["new_memory"])


@torch.no_grad()
def test_interleaved_streams_do_not_disturb_each_other(golden: Golden) -> None:
    model, (a, b) = golden.extractor(), golden["mix"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    window = int(golden["window"])
    chunks = [Streamer(window, window, "nonintersec").split(wave[None]) for wave in (a, b)]
    speakers = [model.enroll(ref[None]) for ref in golden["ref"]]

    def stream(number: int) -> list[Tensor]:
        state, waves = model.init_state(speakers[number], window), []
        for chunk in chunks[number]:
            wave, state = model.step(chunk, state)
            waves.append(wave[0])
        return waves

    alone = [stream(0), stream(1)]
    states = [model.init_state(speaker, window) for speaker in speakers]
    for step in range(len(chunks[0])):
        for number in (0, 1):
            waves, states[number] = model.step(chunks[number][step], states[number])
            assert torch.equal(waves[0], alone[number][step])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_padding_an_enrolment_changes_nothing(golden: Golden) -> None:
    model, ref = golden.extractor(), golden["ref"]
    shorter = ref[:1, :3000]
    padded = torch.zeros_like(ref[:1])
    padded[:, :3000] = shorter
    close(model.enroll(padded, torch.tensor([3000])), model.enroll(shorter), 1e-6)


@torch.no_grad()
def test_an_untrained_model_nearly_passes_the_mixture() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_channels": 24, "out_channels": 12, "n_resnetblocks": 2, "n_speakers": 3, "n_tcnblocks": 2}
    model = ss.model.SpexPlusShort(n_channels=160, short_kernel=160, n_stacked_tcnblocks=1, **sizes).eval()
    mixture = torch.randn(2, 8000)
    waves, _ = model(Whole().split(mixture), mixture)
    assert masked_si_sdr(waves[0][0], mixture, torch.full((2,), 8000)).min() > 10


def test_enrolment_too_short() -> None:
    with pytest.raises(UserError, match="enrolment of 100 samples is too short: this model needs at least 280"):
        Golden("SpexPlusShort_causal.npz").extractor().enroll(torch.zeros(1, 100))


def test_chunks_that_do_not_fit_the_scaled_model() -> None:
    model = Golden("SpexPlusShortGRUModel_v3_causal.npz").extractor()
    with pytest.raises(UserError, match="time_dim is 79 frames a chunk, but the chunks have 39"):
        model.init_state(torch.zeros(1, 12), 400)


@torch.no_grad()
def test_a_causal_model_never_looks_ahead_inside_a_chunk() -> None:
    model = Golden("SpexPlusShort_causal.npz").extractor()
    chunk = torch.randn(1, 800, generator=torch.Generator().manual_seed(0))
    state = model.init_state(torch.zeros(1, 12), 800)
    changed = chunk.clone()
    changed[:, 500:] = 0
    kernel = model.encoder.kernels[0]
    (before,), _ = model.step(chunk, state)
    (after,), _ = model.step(changed, state)
    assert torch.equal(before[:, : 500 - kernel], after[:, : 500 - kernel])
    assert not torch.equal(before, after)
