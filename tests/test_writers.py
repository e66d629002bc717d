"""Writers: rows are JSON whatever is in them, and what is open is closed however a training ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZES, make_triplets

from ss.errors import UserError
from ss.trainer import job
from ss.trainer.writers import JsonLines


def test_a_row_with_numbers_that_json_lacks(tmp_path: Path) -> None:
    row = {
        "kind": "epoch",
        "step": 1,
        "lr": 0.1,
        "train": {"loss": float("inf")},
        "valid": {"a": float("nan"), "b": [-float("inf"), 1]},
    }
    JsonLines(tmp_path / "log.jsonl").write(row)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert found == {**row, "train": {"loss": None}, "valid": {"a": None, "b": [None, 1]}}


class Recorder(JsonLines):
    """A writer that says when it is closed."""

    closed = 0

    def close(self) -> None:
        Recorder.closed += 1


@pytest.mark.parametrize("broken", ["audio", "setup"])
def test_writers_are_closed_on_an_error(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_triplets(tmp_path / "train", ["s0_a", "s1_b"])
    make_triplets(tmp_path / "dev", ["s0_c"])
    if broken == "audio":
        (tmp_path / "train" / "s1_b-ref.wav").write_bytes(b"no audio")
    monkeypatch.setattr(job, "JsonLines", Recorder)
    monkeypatch.setattr(Recorder, "closed", 0)
    with pytest.raises(UserError, match="s1_b-ref" if broken == "audio" else "streamer"):
        job.train(config(tmp_path, {"_target_": "ss.streamer.Whole"} if broken == "setup" else None))
    assert Recorder.closed == 1


def config(folder: Path, streamer: dict[str, Any] | None) -> dict[str, Any]:
    """Of a tiny training over segments."""
    half = {"_target_": "ss.streamer.Streamer", "chunk_window": 2000, "chunk_step": 1000, "overlap_add_method": "half"}
    return {
        "run_dir": str(folder / "run"),
        "resume": False,
        "seed": 0,
        "model": {"_target_": "ss.model.SpexPlusShort", **SIZES, "short_kernel": 40},
        "streamer": streamer or half,
        "loss": {"_target_": "ss.loss.SpexPlusShortLoss"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.01},
        "trainer": {"_target_": "ss.trainer.CausalTrainer", "epochs": 1, "batch_size": 1},
        "data": {"sample_rate": 16000, "train": {"folder": f"{folder}/train"}, "valid": {"folder": f"{folder}/dev"}},
    }
