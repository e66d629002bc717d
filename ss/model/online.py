"""A causal SpEx+ with memory that runs sample-exactly as a stream: the graph that is trained is the graph that goes live.

Multi-scale windows that all end at the newest sample, a dilated causal TCN whose convolution tails are carried, an optional
frame-recurrent memory in front of each stack, one mask, and a decoder with carried overlap. A whole utterance is one parallel
pass through the very same layers from the zero state.

Shapes: B batch, S samples of an utterance, K chunks, W samples of a chunk, T frames, C channels, E speaker embedding,
D conditions (a gain and an offset per channel and stack).
"""

import sys
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from ss.errors import UserError
from ss.model.extractor import Extraction, ExtractionModel, count_frames
from ss.model.memory import MEMORIES
from ss.model.speaker import SpeakerEncoder
from ss.model.stateful import Chain, State, StatefulLayer
from ss.model.stft import MultiWindowSTFT, OverlapAddDecoder, Spectrum
from ss.model.tcn import Hidden, Norm, check_widths, widths

BLOCK = 1000  # hops that are computed at once where nothing is trained
FLOOR = 1e-6  # of power, 60 dB below full scale: quieter is all the same to the features


class Conditioning(StatefulLayer):
    """Tells the frames who the target speaker is: a gain and an offset per channel (FiLM, Perez et al., 2018).

    stack_index: which of the stacks this is; the speaker [B,D] holds the conditions of all of them.
    """

    def __init__(self, channels: int, stack_index: int) -> None:
        super().__init__()
        self.begin, self.middle, self.end = (channels * (2 * stack_index + i) for i in range(3))

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        gain, offset = speaker[:, None, self.begin : self.middle], speaker[:, None, self.middle : self.end]
        return torch.addcmul(offset, x, gain), state


class DilatedBlock(StatefulLayer):
    """x + two products with a ReLU between; the first sees `taps` frames, `dilation` apart, that end at the newest.

    Carries: the tail of its input [B,(taps-1)*dilation,C]. Dense instead of depthwise: two matrix products are what a CPU does
    fastest, for a whole utterance as for two frames.
    """

    def __init__(self, channels: int, hidden: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.taps, self.dilation = taps, dilation
        self.reach = (taps - 1) * dilation  # frames back
        self.carries = self.reach, channels
        self.conv, self.norm = nn.Linear(taps * channels, hidden, bias=False), Norm(hidden)
        self.output = nn.Linear(hidden, channels)
        with torch.no_grad():
            self.output.weight.mul_(0.5)  # a residual path that starts as the main one

    def forward(self, x: Tensor, speaker: Tensor, state: State) -> tuple[Tensor, State]:
        frames, longer = x.shape[1], torch.cat([state, x], 1)
        past = [longer[:, tap * self.dilation :][:, :frames] for tap in range(self.taps - 1)]
        y = self.norm(self.conv(torch.cat([*past, x], -1))).relu()
        return x + self.output(y), longer[:, frames:]


class SpexPlusOnline(ExtractionModel):
    """A causal SpEx+ (Ge et al., 2020) for live streams: `step` takes any number of hops, `forward` is the same in one pass.

    kernels: samples of the analysis windows, the longest last (that one is masked); synthesis_kernel: samples that a frame gives
    back, between one and two hops; hop: samples between frames; n_channels, hidden_channels: of the TCN (a list: of each block, 0
    leaves it out); out_channels: E; taps: frames that a block's convolution sees; memory: none, lstm, gru or linear; lookahead:
    frames that a mask may wait for; complex_mask: it turns phases too.
    """

    online = True

    def __init__(
        self,
        n_channels: int,
        hidden_channels: Hidden,
        out_channels: int,
        kernels: Sequence[int],
        synthesis_kernel: int,
        hop: int,
        n_resnetblocks: int,
        n_speakers: int,
        n_stacked_tcnblocks: int,
        n_tcnblocks: int,
        taps: int = 2,
        memory: str = "linear",
        lookahead: int = 0,
        complex_mask: bool = False,
    ) -> None:
        super().__init__()
        if memory != "none" and memory not in MEMORIES:
            raise UserError(f"memory: expected none, {' or '.join(MEMORIES)}, got {memory!r}")
        if not hop <= synthesis_kernel <= 2 * hop:
            raise UserError(f"synthesis_kernel: expected between one and two hops ({hop} to {2 * hop}), got {synthesis_kernel}")
        if list(kernels) != sorted(kernels) or kernels[0] < synthesis_kernel or any(kernel % 2 for kernel in kernels):
            raise UserError(f"kernels: expected even numbers of at least synthesis_kernel, the longest last, got {list(kernels)}")
        check_widths(hidden_channels, n_stacked_tcnblocks * n_tcnblocks)
        self.hop, self.lookahead = hop, lookahead
        self.delay = synthesis_kernel - hop + lookahead * hop
        self.latency = synthesis_kernel + lookahead * hop
        self.encoder = MultiWindowSTFT(kernels, synthesis_kernel, hop)
        self.decoder = OverlapAddDecoder(kernels[-1], synthesis_kernel, hop)
        features, self.masked = sum(self.encoder.bins), self.encoder.bins[-1]
        self.norm, self.conv1 = Norm(features), nn.Linear(features, n_channels)
        self.speaker_encoder = SpeakerEncoder(features, n_channels, out_channels, n_resnetblocks)
        self.classifier = nn.Linear(out_channels, n_speakers)
        self.conditions = nn.Linear(out_channels, 2 * n_channels * n_stacked_tcnblocks)
        hidden = widths(hidden_channels)

        def stack(stack_index: int) -> Chain:
            """Conditioning, memory, and blocks of dilation 1, 2, 4, ...; one without hidden channels is left out."""
            layers: list[StatefulLayer] = [Conditioning(n_channels, stack_index)]
            if memory != "none":
                layers.append(MEMORIES[memory](n_channels))
            blocks = enumerate(islice(hidden, n_tcnblocks))
            return Chain([*layers, *(DilatedBlock(n_channels, width, taps, 2**i) for i, width in blocks if width)])

        self.body = Chain(stack(stack_index) for stack_index in range(n_stacked_tcnblocks))
        self.mask_norm, self.mask = Norm(n_channels), nn.Linear(n_channels, self.masked)
        self.phase = nn.Linear(n_channels, 2 * self.masked) if complex_mask else None
        with torch.no_grad():  # gains near one, masks alike for all bins, no turn: the mixture passes, nearly as it is
            self.conditions.weight.mul_(0.3)
            self.conditions.bias.zero_()
            self.conditions.bias.view(-1, 2, n_channels)[:, 0] = 1
            self.mask.weight.mul_(0.1)
            self.mask.bias.fill_(1)
            if self.phase is not None:
                self.phase.weight.zero_()
                self.phase.bias.zero_()

    @property
    def checkpointing(self) -> bool:
        """False: recomputing a pass would count its batch twice in the norms; and it needs little memory anyway."""
        return False

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        if value:
            raise UserError("activation_checkpointing: expected false, as the online model recomputes nothing")

    def features(self, spectrum: Spectrum) -> Tensor:
        """Log power of every bin: [B,T,F] of all scales."""
        return (spectrum.real.square() + spectrum.imag.square() + FLOOR).log()

    @property
    def shortest_enrolment(self) -> int:
        """Samples that fill one frame of the speaker encoder."""
        return (self.speaker_encoder.stride - 1) * 2 * self.hop + self.encoder.kernel

    def enroll(self, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ref [B,S] -> speaker [B,E]; lengths [B]: the samples of each, where padded.

        Raises UserError for an enrolment that does not fill one frame of the speaker encoder.
        """
        hop = 2 * self.hop  # a voice does not need every frame
        n_frames = count_frames(ref, lengths, self.shortest_enrolment, self.encoder.kernel, hop)
        return self.speaker_encoder(self.features(self.encoder(ref, hop)).transpose(1, 2), n_frames)

    def init_state(self, speaker: Tensor, samples: int = 0) -> State:
        """The state of a new stream of this speaker, as `enroll` gives it; `samples` is for models over chunks of one length only.

        (conditions [B,D], input history [B,K-hop], spectra ahead (two of [B,lookahead,F]), TCN and memories, overlap [B,S-hop]).
        """
        batch = len(speaker)
        history = speaker.new_zeros(batch, self.encoder.kernel - self.hop)
        ahead = Spectrum(*(speaker.new_zeros(batch, self.lookahead, self.masked) for _ in range(2)))
        overlap = speaker.new_zeros(batch, self.decoder.overlap)
        return self.conditions(speaker), history, ahead, self.body.init_state(batch, 0), overlap

    def step(self, chunk: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """chunk [B,n*hop], any n >= 1 -> (the estimate [B,n*hop] of the input `delay` samples earlier,), the state after it.

        Changes nothing on the model. Raises ValueError for a chunk that is no number of whole hops.
        """
        if chunk.shape[-1] % self.hop or not chunk.shape[-1]:
            raise ValueError(f"expected a chunk of whole hops of {self.hop} samples, got {chunk.shape[-1]} samples")
        conditions, history, ahead, body, overlap = state
        heard = torch.cat([history, chunk], -1)
        spectrum = self.encoder(heard)
        y, body = self.body(self.conv1(self.norm(self.features(spectrum))), conditions, body)
        masked_scale = [part[..., -self.masked :] for part in spectrum]
        if self.lookahead:  # these frames wait for their mask
            queue = [torch.cat(pair, 1) for pair in zip(ahead, masked_scale, strict=True)]
            masked_scale, ahead = [q[:, : -self.lookahead] for q in queue], Spectrum(*(q[:, -self.lookahead :] for q in queue))
        wave, overlap = self.decoder(self.masked_spectrum(self.mask_norm(y), Spectrum(*masked_scale)), overlap)
        return (wave,), (conditions, heard[:, chunk.shape[-1] :], ahead, body, overlap)

    def masked_spectrum(self, y: Tensor, spectrum: Spectrum) -> Spectrum:
        """Channels y [B,T,C] and the scale that is masked -> its bins, none louder than before."""
        gain = self.mask(y).sigmoid()
        if self.phase is None:
            return Spectrum(spectrum.real * gain, spectrum.imag * gain)
        real, imag = self.phase(y).chunk(2, -1)
        real = real + 1  # no turn is what the phases start from
        gain = gain * (real.square() + imag.square() + FLOOR).rsqrt()
        real, imag = gain * real, gain * imag
        return Spectrum(spectrum.real * real - spectrum.imag * imag, spectrum.real * imag + spectrum.imag * real)

    def forward(self, chunks: Tensor, ref: Tensor, ref_lengths: Tensor | None = None) -> Extraction:
        """chunks [K,B,W] of one signal, in order, and ref [B,S] -> Extraction aligned with the input.

        One parallel pass where gradients or a norm's statistics are wanted; else blocks, so that a long signal takes little memory.
        """
        speaker = self.enroll(ref, ref_lengths)
        in_blocks = not (self.training or torch.is_grad_enabled())
        wave = self.run_stream(chunks, self.init_state(speaker), BLOCK * self.hop if in_blocks else sys.maxsize)
        return Extraction((wave,), self.classifier(speaker))
