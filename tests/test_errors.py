"""A user's error reaches the user as one line, also out of a loader's worker."""

from pathlib import Path

import pytest
from conftest import make_triplets

from ss.datasets import EvaluationBatches, Triplets, loader
from ss.errors import UserError


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_loader_is_one_line(num_workers: int, tmp_path: Path) -> None:
    folder = make_triplets(tmp_path / "train", ["s0_a", "s1_b"])
    (folder / "s1_b-ref.wav").write_bytes(b"no audio")
    batches = loader(Triplets(folder), EvaluationBatches([0, 0], 1), num_workers)
    with pytest.raises(UserError, match="s1_b-ref.wav: expected a readable audio file") as caught:
        list(batches)
    assert "\n" not in str(caught.value)
