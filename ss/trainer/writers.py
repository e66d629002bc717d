"""Where a training's rows and audio go: always to a JSON-lines file, and to TensorBoard or wandb if asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss.files import whole_file


class Writer:
    """Takes rows of the log (docs/training.md lists their fields) and audio, which have no place in some."""

    def write(self, row: dict[str, Any]) -> None:
        """One row: `kind` (step, epoch, stop), `step`, and values, nested or not."""

    def audio(self, name: str, wave: NDArray[np.float32], step: int) -> None:
        """A wave [S]."""

    def close(self) -> None:
        """Nothing more comes."""


def flat(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row, named like valid/loss; those of a step begin with `step/`."""
    prefix = "step/" if row["kind"] == "step" else ""
    nested = {f"{key}/{name}": value for key, values in row.items() if isinstance(values, dict) for name, value in values.items()}
    plain = {prefix + key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "step"}
    return plain | nested


class JsonLines(Writer):
    """One JSON object a line, null for what is not finite.

    A resumed run keeps the first `rows` lines: those that its checkpoint knows of.
    """

    def __init__(self, path: str | Path, rows: int = 0) -> None:
        self.path = Path(path)
        kept = self.path.read_text().splitlines(keepends=True)[:rows] if self.path.exists() else []
        with whole_file(self.path) as aside:
            aside.write_text("".join(kept))

    def write(self, row: dict[str, Any]) -> None:
        finite = json.loads(json.dumps(row), parse_constant=lambda name: None)  # called for NaN and the infinite ones
        with self.path.open("a") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")


class TensorBoard(Writer):
    """Scalars and audio for TensorBoard, in `<run_dir>/tensorboard`."""

    def __init__(self, run_dir: str | Path, sample_rate: int, **_: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.summary, self.sample_rate = SummaryWriter(str(Path(run_dir) / "tensorboard")), sample_rate

    def write(self, row: dict[str, Any]) -> None:
        for name, value in flat(row).items():
            self.summary.add_scalar(name, value, row["step"])

    def audio(self, name: str, wave: NDArray[np.float32], step: int) -> None:
        self.summary.add_audio(name, wave[None], step, self.sample_rate)

    def close(self) -> None:
        """Writes what is left."""
        self.summary.close()
