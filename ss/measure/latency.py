"""Algorithmic latency, measured on a live stream: how long a listener waits, however fast the machine.

Two observations: the stream is fed sample by sample, and when each output sample comes out is noted (`waits`); and the input from
some sample on is exchanged, and the earliest output sample that changes is noted (`depends`). Arithmetic on the same shapes in
the same order gives the same bits wherever the values are the same, so a sample has changed if any bit has: no tolerance. What is
exchanged is loud, so that even a sample in the foot of a window shows.
"""

from typing import NamedTuple

import numpy as np

from ss.measure.backend import Process, Streams

DELIVERIES = 4  # times that something comes out, over which the waiting is observed
LOUD = np.float32(1e6)  # times the level of the rest


class StreamLatency(NamedTuple):
    """In samples.

    waits: when output sample p comes out, at most so many input samples from p on are in.
    depends: the newest input sample that changes output sample p is at most `depends` - 1 later; never more than `waits`.
    """

    waits: int
    depends: int


def measure_latency(streams: Streams) -> StreamLatency:
    """Latency of live streams."""
    noise = np.random.default_rng(0)
    waits = longest_wait(streams.open(), noise)
    return StreamLatency(waits, farthest_ahead(streams, waits, noise))


def longest_wait(process: Process, noise: np.random.Generator) -> int:
    """Feeds sample by sample until something has come out a few times; see StreamLatency."""
    fed, given, longest, deliveries = 0, 0, 0, 0
    while deliveries < DELIVERIES:
        out = len(process(noise.standard_normal(1, np.float32)))
        fed += 1
        if out:
            longest, deliveries = max(longest, fed - given), deliveries + 1
        given += out
    return longest


def farthest_ahead(streams: Streams, waits: int, noise: np.random.Generator) -> int:
    """The largest q - p + 1 such that output sample p changes with input sample q, over all q of one hop.

    With e(q) the earliest output that changes when everything from q on does, it is the largest q - e(q) + 1. As e never falls,
    no q inside of a range gives more than last - e(first): ranges that cannot hold more are dropped, the others halved.
    """
    first = -(-waits // streams.hop) * streams.hop
    last = first + streams.hop - 1
    wave, other = noise.standard_normal((2, last + 1 + waits), np.float32)  # so long that the outputs up to `last` all come out
    expected = streams.open()(wave)

    def earliest_change(position: int) -> tuple[int, int]:
        """The position, and the earliest output that changes with all input from there on (how many come out, if none does)."""
        changed = streams.open()(np.concatenate([wave[:position], LOUD * other[position:]])) != expected
        return position, int(changed.argmax()) if changed.any() else len(changed)

    ends = earliest_change(first), earliest_change(last)
    best, ranges = max(position - changed + 1 for position, changed in ends), [ends]
    while ranges:
        begin, end = ranges.pop()
        if end[0] - begin[0] > 1 and end[0] - begin[1] > best:
            middle = earliest_change((begin[0] + end[0]) // 2)
            best = max(best, middle[0] - middle[1] + 1)
            ranges += [(begin, middle), (middle, end)]
    return best
