"""What every extractor can do: enrol a speaker, start a stream, take a step; and a whole utterance as a fold of steps.

Shapes: B batch, S samples of an utterance, K chunks, W samples of a chunk, N filters, E speaker embedding, T frames of a chunk.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ss.errors import UserError
from ss.model.codec import SpeechDecoder, SpeechEncoder, start_transparent
from ss.model.speaker import SpeakerEncoder
from ss.model.stateful import State, StatefulLayer
from ss.model.tcn import ChannelNorm


class Extraction(NamedTuple):
    """waves: one [K,B,W] per scale, the shortest kernel first; logits [B,n_speakers] of the enrolment's speaker."""

    waves: tuple[Tensor, ...]
    logits: Tensor


class ExtractionModel(nn.Module, ABC):
    """What every extractor can do.

    online: whether it streams by itself: `step` takes any number of whole hops. Other models take segments of one length, which a
    streamer cuts and joins. hop: what the samples of a step are a multiple of. delay: samples by which what `step` gives lags what
    it takes. latency: an output sample depends on input samples that are at most latency - 1 later than itself (None: on all of the
    chunk). checkpointing: recompute each chunk in the backward pass instead of keeping its activations (memory for time).
    """

    online = False
    hop, delay = 1, 0
    latency: int | None = None
    checkpointing = False

    @abstractmethod
    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] (with the samples of each, where padded) -> speaker [B,E]."""

    @abstractmethod
    def init_state(self, speaker: Tensor, samples: int) -> State:
        """The state of a new stream of this speaker [B,E], for chunks of so many samples: nested tuples, batch first."""

    @abstractmethod
    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """One chunk [B,W] -> (waves [B,W] per scale, the state after it). Changes nothing on the model."""

    @abstractmethod
    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] and ref [B,S] -> Extraction."""

    def run_stream(self, chunks: Tensor, state: State, most: int) -> Tensor:
        """chunks [K,B,W] of one signal, in order -> its wave [K,B,W], aligned with it, in steps of at most so many samples."""
        n_chunks, batch, samples = chunks.shape
        whole, waves = chunks.movedim(0, 1).reshape(batch, n_chunks * samples), []
        padded = F.pad(whole, (0, self.delay + -(whole.shape[-1] + self.delay) % self.hop))
        for part in padded.split(min(most, padded.shape[-1]), -1):
            (wave,), state = self.step(part, state)
            waves.append(wave)
        aligned = torch.cat(waves, -1)[:, self.delay :][:, : whole.shape[-1]]
        return aligned.view(batch, n_chunks, samples).movedim(1, 0)


class Separator(nn.Module):
    """From frames and a speaker to masked frames, through a body of carried layers."""

    def __init__(self, n_channels: int, n_scales: int, body: StatefulLayer) -> None:
        super().__init__()
        self.norm = ChannelNorm(n_channels * n_scales)
        self.conv1 = nn.Conv1d(n_channels * n_scales, n_channels, 1)
        self.body = body
        self.masks = nn.ModuleList(nn.Conv1d(n_channels, n_channels, 1) for _ in range(n_scales))

    def forward(self, frames: tuple[Tensor, ...], speaker: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """frames [B,N,T] per scale, speaker [B,E], state -> masked frames [B,N,T] per scale, state."""
        y, state = self.body(self.conv1(self.norm(torch.cat(frames, 1))), speaker, state)
        return tuple(x * mask(y).relu() for x, mask in zip(frames, self.masks, strict=True)), state


def count_frames(ref: Tensor, lengths: Tensor | None, shortest: int, kernel: int, hop: int) -> Tensor | None:
    """How many frames of each enrolment [B,S] are no padding [B]; None: all. Raises UserError for one shorter than `shortest`."""
    samples = ref.shape[-1] if lengths is None else int(lengths.min())
    if samples < shortest:
        raise UserError(f"an enrolment of {samples} samples is too short: this model needs at least {shortest}")
    return None if lengths is None else (lengths - kernel) // hop + 1


class Enrolling(nn.Module):
    """The half of an extractor that listens to the enrolment."""

    encoder: SpeechEncoder
    speaker_encoder: SpeakerEncoder

    @property
    def shortest_enrolment(self) -> int:
        """Samples that fill one frame of the speaker encoder."""
        return (self.speaker_encoder.stride - 1) * self.encoder.hop + self.encoder.kernels[0]

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] -> speaker [B,E]; lengths [B]: the samples of each where shorter ones are padded.

        Raises UserError for an enrolment that does not fill one frame of the speaker encoder.
        """
        n_frames = count_frames(ref, lengths, self.shortest_enrolment, self.encoder.kernels[0], self.encoder.hop)
        return self.speaker_encoder(torch.cat(self.encoder(ref), 1), n_frames)


class Stepping(nn.Module):
    """The half of an extractor that works on the mixture, chunk by chunk."""

    encoder: SpeechEncoder
    separator: Separator
    decoder: SpeechDecoder

    def init_state(self, speaker: Tensor, samples: int) -> State:
        """See ExtractionModel: the speaker, and the state of the body."""
        return speaker, self.separator.body.init_state(len(speaker), self.encoder.n_frames(samples))

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """See ExtractionModel. A chunk that fills no frame at its end is filled up."""
        speaker, body = state
        frames = self.encoder(F.pad(chunk, (0, self.encoder.shortfall(chunk.shape[-1]))))
        masked, body = self.separator(frames, speaker, body)
        return self.decoder(masked, chunk.shape[-1]), (speaker, body)


class SegmentExtractor(Enrolling, Stepping, ExtractionModel):
    """Extracts the enrolled speaker from segments, one by one; subclasses differ in the body they compose.

    n_channels: N filters per kernel; out_channels: E of the embedding; kernels: samples of each scale's window, the shortest
    first (the hop is half of it); n_speakers: classes of the speaker classifier.
    """

    def __init__(
        self, n_channels: int, out_channels: int, kernels: Sequence[int], n_resnetblocks: int, n_speakers: int, body: StatefulLayer
    ) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(n_channels, kernels)
        self.speaker_encoder = SpeakerEncoder(n_channels * len(kernels), n_channels, out_channels, n_resnetblocks)
        self.classifier = nn.Linear(out_channels, n_speakers)
        self.separator = Separator(n_channels, len(kernels), body)
        self.decoder = SpeechDecoder(n_channels, kernels)
        start_transparent(self.encoder, self.decoder, self.separator.masks)

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] and ref [B,S] (with the samples of each, where padded) -> Extraction."""
        speaker = self.enroll(ref, ref_lengths)
        state, outs = self.init_state(speaker, chunks.shape[-1]), []
        recompute = self.checkpointing and torch.is_grad_enabled()
        for chunk in chunks:
            waves, state = checkpoint(self.step, chunk, state, use_reentrant=False) if recompute else self.step(chunk, state)
            outs.append(waves)
        return Extraction(tuple(torch.stack(scale) for scale in zip(*outs, strict=True)), self.classifier(speaker))
