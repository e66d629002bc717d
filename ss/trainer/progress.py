"""Where a training stands: counters that a checkpoint holds, the averages of an epoch, and the reasons to stop."""

import math
import sys
import time
from dataclasses import dataclass, field, fields
from types import FrameType
from typing import Any

import torch

from ss import distributed
from ss.errors import UserError
from ss.loss import LossOutput
from ss.signals import StopSignal


class LossMeter:
    """Sums over examples, of which means are made: they know their counts.

    The sums stay on the device of the losses, so adding a batch waits for nothing; reading them does. Each of MEANS has its sum,
    and the number of examples that have such a value: an SI-SDR where the target is not silent, an accuracy where the speaker is
    known, an inactive_db where the target is inactive for a while.
    """

    MEANS = ("loss", "si_sdr", "accuracy", "inactive_db")

    def __init__(self, state: dict[str, list[float]] | None = None) -> None:
        rows = [state["sums"], state["counts"]] if state else [[0.0] * len(self.MEANS)] * 2
        self.sums = torch.tensor(rows, dtype=torch.float64, device=distributed.device())

    @torch.no_grad()
    def add(self, loss: LossOutput) -> None:
        """Adds a batch."""
        values = torch.stack([loss.total.expand_as(loss.si_sdr), loss.si_sdr, loss.correct, loss.inactive_db]).double()
        there = ~values.isnan()
        there[0] = True  # a loss that is not a number must not go unseen
        self.sums += torch.stack([values.where(there, 0).sum(1), there.sum(1)])

    def means(self, here: bool = False) -> dict[str, float]:
        """Means over the examples that have such a value, of all processes or of this one (`here`); those of none are left out."""
        sums = (self.sums if here else distributed.total(self.sums)).tolist()
        return {name: total / n for name, total, n in zip(self.MEANS, *sums, strict=True) if n}

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint keeps: the sums over all processes. All of them have to ask for it."""
        sums, counts = distributed.total(self.sums).tolist()
        return {"sums": sums, "counts": counts}


@dataclass
class Progress:
    """Counters of a training; with the random states and the optimizer's, all that a resumed run goes on from.

    epoch: the one going on, from 1; examples: those of it that all processes have heard, which `ss.datasets.TrainingBatches` leaves
    out when the run goes on; step: optimizer steps in all; hours: of mixtures that the weights have heard, with those of the
    checkpoint that they began from; seconds: spent in all; waited: those in which no batch was there yet; best, bad_epochs: the
    monitored value's best so far and epochs since; rows: lines written to the log; meter: of the epoch's examples.
    """

    epoch: int = 1
    examples: int = 0
    step: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    best: float | None = None
    bad_epochs: int = 0
    rows: int = 0
    meter: LossMeter = field(default_factory=LossMeter)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps. All processes have to ask for it."""
        return {**vars(self), "meter": self.meter.state()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        """The reverse of `state`; the main process holds the sums of all."""
        known = {one.name: state[one.name] for one in fields(cls) if one.name != "meter"}  # older checkpoints hold more
        return cls(**known, meter=LossMeter(state["meter"] if distributed.is_main() else None))

    def next_epoch(self) -> None:
        """Begins another epoch."""
        self.epoch, self.examples, self.meter = self.epoch + 1, 0, LossMeter()


class Monitor:
    """The value that decides which epoch is the best: "max valid.si_sdr", "min valid.loss". Raises UserError for another name."""

    def __init__(self, rule: str) -> None:
        mode, _, name = rule.partition(" ")
        names = [f"{part}.{mean}" for part in ("train", "valid") for mean in LossMeter.MEANS]
        if mode not in ("min", "max") or name not in names:
            raise UserError(f"monitor: expected 'min' or 'max' and a name (one of {', '.join(names)}), got {rule!r}")
        self.mode, (self.part, self.name) = mode, name.split(".")

    def value(self, row: dict[str, Any]) -> float:
        """The monitored value of an epoch's row; NaN where no example has it."""
        return row[self.part].get(self.name, math.nan)

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far; any finite one beats one that is not."""
        if best is None or not math.isfinite(value):
            return best is None
        return not math.isfinite(best) or (value > best if self.mode == "max" else value < best)


class Stop(StopSignal):
    """Says when to stop before the end: the time budget is spent, or a signal came within the `with`; the same in all processes.

    A second signal ends at once, unless a launcher may have passed it on.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.requested and not distributed.launched():
            raise KeyboardInterrupt
        if distributed.is_main():
            print("\nstopping after this step and a validation; Ctrl-C again ends at once", file=sys.stderr)
        self.requested = True

    def asked(self) -> bool:
        """Whether to stop now."""
        return distributed.any_of(self.requested or (self.deadline is not None and time.monotonic() >= self.deadline))
