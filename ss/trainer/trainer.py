"""The training loop: one for every model of the family, on one process or many.

An epoch is the unit of commit: its row goes to the log, its weights to `last.pth` (and `best.pth`). In between, a training
can stop at any optimizer step and go on from there later, bit for bit as if it had never stopped (on a CPU).
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from ss import checkpoint, distributed
from ss.datasets import Batch, EvaluationBatches, TrainingBatches, Triplets, loader
from ss.errors import UserError, reject_unknown_keys
from ss.extraction import Chunking, check_chunks, cut, match_level, may_pad, separate
from ss.loss import LossOutput
from ss.model import ExtractionModel
from ss.streamer import Streamer, Whole
from ss.trainer.progress import LossMeter, Monitor, Progress, Stop
from ss.trainer.settings import Settings, make_scheduler, train_set
from ss.trainer.writers import Writer

POSTFIX_SECONDS = 0.5  # between two looks at the losses for the progress bar


class NonFiniteError(UserError):
    """The loss or the gradient is NaN or infinite; the weights are those before that step."""


class WeightAverage(AveragedModel):
    """The exponential mean of a model's weights and buffers, over about the last tenth of the steps while these are few."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        def average(means: Any, values: Any, n_averaged: Any) -> None:
            if means[0].is_floating_point():
                torch._foreach_lerp_(means, values, max(1 - decay, 10 / (10 + int(n_averaged))))
            else:
                torch._foreach_copy_(means, values)

        super().__init__(model, multi_avg_fn=average, use_buffers=True)


class Trainer:
    """Trains an extractor on triplets.

    config: of the whole run, which checkpoints carry beside the weights (docs/training.md); without a streamer, each utterance is
    one chunk. speakers: of the training set, in the order of the classifier's rows.
    """

    def __init__(self, config: dict[str, Any], speakers: Sequence[str], writers: Sequence[Writer] = ()) -> None:
        distributed.keep_freed_memory()
        model: ExtractionModel = checkpoint.build(config["model"])
        trainer = {key: value for key, value in config["trainer"].items() if key != "_target_"}
        settings = Settings(**reject_unknown_keys(Settings, trainer))
        self.settings, self.run_dir, self.config, self.writers = settings, Path(config["run_dir"]), config, writers
        self.device, self.loss = distributed.device(), instantiate(config["loss"])
        self.streamer: Chunking = instantiate(config.get("streamer")) or Whole()
        check_chunks(model, self.streamer)
        self.speakers, self.sample_rate = list(speakers), config["data"]["sample_rate"]
        train = train_set(config, speakers)
        valid = Triplets(**config["data"]["valid"], sample_rate=self.sample_rate, speakers=speakers, seed=config["seed"])
        self.model = model.to(self.device)
        self.model.checkpointing = settings.activation_checkpointing
        distributed.share(self.model.state_dict().values())
        self.batches = TrainingBatches(len(train), settings.batch_size, train.seed, train.shards())
        self.train_loader = loader(train, self.batches, settings.n_workers())
        valid_batches = EvaluationBatches(valid.lengths(), settings.batch_size, may_pad(model, self.streamer))
        self.valid_loader = loader(valid, valid_batches, settings.n_workers())
        self.average = None if settings.average is None else WeightAverage(self.model, settings.average)
        self.optimizer: Optimizer = instantiate(config["optimizer"], _partial_=True)(self.model.parameters())
        self.examples_per_step = settings.batch_size * distributed.world_size() * settings.accumulate
        self.steps_per_epoch = -(-len(self.batches) // settings.accumulate)
        self.scheduler = make_scheduler(config.get("scheduler"), self.optimizer, settings.epochs * self.steps_per_epoch)
        self.dtype = settings.dtype()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.monitor, self.progress = Monitor(settings.monitor), Progress()
        if isinstance(self.scheduler, ReduceLROnPlateau) and self.scheduler.mode != self.monitor.mode:
            raise UserError(f"scheduler.mode is {self.scheduler.mode}, but the monitor is {settings.monitor!r}")
        self.stop = Stop(settings.max_minutes)

    def fit(self) -> bool:
        """Trains to the end, or until asked to stop (one step at least). Returns whether it got to the end."""
        with self.stop:
            while not self.finished():
                if not self.train_epoch():  # stopped inside of it: these weights may be the best so far, too
                    self.save("last.pth")
                    row = self.row("stop", self.evaluate())
                    self.write(row)
                    if self.monitor.better(self.monitor.value(row), self.progress.best):
                        self.save("best.pth", row)
                    break
                self.commit(self.evaluate())
                if self.stop.asked():
                    break
        return self.finished()

    def finished(self) -> bool:
        """Whether all epochs are done or the last ones brought nothing better."""
        patience = self.settings.early_stop
        return self.progress.epoch > self.settings.epochs or (patience is not None and self.progress.bad_epochs >= patience)

    def train_epoch(self) -> bool:
        """Trains to the end of the epoch; False when asked to stop before."""
        progress, size = self.progress, self.settings.accumulate
        self.model.train()
        self.batches.start(progress.epoch, progress.examples)
        n_batches, minutes, saved = len(self.batches), self.settings.save_minutes, time.monotonic()
        began, shown = saved, 0.0
        group, heard = LossMeter(), list[tuple[Batch, LossOutput]]()
        with self.bar(self.awaited(self.train_loader), f"epoch {progress.epoch}", n_batches) as bar:
            for number, batch in enumerate(bar, 1):
                loss = self.backward(batch.to(self.device), min(size, n_batches - (number - 1) // size * size))
                group.add(loss)
                heard.append((batch, loss))
                progress.examples += len(batch.names) * distributed.world_size()
                progress.hours += batch.lengths.sum().item() * distributed.world_size() / self.sample_rate / 3600
                if number % size and number < n_batches:
                    continue
                norm = self.update(heard)
                progress.meter.sums += group.sums
                progress.seconds, began = progress.seconds + time.monotonic() - began, time.monotonic()
                if began - shown > POSTFIX_SECONDS:
                    shown = began
                    bar.set_postfix({key: f"{mean:.2f}" for key, mean in group.means(here=True).items()}, refresh=False)
                if progress.step % self.settings.log_every == 0:
                    row = {"kind": "step", "epoch": progress.epoch, "step": progress.step, **group.means(), "grad_norm": norm}
                    self.write({**row, "lr": self.optimizer.param_groups[0]["lr"], "seconds": round(progress.seconds, 2)})
                group, heard = LossMeter(), []
                if self.stop.asked():
                    return number >= n_batches
                if minutes is not None and distributed.any_of(time.monotonic() - saved > 60 * minutes):
                    saved = time.monotonic()
                    self.save("last.pth")
        return True

    def awaited(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; counts the time until each is there."""
        waiting = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(waiting, None)
            self.progress.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    @staticmethod
    def bar(batches: Iterable[Batch], name: str, total: int) -> "tqdm[Batch]":
        """A progress bar, shown by the main process."""
        return tqdm(batches, name, total, disable=not distributed.is_main(), mininterval=POSTFIX_SECONDS)

    def trained(self) -> nn.Module:
        """The model whose weights are the result: the averaged one where there is one."""
        return self.model if self.average is None else self.average.module

    def forward(self, model: nn.Module, batch: Batch) -> tuple[LossOutput, torch.Tensor]:
        """The loss of a batch, and the first scale's waves [B,S]."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            waves, logits = separate(model, self.streamer, batch.mixture, batch.ref, batch.ref_lengths, batch.lengths)
        waves = tuple(wave.float() for wave in waves)
        return self.loss(waves, logits.float(), batch.target, batch.lengths, batch.speakers, batch.mixture), waves[0]

    def backward(self, batch: Batch, group_size: int) -> LossOutput:
        """Adds a batch's share of the gradient; the loss is free of its graph."""
        loss, _ = self.forward(self.model, batch)
        self.scaler.scale(loss.total / group_size).backward()
        return loss._replace(total=loss.total.detach())

    def update(self, heard: Sequence[tuple[Batch, LossOutput]]) -> float:
        """One optimizer step with the gradient of these batches; its norm before clipping.

        Raises NonFiniteError for a loss or a norm that is not finite: they are looked at here, together, so that the device is
        waited for only once in a step. The weights are then those before it.
        """
        parameters = list(self.model.parameters())
        distributed.average_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = get_total_norm(gradients, foreach=True)
        norm, *losses = torch.stack([total, *(loss.total for _, loss in heard)]).tolist()
        faulty = [(batch, loss) for (batch, _), loss in zip(heard, losses, strict=True) if not math.isfinite(loss)]
        if faulty or not (self.scaler.is_enabled() or math.isfinite(norm)):
            what = f"loss is {faulty[0][1]}" if faulty else f"gradient norm is {norm}"
            examples = ", ".join(name for batch, _ in faulty or heard for name in batch.names)
            place = f"epoch {self.progress.epoch}, step {self.progress.step} (examples: {examples})"
            raise NonFiniteError(f"stopped: {what} at {place}; the last checkpoint in {self.run_dir} is sound")
        clip = self.settings.clip_grad_norm
        if clip is not None and norm > clip:
            clip_grads_with_norm_(parameters, clip, total, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.progress.step += 1
        if self.settings.step_scheduler and self.scheduler is not None:
            self.scheduler.step()
        return norm

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Means over the validation examples, each exactly once; the writers are given the first ones as audio."""
        model, meter = self.trained().eval(), LossMeter()
        distributed.share(model.buffers())
        for number, batch in enumerate(self.bar(self.valid_loader, "valid", len(self.valid_loader))):
            loss, waves = self.forward(model, batch.to(self.device))
            meter.add(loss)
            if number == 0:
                waves = waves.to(batch.mixture.device)
                waves = cut(waves, batch.lengths) if self.loss.fixes_level else match_level(waves, batch.mixture, batch.lengths)
                for i, name in enumerate(batch.names[: self.settings.n_audio]):
                    for kind, wave in (("mixed", batch.mixture), ("target", batch.target), ("pred", waves)):
                        for writer in self.writers:
                            writer.audio(f"{name}-{kind}", wave[i, : batch.lengths[i]].numpy(), self.progress.step)
        return meter.means()

    def commit(self, valid: dict[str, float]) -> None:
        """Ends the epoch: its row, the schedule, the checkpoints. Raises UserError for a monitored value that there is not."""
        progress = self.progress
        row = self.row("epoch", valid)
        value = self.monitor.value(row)
        better = self.monitor.better(value, progress.best)
        progress.best, progress.bad_epochs = (value, 0) if better else (progress.best, progress.bad_epochs + 1)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(value)
        elif self.scheduler is not None and not self.settings.step_scheduler:
            self.scheduler.step()
        self.write(row)
        epoch = progress.epoch
        progress.next_epoch()
        self.save("last.pth")
        if better:
            self.save("best.pth", row)
        if self.settings.save_period and epoch % self.settings.save_period == 0:
            self.save(f"epoch-{epoch}.pth", row)
        if self.monitor.part == "valid" and self.monitor.name not in valid:  # the first epoch would stay the best
            what = f"expected validation examples with a value of {self.monitor.name}, found none"
            raise UserError(f"monitor: {what}: with another trainer.monitor the same command goes on")

    def row(self, kind: str, valid: dict[str, float]) -> dict[str, Any]:
        """A row of the log about the epoch."""
        progress = self.progress
        waited = round(progress.waited / max(progress.seconds, 1e-9), 4)  # part of all seconds
        place = {"kind": kind, "epoch": progress.epoch, "step": progress.step}
        place |= {"hours": round(progress.hours, 3), "seconds": round(progress.seconds, 2), "waited": waited}
        return {**place, "lr": self.optimizer.param_groups[0]["lr"], "train": progress.meter.means(), "valid": valid}

    def write(self, row: dict[str, Any]) -> None:
        """Hands a row to the writers."""
        self.progress.rows += 1
        for writer in self.writers:
            writer.write(row)

    def save(self, name: str, row: dict[str, Any] | None = None) -> None:
        """Writes a checkpoint: of a finished row with the weights only, else with all that a resumed run needs."""
        more = {"trainer": self.state_dict()} if row is None else {"row": row}
        if distributed.is_main():
            model = self.model if row is None else self.trained()
            content = {"model": model.state_dict(), "config": self.config, "speakers": self.speakers, "hours": self.progress.hours}
            checkpoint.save(self.run_dir / name, {**content, **more})
        distributed.barrier()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the weights. All processes have to ask for it."""
        parts = {name: None if part is None else part.state_dict() for name, part in self.parts().items()}
        own = {"progress": self.progress.state(), "examples_per_step": self.examples_per_step, "random": torch.get_rng_state()}
        return {**own, **parts}

    def parts(self) -> dict[str, Any]:
        """What has a state of its own beside the model; None where a training has none of it."""
        return {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.scaler, "average": self.average}

    def load_state_dict(self, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's weights and `state_dict`.

        Raises UserError where the run would not have the steps that its schedule of the learning rate was made for.
        """
        self.progress = Progress.restored(state["progress"])
        self.model.load_state_dict(weights)
        if self.scheduler is not None:
            if self.settings.step_scheduler and state["examples_per_step"] != self.examples_per_step:
                wanted = f"{state['examples_per_step']} examples to a step, as this run's learning rate is scheduled by steps"
                found = f"expected a product of {wanted}, found {self.examples_per_step}"
                raise UserError(f"n_processes, trainer.batch_size, trainer.accumulate: {found}")
            steps, scheduled = self.settings.epochs * self.steps_per_epoch, state["scheduler"].get("total_steps", math.inf)
            if steps > scheduled:
                found = f"the {scheduled} steps that this run's learning rate was scheduled for, found {steps}"
                anew = f"init_from={self.run_dir}/best.pth begins another run with its weights"
                raise UserError(f"trainer.epochs: expected at most {found} in {self.settings.epochs} epochs: {anew}")
        for name, part in self.parts().items():
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
        torch.set_rng_state(state["random"])


class CausalTrainer(Trainer):
    """A Trainer over segments: it wants a streamer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.streamer, Streamer):
            raise UserError("streamer: this training is over segments and needs one, e.g. streamer=half")


ShortCausalTrainer = SimpleShortCausalTrainer = CausalTrainer
