"""Batches of examples: for training in an order that is a function of (seed, epoch), for evaluation every example once.

Shapes: B batch, S samples of the longest mixture, R of the longest enrolment.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from ss import distributed
from ss.datasets.examples import Example, Examples
from ss.errors import UserError

SHARDS_AT_ONCE = 4  # that examples are drawn from


class Batch(NamedTuple):
    """mixture and target [B,S] with `lengths` [B] samples, ref [B,R] with `ref_lengths` [B], zeros behind; speakers [B]."""

    names: tuple[str, ...]
    mixture: Tensor
    target: Tensor
    lengths: Tensor
    ref: Tensor
    ref_lengths: Tensor
    speakers: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(self.names, *(x.to(device, non_blocking=True) for x in self[1:]))


class Loader(DataLoader[Any]):
    """Batches, from workers or not; raises the UserError of an example as it was raised there."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def collate(examples: Sequence[Example] | UserError) -> Batch | UserError:
    """Pads examples to their longest; passes an error on."""
    if isinstance(examples, UserError):
        return examples

    names, *waves, speakers = zip(*examples, strict=True)
    mixtures, refs, targets = (pad_sequence(list(map(torch.from_numpy, several)), batch_first=True) for several in waves)
    lengths, ref_lengths, _ = (torch.tensor(list(map(len, several))) for several in waves)
    return Batch(names, mixtures, targets, lengths, refs, ref_lengths, torch.tensor(speakers))


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Keys (epoch, index) of this process's batches of one epoch; what does not fill a batch of every process is left out.

    The order is a function of (seed, epoch). Processes take turns batch by batch, so n processes with a batch of b see together,
    step by step, what one process with a batch of n*b sees. `start` sets the epoch, and how many of its examples have been heard:
    any number of processes and any size of batch go on behind them.
    shards: of every example; those of a few shards come together, so that what has to be fetched is not needed twice.
    """

    def __init__(self, n_examples: int, batch_size: int, seed: int, shards: Sequence[str] = ()) -> None:
        self.n_examples, self.batch_size, self.seed = n_examples, batch_size, seed
        self.shards: dict[str, list[int]] = {}
        for index in range(n_examples):
            self.shards.setdefault(shards[index] if shards else "", []).append(index)
        self.epoch = self.heard = 0
        if not len(self):
            needed = batch_size * distributed.world_size()
            raise UserError(f"expected at least {needed} training examples (batch size x processes), found {n_examples}")

    def __len__(self) -> int:
        return (self.n_examples - self.heard) // (self.batch_size * distributed.world_size())

    def start(self, epoch: int, heard: int = 0) -> None:
        """The next iteration is over this epoch, without the first `heard` examples."""
        self.epoch, self.heard = epoch, heard

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = self.order(generator)[self.heard :]
        n, size = distributed.world_size(), self.batch_size
        for step in range(len(self)):
            begin = (step * n + distributed.rank()) * size
            yield [(self.epoch, index) for index in order[begin : begin + size]]

    def order(self, generator: torch.Generator) -> list[int]:
        """All examples, shuffled within every few shards, which are shuffled too."""
        shards = list(self.shards.values())
        if len(shards) > 1:
            shards = [shards[i] for i in torch.randperm(len(shards), generator=generator)]
        order: list[int] = []
        for first in range(0, len(shards), SHARDS_AT_ONCE):
            window = [index for shard in shards[first : first + SHARDS_AT_ONCE] for index in shard]
            order += [window[i] for i in torch.randperm(len(window), generator=generator)]
        return order


class EvaluationBatches(list[list[int]]):
    """Indices of this process's batches; over all processes each example exactly once.

    lengths: samples of every example. A batch holds examples of similar length where they may be padded, else of one length only.
    The longest come first, so that a batch that does not fit into memory shows at once.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, may_pad: bool = False) -> None:
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        runs = [order] if may_pad else [list(run) for _, run in groupby(order, key=lengths.__getitem__)]
        batches = [run[i : i + batch_size] for run in runs for i in range(0, len(run), batch_size)]
        super().__init__(batches[i] for i in distributed.shard(len(batches)))


def loader(dataset: Examples, batches: Iterable[Any], num_workers: int = 0) -> DataLoader[Any]:
    """A loader of Batch; the workers' seeds come from a generator of its own, so it never moves torch's global one."""
    return Loader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
    )
