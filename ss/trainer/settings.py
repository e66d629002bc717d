"""How to train: the keys of a config's `trainer`, checked."""

from dataclasses import dataclass

import torch

from ss import distributed

PRECISIONS = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to train.

    batch_size: of each process; accumulate: batches to one optimizer step; num_workers: processes that prepare batches for each
    training process; None: one on a CPU with a core to spare, on a GPU all cores; clip_grad_norm: None for no clipping; precision:
    fp32, bf16 or fp16 (autocast); auto is bf16 where the device multiplies it natively, else fp32; monitor: what makes an epoch the
    best; early_stop: epochs without a better one; save_period: also keep `epoch-<n>.pth` every so many epochs; save_minutes: write
    `last.pth` inside an epoch too; max_minutes: stop cleanly after so long, to be resumed; step_scheduler: step it with the
    optimizer instead of the epochs;
    average: decay of a running mean of the weights, which is then what is validated and kept as best; None for none. It is meant
    for runs that may end by their time budget, before the learning rate has come down.
    log_every: optimizer steps; n_audio: validation examples to write as audio; activation_checkpointing: memory for time.
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
        free = distributed.n_cores() // distributed.local_world_size() - 1  # for each process, beside itself
        return max(0, min(1, free)) if distributed.device().type == "cpu" else max(1, free)
