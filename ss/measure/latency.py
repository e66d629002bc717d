"""Algorithmic latency, measured on a live stream: how long a listener waits, however fast the machine.

Two observations: the stream is fed sample by sample, and when each output sample comes out is noted (`waits`); and the input from
some sample on is exchanged, and the earliest output sample that changes is noted (`depends`). Arithmetic on the same shapes in
the same order gives the same bits wherever the values are the same, so a sample has changed if any bit has: no tolerance. What is
exchanged is loud, so that even a sample in the foot of a window shows.

Shapes: S samples.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ss.measure.live import Stream

DELIVERIES = 4  # times that something comes out, over which the waiting is observed
LOUD = 1e6  # times the level of the rest

Open = Callable[[], Stream]  # a new stream of the same speaker


class Latency(NamedTuple):
    """In samples.

    waits: when output sample p comes out, at most so many input samples from p on are in.
    depends: the newest input sample that changes output sample p is at most `depends` - 1 later; never more than `waits`.
    """

    waits: int
    depends: int


class Range(NamedTuple):
    """Input positions first..last, and the earliest output sample that changes with the input from `first`, from `last` on."""

    first: int
    last: int
    of_first: int
    of_last: int


class Exchange:
    """Noise [S] through a stream, and how early its output changes when the noise ends in another one."""

    def __init__(self, open_stream: Open, samples: int, noise: torch.Generator) -> None:
        self.open_stream = open_stream
        self.wave, other = torch.randn(2, samples, generator=noise)
        self.other = LOUD * other
        self.expected = self.output(self.wave)

    def output(self, wave: Tensor) -> Tensor:
        """wave [S] -> what comes out of a new stream, from the estimate of the first sample on."""
        stream = self.open_stream()
        return stream.process(wave[None])[0, stream.delay :]

    def earliest_change(self, position: int) -> int:
        """The earliest output that changes with all input from a position on; how many come out, if none does."""
        changed = self.output(torch.cat([self.wave[:position], self.other[position:]])) != self.expected
        return int(changed.nonzero()[0]) if changed.any() else len(changed)


@torch.inference_mode()
def latency(open_stream: Open) -> Latency:
    """Latency of the streams that `open_stream()` makes."""
    noise = torch.Generator().manual_seed(0)
    waits = longest_wait(open_stream(), noise)
    return Latency(waits, farthest_ahead(open_stream, waits, noise))


def longest_wait(stream: Stream, noise: torch.Generator) -> int:
    """Feeds sample by sample until something has come out a few times; see Latency."""
    fed, given, longest, deliveries = 0, -stream.delay, 0, 0
    while deliveries < DELIVERIES:
        out = stream.process(torch.randn(1, 1, generator=noise)).shape[-1]
        fed += 1
        if out and given + out > 0:
            longest, deliveries = max(longest, fed - max(given, 0)), deliveries + 1
        given += out
    return longest


def farthest_ahead(open_stream: Open, waits: int, noise: torch.Generator) -> int:
    """The largest q - p + 1 such that output sample p changes with input sample q, over all q of one hop.

    With e(q) the earliest output that changes when everything from q on does, it is the largest q - e(q) + 1. As e never falls,
    no q inside of a range gives more than last - e(first): ranges that cannot hold more are dropped, the others halved.
    """
    hop = open_stream().hop
    first = -(-waits // hop) * hop
    last = first + hop - 1
    exchange = Exchange(open_stream, last + 1 + waits, noise)  # so long that the outputs up to `last` all come out
    whole = Range(first, last, exchange.earliest_change(first), exchange.earliest_change(last))
    best, ranges = max(first - whole.of_first, last - whole.of_last) + 1, [whole]
    while ranges:
        one = ranges.pop()
        if one.last - one.first > 1 and one.last - one.of_first > best:
            middle = (one.first + one.last) // 2
            of_middle = exchange.earliest_change(middle)
            best = max(best, middle - of_middle + 1)
            ranges += [one._replace(last=middle, of_last=of_middle), one._replace(first=middle, of_first=of_middle)]
    return best
