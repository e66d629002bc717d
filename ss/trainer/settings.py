"""How to train: the keys of a config's `trainer`, checked."""

from dataclasses import dataclass

import torch

from ss import distributed
from ss.errors import UserError

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to train; `configs/groups/trainer.yaml` explains every key.

    Raises UserError for a number below the least, a precision that there is not, and an average that is no decay.
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
        for key, least in (("epochs", 0), ("batch_size", 1), ("accumulate", 1), ("num_workers", 0)):
            if (value := getattr(self, key)) is not None and value < least:
                raise UserError(f"{key}: expected at least {least}, found {value}")
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
