"""Extractors as a listener meets them: samples go in as they come, finished samples come out.

Shapes: B streams, S samples that go in, P samples that come out, W samples of a chunk, E speaker embedding.
"""

from typing import Protocol

import torch
from torch import Tensor

from ss.extraction import Chunking
from ss.model import Extractor, SpexPlusOnline
from ss.streamer import Streamer


class Stream(Protocol):
    """Carries a state from call to call.

    window: samples of one step. hop: samples that come out of one. delay: so many come out before the estimate of the first input
    sample.
    """

    window: int
    hop: int
    delay: int

    def process(self, samples: Tensor) -> Tensor:
        """samples [B,S], any number -> the samples [B,P] that are finished now, which may be none."""


class OnlineStream:
    """The online model with a buffer: hops that are complete are taken at once, the rest waits."""

    def __init__(self, model: SpexPlusOnline, speaker: Tensor) -> None:
        self.model, self.window, self.hop, self.delay = model, model.hop, model.hop, model.delay
        self.state, self.waiting = model.init_state(speaker), speaker.new_zeros(len(speaker), 0)

    def process(self, samples: Tensor) -> Tensor:
        """See Stream."""
        waiting = torch.cat([self.waiting, samples], -1)
        complete = waiting.shape[-1] // self.hop * self.hop
        self.waiting = waiting[:, complete:]
        if not complete:
            return waiting[:, :0]
        (wave,), self.state = self.model.step(waiting[:, :complete], self.state)
        return wave


class SegmentStream:
    """A segment model: each complete window is a step; a sample is finished once no later window covers it.

    Gives what `streamer.join` gives of all steps: where two windows overlap, their mean.
    """

    delay = 0

    def __init__(self, model: Extractor, streamer: Streamer, speaker: Tensor) -> None:
        self.model, self.window, self.hop = model, streamer.window, streamer.step
        self.state = model.init_state(speaker, streamer.window)
        self.waiting = speaker.new_zeros(len(speaker), 0)
        self.tail: Tensor | None = None

    def process(self, samples: Tensor) -> Tensor:
        """See Stream."""
        self.waiting = torch.cat([self.waiting, samples], -1)
        finished = [self.waiting[:, :0]]
        while self.waiting.shape[-1] >= self.window:
            waves, self.state = self.model.step(self.waiting[:, : self.window], self.state)
            self.waiting = self.waiting[:, self.hop :]
            finished.append(self.added(waves[0]))
        return torch.cat(finished, -1)

    def added(self, wave: Tensor) -> Tensor:
        """A window's output [B,W] -> its first hop, finished; the rest is kept for the next window."""
        head, body = wave.split([self.window - self.hop, self.hop], -1)
        if self.tail is not None:
            wave = torch.cat([(self.tail + head) / 2, body], -1)
        self.tail = wave[:, self.hop :]
        return wave[:, : self.hop]


class Utterances:
    """No stream: every call is an utterance of its own, of `samples` samples."""

    delay = 0

    def __init__(self, model: Extractor, samples: int, speaker: Tensor) -> None:
        self.model, self.window, self.hop, self.speaker = model, samples, samples, speaker

    def process(self, samples: Tensor) -> Tensor:
        """See Stream."""
        return self.model.step(samples, self.model.init_state(self.speaker, samples.shape[-1]))[0][0]


def is_live(model: Extractor, streamer: Chunking) -> bool:
    """Whether anything comes out before the end of an utterance."""
    return isinstance(model, SpexPlusOnline) or isinstance(streamer, Streamer)


def open_stream(model: Extractor, streamer: Chunking, speaker: Tensor, utterance: int) -> Stream:
    """A new stream of a speaker [B,E]; utterance: samples of one, for what cannot be streamed.

    Raises ValueError for the online model with a streamer for segments: it carries all it needs by itself.
    """
    if isinstance(model, SpexPlusOnline):
        if isinstance(streamer, Streamer):
            raise ValueError("streamer: the online model streams by itself; expected streamer=whole")
        return OnlineStream(model, speaker)
    if isinstance(streamer, Streamer):
        return SegmentStream(model, streamer, speaker)
    return Utterances(model, utterance, speaker)
