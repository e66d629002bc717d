"""What a training's config asks for: the keys of its `trainer`, checked, its examples, and its scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ss import distributed
from ss.datasets import Rendered, Triplets
from ss.errors import UserError, require_positive

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to train; `configs/groups/trainer.yaml` explains every key.

    Raises UserError for a number below the least, clipping to nothing, an unknown precision, and an average that is no decay.
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    num_workers: int | None = 0
    clip_grad_norm: float | None = None
    precision: str = "auto"
    monitor: str = "max valid.si_sdr"
    early_stop: int | None = None
    save_period: int | None = None
    save_minutes: float | None = 10
    max_minutes: float | None = None
    step_scheduler: bool = False
    average: float | None = None
    log_every: int = 10
    n_audio: int = 2
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        counts, or_none = ("batch_size", "accumulate", "log_every"), ("num_workers", "early_stop", "clip_grad_norm")
        require_positive(vars(self), *counts, or_zero=["epochs", "num_workers"], or_none=or_none)
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.average is not None and not 0 < self.average < 1:
            raise UserError(f"average: expected a decay between 0 and 1, or null, got {self.average}")
        if self.precision == "fp16" and distributed.device().type == "cpu":
            raise UserError("precision: fp16 needs a GPU; on a CPU use fp32 or bf16")

    def dtype(self) -> torch.dtype:
        """What products are done in."""
        native = torch.bfloat16 if distributed.bfloat16_is_native(distributed.device()) else torch.float32
        return PRECISIONS[self.precision] or native

    def n_workers(self) -> int:
        """Processes that prepare batches for this one."""
        if self.num_workers is not None:
            return self.num_workers
        spare = distributed.n_spare_cores()
        return min(1, spare) if distributed.device().type == "cpu" else max(1, spare)


def scenes(config: dict[str, Any]) -> bool:
    """Whether a config trains on scenes that are rendered meanwhile, instead of on a folder."""
    return "scene" in config["data"]["train"]


def train_set(config: dict[str, Any], speakers: Sequence[str] = ()) -> Rendered | Triplets:
    """The examples that a config trains on."""
    data = config["data"]
    kind = Rendered if scenes(config) else Triplets
    return kind(**data["train"], sample_rate=data["sample_rate"], speakers=speakers, seed=config["seed"])


def make_scheduler(config: dict[str, Any] | None, optimizer: Optimizer, steps: int) -> LRScheduler | None:
    """The scheduler of a config, in which the value `run_steps` stands for `steps`, the optimizer steps of the run."""
    if config is None:
        return None
    filled = {key: steps if value == "run_steps" else value for key, value in config.items()}
    if filled.get("pct_start", 0) * steps == 1:  # torch's OneCycleLR divides by zero where a rise takes one step
        filled["pct_start"] = 1.5 / steps
    return instantiate(filled, optimizer=optimizer)
