"""Rows and audio to Weights & Biases: offline unless asked, and never with a log-in prompt."""

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ss.errors import UserError, import_extra
from ss.trainer.writers import Writer, flat

Mode: TypeAlias = Literal["offline", "online", "disabled"]


class Wandb(Writer):
    """A wandb run in `<run_dir>/wandb`.

    mode: offline (upload later with `wandb sync`) or online, which needs the key in WANDB_API_KEY or ~/.netrc. Raises
    UserError where wandb is not installed, or online is asked for without a key.
    """

    def __init__(
        self, run_dir: str | Path, sample_rate: int, config: dict[str, Any], project: str = "ss", mode: Mode = "offline"
    ) -> None:
        wandb = import_extra("wandb", "writer: wandb is not installed; try `pip install .[wandb]`, or writer=tensorboard")
        if mode == "online" and not (os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").exists()):
            raise UserError("writer: wandb online needs WANDB_API_KEY (or use writer.mode=offline)")
        self.wandb, self.sample_rate = wandb, sample_rate
        settings = wandb.Settings(silent=True)
        self.run = wandb.init(project=project, name=Path(run_dir).name, dir=run_dir, config=config, mode=mode, settings=settings)

    def write(self, row: dict[str, Any]) -> None:
        self.run.log(flat(row), step=row["step"])

    def audio(self, name: str, wave: NDArray[np.float32], step: int) -> None:
        self.run.log({name: self.wandb.Audio(wave, sample_rate=self.sample_rate)}, step=step)

    def close(self) -> None:
        self.run.finish()
