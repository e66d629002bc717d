"""A user's error reaches the user as one line, also out of a loader's worker."""

from pathlib import Path

import pytest
from conftest import make_triplets

from ss.config import clear_errors
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


def test_only_a_users_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        raise UserError("a.wav: expected one channel, found 2")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a.wav: expected one channel, found 2\n"
    with pytest.raises(ValueError, match="too many values"), clear_errors():
        raise ValueError("too many values to unpack")
