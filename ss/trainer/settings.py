"""How to train: the keys of a config's `trainer`, checked."""

from dataclasses import dataclass

import torch

from ss import distributed

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to train.

    batch_size, num_workers: of each process; accumulate: batches to one optimizer step; clip_grad_norm: None for no clipping;
    precision: fp32, bf16 or fp16 (autocast); monitor: what makes an epoch the best; early_stop: epochs without a better one;
    save_period: also keep `epoch-<n>.pth` every so many epochs; save_minutes: write `last.pth` inside an epoch too;
    max_minutes: stop cleanly after so long, to be resumed; step_scheduler: step it with the optimizer instead of the epochs;
    average: decay of a running mean of the weights, which is then what is validated and kept as best; None for none. It is meant
    for runs that may end by their time budget, before the learning rate has come down.
    log_every: optimizer steps; n_audio: validation examples to write as audio; activation_checkpointing: memory for time.
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    num_workers: int = 0
    clip_grad_norm: float | None = None
    precision: str = "fp32"
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
