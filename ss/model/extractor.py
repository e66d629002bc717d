"""What every extractor can do: enrol a speaker, start a stream, take a step; and a whole utterance as a fold of steps.

Shapes: B batch, S samples of an utterance, K chunks, W samples of a chunk, E speaker embedding, T frames of a chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ss.model.carried import Carried, State
from ss.model.codec import SpeakerEncoder, SpeechDecoder, SpeechEncoder
from ss.model.tcn import ChannelNorm


class Extraction(NamedTuple):
    """waves: one [K,B,W] per scale, the shortest kernel first; logits [B,n_speakers] of the enrolment's speaker."""

    waves: tuple[Tensor, ...]
    logits: Tensor


class SpeakerHead(nn.Module):
    """The part that listens to the enrolment: filter bank, speaker encoder, classifier of the training speakers."""

    def __init__(self, n_channels: int, out_channels: int, kernels: tuple[int, ...], n_resnetblocks: int, n_speakers: int) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(n_channels, kernels)
        self.speaker_encoder = SpeakerEncoder(n_channels * len(kernels), n_channels, out_channels, n_resnetblocks)
        self.classifier = nn.Linear(out_channels, n_speakers)

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] -> speaker [B,E]; lengths [B] samples where shorter enrolments are padded with zeros.

        Raises ValueError for an enrolment too short for one frame of the speaker encoder.
        """
        shortest = ref.shape[-1] if lengths is None else int(lengths.min())
        needed = (self.speaker_encoder.stride - 1) * self.encoder.hop + self.encoder.kernels[0]
        if shortest < needed:
            raise ValueError(f"an enrolment of {shortest} samples is too short: this model needs at least {needed}")
        n_frames = None if lengths is None else (lengths - self.encoder.kernels[0]) // self.encoder.hop + 1
        return self.speaker_encoder(torch.cat(self.encoder(ref), 1), n_frames)


class Separator(nn.Module):
    """From frames and a speaker to one mask per scale, through a body of carried layers."""

    def __init__(self, n_channels: int, n_scales: int, body: Carried) -> None:
        super().__init__()
        self.norm = ChannelNorm(n_channels * n_scales)
        self.conv1 = nn.Conv1d(n_channels * n_scales, n_channels, 1)
        self.body = body
        self.masks = nn.ModuleList(nn.Conv1d(n_channels, n_channels, 1) for _ in range(n_scales))

    def forward(self, frames: tuple[Tensor, ...], speaker: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """frames K times [B,N,T], speaker [B,E], state -> masked frames K times [B,N,T], state."""
        y, state = self.body(self.conv1(self.norm(torch.cat(frames, 1))), speaker, state)
        masked = tuple(x * mask(y).relu() for x, mask in zip(frames, self.masks, strict=True))
        return masked, state


class Extractor(SpeakerHead):
    """Extracts the enrolled speaker from a mixture, chunk by chunk; subclasses differ in the body they build.

    kernels: samples of the filter bank's windows, shortest first; the hop is half the first.
    checkpointing: recompute each chunk in the backward pass instead of keeping its activations; memory for time.
    """

    checkpointing = False

    def __init__(
        self, n_channels: int, out_channels: int, kernels: tuple[int, ...], n_resnetblocks: int, n_speakers: int, body: Carried
    ) -> None:
        super().__init__(n_channels, out_channels, kernels, n_resnetblocks, n_speakers)
        self.separator = Separator(n_channels, len(kernels), body)
        self.decoder = SpeechDecoder(n_channels, kernels)

    def init_state(self, speaker: Tensor, samples: int) -> State:
        """The state of a new stream of this speaker [B,E], for chunks of so many samples."""
        return speaker, self.separator.body.init_state(len(speaker), self.encoder.n_frames(samples))

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """One chunk [B,W] -> (waves, one [B,W] per scale; the state after it). Changes nothing on the model."""
        speaker, body = state
        masked, body = self.separator(self.encoder(chunk), speaker, body)
        return self.decoder(masked, chunk.shape[-1]), (speaker, body)

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] and ref [B,S] (samples of each in ref_lengths, if padded) -> Extraction."""
        speaker = self.enroll(ref, ref_lengths)
        state, outs = self.init_state(speaker, chunks.shape[-1]), []
        recompute = self.checkpointing and torch.is_grad_enabled()
        for chunk in chunks:
            waves, state = checkpoint(self.step, chunk, state, use_reentrant=False) if recompute else self.step(chunk, state)
            outs.append(waves)
        return Extraction(tuple(torch.stack(scale) for scale in zip(*outs, strict=True)), self.classifier(speaker))
