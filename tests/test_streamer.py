"""Cutting and joining: against the golden outputs, and for any length."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ss.errors import UserError
from ss.streamer import Streamer, Whole

GOLDEN = Path(__file__).parent / "assets" / "golden"


@pytest.mark.parametrize("method", ["half", "nonintersec"])
def test_golden(method: str) -> None:
    with np.load(GOLDEN / f"streamer_{method}.npz") as arrays:
        golden = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    streamer = Streamer(int(golden["window"]), int(golden["step"]), method)
    chunks = streamer.split(golden["signal"])
    assert torch.equal(chunks.reshape(golden["chunks"].shape), golden["chunks"])
    samples = golden["overlap_added"].shape[-1]
    torch.testing.assert_close(streamer.join(chunks, samples), golden["overlap_added"])
    random = golden["random_chunks"].reshape(chunks.shape)
    torch.testing.assert_close(streamer.join(random, samples), golden["random_overlap_added"])


@pytest.mark.parametrize("samples", [1, 5, 9, 10, 11, 15, 16, 20, 23, 100])
@pytest.mark.parametrize("streamer", [Streamer(10, 5, "half"), Streamer(10, 10, "nonintersec"), Whole()])
def test_join_of_split_is_the_signal(streamer: Streamer | Whole, samples: int) -> None:
    wave = torch.randn(3, samples, generator=torch.Generator().manual_seed(samples))
    assert torch.equal(streamer.join(streamer.split(wave), samples), wave)


def test_gradients_pass() -> None:
    streamer = Streamer(10, 5, "half")
    chunks = streamer.split(torch.randn(1, 20)).clone().requires_grad_()
    streamer.join(chunks, 20).sum().backward()
    assert chunks.grad is not None
    assert chunks.grad.sum() == pytest.approx(20)  # every sample of the wave counts once


@pytest.mark.parametrize(("window", "step", "method"), [(10, 4, "half"), (10, 5, "nonintersec"), (10, 5, "other"), (0, 0, "half")])
def test_wrong_sizes_are_refused(window: int, step: int, method: str) -> None:
    with pytest.raises(UserError, match="expected"):
        Streamer(window, step, method)
