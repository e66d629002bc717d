"""How to train: the keys of a config's `trainer`, checked."""

from dataclasses import dataclass

import torch

from ss import distributed

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to train; `configs/groups/trainer.yaml` explains every key.

    Raises ValueError for a precision that there is not, and for an average that is no decay.
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
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"average: expected a decay between 0 and 1, or null, got {self.average}")
        if self.precision == "fp16" and distributed.device().type == "cpu":
            raise ValueError("precision: fp16 needs a GPU; on a CPU use fp32 or bf16")

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
