"""Where a training stands: counters that a checkpoint holds, the averages of an epoch, and the reasons to stop."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ss import distributed
from ss.loss import Loss


@dataclass
class Averages:
    """Sums over examples, of which means are made: they know their counts.

    spoken: examples with an SI-SDR, the target not being silent; known: with a known speaker; inactive: with time in which the
    target is inactive.
    """

    examples: float = 0.0
    loss: float = 0.0
    si_sdr: float = 0.0
    known: float = 0.0
    correct: float = 0.0
    spoken: float = 0.0
    inactive: float = 0.0
    inactive_db: float = 0.0

    def add(self, loss: Loss) -> None:
        """Adds a batch."""
        examples, spoken, known, inactive = len(loss.si_sdr), *(~x.isnan() for x in (loss.si_sdr, loss.correct, loss.inactive_db))
        self.examples += examples
        self.loss += loss.loss.item() * examples
        self.spoken += spoken.sum().item()
        self.si_sdr += loss.si_sdr[spoken].double().sum().item()
        self.known += known.sum().item()
        self.correct += loss.correct[known].sum().item()
        self.inactive += inactive.sum().item()
        self.inactive_db += loss.inactive_db[inactive].double().sum().item()

    def means(self) -> dict[str, float]:
        """Means over the examples of all processes that have such a value; those of which none has are left out."""
        values = torch.tensor(list(asdict(self).values()), dtype=torch.float64, device=distributed.device())
        return Averages(*distributed.total(values).tolist())._means()

    def _means(self) -> dict[str, float]:
        sums = {
            "loss": (self.loss, self.examples),
            "si_sdr": (self.si_sdr, self.spoken),
            "accuracy": (self.correct, self.known),
            "inactive_db": (self.inactive_db, self.inactive),
        }
        return {name: total / count for name, (total, count) in sums.items() if count}

    def means_here(self) -> dict[str, str]:
        """For this process's progress bar."""
        return {name: f"{mean:.2f}" for name, mean in self._means().items() if name != "accuracy"}


@dataclass
class Progress:
    """Counters of a training; with the random states and the optimizer's, all that a resumed run goes on from.

    epoch: the one going on, from 1; batch: its batches done (of one process); step: optimizer steps in all; seconds: spent in
    all; waited: those in which no batch was there yet; best, bad_epochs: the monitored value's best so far and epochs since;
    history: a row per finished epoch; rows: lines written to the log.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    best: float | None = None
    bad_epochs: int = 0
    rows: int = 0
    averages: Averages = field(default_factory=Averages)
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Progress":
        """The reverse of dataclasses.asdict."""
        averages = {"spoken": state["averages"]["examples"], **state["averages"]}  # checkpoints from before it was counted
        return cls(**{**state, "averages": Averages(**averages)})

    def next_epoch(self) -> None:
        """Begins another epoch."""
        self.epoch, self.batch, self.averages = self.epoch + 1, 0, Averages()


class Monitor:
    """The value that decides which epoch is the best: "max valid.si_sdr", "min valid.loss"."""

    def __init__(self, rule: str) -> None:
        mode, _, name = rule.partition(" ")
        if mode not in ("min", "max") or name.count(".") != 1:
            raise ValueError(f"monitor: expected 'min' or 'max' and a name such as valid.loss, got {rule!r}")
        self.mode, (self.part, self.name) = mode, name.split(".")

    def value(self, row: dict[str, Any]) -> float:
        """The monitored value of an epoch's row."""
        try:
            return row[self.part][self.name]
        except KeyError:
            names = ", ".join(f"{part}.{name}" for part in ("train", "valid") for name in row.get(part, {}))
            raise ValueError(f"monitor: expected one of {names}, got {self.part}.{self.name}") from None

    def better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far."""
        return best is None or (value > best if self.mode == "max" else value < best)


class Interval:
    """Says once in so many minutes that they have passed (None: never); the same in all processes."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes, self.last = minutes, time.monotonic()

    def due(self) -> bool:
        """Whether they have passed since it last said so."""
        if self.minutes is None or not distributed.any_of(time.monotonic() - self.last > 60 * self.minutes):
            return False
        self.last = time.monotonic()
        return True


class Stop:
    """Says when to stop before the end: the time budget is spent, or Ctrl-C or SIGTERM came; the same in all processes."""

    def __init__(self, max_minutes: float | None) -> None:
        self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.signalled = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, a signal asks for a clean stop; a second one ends at once, unless a launcher may have passed it on."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._hear) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        if self.signalled and not distributed.launched():
            raise KeyboardInterrupt
        self.signalled = True

    def asked(self) -> bool:
        """Whether to stop now."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return distributed.any_of(self.signalled or late)
